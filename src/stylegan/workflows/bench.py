"""Speed of sampling and training on this machine."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import stylegan
from stylegan.devices import DeviceName, device_name, resolve_device
from stylegan.errors import check_not_negative, check_positive
from stylegan.files import write_atomic
from stylegan.image_size import Resolution
from stylegan.notebook import TextResult, text_table
from stylegan.ops.precision import float32_precision
from stylegan.profiling.roofline import Layer, Pass, measure_layers
from stylegan.profiling.speed import Speed, measure
from stylegan.progress import Progress, counter
from stylegan.training.config import Precision, RunConfig, split_overrides
from stylegan.training.configure import configure
from stylegan.training.state import TrainState

_TITLES = {
    "sample": "sampling",
    "G": "G main",
    "path_length": "path length",
    "D": "D main",
    "R1": "R1",
    "iteration": "iteration",
}


@dataclass(frozen=True, kw_only=True)
class BenchResult(TextResult):
    """Measured speeds.

    Attributes:
        config: of the run that was measured.
        device: name of the device.
        date: when it was measured, UTC in ISO 8601.
        speed: times and operations of sampling and of each phase of training.
        layers: times of each layer; empty unless they were measured.
        bandwidth: bytes per second that large copies read and write; None without `layers`.
    """

    config: RunConfig
    device: str
    date: str
    speed: Speed
    layers: tuple[Layer, ...] = ()
    bandwidth: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        config, speed = self.config, self.speed
        generator = config.to_json()["generator"]
        phases = {
            name: {
                "seconds": phase.seconds,
                "images_per_second": phase.images_per_second,
                "flops_per_image": phase.flops / phase.num,
                "share_of_product_rate": phase.mfu(speed.peak_flops),
            }
            for name, phase in speed.phases.items()
        }
        result = {
            "sample_images_per_second": speed.phases["sample"].images_per_second,
            "train_images_per_second": speed.phases["iteration"].images_per_second,
            "phases": phases,
            "product_rate_flops": speed.peak_flops,
            "peak_memory_bytes": speed.peak_bytes,
            "settings": {
                "preset": config.preset,
                "resolution": config.generator.resolution,
                "batch": config.batch,
                "batch_gpu": config.runtime.batch_gpu,
                "channel_base": generator["channel_base"],
                "channel_max": generator["channel_max"],
                "label_dim": config.generator.c_dim,
                "precision": config.precision,
                "compile": config.runtime.compile,
            },
            "device": self.device,
            "versions": {
                "stylegan": stylegan.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "date": self.date,
        }
        if self.bandwidth is not None:
            result["memory_rate_bytes"] = self.bandwidth
            result["layers"] = [
                {
                    "network": layer.network,
                    "name": layer.name,
                    "shape": list(layer.shape),
                    "forward": _pass_to_json(layer.forward),
                    "backward": _pass_to_json(layer.backward),
                }
                for layer in self.layers
            ]
        return result

    def __str__(self) -> str:
        """Return a table of the phases, and one of the layers if they were measured."""
        text = (
            f"{self.config.preset} at {self.config.generator.size}, batch {self.config.batch}, "
            f"{self.config.precision}, on {self.device}\n{self._phase_table()}\n"
            f"peak of matrix products: {self.speed.peak_flops / 1e12:.2f} TFLOP/s; "
            f"memory: {self.speed.peak_bytes / 1e9:.2f} GB"
        )
        if self.bandwidth is not None:
            text += (
                f"\nmemory bandwidth: {self.bandwidth / 1e9:.1f} GB/s\n\n"
                "Layers (roof: the fraction of the time that compute or memory needs at least):\n\n"
                + self._layer_table()
            )
        return text

    def _phase_table(self) -> str:
        rows = []
        for name, title in _TITLES.items():
            if (phase := self.speed.phases.get(name)) is not None:
                rows.append(
                    (
                        title,
                        f"{phase.images_per_second:.1f}",
                        f"{1000 * phase.seconds:.1f}",
                        f"{phase.flops / phase.num / 1e9:.2f}",
                        f"{100 * phase.mfu(self.speed.peak_flops):.0f} %",
                    )
                )
        return text_table(("", "images/s", "ms", "GFLOP/image", "MFU"), rows, left=("",))

    def _layer_table(self) -> str:
        header = ("layer", "output", "forward", "roof", "bound by", "back", "roof", "bound by")
        rows = []
        for layer in self.layers:
            cells = [f"{layer.network} {layer.name}", "x".join(map(str, layer.shape[1:]))]
            for direction in (layer.forward, layer.backward):
                cells.append(f"{1000 * direction.seconds:.2f} ms")
                cells.append(f"{100 * direction.roof_fraction:.0f} %")
                cells.append(direction.bound)
            rows.append(cells)
        return text_table(header, rows, left=("layer", "bound by"))


def bench(
    *,
    preset: str = "stylegan2-e",
    resolution: Resolution = 64,
    batch: int | None = None,
    batch_gpu: int | None = None,
    channel_base: int | None = None,
    channel_max: int | None = None,
    label_dim: int = 0,
    precision: Precision | None = None,
    compile: bool = False,
    layers: bool = False,
    rounds: int = 5,
    out: Path | None = None,
    set: Sequence[str] = (),
    device: DeviceName | torch.device = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure the speed of sampling and of each phase of training, with images of noise.

    MFU (model FLOP/s utilization) is the fraction of the peak FLOP/s, which is measured in the same
    run with large matrix products in the same precision.

    Args:
        preset: a preset of `stylegan train`.
        resolution: side of the images in pixels, or HEIGHTxWIDTH.
        batch: images per iteration. Default: the preset's.
        batch_gpu: micro-batch size per process. Default: the whole batch.
        channel_base: a block at resolution r has channel_base / r channels. Default: the preset's.
        channel_max: maximum number of channels of a block. Default: the preset's.
        label_dim: width of the labels; 0 for networks without labels.
        precision: of the convolutions. Default: bf16 on hardware that supports it natively, else
            fp32.
        compile: compile the blocks with torch.compile, except where second derivatives are needed.
        layers: also time each layer on its own, and report what bounds it: compute or memory.
        rounds: how many times each phase is timed; the medians are reported.
        out: also write the result to this JSON file.
        set: any field of the configuration, such as loss.pl_weight=0; may be repeated.
        device: "auto" uses a CUDA device or Apple's GPU if there is one, else the CPU.
        seed: of weights and images.
        progress: called after each round.

    Raises:
        ConfigError: if a value is not allowed.
    """
    check_positive("rounds", rounds)
    check_not_negative("label_dim", label_dim)
    torch_device = resolve_device(device)
    sizes = {
        "batch": batch,
        "batch_gpu": batch_gpu,
        "channel_base": channel_base,
        "channel_max": channel_max,
    }
    options: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    options |= {
        "precision": precision or "auto",
        "device": torch_device.type,
        "seed": seed,
        "runtime.compile": compile,
    }
    config, _ = configure(
        preset, options | split_overrides(set), resolution=resolution, label_dim=label_dim
    )
    speed = measure(config, rounds=rounds, progress=counter(progress, "rounds"))
    measured_layers: list[Layer] = []
    bandwidth = None
    if layers:
        # at full resolution, and uncompiled: layers inside a compiled block cannot be timed
        plain = replace(config, growth=None, runtime=replace(config.runtime, compile=False))
        with float32_precision(tf32=config.precision == "tf32"):
            state = TrainState(plain, torch_device)
            measured_layers, bandwidth = measure_layers(state, rounds=rounds)
    result = BenchResult(
        config=config,
        device=device_name(torch_device),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        speed=speed,
        layers=tuple(measured_layers),
        bandwidth=bandwidth,
    )
    if out is not None:
        write_atomic(out, json.dumps(result.to_json(), indent=2) + "\n")
    return result


def _pass_to_json(direction: Pass) -> dict[str, Any]:
    return {
        "seconds": direction.seconds,
        "flops": direction.flops,
        "bytes": direction.num_bytes,
        "bound": "products" if direction.bound == "compute" else direction.bound,
        "share_of_bound": direction.roof_fraction,
    }
