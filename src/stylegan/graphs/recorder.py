"""ONNX nodes from one forward pass in PyTorch.

The pass runs with a batch of one, and a dispatch mode of PyTorch sees each of its operations. What
depends on no input is a constant of the graph; the other operations become nodes. The first
dimension of every tensor that depends on an input is the batch, or is one.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HALF_STORED = 1024
"""Numbers in a constant from which on it may be stored in float16."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operations, and records those that depend on an input as nodes.

    Args:
        onnx: the package.
        converters: for each operation the function that adds its nodes, which takes the recorder,
            the operation's result, and its arguments.
        half: store large constants in float16, and convert them in the graph.
    """

    def __init__(
        self, onnx: ModuleType, converters: Mapping[Any, Callable[..., object]], *, half: bool
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.onnx = onnx
        self.converters = converters
        self.half = half
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        # Tensors are kept, so that no other one gets the id.
        self._names: dict[int, tuple[str, Tensor]] = {}
        self._constant_names: dict[int, tuple[str, Tensor]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, or PyTorch would import its compiler, which takes seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation, and record it."""
        kwargs = kwargs or {}
        is_live = any(map(self.is_live, _tensors(args)))
        shapes = [list(tensor.shape) for tensor in _tensors(args)]
        result = func(*args, **kwargs)
        if not is_live:
            return result
        if func not in self.converters:
            raise NotImplementedError(f"{func} has no ONNX equivalent here, for {shapes}")
        self.converters[func](self, result, *args, **kwargs)
        return result

    def is_live(self, value: object) -> bool:
        """Return whether a tensor depends on an input."""
        return isinstance(value, Tensor) and id(value) in self._names

    def name(self, tensor: Tensor, name: str) -> None:
        """Give a tensor that depends on an input its name in the graph."""
        self._names[id(tensor)] = (name, tensor)

    def alias(self, result: Tensor, source: Tensor) -> None:
        """Let a result have the value of another tensor, without a node."""
        self.name(result, self.value(source))

    def value(self, operand: Any, like: Tensor | None = None) -> str:
        """Return the name of an operand, which becomes a constant if it depends on no input.

        Args:
            operand: a tensor, a number or a list of whole numbers.
            like: tensor with the dtype of a number.
        """
        if self.is_live(operand):
            return self._names[id(operand)][0]
        if isinstance(operand, Tensor):
            if id(operand) not in self._constant_names:
                self._constant_names[id(operand)] = (self._constant(operand), operand)
            return self._constant_names[id(operand)][0]
        dtype = torch.int64 if like is None else like.dtype
        return self._constant(torch.tensor(operand, dtype=dtype))

    def _constant(self, tensor: Tensor) -> str:
        name = f"constant_{len(self.constants)}"
        is_stored_half = (
            self.half and tensor.dtype == torch.float32 and tensor.numel() >= HALF_STORED
        )
        stored = tensor.detach().contiguous()
        stored = stored.half() if is_stored_half else stored
        self.constants[name] = self.onnx.numpy_helper.from_array(stored.numpy(), name)
        return self.cast(name, torch.float32) if is_stored_half else name

    def node(
        self,
        kind: str,
        operands: Sequence[Any],
        *,
        result: Tensor | None = None,
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node and return the name of its output.

        Args:
            kind: the ONNX operator.
            operands: names, or what `value` takes.
            result: the tensor that the node computes; None for an intermediate result.
            name: of the output; None for a new one.
            attributes: of the operator.
        """
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        names = [each if isinstance(each, str) else self.value(each) for each in operands]
        self.nodes.append(self.onnx.helper.make_node(kind, names, [output], **attributes))
        if result is not None:
            self.name(result, output)
        return output

    def cast(self, name: str, dtype: torch.dtype, result: Tensor | None = None) -> str:
        """Add a conversion to another dtype."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=dtype).numpy().dtype)
        return self.node("Cast", [name], result=result, to=kind)

    def used(self, output: str) -> tuple[list[Any], list[Any]]:
        """Return the nodes and constants that an output depends on, in their order."""
        needed = {output}
        nodes = []
        for node in reversed(self.nodes):
            if node.output[0] in needed:
                needed.update(node.input)
                nodes.append(node)
        constants = [value for name, value in self.constants.items() if name in needed]
        return nodes[::-1], constants


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    flat: list[Tensor] = []
    for value in args:
        if isinstance(value, Tensor):
            flat.append(value)
        elif isinstance(value, list | tuple):
            flat += _tensors(value)
    return flat
