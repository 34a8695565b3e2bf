import pytest
import torch

from stylegan.training.config import EmaConfig, OptimConfig
from stylegan.training.schedule import crossed, ema_beta, is_due
from stylegan.training.state import lazy_adam


@pytest.mark.parametrize(
    ("batch", "beta"),
    [(4, 0.99972278), (8, 0.99944564), (16, 0.99889158), (32, 0.99778439), (64, 0.99557367)],
)
def test_ema_beta_for_a_half_life_of_10_kimg(batch, beta):  # spec, section 17
    assert ema_beta(EmaConfig(half_life_kimg=10), nimg=0, batch=batch) == pytest.approx(beta, 1e-7)


def test_ema_ramps_up_with_the_images_shown():
    config = EmaConfig(half_life_kimg=10, rampup=0.05)
    assert ema_beta(config, nimg=0, batch=32) == 0
    assert ema_beta(config, nimg=640, batch=32) == pytest.approx(0.5)  # half-life 32 images
    assert ema_beta(config, nimg=200_000, batch=32) == pytest.approx(0.99778439)
    assert ema_beta(config, nimg=9_000_000, batch=32) == pytest.approx(0.99778439)


@pytest.mark.parametrize(
    ("lr", "interval", "corrected", "beta2"),
    [  # spec, section 17
        (0.002, 16, 0.00188235, 0.99058546),
        (0.0025, 16, 0.00235294, 0.99058546),
        (0.002, 4, 0.0016, 0.99199197),
        (0.0025, 4, 0.002, 0.99199197),
        (0.002, None, 0.002, 0.99),
    ],
)
def test_lazy_adam(lr, interval, corrected, beta2):
    (group,) = lazy_adam(torch.nn.Linear(1, 1), OptimConfig(), lr, interval).param_groups
    assert group["lr"] == pytest.approx(corrected, rel=1e-5)
    assert group["betas"] == (0.0, pytest.approx(beta2, abs=1e-8))
    assert group["eps"] == 1e-8


def test_the_first_iteration_has_all_lazy_steps():
    assert [iteration for iteration in range(10) if is_due(iteration, 4)] == [0, 4, 8]


def test_a_cadence_is_met_once_however_the_batch_divides_it():
    shown = range(24, 1001, 24)
    assert [nimg for nimg in shown if crossed(nimg, 24, 0.1)] == [
        120, 216, 312, 408, 504, 600, 720, 816, 912
    ]  # fmt: skip
