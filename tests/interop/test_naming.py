"""A map names every tensor both ways, and says which one does not fit."""

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop import naming
from stylegan.interop.naming import NameMap, Row, shifted, with_unit_axes


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (naming.SAME, (2, 3)),
        (naming.TF_DENSE, (2, 3)),
        (naming.TF_CONV, (3, 3, 4, 5)),
        (naming.TF_FLIPPED_CONV, (3, 3, 4, 5)),
        (shifted(1.0), (4,)),
        (with_unit_axes(5, leading=1), (1, 2, 3, 4, 5)),
        (with_unit_axes(1, leading=1), (1,)),
        (with_unit_axes(4, leading=1, trailing=2), (1, 3, 1, 1)),
    ],
)
def test_writing_undoes_reading(layout, shape):
    theirs = torch.randint(-8, 8, shape).float()
    assert torch.equal(layout.write(layout.read(theirs)), theirs)


def test_layouts_are_what_they_say():
    kernel = torch.zeros(3, 3, 2, 4)
    kernel[0, 1, 1, 3] = 1  # row 0, column 1, from channel 1 to channel 3
    assert naming.TF_CONV.read(kernel)[3, 1, 0, 1] == 1
    assert naming.TF_FLIPPED_CONV.read(kernel)[3, 1, 2, 1] == 1
    assert naming.TF_DENSE.read(torch.zeros(5, 2)).shape == (2, 5)
    assert with_unit_axes(1, leading=1).read(torch.ones(1)).shape == ()
    assert with_unit_axes(4, leading=1, trailing=2).read(torch.ones(1, 3, 1, 1)).shape == (3,)


MAP = NameMap(
    [Row("a/weight", "a.weight", naming.TF_DENSE), Row("b", "c", with_unit_axes(2, leading=1))],
    constants={"kernel": torch.tensor([1.0, 3.0])},
    ignored=["lod"],
)
THEIRS = {"a/weight": torch.ones(2, 3), "b": torch.ones(1, 4), "kernel": torch.tensor([1.0, 3.0])}


def refusal(**changes: torch.Tensor | None) -> str:
    tensors = {k: v for k, v in (THEIRS | changes).items() if v is not None}
    with pytest.raises(WeightsError) as caught:
        MAP.read(tensors, origin="file (G)")
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_all_tensors_come_through_both_ways():
    ours = MAP.read(THEIRS | {"lod": torch.ones(())}, origin="file")
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        "a.weight": (3, 2),
        "c": (4,),
    }
    theirs = MAP.write(ours)
    assert theirs.keys() == THEIRS.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in THEIRS.items())
    assert all(tensor.is_contiguous() for tensor in theirs.values())


def test_a_constant_may_be_missing_but_not_another():
    MAP.read({k: v for k, v in THEIRS.items() if k != "kernel"}, origin="file")
    assert "has another filter at 'kernel'" in refusal(kernel=torch.ones(2))
    assert "has another filter at 'kernel'" in refusal(kernel=torch.ones(3))


def test_what_does_not_fit_is_named_as_the_file_names_it():
    assert "file (G) lacks b" in refusal(b=None)
    assert "has unexpected tensors, d" in refusal(d=torch.ones(1))
    assert "has 'a/weight' of 1 axes" in refusal(**{"a/weight": torch.ones(2)})
    assert "has 'b' of shape [2, 4]" in refusal(b=torch.ones(2, 4))
    many = {f"x{i}\n": torch.ones(1) for i in range(5)}
    assert "and 2 more" in refusal(**many)


def test_a_map_that_is_not_the_networks_is_our_mistake():
    with pytest.raises(ValueError, match="differ in c"):
        MAP.write({"a.weight": torch.ones(3, 2)})
