import json
from pathlib import Path

import pytest
import torch

from stylegan import images
from stylegan.classifiers.attributes import (
    CELEBA_NAMES,
    Attribute,
    area_under_curve,
    find_attributes,
    split,
)
from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError, DataError, StyleganError


@pytest.fixture
def labeled(tmp_path):
    """Return a function that makes a set of as many images as labels."""

    def make(labels, *, record=None, **content):
        names = [f"{index:03d}.png" for index in range(len(labels))]
        for name in names:
            images.write(torch.zeros([1, 8, 8], dtype=torch.uint8), tmp_path / name)
        pairs = [[name, label] for name, label in zip(names, labels, strict=True)]
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": pairs, **content}))
        if record is not None:
            (tmp_path / "prepare.json").write_text(json.dumps(record))
        return str(tmp_path)

    return make


def found(path, **options):
    return [
        (attribute.index, attribute.name, attribute.has.int().tolist())
        for attribute in find_attributes(ImageDataset(path), path=path, **options)
    ]


@pytest.mark.parametrize("no", [0, -1])
def test_each_place_of_a_list_is_an_attribute(labeled, no):
    path = labeled([[1, no], [1, no], [no, 1], [no, 1]])
    assert found(path) == [(0, "attribute-0", [1, 1, 0, 0]), (1, "attribute-1", [0, 0, 1, 1])]
    assert found(path, names="smiling, young")[1][:2] == (1, "young")


def test_each_class_that_is_there_is_one_against_the_rest(labeled):
    path = labeled([0, 0, 2, 2, 5, 5])
    assert found(path) == [
        (0, "class-0", [1, 1, 0, 0, 0, 0]),
        (2, "class-2", [0, 0, 1, 1, 0, 0]),
        (5, "class-5", [0, 0, 0, 0, 1, 1]),
    ]


def test_two_classes_are_one_attribute(labeled):
    assert found(labeled([3, 3, 1, 1])) == [(3, "class-3", [1, 1, 0, 0])]


def test_names_come_from_the_set(labeled):
    path = labeled([[1, 0], [1, 0], [0, 1], [0, 1]], attributes=["Wavy_Hair", "bald"])
    assert [name for _, name, _ in found(path)] == ["Wavy_Hair", "bald"]
    path = labeled([0, 0, 1, 1], record={"classes": ["cats", "dogs"]})
    assert found(path)[0][1] == "dogs"
    path = labeled([0, 0, 2, 2], record={"classes": ["cats", "dogs"]})  # of other classes
    assert found(path)[0][1] == "class-2"


def test_celeba_names_forty_places_in_the_order_of_its_annotations(labeled):
    path = labeled([[1] * 40, [1] * 40, [0] * 40, [0] * 40])
    assert [name for _, name, _ in found(path, names="celeba")] == list(CELEBA_NAMES)
    assert list(CELEBA_NAMES) == sorted(CELEBA_NAMES)
    assert CELEBA_NAMES[20] == "male"
    assert found(path)[20][1] == "attribute-20"  # forty alone do not make a set CelebA


def test_some_are_chosen_by_name_number_and_range(labeled):
    path = labeled([[1] * 8, [1] * 8, [0] * 8, [0] * 8])
    chosen = found(path, names="a,b,c,d,e,f,g,h", selection="h, 2-4,b,3")
    assert [name for _, name, _ in chosen] == ["b", "c", "d", "e", "h"]
    for selection in ("i", "8", "6-9", "4-2", ",", "a-b"):
        with pytest.raises(ConfigError, match="there is no attribute"):
            found(path, names="a,b,c,d,e,f,g,h", selection=selection)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (
            [[0.5], [1], [0], [1]],
            {},
            "of attribute attribute-0, position 0, must be 0 and 1, or -1 and 1, got 0.5",
        ),
        (
            [[-1], [1], [0], [1]],
            {},
            "of attribute attribute-0, position 0, must be 0 and 1, or -1 and 1, got -1",
        ),
        ([[1], [1], [1]], {}, "the attribute attribute-0 needs at least two images"),
        ([[1], [0], [0]], {"names": "bald"}, "two that do not, got 1 and 2"),
        ([4, 4, 4], {}, "two that do not, got 3 and 0"),
        ([[1, 0], [0, 1]], {"names": "a"}, "--names must have 2 names, one for each position"),
        ([[1, 0], [0, 1]], {"names": "a,a"}, "two attributes have the name 'a'"),
        (
            [[1], [0]],
            {"names": "celeba"},
            "--names must have 1 names, one for each position of the labels, got 40",
        ),
    ],
)
def test_labels_and_names_that_do_not_do_are_refused(labeled, labels, options, message):
    path = labeled(labels)
    with pytest.raises(StyleganError) as caught:
        found(path, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_without_labels_are_refused(labeled, image_folder):
    with pytest.raises(DataError, match="has no labels to learn attributes from"):
        found(str(image_folder))
    path = labeled([1, 0, 1])
    pairs = [["000.png", 1], ["002.png", 0]]
    (Path(path) / "dataset.json").write_text(json.dumps({"labels": pairs}))
    with pytest.raises(DataError, match=r"1 of 3 images have no label, the first is 001\.png"):
        found(path)


def test_an_attribute_that_cannot_be_learned_does_no_harm_to_others(labeled):
    path = labeled([[1, 1, 0.5], [1, 1, 0.5], [0, 1, 0.5], [0, 1, 0.5]])
    assert len(found(path, selection="0")) == 1
    with pytest.raises(DataError):
        found(path)


@pytest.mark.parametrize(
    ("index", "name", "slug"),
    [
        (3, "Wavy_Hair", "03-wavy-hair"),
        (0, "5 o'clock/../shadow", "00-5-o-clock-shadow"),
        (12, "\N{HIRAGANA LETTER A}", "12"),
        (123, "x" * 99, "123-" + "x" * 40),
    ],
)
def test_a_name_becomes_that_of_a_folder(index, name, slug):
    assert Attribute(index=index, name=name, has=torch.zeros(0)).slug == slug


def test_a_tenth_of_each_kind_is_held_out():
    names = [f"{index}.png" for index in range(200)]
    has = torch.arange(200) % 5 == 0
    attribute = Attribute(index=0, name="a", has=has)
    train, held_out = split(attribute, names, seed=0)
    assert sorted(train + held_out) == list(range(200))
    assert has[held_out].sum() == 4
    assert len(held_out) == 20
    assert split(attribute, names, seed=0) == (train, held_out)
    assert split(attribute, names, seed=1) != (train, held_out)
    few = Attribute(index=0, name="a", has=torch.arange(200) < 2)
    train, held_out = split(few, names, seed=0)
    assert few.has[train].sum() == few.has[held_out].sum() == 1


def test_the_area_under_the_curve_counts_pairs():
    has = torch.tensor([True, True, False, False])
    assert area_under_curve(torch.tensor([3.0, 2.0, 1.0, 0.0]), has) == 1
    assert area_under_curve(torch.tensor([0.0, 1.0, 2.0, 3.0]), has) == 0
    assert area_under_curve(torch.tensor([3.0, 1.0, 2.0, 0.0]), has) == 0.75
    assert area_under_curve(torch.zeros(4), has) == 0.5
    scores, has = torch.randint(0, 9, [50]).float(), torch.rand(50) < 0.3
    pairs = scores[has][:, None] - scores[~has][None]
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean().item()
    assert area_under_curve(scores, has) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="with and without the attribute"):
        area_under_curve(torch.zeros(2), torch.ones(2, dtype=torch.bool))
