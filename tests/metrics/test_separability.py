import builtins
import math

import pytest
import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.metrics.separability import conditional_entropy, separability


def entropy(*shares: float) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)


def bools(*values: int) -> Tensor:
    return torch.tensor(values).bool()


def apart(num: int) -> Tensor:
    """Latents [num, 2] with a gap along the first axis, which a plane can use."""
    latents = torch.randn(num, 2)
    latents[:, 0] += latents[:, 0].sign()
    return latents


def test_a_right_prediction_leaves_nothing_unknown_and_so_does_its_opposite():
    labels = bools(0, 1, 1, 0, 1)
    assert conditional_entropy(labels, labels) == 0
    assert conditional_entropy(~labels, labels) == 0


def test_a_constant_prediction_leaves_the_entropy_of_the_labels():
    labels = bools(0, 1, 1, 1)
    assert conditional_entropy(bools(0, 0, 0, 0), labels) == pytest.approx(entropy(0.25, 0.75))
    assert conditional_entropy(bools(1, 1, 1, 1), labels) == pytest.approx(entropy(0.25, 0.75))


def test_a_table_of_both_has_the_entropy_counted_by_hand():
    # Predicted 0 (4 of 10): labels 3 to 1. Predicted 1 (6 of 10): labels 1 to 5.
    predicted = bools(0, 0, 0, 0, 1, 1, 1, 1, 1, 1)
    labels = bools(0, 0, 0, 1, 0, 1, 1, 1, 1, 1)
    expected = 0.4 * entropy(3 / 4, 1 / 4) + 0.6 * entropy(1 / 6, 5 / 6)
    assert conditional_entropy(predicted, labels) == pytest.approx(expected, rel=1e-12)


def test_the_prediction_is_the_condition():
    # Predicted 0: all labels 0. Predicted 1: half of them.
    predicted, labels = bools(0, 0, 1, 1), bools(0, 0, 0, 1)
    assert conditional_entropy(predicted, labels) == pytest.approx(0.5 * math.log(2))
    assert conditional_entropy(labels, predicted) == pytest.approx(0.75 * entropy(2 / 3, 1 / 3))


def test_labels_linear_in_the_latent_score_one():
    latents = torch.randn(4000, 16)
    logits = latents @ torch.randn(16, 5) + 0.3
    result = separability(latents, logits, num_kept=2000)
    assert result.score == pytest.approx(1, rel=0.01)
    assert len(result.entropies) == 5
    assert result.num_not_converged == 0


def test_labels_independent_of_the_latent_score_the_entropy_of_the_labels():
    latents = torch.randn(20_000, 4)
    coin = torch.randn(20_000, 1)
    result = separability(latents, coin, num_kept=10_000)
    # A plane through 4 numbers learns about 5 / (2 * 10,000) nats of noise.
    assert result.score == pytest.approx(2, rel=0.01)
    rare = torch.where(torch.rand(20_000, 1) < 0.1, -1.0, 1.0) * torch.rand(20_000, 1)
    share = (rare[rare[:, 0].abs().argsort(descending=True)[:10_000]] < 0).double().mean().item()
    result = separability(latents, rare, num_kept=10_000)
    assert result.score == pytest.approx(math.exp(entropy(share, 1 - share)), rel=0.01)


def test_attributes_multiply():
    latents = torch.randn(8000, 4)
    logits = torch.cat([torch.randn(8000, 2), latents[:, :1]], dim=1)
    result = separability(latents, logits, num_kept=4000)
    assert result.score == pytest.approx(math.exp(sum(result.entropies)))
    assert result.score == pytest.approx(4, rel=0.02)


def test_labels_that_bend_are_less_separable_than_straight_ones():
    latents = torch.randn(4000, 2)
    straight, bent = latents[:, :1], latents[:, :1] + 0.7 * (latents[:, 1:].square() - 1)
    scores = [
        separability(latents, logits, num_kept=2000).score
        for logits in (straight, bent, latents.prod(dim=1, keepdim=True))
    ]
    assert scores[0] < 1.01 < 1.1 < scores[1] < scores[2]
    assert scores[2] == pytest.approx(2, rel=0.05)  # no plane tells the sign of a product


def test_only_the_most_certain_images_count():
    latents = apart(2000)
    logits = latents[:, :1].sign() * 5
    logits[1000:] = torch.randn(1000, 1).clamp(-4, 4)  # at random, and less certain
    assert separability(latents, logits, num_kept=1000).score == pytest.approx(1, rel=0.01)
    assert separability(latents, logits, num_kept=2000).score > 1.3


def test_very_certain_images_are_distinguished():
    # The softmax of 20 and of 30 is 1 in float32; their order must still count.
    latents = apart(2000)
    logits = latents[:, :1].sign() * 30
    logits[::2] = torch.where(torch.rand(1000, 1) < 0.5, 20.0, -20.0)
    assert separability(latents, logits, num_kept=1000).score == pytest.approx(1, rel=0.01)


def test_labels_of_one_class_need_no_plane(monkeypatch):
    hide_sklearn(monkeypatch)
    for sign in (1, -1):
        result = separability(torch.randn(10, 3), sign * torch.ones(10, 2), num_kept=5)
        assert (result.score, result.entropies) == (1, (0, 0))
        assert result.one_sided == (0, 1)


def test_a_plane_that_is_not_finished_is_counted_and_warns_nobody(monkeypatch):
    import sklearn.svm

    class Hasty(sklearn.svm.LinearSVC):
        def __init__(self, *, dual: str, random_state: int) -> None:
            super().__init__(dual=dual, random_state=random_state, max_iter=1)

    monkeypatch.setattr(sklearn.svm, "LinearSVC", Hasty)
    latents = torch.randn(500, 8)
    result = separability(latents, latents @ torch.randn(8, 3) + 1, num_kept=300)
    assert result.num_not_converged == 3


def test_it_is_the_same_each_time():
    latents, logits = torch.randn(40, 64), torch.randn(40, 2)  # fewer than numbers: the dual
    first = separability(latents, logits, num_kept=20)
    assert separability(latents, logits, num_kept=20) == first


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    hide_sklearn(monkeypatch)
    with pytest.raises(ConfigError, match=r"stylegan\[metrics\]"):
        separability(torch.randn(10, 3), torch.randn(10, 1), num_kept=10)


@pytest.mark.parametrize(
    ("latents", "logits", "num_kept"),
    [
        (torch.zeros(5, 2), torch.zeros(4, 1), 2),
        (torch.zeros(5, 2), torch.zeros(5), 2),
        (torch.zeros(5, 2), torch.zeros(5, 1), 6),
        (torch.zeros(5, 2), torch.zeros(5, 1), 0),
    ],
)
def test_counts_that_do_not_go_together_are_refused(latents, logits, num_kept):
    with pytest.raises(ValueError, match="separability takes"):
        separability(latents, logits, num_kept=num_kept)


def hide_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def guarded(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", guarded)
