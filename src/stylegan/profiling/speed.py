"""The speed of sampling and training, and its fraction of the device's peak FLOP/s.

The peak is that of large matrix products, measured in the same minute. The fraction (MFU, model
FLOP/s utilization) can be compared between machines.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stylegan.errors import decided
from stylegan.images import from_uint8
from stylegan.nn.compiled import uncompiled
from stylegan.ops.precision import float32_precision
from stylegan.progress import Counter
from stylegan.rng import generator_for
from stylegan.training.config import RunConfig
from stylegan.training.schedule import is_due
from stylegan.training.state import DTYPES, TrainState
from stylegan.training.step import train_step

MATRIX_SIZE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30, "mps": 1 << 28}  # more than fits in caches
MAIN, WITH_REGULARIZERS = 1, 0  # iterations; in 0 each regularizer is due


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Speed of one phase.

    Attributes:
        seconds: median time of a batch.
        num: images in the batch.
        flops: floating-point operations of convolutions and matrix products per batch.
    """

    seconds: float
    num: int
    flops: int

    @property
    def images_per_second(self) -> float:
        """Images per second."""
        return self.num / self.seconds

    def mfu(self, peak_flops: float) -> float:
        """Return FLOP/s as a fraction of the device's peak."""
        return self.flops / self.seconds / peak_flops


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The measured speed of a run.

    Attributes:
        phases: "sample", and the phases of training: "G", "D", and "path_length" and "R1" if the
            run has them as separate phases; and "iteration", all of training, with the lazy
            regularizers in proportion to their intervals.
        peak_flops: FLOP/s of large matrix products in the run's precision.
        peak_bytes: peak memory, of the device or, on the CPU, of the process; 0 if the system does
            not report it.
    """

    phases: Mapping[str, Phase]
    peak_flops: float
    peak_bytes: int


def measure(
    config: RunConfig,
    *,
    rounds: int,
    progress: Counter | None = None,
) -> Speed:
    """Measure sampling and training of a run on its device, with images of noise.

    Args:
        config: of the run. Progressive growing is measured at the full resolution.
        rounds: how many times each phase is timed; the medians are returned.
        progress: called with the number of rounds done and their total.
    """
    with float32_precision(tf32=config.precision == "tf32"):
        return _measure(replace(config, growth=None), rounds, progress)


def _measure(config: RunConfig, rounds: int, progress: Counter | None) -> Speed:
    state = TrainState(config, torch.device(decided(config.runtime.device, "runtime.device")))
    timer = PhaseTimer(state)
    timer.round()  # warm up
    timer.seconds.clear()
    if state.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(state.device)
    peaks = []
    for num_done in range(1, rounds + 1):
        timer.round()
        peaks.append(
            measure_peak_flops(state.device, DTYPES[decided(config.precision, "precision")])
        )
        if progress is not None:
            progress(num_done, rounds)
    peak_bytes = _peak_bytes(
        state.device
    )  # before operations are counted, which runs uncompiled blocks
    return Speed(phases=timer.phases(), peak_flops=statistics.median(peaks), peak_bytes=peak_bytes)


class PhaseTimer:
    """Times each phase of a run; each call of `round` adds one measurement.

    If training compiles blocks (`runtime.compile`), the synthesis network that samples is compiled
    as a whole.

    Args:
        state: of the run; training changes it.

    Attributes:
        seconds: the times of each phase.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self.seconds: dict[str, list[float]] = {}
        config, batch = state.config, state.config.batch
        size, channels = config.generator.size, config.generator.img_channels
        stream = generator_for("bench", seed=config.seed)
        shape = [batch, channels, size.height, size.width]
        pixels = torch.randint(0, 256, shape, generator=stream)
        self._reals = from_uint8(pixels.to(torch.uint8)).to(state.device)
        self._z = torch.randn([batch, config.generator.z_dim], generator=stream).to(state.device)
        c_dim = config.generator.c_dim
        self._c = torch.eye(c_dim, device=state.device)[:1].expand(batch, -1) if c_dim else None
        self._generator = state.generator_ema
        self._generator.compute_dtype = state.generator.compute_dtype
        self._synthesis = self._generator.synthesis
        if config.runtime.compile:
            self._synthesis = torch.compile(self._synthesis)  # type: ignore[assignment]
        self._flops: dict[str, int] = {}

    def round(self) -> None:
        """Time each phase once, and sampling three times."""
        for _ in range(3):
            start_s = now(self.state.device)
            self.sample()
            self.seconds.setdefault("sample", []).append(now(self.state.device) - start_s)
        self._train(WITH_REGULARIZERS)
        self._train(MAIN)

    @torch.no_grad()
    def sample(self) -> torch.Tensor:
        """Generate a batch of images, [N, C, R, R]."""
        ws = self._generator.mapping(self._z, self._c)
        images: torch.Tensor = self._synthesis(ws)
        return images

    def phases(self) -> dict[str, Phase]:
        """Return the medians so far, with the number of operations."""
        if not self._flops:
            self._count()
        median = {kind: statistics.median(times) for kind, times in self.seconds.items()}
        loss, batch = self.state.config.loss, self.state.config.batch
        seconds, flops = median.pop("main iteration"), self._flops["main iteration"]
        for kind, interval in (("path_length", loss.pl_interval), ("R1", loss.r1_interval)):
            if kind in median and interval is not None and not is_due(MAIN, interval):
                seconds += median[kind] / interval
                flops += self._flops[kind] // interval
        median["iteration"] = seconds
        counted = self._flops | {"iteration": flops}
        nums = {"path_length": batch // loss.pl_batch_shrink}
        return {
            kind: Phase(seconds=seconds, num=nums.get(kind, batch), flops=counted[kind])
            for kind, seconds in median.items()
        }

    def _train(self, iteration: int) -> None:
        """Time one iteration, with the regularizers that are due."""
        state = self.state
        state.iteration = iteration
        kinds = self._kinds(iteration)
        started_s = now(state.device)

        @contextmanager
        def timer(_: str) -> Iterator[None]:
            kind = next(kinds)
            start_s = now(state.device)
            yield
            self.seconds.setdefault(kind, []).append(now(state.device) - start_s)

        self._step(timer)
        if iteration == MAIN:
            self.seconds.setdefault("main iteration", []).append(now(state.device) - started_s)

    def _step(self, timer: Callable[[str], object]) -> None:
        c = self._c
        train_step(
            self.state,
            self._reals,
            real_c=c,
            draw_labels=None if c is None else (lambda num, stream: c[:1].expand(num, -1).cpu()),
            timer=timer,  # type: ignore[arg-type]
        )

    def _kinds(self, iteration: int) -> Iterator[str]:
        """Yield the phases of an iteration in order."""
        loss = self.state.config.loss
        has_path_lengths = loss.pl_weight > 0 and is_due(iteration, loss.pl_interval)
        has_r1 = decided(loss.gamma, "loss.gamma") > 0 and is_due(iteration, loss.r1_interval)
        of_g = ["G", "path_length"] if has_path_lengths else ["G"]
        of_d = ["D", "R1"] if has_r1 else ["D"]
        is_g_first = self.state.config.optim.order == "generator-first"
        return iter(of_g + of_d if is_g_first else of_d + of_g)

    def _count(self) -> None:
        """Count the operations of each phase with torch's formulas."""
        with uncompiled(self.state.config.runtime.compile):
            self._count_uncompiled()

    def _count_uncompiled(self) -> None:
        with Operations() as counter:
            self.sample()
        self._flops["sample"] = counter.total
        for iteration in (WITH_REGULARIZERS, MAIN):
            self.state.iteration = iteration
            kinds = self._kinds(iteration)

            @contextmanager
            def count(_: str, kinds: Iterator[str] = kinds) -> Iterator[None]:
                with Operations() as counter:
                    yield
                self._flops[next(kinds)] = counter.total

            self._step(count)
        self._flops["main iteration"] = sum(self._flops[kind] for kind in self._kinds(MAIN))


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context manager that counts the operations of convolutions and matrix products.

    It uses the formulas of torch's `FlopCounterMode`, which itself fails for second derivatives
    (torch 2.13).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and add its count."""
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def measure_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of large matrix products, the best of five measurements."""
    side = MATRIX_SIZE.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best_s = float("inf")
    for _ in range(5):
        start_s = now(device)
        torch.mm(a, b)
        best_s = min(best_s, now(device) - start_s)
    return 2 * side**3 / best_s


def measure_bandwidth(device: torch.device) -> float:
    """Return the bytes per second that large copies read and write, the best of five."""
    source = torch.zeros(COPIED_BYTES.get(device.type, 1 << 28), dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    best_s = float("inf")
    for _ in range(5):
        start_s = now(device)
        target.copy_(source)
        best_s = min(best_s, now(device) - start_s)
    return 2 * len(source) / best_s


def now(device: torch.device) -> float:
    """Return the time after all work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
