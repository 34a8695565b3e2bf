import pytest

from stylegan.errors import ConfigError
from stylegan.image_size import ImageSize, require_usable, usable_below


@pytest.mark.parametrize(
    ("value", "base", "doublings"),
    [
        (64, (4, 4), 4),
        (1024, (4, 4), 8),
        (4, (4, 4), 0),
        (48, (3, 3), 4),
        ("384x512", (3, 4), 7),
        ("96x160", (3, 5), 5),
        ("40x24", (5, 3), 3),
        ("64x128", (4, 8), 4),
        ("30x50", (15, 25), 1),
        ("7x64", (7, 64), 0),
    ],
)
def test_the_base_is_the_smallest_with_sides_of_three_or_more(value, base, doublings):
    size = ImageSize.of(value)
    assert (size.base, size.doublings) == (ImageSize(*base), doublings)
    assert size.nominal == 4 * 2**doublings
    assert size.stored == value
    assert size.at(4) == size.base
    assert size.at(size.nominal) == size
    assert ImageSize.of(str(size)) == size


def test_a_square_has_one_number_however_it_is_written():
    assert ImageSize.of("64") == ImageSize.of("64X64") == ImageSize.of(64) == ImageSize(64, 64)
    assert ImageSize.of("64x64").stored == 64
    assert str(ImageSize(64, 64)) == "64x64"


@pytest.mark.parametrize("value", ["", "wide", "64x", "x64", "64x64x3", "-8", "6.5", "٤٨", True])
def test_other_texts_are_refused(value):
    with pytest.raises(ConfigError, match="one number or HEIGHTxWIDTH"):
        ImageSize.of(value)


def test_factors_are_powers_of_two_of_both_sides():
    size = ImageSize(96, 160)
    assert [size.factor_to(size.reduced(factor)) for factor in (1, 2, 8)] == [1, 2, 8]
    for other in (ImageSize(32, 53), ImageSize(48, 40), ImageSize(192, 320), ImageSize(80, 48)):
        assert size.factor_to(other) is None


@pytest.mark.parametrize(
    ("value", "nearest"),
    [
        (50, 48),
        (100, 96),
        (2, 8),
        ("1080x1920", "1024x1920"),
        ("2x64", 8),
        ("100x60", "96x56"),
        ("700x64", "688x64"),
    ],
)
def test_sizes_with_too_small_or_too_large_a_base_are_refused_with_the_nearest(value, nearest):
    size = usable_below(ImageSize.of(value))
    assert size == ImageSize.of(nearest)
    require_usable(size, doublings=1)
    if size != ImageSize.of(value):
        with pytest.raises(ConfigError, match=f"choose {nearest}"):
            require_usable(value)


def test_the_number_of_doublings_may_be_demanded():
    assert require_usable(4) == ImageSize(4, 4)
    with pytest.raises(ConfigError, match="and 1 or more doublings; choose 8"):
        require_usable(4, doublings=1)


def test_sizes_with_three_doublings_are_native_and_squares_only_as_powers_of_two():
    native = [ImageSize.of(value).is_native for value in (64, "96x160", "40x24", "64x1024")]
    assert native == [True] * 4
    other = [ImageSize.of(value).is_native for value in (48, 50, "30x50", "20x12", "1080x1920")]
    assert other == [False] * 5
