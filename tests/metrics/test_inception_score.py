import math

import pytest
import torch
from torch import Tensor

from stylegan.metrics.inception_score import inception_score


def certain(classes: Tensor, *, num_classes: int = 10) -> Tensor:
    return torch.nn.functional.one_hot(classes, num_classes).float()


def test_equal_probabilities_score_one():
    result = inception_score(torch.full((50, 8), 1 / 8))
    assert result.mean == pytest.approx(1, rel=1e-7)
    assert result.std == pytest.approx(0, abs=1e-7)


def test_certain_images_of_all_classes_score_the_number_of_classes():
    result = inception_score(certain(torch.arange(100) % 10))
    assert result.mean == pytest.approx(10, rel=1e-12)
    assert result.std == pytest.approx(0, abs=1e-12)


def test_certain_images_of_one_class_score_one():
    assert inception_score(certain(torch.zeros(50, dtype=torch.long))).mean == pytest.approx(1)


def test_two_classes_with_a_known_certainty_have_the_closed_form():
    rows = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).repeat(20, 1)
    expected = math.exp(math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert inception_score(rows).mean == pytest.approx(expected, rel=1e-12)


def test_splits_are_contiguous_and_their_spread_is_of_all_of_them():
    # The first half is of one class (score 1), the second of two (score 2).
    classes = torch.cat([torch.zeros(20), torch.arange(20) % 2]).long()
    result = inception_score(certain(classes), num_splits=2)
    assert result.mean == pytest.approx(1.5)
    assert result.std == pytest.approx(0.5)
    assert inception_score(certain(classes), num_splits=1).std == 0


def test_every_image_is_in_a_split_when_they_do_not_divide_evenly():
    # 7 rows in 3 splits: 2, 2 and 3 rows; the last holds classes 0, 1 and 2, once each.
    classes = torch.tensor([0, 0, 0, 0, 0, 1, 2])
    result = inception_score(certain(classes), num_splits=3)
    assert result.mean == pytest.approx((1 + 1 + 3) / 3)


@pytest.mark.parametrize("num_splits", [0, 6])
def test_more_splits_than_images_are_refused(num_splits):
    with pytest.raises(ValueError, match="num_splits"):
        inception_score(torch.full((5, 2), 0.5), num_splits=num_splits)
