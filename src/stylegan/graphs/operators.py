"""ONNX equivalents of PyTorch's operations, as far as generators use them.

Each function adds nodes for one operation. It takes the recorder, the operation's result and the
arguments of its overload in `torch.ops.aten`. Where a node needs a shape, it copies the first
dimension, the batch, from its input.

Source: ONNX operator specifications, opset 18.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from stylegan.graphs.recorder import Recorder

OPSET = 18
"""Version of the standard operators."""

_aten = torch.ops.aten


def _elementwise(kind: str) -> Callable[..., None]:
    """Return the converter of an operation with two operands, of which one may be a number."""

    def convert(graph: Recorder, result: Tensor, a: Any, b: Any, *, alpha: float = 1) -> None:
        operands = [_operand(graph, each, result) for each in (a, b)]
        if alpha != 1:
            operands[1] = graph.node("Mul", [operands[1], graph.value(alpha, like=result)])
        graph.node(kind, operands, result=result)

    return convert


def _operand(graph: Recorder, operand: Any, result: Tensor) -> str:
    """Return the name of an operand in the dtype of the result, as PyTorch promotes it."""
    name = graph.value(operand, like=result)
    if isinstance(operand, Tensor) and operand.dtype != result.dtype:
        return graph.cast(name, result.dtype)
    return name


def _compare(graph: Recorder, result: Tensor, a: Tensor, b: Tensor) -> None:
    graph.node("Less", [a, b], result=result)


def _reverse_subtract(graph: Recorder, result: Tensor, a: Tensor, b: Any, alpha: float = 1) -> None:
    assert alpha == 1
    graph.node("Sub", [graph.value(b, like=result), a], result=result)


def _unary(*kinds: str) -> Callable[..., None]:
    """Return the converter of an operation that is a chain of ONNX operators."""

    def convert(graph: Recorder, result: Tensor, x: Tensor) -> None:
        name = graph.value(x)
        for kind in kinds[:-1]:
            name = graph.node(kind, [name])
        graph.node(kinds[-1], [name], result=result)

    return convert


def _same(graph: Recorder, result: Tensor, x: Tensor, **options: Any) -> None:
    graph.alias(result, x)


def _to_copy(graph: Recorder, result: Tensor, x: Tensor, **options: Any) -> None:
    if result.dtype == x.dtype:
        graph.alias(result, x)
    else:
        graph.cast(graph.value(x), result.dtype, result)


def _power(graph: Recorder, result: Tensor, x: Tensor, exponent: float) -> None:
    if exponent == 2:
        graph.node("Mul", [x, x], result=result)
    else:
        graph.node("Pow", [x, graph.value(exponent, like=result)], result=result)


def _lerp(graph: Recorder, result: Tensor, a: Tensor, b: Tensor, weight: float) -> None:
    step = graph.node("Mul", [graph.node("Sub", [b, a]), graph.value(weight, like=result)])
    graph.node("Add", [a, step], result=result)


def _addcmul(
    graph: Recorder, result: Tensor, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1
) -> None:
    assert value == 1
    graph.node("Add", [graph.node("Mul", [a, b]), x], result=result)


def _matrix_product(graph: Recorder, result: Tensor, a: Tensor, b: Tensor) -> None:
    graph.node("MatMul", [a, b], result=result)


def _linear(graph: Recorder, result: Tensor, bias: Tensor, x: Tensor, weight: Tensor) -> None:
    graph.node("Gemm", [x, weight, bias], result=result)


def _convolution(
    graph: Recorder,
    result: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    is_transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> None:
    more: dict[str, Any] = {"output_padding": list(output_padding)} if is_transposed else {}
    graph.node(
        "ConvTranspose" if is_transposed else "Conv",
        [x, weight] if bias is None else [x, weight, bias],
        result=result,
        kernel_shape=list(weight.shape[2:]),
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        group=groups,
        **more,
    )


def _leaky_relu(graph: Recorder, result: Tensor, x: Tensor, slope: float = 0.01) -> None:
    graph.node("LeakyRelu", [x], result=result, alpha=slope)


def _clamp(graph: Recorder, result: Tensor, x: Tensor, low: float, high: float) -> None:
    bounds = [graph.value(each, like=x) for each in (low, high)]
    graph.node("Clip", [x, *bounds], result=result)


def _reduction(kind: str) -> Callable[..., None]:
    """Return the converter of a reduction over dimensions."""

    def convert(
        graph: Recorder,
        result: Tensor,
        x: Tensor,
        dims: Sequence[int],
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = graph.value(x) if dtype in (None, x.dtype) else graph.cast(graph.value(x), dtype)
        graph.node(kind, [name, list(dims)], result=result, keepdims=int(keepdim))

    return convert


def _concatenate(graph: Recorder, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    graph.node("Concat", list(tensors), result=result, axis=dim)


def _unsqueeze(graph: Recorder, result: Tensor, x: Tensor, dim: int) -> None:
    graph.node("Unsqueeze", [x, [dim]], result=result)


def _expand(graph: Recorder, result: Tensor, x: Tensor, sizes: Sequence[int]) -> None:
    if result.shape == x.shape:
        graph.alias(result, x)
    else:  # Expand broadcasts in both directions: a first size of 1 keeps the batch
        graph.node("Expand", [x, list(result.shape)], result=result)


def _reshape(graph: Recorder, result: Tensor, x: Tensor, sizes: Sequence[int]) -> None:
    graph.node("Reshape", [x, [0, *result.shape[1:]]], result=result)  # 0 keeps a size


def _permute(graph: Recorder, result: Tensor, x: Tensor, dims: Sequence[int]) -> None:
    graph.node("Transpose", [x], result=result, perm=list(dims))


def _slice(
    graph: Recorder,
    result: Tensor,
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    if result.shape == x.shape:
        graph.alias(result, x)
        return
    size = x.shape[dim]
    first = start or 0
    last = size if end is None else min(end, size)
    graph.node("Slice", [x, [first], [last], [dim], [step]], result=result)


def _select(graph: Recorder, result: Tensor, x: Tensor, dim: int, index: int) -> None:
    graph.node("Gather", [x, index], result=result, axis=dim)


def _unbind(graph: Recorder, results: Sequence[Tensor], x: Tensor, dim: int = 0) -> None:
    for index, result in enumerate(results):
        _select(graph, result, x, dim, index)


def _split(graph: Recorder, results: Sequence[Tensor], x: Tensor, size: int, dim: int = 0) -> None:
    for index, result in enumerate(results):
        graph.node("Slice", [x, [index * size], [(index + 1) * size], [dim]], result=result)


def _maximum(
    graph: Recorder, result: Tensor, x: Tensor, dims: Sequence[int] = (), keepdim: bool = False
) -> None:
    graph.node("ReduceMax", [x, list(dims)], result=result, keepdims=int(keepdim))


def _pad(
    graph: Recorder, result: Tensor, x: Tensor, padding: Sequence[int], value: float = 0
) -> None:
    # PyTorch lists pairs from the last dimension on, ONNX all beginnings and then all ends.
    before, after = list(padding[0::2]), list(padding[1::2])
    unpadded = [0] * (x.ndim - len(before))
    pads = [*unpadded, *before[::-1], *unpadded, *after[::-1]]
    graph.node("Pad", [x, pads, graph.value(value, like=x)], result=result)


def _upsample_nearest(graph: Recorder, result: Tensor, x: Tensor, *options: Any) -> None:
    scales = torch.tensor([1.0, 1.0, *(result.shape[i] / x.shape[i] for i in (2, 3))])
    graph.node(
        "Resize",
        [x, "", scales],
        result=result,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


CONVERTERS: Mapping[Any, Callable[..., None]] = MappingProxyType(
    {
        _aten.add.Tensor: _elementwise("Add"),
        _aten.sub.Tensor: _elementwise("Sub"),
        _aten.rsub.Scalar: _reverse_subtract,
        _aten.mul.Tensor: _elementwise("Mul"),
        _aten.div.Tensor: _elementwise("Div"),
        _aten.lt.Tensor: _compare,
        _aten.pow.Tensor_Scalar: _power,
        _aten.abs.default: _unary("Abs"),
        _aten.rsqrt.default: _unary("Sqrt", "Reciprocal"),
        _aten.lerp.Scalar: _lerp,
        _aten.addcmul.default: _addcmul,
        _aten.mm.default: _matrix_product,
        _aten.addmm.default: _linear,
        _aten.convolution.default: _convolution,
        _aten.leaky_relu.default: _leaky_relu,
        _aten.leaky_relu_.default: _leaky_relu,
        _aten.clamp.default: _clamp,
        _aten.mean.dim: _reduction("ReduceMean"),
        _aten.sum.dim_IntList: _reduction("ReduceSum"),
        _aten.amax.default: _maximum,
        _aten.cat.default: _concatenate,
        _aten.unsqueeze.default: _unsqueeze,
        _aten.expand.default: _expand,
        _aten.view.default: _reshape,
        _aten._unsafe_view.default: _reshape,
        _aten.permute.default: _permute,
        _aten.slice.Tensor: _slice,
        _aten.select.int: _select,
        _aten.unbind.int: _unbind,
        _aten.split.Tensor: _split,
        _aten.constant_pad_nd.default: _pad,
        _aten.upsample_nearest2d.default: _upsample_nearest,
        _aten._to_copy.default: _to_copy,
        _aten.clone.default: _same,
        _aten.detach.default: _same,
        _aten.alias.default: _same,
    }
)
"""The function that adds the nodes of each operation."""
