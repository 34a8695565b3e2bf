import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan.metrics.precision_recall import knn_radii, precision_recall


def line(*places: float) -> Tensor:
    """Points on a line, [N, 1]."""
    return torch.tensor(places)[:, None]


def cloud(num: int, *, scale: float = 1.0, width: int = 8) -> Tensor:
    return scale * torch.randn(num, width)


def directly(real: Tensor, fake: Tensor, *, k: int) -> tuple[float, float]:
    """The definition, on differences."""
    real, fake = real.half().double(), fake.half().double()

    def radii(rows: Tensor) -> Tensor:
        between = (rows[:, None] - rows).norm(dim=2).sort(dim=1).values
        return between[:, k].half().double()

    between = (real[:, None] - fake).norm(dim=2)
    precision = (between <= radii(real)[:, None]).any(dim=0)
    recall = (between <= radii(fake)).any(dim=1)
    return precision.double().mean().item(), recall.double().mean().item()


def test_a_radius_is_the_distance_of_the_kth_other():
    points = line(0, 1, 3, 7)
    assert knn_radii(points, k=1).tolist() == [1, 1, 2, 4]
    assert knn_radii(points, k=2).tolist() == [3, 2, 3, 6]
    assert knn_radii(points, k=3).tolist() == [7, 6, 4, 7]


def test_points_on_a_line_have_the_shares_counted_by_hand():
    # k = 1. Real balls: [-1, 1], [0, 2], [1, 5], [3, 7] about 0, 1, 3, 5.
    # Fake 8 and 8.5 have radius 0.5, and -0.5 has 8.5, which ends in 8 and covers all reals.
    result = precision_recall(line(0, 1, 3, 5), line(-0.5, 8, 8.5), k=1)
    assert result.precision == pytest.approx(1 / 3)
    assert result.recall == 1
    # k = 2. Fake balls: [7, 9] about each 8, [8, 10] about 9.
    result = precision_recall(line(0, 1, 3, 7), line(8, 8, 9), k=2)
    assert result.recall == pytest.approx(1 / 4)
    # Radii of reals are 3, 2, 3, 6: 7 reaches from 1 to 13.
    assert result.precision == 1


def test_the_border_belongs_to_the_ball():
    real = line(0, 2)
    assert precision_recall(real, line(4, 100), k=1).precision == 0.5
    assert precision_recall(real, line(4.03125, 100), k=1).precision == 0  # next but one in half


def test_an_image_is_not_its_own_neighbour_but_its_copy_is():
    assert knn_radii(line(5, 5, 9), k=1).tolist() == [0, 0, 4]
    assert knn_radii(line(5, 5, 9), k=2).tolist() == [4, 4, 4]
    # A ball of radius 0 still holds its centre.
    result = precision_recall(line(5, 5), line(5, 6), k=1)
    assert (result.precision, result.recall) == (0.5, 1)


def test_equal_rows_of_many_large_numbers_are_at_distance_zero():
    rows = (100 * torch.rand(40, 2048)).half().repeat(2, 1)
    assert knn_radii(rows, k=1).abs().max() == 0


def test_radii_are_rounded_to_half_precision():
    # 1 + 2^-12 is no float16 and becomes 1, so the neighbour lies outside by rounding.
    points = torch.tensor([[0.0, 0.0], [1.0, 2**-5.5]])
    assert points.half()[1].double().norm() > 1
    radii = knn_radii(points, k=1)
    assert radii.dtype == torch.float32
    assert radii.tolist() == [1, 1]
    assert precision_recall(points, points + 50, k=1).precision == 0


def test_features_are_rounded_to_half_precision():
    # Half precision has steps of 2^-8 from 4 on: 4.001 becomes 4, on the border of the ball.
    assert precision_recall(line(0, 2), line(4.001, 100), k=1).precision == 0.5


def test_equal_sets_have_both_whole():
    features = cloud(100)
    result = precision_recall(features, features.clone())
    assert (result.precision, result.recall) == (1, 1)


def test_distant_sets_have_neither():
    result = precision_recall(cloud(50), cloud(50) + 100)
    assert (result.precision, result.recall) == (0, 0)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_it_agrees_with_the_definition(k):
    real, fake = cloud(150), cloud(130, scale=1.2) + 0.5
    result = precision_recall(real, fake, k=k)
    assert (result.precision, result.recall) == directly(real, fake, k=k)
    assert 0.1 < result.precision < 1
    assert 0.1 < result.recall < 1


@pytest.mark.parametrize("block", [1, 2, 7, 20, 49, 1000])
def test_blocks_do_not_change_the_result(block):
    real, fake = cloud(50), cloud(20) + 0.5
    whole = precision_recall(real, fake)
    assert precision_recall(real, fake, block=block) == whole
    assert torch.equal(knn_radii(real, k=3, block=block), knn_radii(real, k=3))


def test_a_collapsed_set_is_precise_and_recalls_nothing():
    real = cloud(1000)
    fake = real[:1] + 0.01 * cloud(1000)
    result = precision_recall(real, fake)
    assert result.precision > 0.99
    assert result.recall < 0.01


def test_an_over_dispersed_set_recalls_and_is_not_precise():
    real = cloud(1000)
    fake = cloud(1000, scale=4)
    result = precision_recall(real, fake)
    assert result.precision < 0.02
    assert result.recall > 0.95


def test_a_set_that_lacks_half_of_the_modes_is_precise_and_recalls_half():
    shift = torch.tensor([[40.0] + [0.0] * 7])
    real = torch.cat([cloud(500) - shift, cloud(500) + shift])
    result = precision_recall(real, cloud(1000) + shift)
    assert result.precision > 0.8
    assert 0.35 < result.recall < 0.5


def test_features_mapped_from_a_file_give_the_same(tmp_path):
    real, fake = cloud(70).half(), cloud(60).half() + 1
    arrays = []
    for name, features in (("real", real), ("fake", fake)):
        np.save(tmp_path / f"{name}.npy", features.numpy())
        arrays.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    assert precision_recall(*arrays, block=32) == precision_recall(real, fake)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="one width"):
        precision_recall(cloud(9), cloud(9, width=4))
    for real, fake in ((cloud(3), cloud(9)), (cloud(9), cloud(3))):
        with pytest.raises(ValueError, match="more than k = 3"):
            precision_recall(real, fake)
    with pytest.raises(ValueError, match="more than k = 0"):
        precision_recall(cloud(9), cloud(9), k=0)


def test_numbers_too_large_for_half_precision_are_refused():
    with pytest.raises(ValueError, match="features are too large"):
        precision_recall(line(0, 1, 1e6), line(0, 1, 2), k=1)
    with pytest.raises(ValueError, match="distances between features"):
        knn_radii(line(-60_000, 60_000), k=1)
