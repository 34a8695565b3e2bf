import pytest

from stylegan.errors import ConfigError
from stylegan.models.growth import Growth, fade_weight, max_lod, resolution_at


@pytest.mark.parametrize(
    ("kimg", "lod", "resolution"),
    [  # spec, section 17: StyleGAN's schedule at 1024
        (0, 7, 8),
        (600, 7, 8),
        (900, 6.5, 16),
        (1200, 6, 16),
        (1500, 6, 16),
        (3300, 4.5, 64),
        (7800, 1, 512),
        (8100, 0.5, 1024),
        (8400, 0, 1024),
        (25000, 0, 1024),
    ],
)
def test_the_published_schedule(kimg, lod, resolution):
    growth = Growth()
    assert growth.lod_at(kimg * 1000, resolution=1024) == lod
    assert resolution_at(1024, lod) == resolution


def test_a_run_that_starts_at_its_full_resolution_never_grows():
    growth = Growth(initial_resolution=16)
    assert {growth.lod_at(nimg, resolution=16) for nimg in (0, 900_000, 10**8)} == {0}


def test_a_fade_of_any_length_ends_at_a_whole_number():
    growth = Growth(train_kimg=0.1, fade_kimg=0.7)  # neither is exact in binary
    assert [growth.lod_at(800 * n, resolution=64) for n in range(5)] == [3, 2, 1, 0, 0]
    assert growth.lod_at(799, resolution=64) > 2


def test_level_of_detail_in_numbers():
    assert (max_lod(1024), max_lod(8), max_lod(4)) == (8, 1, 0)
    assert fade_weight(1.25) == 0.25
    assert fade_weight(2) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"initial_resolution": 12},
            "growth.initial_resolution must be a power of two from 4, got 12",
        ),
        (
            {"initial_resolution": 2},
            "growth.initial_resolution must be a power of two from 4, got 2",
        ),
        ({"train_kimg": -1}, "growth.train_kimg must be 0 or more, got -1"),
        ({"fade_kimg": 0}, "growth.fade_kimg must be more than 0, got 0"),
    ],
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Growth(**options)
