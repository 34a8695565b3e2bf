from itertools import islice

import pytest

from stylegan.data.sampler import InfiniteSampler


def drawn(num: int, *, num_items: int = 10, seed: int = 0, start: int = 0) -> list[int]:
    return list(islice(InfiniteSampler(num_items, seed=seed, start=start), num))


def test_each_epoch_shows_each_image_once():
    order = drawn(40)
    for epoch in range(4):
        assert sorted(order[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_epochs_and_seeds_have_orders_of_their_own():
    order = drawn(20, num_items=10)
    assert order[:10] != order[10:]
    assert order != drawn(20, seed=1)
    assert order == drawn(20)


@pytest.mark.parametrize("start", [1, 9, 10, 11, 25])
def test_starting_at_a_position_continues_exactly(start):
    assert drawn(40 - start, start=start) == drawn(40)[start:]


def test_the_position_counts_what_was_drawn():
    sampler = InfiniteSampler(3, seed=0, start=5)
    assert [next(sampler) for _ in range(4)] == drawn(9, num_items=3)[5:]
    assert sampler.position == 9


def test_every_order_of_three_images_occurs_about_equally_often():
    order = drawn(3 * 6000, num_items=3)
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        key = tuple(order[3 * epoch : 3 * epoch + 3])
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    # Binomial(6000, 1/6) has a standard deviation of 29; five of them.
    assert all(abs(count - 1000) < 145 for count in counts.values())


def test_one_image_is_shown_forever():
    assert drawn(5, num_items=1) == [0] * 5


def test_an_empty_set_and_a_negative_start_are_refused():
    with pytest.raises(ValueError, match="num_items must be positive, got 0"):
        InfiniteSampler(0, seed=0)
    with pytest.raises(ValueError, match="start must not be negative, got -1"):
        InfiniteSampler(3, seed=0, start=-1)
