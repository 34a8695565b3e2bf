import pytest
import torch

from stylegan.training.config import EmaConfig, OptimConfig
from stylegan.training.configure import configure
from stylegan.training.schedule import crossed, ema_beta, is_due, stage_at
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


def test_a_constant_beta_does_not_depend_on_batch_or_ramp():
    config = EmaConfig(half_life_kimg=10, rampup=0.05, beta=0.999)
    assert {ema_beta(config, nimg=nimg, batch=nimg + 1) for nimg in (0, 100, 9_000_000)} == {0.999}


def test_a_run_that_does_not_grow_stays_as_it_is(run_config):
    assert stage_at(run_config, 0) == stage_at(run_config, 10**9)
    assert stage_at(run_config, 0).key == (0, 0)


@pytest.mark.parametrize(
    ("kimg", "lod", "resolution", "batch", "lr"),
    [  # spec, sections 17 and 5.4
        (0, 7, 8, 256, 0.001),
        (600, 7, 8, 256, 0.001),
        (900, 6.5, 16, 128, 0.001),
        (1200, 6, 16, 128, 0.001),
        (1500, 6, 16, 128, 0.001),
        (3300, 4.5, 64, 32, 0.001),
        (7800, 1, 512, 32, 0.003),
        (8100, 0.5, 1024, 32, 0.003),
        (8400, 0, 1024, 32, 0.003),
        (25000, 0, 1024, 32, 0.003),
    ],
)
def test_the_published_schedule(kimg, lod, resolution, batch, lr):
    config, _ = configure("stylegan2-b", resolution=1024)
    stage = stage_at(config, kimg * 1000)
    assert stage.lod == pytest.approx(lod)
    assert (stage.resolution, stage.batch) == (resolution, batch)
    assert stage.generator_lr == stage.discriminator_lr == lr


def test_the_key_changes_at_the_start_and_the_end_of_each_fade(growing_config):
    stages = [stage_at(growing_config, nimg) for nimg in range(200)]
    changes = [nimg for nimg in range(1, 200) if stages[nimg].key != stages[nimg - 1].key]
    # the first image of a fade has weight 1, so it is the second that starts it
    assert changes == [17, 40, 57, 80]
    assert {stage.fade for stage in stages[80:]} == {0}
    assert [stages[nimg].batch for nimg in (16, 17, 56, 57)] == [16, 4, 4, 8]


def test_a_run_whose_first_resolution_is_its_last_never_grows(growing_config):
    config = growing_config.with_overrides("growth.initial_resolution=16")
    assert {stage_at(config, nimg).lod for nimg in range(0, 200, 8)} == {0.0}


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
    assert not is_due(0, None)


def test_a_cadence_is_met_once_however_the_batch_divides_it():
    shown = range(24, 1001, 24)
    assert [nimg for nimg in shown if crossed(nimg, 24, 0.1)] == [
        120, 216, 312, 408, 504, 600, 720, 816, 912
    ]  # fmt: skip
