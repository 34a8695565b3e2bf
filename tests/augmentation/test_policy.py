"""Which augmentation a run uses, and how its probability adapts."""

import itertools
from dataclasses import replace

import pytest
import torch

from stylegan.augmentation.parameters import AugmentParameters
from stylegan.augmentation.policy import (
    Augmentation,
    AugmentConfig,
    Controller,
    draw_augmentation,
)
from stylegan.errors import ConfigError
from stylegan.training import step
from stylegan.training.configure import configure
from stylegan.training.loop import train
from stylegan.training.sampling import sample_augmentation
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

CPU = torch.device("cpu")


def controlled(signs, *, batch=8, **options):
    """Return p after each iteration, with a mean sign of the outputs for each."""
    controller = Controller(AugmentConfig(mode="ada", kimg=0.32, **options), CPU)
    probabilities = []
    for sign in signs:
        controller.add(torch.tensor(sign), batch)
        controller.advance(batch)
        probabilities.append(controller.p)
    return probabilities


def test_p_moves_towards_the_target_every_four_iterations():
    # 4 * 8 images of 320 move p by 0.1
    assert controlled([1.0] * 8) == pytest.approx([0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0.2])
    assert controlled([0.5] * 4, p=0.3)[-1] == pytest.approx(0.2)
    at_target = controlled([1.0, 0.25, 0.25, 0.5], p=0.3, target=0.5)
    assert at_target[-1] == pytest.approx(0.3)
    assert controlled([-1.0] * 8)[-1] == 0
    assert controlled([1.0] * 80)[-1] == 1


def test_the_signs_of_both_phases_count():
    controller = Controller(AugmentConfig(mode="ada", kimg=0.32, interval=1), CPU)
    controller.add(torch.tensor(1.0), 8)
    controller.add(torch.tensor(0.1), 8)
    controller.advance(8)
    assert controller.p == 0  # 0.55 is below 0.6


def test_a_restored_controller_goes_on():
    whole = controlled([1.0] * 11)
    first = Controller(AugmentConfig(mode="ada", kimg=0.32), CPU)
    for _ in range(6):
        first.add(torch.tensor(1.0), 8)
        first.advance(8)
    second = Controller(AugmentConfig(mode="ada", kimg=0.32), CPU)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        second.add(torch.tensor(1.0), 8)
        second.advance(8)
    assert second.p == whole[-1]


def test_without_augmentation_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    for config, p in ((AugmentConfig(), 0.0), (AugmentConfig(mode="ada"), 0.0)):
        assert draw_augmentation(config, p, 4, generator) is None
    assert torch.equal(generator.get_state(), before)


def augmented(config, **options):
    return replace(config, augment=AugmentConfig(kimg=0.2, interval=1, **options))


@pytest.mark.parametrize(
    "mode",
    ["ada", *(pytest.param(m, marks=pytest.mark.slow) for m in ("fixed", "diffaugment", "apa"))],
)
def test_a_run_is_continued_exactly(run_config, tmp_path, mode):
    config = augmented(run_config, mode=mode, p=0.3)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "stopped", max_minutes=0)
    train(config, tmp_path / "stopped")
    states = [
        torch.load(tmp_path / run / "checkpoints" / "000000160.pt", weights_only=True)["state"]
        for run in ("whole", "stopped")
    ]
    for name in ("generator", "discriminator"):
        first, second = (state[name] for state in states)
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert states[0]["augment_control"] == states[1]["augment_control"]
    assert (states[0]["augment_control"]["p"] != 0.3) == (mode in ("ada", "apa"))


def step_of(config, *, batch_gpu=None):
    config = config.with_overrides(f"runtime.batch_gpu={batch_gpu or 'none'}")
    state = TrainState(config, CPU)
    reals = torch.randn([8, 3, 16, 16], generator=torch.Generator().manual_seed(1))
    stats = [train_step(state, reals) for _ in range(2)]
    return state, stats


@pytest.mark.parametrize("mode", ["ada", "diffaugment", "apa"])
def test_micro_batches_train_what_the_batch_trains(run_config, mode):
    config = augmented(run_config, mode=mode, p=0.5)
    (whole, _), (split, _) = step_of(config), step_of(config, batch_gpu=4)
    assert whole.augment_control.p == split.augment_control.p
    for first, second in zip(
        whole.discriminator.parameters(), split.discriminator.parameters(), strict=True
    ):
        torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["ada", "diffaugment", "apa"])
def test_each_mode_changes_what_is_trained_and_none_does_not(run_config, mode):
    (plain, _), (other, stats) = (
        step_of(run_config),
        step_of(augmented(run_config, mode=mode, p=0.5)),
    )
    first, second = plain.discriminator.state_dict(), other.discriminator.state_dict()
    assert any(not torch.equal(first[key], second[key]) for key in first)
    assert ("augment/p" in stats[0]) == (mode != "diffaugment")
    assert "r1/real_sign" not in stats[0]


def test_the_speed_of_p_follows_from_the_images_and_the_length():
    def speed(num_images, kimg, **options):
        config, reasons = configure(
            "stylegan2-small",
            {"augment": "ada", "kimg": kimg} | options,
            resolution=16,
            num_images=num_images,
        )
        return config.augment.kimg, reasons["augment.kimg"]

    assert speed(70_000, 25_000) == (500, "published (Karras et al. 2020, ADA)")
    assert speed(600, 1000) == (90, "150 views of each of 600 images")
    assert speed(600, 100) == (20, "a fifth of the run")
    assert speed(70_000, 25_000, init_from="x")[0] == 100


def test_modes_that_cannot_work_are_refused(family_config):
    with pytest.raises(ConfigError, match="ada needs loss"):
        augmented(family_config("progan"), mode="ada").check()
    augmented(family_config("progan"), mode="fixed", p=0.2).check()
    with pytest.raises(ConfigError, match="does not support architecture mipmap"):
        configure("msg-stylegan2", {"augment": "ada"}, resolution=16)
    for name, value in (("p", 1.5), ("target", -0.1), ("interval", 0), ("kimg", -1.0)):
        with pytest.raises(ConfigError, match=f"augment.{name}"):
            AugmentConfig(**{name: value})


def test_every_input_of_the_discriminator_is_augmented_with_draws_of_its_own(
    run_config, monkeypatch
):
    applied = []

    def sample(state, use, num):
        def apply(images, parameters):
            applied.append((use, len(images), images.requires_grad))
            return images

        return Augmentation(apply, AugmentParameters(values={"p": torch.zeros(num, 1)}))

    monkeypatch.setattr(step, "sample_augmentation", sample)
    state = TrainState(run_config, CPU)
    train_step(state, torch.randn(8, 3, 16, 16))
    assert state.augment_control.state_dict()["num_signs"] == 16  # of D and of R1
    # gradients reach the generator, and in R1 the images before augmentation
    expected = [("G", True), ("reals", False), ("fakes", False), ("R1", True)]
    assert applied == [(use, 8, requires_grad) for use, requires_grad in expected]


def test_the_draws_of_each_use_differ(run_config):
    state = TrainState(augmented(run_config, mode="fixed", p=0.9), CPU)
    uses = [sample_augmentation(state, use, 8) for use in ("G", "reals", "fakes", "R1")]
    hues = [use.parameters.values["hue"] for use in uses]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(hues, 2))


def test_apa_with_probability_1_shows_generated_images_only(run_config):
    state = TrainState(augmented(run_config, mode="apa", p=1.0), CPU)
    stats = train_step(state, torch.full([8, 3, 16, 16], 5.0))
    torch.testing.assert_close(stats["logits/real"], stats["logits/fake"])
