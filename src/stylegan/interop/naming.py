"""Names and layouts of tensors in other programs' files, with ours: one row for each tensor."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stylegan.interop.restricted import quoted
from stylegan.interop.shapes import refusal


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of a tensor in a file, as a conversion to our layout and back.

    Args:
        ndim: number of axes in the file; None for any number.
        read: converts the file's layout to ours; may return a view.
        write: the inverse of `read`.
    """

    ndim: int | None
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


def shifted(by: float) -> Layout:
    """Return the layout of a vector to which ours adds `by`."""
    return Layout(ndim=1, read=lambda x: x + by, write=lambda x: x - by)


def multiplied(layout: Layout, by: float) -> Layout:
    """Return the layout of a tensor that ours multiplies by `by`."""
    if by == 1:
        return layout
    return Layout(
        ndim=layout.ndim,
        read=lambda x: layout.read(x) * by,
        write=lambda x: layout.write(x / by),
    )


def with_unit_axes(ndim: int, *, leading: int, trailing: int = 0) -> Layout:
    """Return the layout of a tensor with `ndim` axes, of which ours drops outer axes of size 1.

    Args:
        ndim: number of axes in the file.
        leading: number of axes to drop at the start.
        trailing: number of axes to drop at the end.
    """

    def read(x: Tensor) -> Tensor:
        end = x.ndim - trailing
        outer = [*x.shape[:leading], *x.shape[end:]]
        if any(size != 1 for size in outer):
            raise ValueError(f"{list(x.shape)} where the outer axes should be 1")
        return x.reshape(x.shape[leading:end])

    def write(x: Tensor) -> Tensor:
        return x.reshape([1] * leading + list(x.shape) + [1] * trailing)

    return Layout(ndim=ndim, read=read, write=write)


SAME = Layout(ndim=None, read=lambda x: x, write=lambda x: x)
TF_DENSE = Layout(ndim=2, read=lambda x: x.t(), write=lambda x: x.t())
TF_CONV = Layout(
    ndim=4, read=lambda x: x.permute(3, 2, 0, 1), write=lambda x: x.permute(2, 3, 1, 0)
)
TF_FLIPPED_CONV = Layout(
    ndim=4,
    read=lambda x: x.permute(3, 2, 0, 1).flip(2, 3),
    write=lambda x: x.flip(2, 3).permute(2, 3, 1, 0),
)


@dataclass(frozen=True)
class Row:
    """The name of a tensor in the file and in our network, and its layout in the file."""

    theirs: str
    ours: str
    layout: Layout = SAME


def pair(
    theirs: str, ours: str, layout: Layout = SAME, *, bias: Layout = SAME, separator: str = "."
) -> Iterator[Row]:
    """Yield the rows of a layer's weight and bias.

    Args:
        theirs: name of the layer in the file.
        ours: name of the layer in our network.
        layout: layout of the weight.
        bias: layout of the bias.
        separator: character between the layer's and the tensor's name in the file.
    """
    yield Row(f"{theirs}{separator}weight", f"{ours}.weight", layout)
    yield Row(f"{theirs}{separator}bias", f"{ours}.bias", bias)


tf_pair = partial(pair, separator="/")
"""`pair` for TensorFlow's names."""


class NameMap:
    """The tensors of a network in a file and in our network.

    Args:
        rows: one for each tensor that both have.
        constants: tensors of the file that are constants in our networks, by their names in the
            file. If a file has them, it must have these values; writing adds them.
        ignored: names of tensors that a file may have and that are not needed.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        constants: Mapping[str, Tensor] | None = None,
        ignored: Iterable[str] = (),
    ) -> None:
        self.rows = tuple(rows)
        self.constants = dict(constants or {})
        self.ignored = frozenset(ignored)

    def read(self, tensors: Mapping[str, Tensor], *, origin: str) -> dict[str, Tensor]:
        """Return a file's tensors under our names and in our layout.

        Raises:
            WeightsError: if a tensor is missing, left over, or has another number of axes, or if a
                constant has another value; the message has the names in the file.
        """
        expected = {row.theirs for row in self.rows}
        if missing := sorted(expected - tensors.keys()):
            raise refusal(f"{origin} lacks {_few(missing)}", "all tensors of such a network")
        known = expected | self.constants.keys() | self.ignored
        if extra := sorted(tensors.keys() - known):
            raise refusal(f"{origin} has unexpected tensors, {_few(extra)}", "no others")
        for name, value in self.constants.items():
            tensor = tensors.get(name, value)
            if tensor.shape != value.shape or not torch.allclose(tensor.float(), value, atol=1e-5):
                raise refusal(
                    f"{origin} has another filter at {quoted(name)}", "the filter [1, 3, 3, 1]"
                )
        return {row.ours: _read(row, tensors[row.theirs], origin) for row in self.rows}

    def write(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under the file's names and in its layout, with the constants.

        Raises:
            ValueError: if a tensor has no row, or a row no tensor.
        """
        ours = {row.ours for row in self.rows}
        if difference := ours ^ tensors.keys():
            raise ValueError(f"the map and the network differ in {_few(sorted(difference))}")
        # Contiguous copies, as a view would save its whole storage.
        written = {
            row.theirs: row.layout.write(tensors[row.ours].detach())
            .to("cpu")
            .clone(memory_format=torch.contiguous_format)
            for row in self.rows
        }
        return written | {name: value.clone() for name, value in self.constants.items()}


def _read(row: Row, tensor: Tensor, origin: str) -> Tensor:
    """Convert one tensor to our layout."""
    ndim = row.layout.ndim
    if ndim is not None and tensor.ndim != ndim:
        raise refusal(
            f"{origin} has {quoted(row.theirs)} of {tensor.ndim} axes", f"{ndim} axes there"
        )
    try:
        return row.layout.read(tensor)
    except (RuntimeError, ValueError) as error:
        raise refusal(
            f"{origin} has {quoted(row.theirs)} of shape {list(tensor.shape)}",
            "the shape of such a network",
        ) from error


def _few(names: list[str], num: int = 3) -> str:
    """Join the first few names."""
    rest = f" and {len(names) - num} more" if len(names) > num else ""
    return ", ".join(quoted(name).strip("'") for name in names[:num]) + rest
