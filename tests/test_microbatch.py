import pytest
import torch

from stylegan.microbatch import BatchSlice, GroupGenerators
from stylegan.ops.normalize import minibatch_stddev
from stylegan.rng import randn_rows


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
@pytest.mark.parametrize("max_size", [None, 4, 8, 100])
def test_each_row_is_in_one_micro_batch(workers, max_size):
    whole = BatchSlice.whole(24, group_size=4)
    shares = [whole.shard(number, world_size=workers) for number in range(workers)]
    pieces = [piece for share in shares for piece in share.micro_batches(max_size)]
    assert sorted(row for piece in pieces for row in piece.rows) == list(range(24))
    assert sum(piece.fraction for piece in pieces) == pytest.approx(1)
    assert max(map(len, shares)) - min(map(len, shares)) <= 4
    if max_size is not None:
        assert all(len(piece) <= max_size for piece in pieces)


def test_a_slice_takes_its_rows_of_the_batch_or_of_a_slice_around_it():
    batch = torch.arange(24)
    whole = BatchSlice.whole(24, group_size=4)
    share = whole.shard(1, world_size=2)
    taken = share.take(batch)
    assert taken.tolist() == share.rows
    assert whole.take(batch) is batch
    for piece in share.micro_batches(4):
        assert piece.relative_to(share).take(taken).tolist() == piece.rows
    with pytest.raises(ValueError, match="a batch of 24 got 12 rows"):
        share.take(taken)
    with pytest.raises(ValueError, match="not a multiple of groups of 4"):
        BatchSlice.whole(10, group_size=4)


def test_micro_batches_have_similar_sizes():
    sizes = [len(piece) for piece in BatchSlice.whole(40, group_size=4).micro_batches(16)]
    assert sizes == [12, 12, 16]


def test_groups_of_minibatch_std_are_not_split():
    batch = torch.randn(24, 2, 4, 4)
    whole = BatchSlice.whole(24, group_size=4)
    expected = minibatch_stddev(batch, group_size=4)
    for piece in whole.shard(1, world_size=3).micro_batches(4):
        found = minibatch_stddev(piece.take(batch), group_size=4)
        assert torch.equal(found, expected[piece.rows])


def test_draws_do_not_depend_on_the_slicing():
    whole = BatchSlice.whole(24, group_size=4)

    def draw(part):
        streams = GroupGenerators(
            purpose="noise", seed=1, nimg=8, device=torch.device("cpu"), rows=part
        )
        # a stream is opened at its beginning each time
        first, again = (randn_rows([len(part), 2, 3], tuple(streams), "cpu") for _ in range(2))
        assert torch.equal(first, again)
        return first

    expected = draw(whole)
    assert len(expected.flatten(1).unique(dim=0)) == 24
    for piece in whole.shard(1, world_size=2).micro_batches(8):
        assert torch.equal(draw(piece), expected[piece.rows])
