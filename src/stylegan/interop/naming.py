"""Other programs' tensors and ours: a row for each, with both names and the file's layout."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stylegan.interop.restricted import shown
from stylegan.interop.sizes import refusal


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a tensor stands in a file, as a way to our layout and back.

    Args:
        ndim: number of axes in the file; None where any number will do.
        read: from the file's layout to ours; may return a view.
        write: the inverse.
    """

    ndim: int | None
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


def shifted(by: float) -> Layout:
    """Return the layout of a vector that lacks an addend which ours contains."""
    return Layout(ndim=1, read=lambda x: x + by, write=lambda x: x - by)


def multiplied(layout: Layout, by: float) -> Layout:
    """Return the layout of a tensor that ours contains `by` times."""
    if by == 1:
        return layout
    return Layout(
        ndim=layout.ndim,
        read=lambda x: layout.read(x) * by,
        write=lambda x: layout.write(x / by),
    )


def boxed(ndim: int, *, leading: int, trailing: int = 0) -> Layout:
    """Return the layout of a tensor of `ndim` axes, the outer ones of which are 1 and not ours."""

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
    """One tensor under both names."""

    theirs: str
    ours: str
    layout: Layout = SAME


def pair(
    theirs: str, ours: str, layout: Layout = SAME, *, bias: Layout = SAME, separator: str = "."
) -> Iterator[Row]:
    """Give the rows of a layer's weight and bias.

    Args:
        theirs: the layer in the file.
        ours: the layer in our network.
        layout: of the weight.
        bias: layout of the bias.
        separator: between a layer and its tensors in the file.
    """
    yield Row(f"{theirs}{separator}weight", f"{ours}.weight", layout)
    yield Row(f"{theirs}{separator}bias", f"{ours}.bias", bias)


tf_pair = partial(pair, separator="/")
"""The same in TensorFlow's names."""


class NameMap:
    """All tensors of a network, as a file has them and as we have them.

    Args:
        rows: one for each tensor that both have.
        constants: tensors that a file has and our networks hold fixed, by their names there.
            They must have these values, if they are there; writing adds them.
        ignored: tensors that a file may have and that say nothing.
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
            WeightsError: if one is missing, left over, of another number of axes, or a constant
                with another value; it names them as the file does.
        """
        expected = {row.theirs for row in self.rows}
        if missing := sorted(expected - tensors.keys()):
            raise refusal(f"{origin} lacks {_few(missing)}", "all tensors of such a network")
        known = expected | self.constants.keys() | self.ignored
        if extra := sorted(tensors.keys() - known):
            raise refusal(f"{origin} has tensors of no layer, {_few(extra)}", "no others")
        for name, value in self.constants.items():
            found = tensors.get(name, value)
            if found.shape != value.shape or not torch.allclose(found.float(), value, atol=1e-5):
                raise refusal(
                    f"{origin} has another filter at {shown(name)}", "the filter [1, 3, 3, 1]"
                )
        return {row.ours: _read(row, tensors[row.theirs], origin) for row in self.rows}

    def write(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under the file's names and in its layout, with the constants.

        Raises:
            ValueError: if a tensor of ours has no row, or a row no tensor.
        """
        ours = {row.ours for row in self.rows}
        if difference := ours ^ tensors.keys():
            raise ValueError(f"the map and the network differ in {_few(sorted(difference))}")
        # contiguous copies: a saved file must not hold what a view does not show
        written = {
            row.theirs: row.layout.write(tensors[row.ours].detach())
            .to("cpu")
            .clone(memory_format=torch.contiguous_format)
            for row in self.rows
        }
        return written | {name: value.clone() for name, value in self.constants.items()}


def _read(row: Row, tensor: Tensor, origin: str) -> Tensor:
    """Turn one tensor to our layout."""
    ndim = row.layout.ndim
    if ndim is not None and tensor.ndim != ndim:
        raise refusal(
            f"{origin} has {shown(row.theirs)} of {tensor.ndim} axes", f"{ndim} axes there"
        )
    try:
        return row.layout.read(tensor)
    except (RuntimeError, ValueError) as error:
        raise refusal(
            f"{origin} has {shown(row.theirs)} of shape {list(tensor.shape)}",
            "the shape of such a network",
        ) from error


def _few(names: list[str], num: int = 3) -> str:
    """Name the first few of many."""
    rest = f" and {len(names) - num} more" if len(names) > num else ""
    return ", ".join(shown(name).strip("'") for name in names[:num]) + rest
