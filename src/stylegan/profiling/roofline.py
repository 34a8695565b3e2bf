"""Whether each layer of the networks is bound by compute, by memory bandwidth or by neither.

A layer takes at least the time of its operations at the device's peak FLOP/s, and at least the time
of moving its tensors at the memory bandwidth; the larger of the two is its roof.

Source: Williams et al. 2009, "Roofline: An Insightful Visual Performance Model".
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stylegan.errors import decided
from stylegan.profiling.speed import Operations, measure_bandwidth, measure_peak_flops, now
from stylegan.training.state import DTYPES, TrainState

Bound = Literal["compute", "memory", "neither"]
NEITHER = 0.4
"""Below this fraction of its roof a layer is bound by something else, such as kernel launches."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A forward or backward pass of a layer, of one batch.

    Attributes:
        seconds: median time.
        flops: operations of convolutions and matrix products.
        num_bytes: bytes that must be read or written at least once.
        roof_s: the minimum time for operations and bytes.
        bound: which of the two takes longer; "neither" if the pass takes much longer than both.
    """

    seconds: float
    flops: int
    num_bytes: int
    roof_s: float
    bound: Bound

    @property
    def roof_fraction(self) -> float:
        """The minimum time divided by the measured time."""
        return self.roof_s / self.seconds


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Measurements of a layer.

    Attributes:
        network: "G" or "D".
        name: of the module in its network.
        shape: of its output.
        forward: forward pass without gradients.
        backward: backward pass to inputs and weights.
    """

    network: str
    name: str
    shape: tuple[int, ...]
    forward: Pass
    backward: Pass


@dataclass(frozen=True, kw_only=True)
class _Device:
    peak_flops: float
    bandwidth: float

    def classify(self, seconds: float, flops: int, num_bytes: int) -> Pass:
        compute_s, memory_s = flops / self.peak_flops, num_bytes / self.bandwidth
        roof_s = max(compute_s, memory_s)
        bound: Bound = "compute" if compute_s >= memory_s else "memory"
        if roof_s < NEITHER * seconds:
            bound = "neither"
        return Pass(seconds=seconds, flops=flops, num_bytes=num_bytes, roof_s=roof_s, bound=bound)


def measure_layers(state: TrainState, *, rounds: int) -> tuple[list[Layer], float]:
    """Time each layer separately, with its inputs for a batch of generated images.

    A layer is a convolution with its bias and activation. Operations between layers, such as the
    sum of RGB outputs, are not included.

    Args:
        state: of a run; it is not changed.
        rounds: how many times each layer is timed; the medians are returned.

    Returns:
        The layers of both networks in the order of the forward pass, and the memory bandwidth in
        bytes per second.
    """
    config, device, generator = state.config, state.device, state.generator
    measured = _Device(
        peak_flops=measure_peak_flops(device, DTYPES[decided(config.precision, "precision")]),
        bandwidth=measure_bandwidth(device),
    )
    c = None
    if generator.c_dim > 0:
        c = torch.eye(generator.c_dim, device=device)[:1].expand(config.batch, -1)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(config.batch, generator.z_dim, device=device), c)
        images = generator.discriminator_input(ws)
    layers = []
    for name, network, args in (
        ("G", generator.synthesis, [ws]),
        ("D", state.discriminator, [images, c]),
    ):
        for call in _calls(network, args):
            layer = Layer(
                network=name,
                name=call.name,
                shape=call.shape,
                forward=call.forward(measured, rounds),
                backward=call.backward(measured, rounds),
            )
            layers.append(layer)
    return layers, measured.bandwidth


class _Call:
    """A recorded call of a layer.

    Args:
        name: of the layer.
        layer: the module.
        args: its arguments; tensors are detached.
        options: its keyword arguments.
        out: its output, [N, C, H, W].
    """

    def __init__(
        self, name: str, layer: nn.Module, args: Sequence[Any], options: Any, out: Tensor
    ) -> None:
        self.name = name
        self.shape = tuple(out.shape)
        self._layer, self._options = layer, options
        self._args = [
            arg.detach().requires_grad_() if isinstance(arg, Tensor) else arg for arg in args
        ]
        tensors = [arg for arg in self._args if isinstance(arg, Tensor)]
        self._inputs = [*tensors, *layer.parameters()]
        self._grad = torch.ones_like(out)
        self._read = sum(map(_num_bytes, self._inputs))
        self._written = _num_bytes(out)

    def forward(self, measured: _Device, rounds: int) -> Pass:
        """Time the forward pass without gradients."""

        def run() -> None:
            with torch.no_grad():
                self._layer(*self._args, **self._options)

        return self._timed([run] * (rounds + 1), measured, self._read + self._written)

    def backward(self, measured: _Device, rounds: int) -> Pass:
        """Time the backward pass to inputs and weights."""

        def prepared() -> Iterator[Callable[[], object]]:
            for _ in range(rounds + 1):
                out = self._layer(*self._args, **self._options)
                yield partial(torch.autograd.grad, out, self._inputs, self._grad, allow_unused=True)

        # it reads the inputs, the gradient of the output and, for the activation, the output
        return self._timed(prepared(), measured, 2 * self._read + 2 * self._written)

    def _timed(
        self, runs: Iterable[Callable[[], object]], measured: _Device, num_bytes: int
    ) -> Pass:
        """Count the operations of the first run, and time the others."""
        device, seconds, flops = self._grad.device, [], None
        for run in runs:
            if flops is None:
                with Operations() as counter:
                    run()
                flops = counter.total
                continue
            start_s = now(device)
            run()
            seconds.append(now(device) - start_s)
        return measured.classify(statistics.median(seconds), flops or 0, num_bytes)


def _calls(network: nn.Module, args: Sequence[Any]) -> list[_Call]:
    """Run a network, and return the calls of its convolution layers in order."""
    calls: list[_Call] = []
    with ExitStack() as stack:
        for name, layer in network.named_modules():
            parameters = dict(layer.named_parameters(recurse=False))
            if "weight" not in parameters and "bias" not in parameters:
                continue

            def record(
                layer: nn.Module, args: Any, options: Any, out: Tensor, name: str = name
            ) -> None:
                if out.ndim == 4:
                    calls.append(_Call(name, layer, args, options, out))

            stack.enter_context(layer.register_forward_hook(record, with_kwargs=True))
        with torch.no_grad():
            network(*args)
    return calls


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
