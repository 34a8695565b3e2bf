"""What bounds each layer of the networks: products, memory, or neither.

A device needs at least the time for a layer's operations at its rate of matrix products, and the
time for moving the layer's tensors at the rate of its memory; the larger one is the roof.

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
from stylegan.profiling.speed import Operations, memory_rate, now, product_rate
from stylegan.training.state import DTYPES, TrainState

Bound = Literal["products", "memory", "neither"]
NEITHER = 0.4
"""Below this share of its roof a layer waits for something else, such as launches of kernels."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One direction through a layer, of a batch.

    Attributes:
        seconds: median time.
        flops: operations of convolutions and matrix products.
        moved: bytes that have to be read or written once, at least.
        roof_s: the time that these take at best.
        bound: which of the two takes longer, or "neither" if the layer is far from both.
    """

    seconds: float
    flops: int
    moved: int
    roof_s: float
    bound: Bound

    @property
    def share(self) -> float:
        """How near to the roof it is."""
        return self.roof_s / self.seconds


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer, as it was measured.

    Attributes:
        network: "G" or "D".
        name: of the module in its network.
        shape: of its output.
        forward: without gradients.
        backward: to inputs and weights, of any first derivative.
    """

    network: str
    name: str
    shape: tuple[int, ...]
    forward: Pass
    backward: Pass


@dataclass(frozen=True, kw_only=True)
class _Rates:
    products: float
    memory: float

    def judge(self, seconds: float, flops: int, moved: int) -> Pass:
        products_s, memory_s = flops / self.products, moved / self.memory
        roof_s = max(products_s, memory_s)
        bound: Bound = "products" if products_s >= memory_s else "memory"
        if roof_s < NEITHER * seconds:
            bound = "neither"
        return Pass(seconds=seconds, flops=flops, moved=moved, roof_s=roof_s, bound=bound)


def measure_layers(state: TrainState, *, rounds: int) -> tuple[list[Layer], float]:
    """Time each layer on its own, with the features that reach it in a batch of generated images.

    Layers are convolutions with what follows them. What stands between them, such as the sums of
    RGB, is left out.

    Args:
        state: of a run. Its networks stay as they are.
        rounds: how often each is timed; medians count.

    Returns:
        The layers of both networks in the order in which features reach them, and the rate of
        memory in bytes a second.
    """
    config, device, generator = state.config, state.device, state.generator
    rates = _Rates(
        products=product_rate(device, DTYPES[decided(config.precision, "precision")]),
        memory=memory_rate(device),
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
                forward=call.forward(rates, rounds),
                backward=call.backward(rates, rounds),
            )
            layers.append(layer)
    return layers, rates.memory


class _Call:
    """A layer with what it was called with.

    Args:
        name: of the layer.
        layer: the module.
        args: its arguments; tensors among them are detached.
        options: its keyword arguments.
        out: what it returned, [N, C, H, W].
    """

    def __init__(
        self, name: str, layer: nn.Module, args: Sequence[Any], options: Any, out: Tensor
    ) -> None:
        self.name = name
        self.shape = tuple(out.shape)
        self._layer, self._options = layer, options
        self._args = [
            each.detach().requires_grad_() if isinstance(each, Tensor) else each for each in args
        ]
        tensors = [each for each in self._args if isinstance(each, Tensor)]
        self._inputs = [*tensors, *layer.parameters()]
        self._grad = torch.ones_like(out)
        self._read = sum(map(_num_bytes, self._inputs))
        self._written = _num_bytes(out)

    def forward(self, rates: _Rates, rounds: int) -> Pass:
        """Time the layer without gradients."""

        def run() -> None:
            with torch.no_grad():
                self._layer(*self._args, **self._options)

        return self._timed([run] * (rounds + 1), rates, self._read + self._written)

    def backward(self, rates: _Rates, rounds: int) -> Pass:
        """Time the gradients of inputs and weights."""

        def prepared() -> Iterator[Callable[[], object]]:
            for _ in range(rounds + 1):
                out = self._layer(*self._args, **self._options)
                yield partial(torch.autograd.grad, out, self._inputs, self._grad, allow_unused=True)

        # inputs, the output's gradient and, for the slope, the output are read
        return self._timed(prepared(), rates, 2 * self._read + 2 * self._written)

    def _timed(self, runs: Iterable[Callable[[], object]], rates: _Rates, moved: int) -> Pass:
        """Count the operations of the first, and time the others."""
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
        return rates.judge(statistics.median(seconds), flops or 0, moved)


def _calls(network: nn.Module, args: Sequence[Any]) -> list[_Call]:
    """Run a network, and return the calls of its layers, convolutions, in their order."""
    found: list[_Call] = []
    with ExitStack() as stack:
        for name, layer in network.named_modules():
            own = dict(layer.named_parameters(recurse=False))
            if "weight" not in own and "bias" not in own:
                continue

            def keep(
                layer: nn.Module, args: Any, options: Any, out: Tensor, name: str = name
            ) -> None:
                if out.ndim == 4:
                    found.append(_Call(name, layer, args, options, out))

            stack.enter_context(layer.register_forward_hook(keep, with_kwargs=True))
        with torch.no_grad():
            network(*args)
    return found


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
