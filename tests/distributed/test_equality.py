"""Several processes, or a batch in pieces, do what one process does with the whole batch."""

import pytest
import torch

import processes
from distributed.worker import train, train_as_rank

ITERATIONS = 4  # each regularizer at least twice
WGAN = [
    "loss.adversarial=wgan-gp",
    "loss.gamma=0",
    "optim.order=discriminator-first",
    "loss.pl_interval=none",
]


def launched(folder, *, num, iterations=ITERATIONS, batch_gpu=None, overrides=()):
    """Train on several ranks."""
    out = folder / "out.pt"
    processes.run(train_as_rank, out, iterations, batch_gpu, overrides, folder=folder, num=num)
    return torch.load(out, weights_only=True)


def check_equal(found, expected):
    assert set(expected["gradients"]) == {"G", "path_length", "D", "R1"} or (
        "r1/penalty" not in expected["means"]
    )
    for phase, gradient in expected["gradients"].items():
        error = (found["gradients"][phase] - gradient).norm() / gradient.norm()
        assert error < 1e-7, phase  # noise is float32; 1e-6 is asked for
    assert found["means"] == pytest.approx(expected["means"], rel=1e-6)
    for name, value in expected["weights"].items():
        torch.testing.assert_close(
            found["weights"][name],
            value,
            rtol=1e-7,
            atol=1e-7,
            msg=name,  # 1e-5 is asked for
        )


@pytest.fixture(scope="module")
def alone():
    return train(ITERATIONS)


@pytest.mark.parametrize("num", [2, 4])
def test_processes_train_the_same_networks_as_one(num, alone, tmp_path):
    check_equal(launched(tmp_path, num=num), alone)


@pytest.mark.parametrize("batch_gpu", [4, 8])
def test_a_batch_in_pieces_trains_the_same_networks(batch_gpu, alone):
    check_equal(train(ITERATIONS, batch_gpu), alone)


def test_pieces_of_shares_with_regularizers_in_the_main_losses(tmp_path):
    found = launched(tmp_path, num=2, iterations=4, batch_gpu=4, overrides=WGAN)
    check_equal(found, train(4, overrides=WGAN))


def test_ranks_draw_and_adapt_the_augmentation_of_the_whole_batch(tmp_path):
    lecam = "loss.lecam_weight=0.01"
    ada = [lecam, "augment.mode=ada", "augment.p=0.4", "augment.kimg=0.1", "augment.interval=1"]
    found = launched(tmp_path, num=2, overrides=ada)
    check_equal(found, train(ITERATIONS, overrides=ada))
    assert found["means"]["augment/p"] != pytest.approx(0.4)


def test_without_groups_kept_whole_the_gradients_would_be_others(alone, monkeypatch):
    monkeypatch.setattr("stylegan.training.schedule.group_of", lambda *args, **options: 1)
    found = train(1, 4)
    error = found["gradients"]["D"] - alone["gradients"]["D"]
    assert error.norm() > 1e-6 * alone["gradients"]["D"].norm()
