import pytest
import torch

from stylegan.ops.normalize import minibatch_stddev
from stylegan.parts import Part, Streams
from stylegan.rng import randn_rows


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
@pytest.mark.parametrize("most", [None, 4, 8, 100])
def test_parts_hold_each_row_once(workers, most):
    whole = Part.whole(24, group=4)
    shares = [whole.among(number, of=workers) for number in range(workers)]
    pieces = [piece for share in shares for piece in share.pieces(most)]
    assert sorted(row for piece in pieces for row in piece.rows) == list(range(24))
    assert sum(piece.share for piece in pieces) == pytest.approx(1)
    assert max(map(len, shares)) - min(map(len, shares)) <= 4
    if most is not None:
        assert all(len(piece) <= most for piece in pieces)


def test_a_part_takes_its_rows_of_the_batch_or_of_what_holds_them():
    batch = torch.arange(24)
    whole = Part.whole(24, group=4)
    share = whole.among(1, of=2)
    taken = share.take(batch)
    assert taken.tolist() == share.rows
    assert whole.take(batch) is batch
    for piece in share.pieces(4):
        assert piece.within(share).take(taken).tolist() == piece.rows
    with pytest.raises(ValueError, match="24 rows cannot be taken of 12"):
        share.take(taken)
    with pytest.raises(ValueError, match="no whole number of groups of 4"):
        Part.whole(10, group=4)


def test_pieces_have_about_one_size():
    sizes = [len(piece) for piece in Part.whole(40, group=4).pieces(16)]
    assert sizes == [12, 12, 16]


def test_no_group_of_the_minibatch_deviation_is_torn():
    batch = torch.randn(24, 2, 4, 4)
    whole = Part.whole(24, group=4)
    expected = minibatch_stddev(batch, group_size=4)
    for piece in whole.among(1, of=3).pieces(4):
        found = minibatch_stddev(piece.take(batch), group_size=4)
        assert torch.equal(found, expected[piece.rows])


def test_rows_draw_the_same_in_whichever_part_they_are():
    whole = Part.whole(24, group=4)

    def draw(part):
        streams = Streams(purpose="noise", seed=1, nimg=8, device=torch.device("cpu"), part=part)
        # a stream is opened at its beginning each time
        first, again = (randn_rows([len(part), 2, 3], tuple(streams), "cpu") for _ in range(2))
        assert torch.equal(first, again)
        return first

    expected = draw(whole)
    assert len(expected.flatten(1).unique(dim=0)) == 24
    for piece in whole.among(1, of=2).pieces(8):
        assert torch.equal(draw(piece), expected[piece.rows])
