import copy
from contextlib import nullcontext

import pytest
import torch

from stylegan.errors import ConfigError, StyleganError
from stylegan.losses.objective import Loss, LossConfig, discriminator_loss
from stylegan.ops.box import downsample_box, upsample_nearest
from stylegan.training import step
from stylegan.training.ema import update_ema
from stylegan.training.sampling import sample_inputs
from stylegan.training.state import TrainState
from stylegan.training.step import MAX_SKIPPED_IN_ROW, train_step


@pytest.fixture
def state(run_config):
    return TrainState(run_config, torch.device("cpu"))


def batch():
    return torch.randn(8, 3, 16, 16)


def snapshot(network):
    return copy.deepcopy(network.state_dict())


def moved(before, network):
    return {key for key, value in network.state_dict().items() if not value.equal(before[key])}


def test_one_step_moves_every_part_once(state):
    before = {name: snapshot(network) for name, network in state.networks.items()}
    terms = train_step(state, batch())
    noise = {key for key in before["generator"] if key.endswith("noise_const")}
    assert moved(before["generator"], state.generator) == before["generator"].keys() - noise
    assert moved(before["discriminator"], state.discriminator) == before["discriminator"].keys()
    # with ramp-up the average is the generator itself after the first iteration
    for key, value in state.generator.state_dict().items():
        torch.testing.assert_close(state.generator_ema.state_dict()[key], value)
    assert (state.nimg, state.iteration, state.skipped) == (8, 1, 0)
    assert state.pl_mean > 0
    assert {"loss/G", "loss/D", "r1/penalty", "path_length/mean", "grad_norm/R1"} <= terms.keys()


def test_the_average_moves_by_the_images_that_were_shown(run_config):
    config = run_config.with_overrides("ema.rampup=none", "ema.half_life_kimg=1")
    state = TrainState(config, torch.device("cpu"))
    before = snapshot(state.generator_ema)
    train_step(state, torch.randn(16, 3, 16, 16))  # twice the batch of the config
    share = 0.5 ** (16 / 1000)
    for key, parameter in state.generator.named_parameters():
        expected = parameter.detach().lerp(before[key], share)
        torch.testing.assert_close(state.generator_ema.state_dict()[key], expected)


def test_the_averages_of_logits_follow_those_of_the_batch_and_are_saved(run_config):
    config = run_config.with_overrides("loss.lecam_weight=1e-3")
    state = TrainState(config, torch.device("cpu"))
    for _ in range(2):
        before, terms = state.logit_means, train_step(state, batch())
        expected = before.updated(terms["logits/real"], terms["logits/fake"])
        assert (state.logit_means.real, state.logit_means.fake) == (expected.real, expected.fake)
        assert terms["lecam/penalty"] > 0
    resumed = TrainState(config, torch.device("cpu"))
    resumed.load_state_dict(state.state_dict())
    assert resumed.logit_means == state.logit_means != before


@pytest.mark.parametrize(
    ("freeze_d", "frozen"),
    [(0, ()), (3, ("b16.fromrgb", "b16.conv0", "b16.conv1")), (5, ("b16.", "b8.conv0"))],
)
def test_frozen_layers_keep_their_weights_and_all_others_move(run_config, freeze_d, frozen):
    config = run_config.with_overrides(f"optim.freeze_d={freeze_d}", "init_from=somewhere")
    state = TrainState(config, torch.device("cpu"))
    before = snapshot(state.discriminator)
    train_step(state, batch())
    kept = {name for name in before if name.startswith(frozen or "none")}
    assert moved(before, state.discriminator) == before.keys() - kept
    state.load_state_dict(copy.deepcopy(state.state_dict()))
    train_step(state, batch())
    assert moved(before, state.discriminator) == before.keys() - kept


def test_a_frozen_mapping_network_keeps_its_weights_but_not_the_mean_of_w(run_config):
    config = run_config.with_overrides("optim.freeze_mapping=true", "init_from=somewhere")
    state = TrainState(config, torch.device("cpu"))
    before = snapshot(state.generator)
    train_step(state, batch())
    changed = moved(before, state.generator)
    assert {name for name in changed if name.startswith("mapping")} == {"mapping.w_avg"}
    assert {name for name in changed if name.startswith("synthesis")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["optim.freeze_d=8", "init_from=somewhere"], "at most 7"),
        (["optim.freeze_d=-1", "init_from=somewhere"], "freeze_d"),
    ],
)
def test_more_layers_than_there_are_cannot_be_frozen(run_config, options, message):
    with pytest.raises(ConfigError, match=message):
        TrainState(run_config.with_overrides(*options), torch.device("cpu"))


@pytest.mark.parametrize("option", ["optim.freeze_d=2", "optim.freeze_mapping=true"])
def test_random_weights_cannot_be_frozen(run_config, option):
    with pytest.raises(ConfigError, match="need --init-from"):
        run_config.with_overrides(option).check()


def test_lazy_terms_come_at_their_intervals(state):
    present = [set(train_step(state, batch())) for _ in range(5)]
    assert ["r1/penalty" in terms for terms in present] == [True, False, False, False, True]
    assert ["path_length/mean" in terms for terms in present] == [True, False, False, False, True]


def test_weight_zero_leaves_a_regularizer_out(run_config):
    config = run_config.with_overrides("loss.gamma=0", "loss.pl_weight=0")
    state = TrainState(config, torch.device("cpu"))
    terms = train_step(state, batch())
    assert not {"r1/penalty", "path_length/mean"} & terms.keys()
    # as the official code does in configuration C, whose generator has no regularizer
    assert state.optimizer_g.param_groups[0]["lr"] == config.optim.generator_lr * 0.8


def test_every_iteration_has_what_is_not_lazy(run_config):
    config = run_config.with_overrides("loss.r1_interval=none", "loss.pl_interval=none")
    state = TrainState(config, torch.device("cpu"))
    for _ in range(2):
        before = state.pl_mean.clone()
        terms = train_step(state, batch())
        assert {"r1/penalty", "path_length/mean"} <= terms.keys()
        assert not {"grad_norm/R1", "grad_norm/path_length"} & terms.keys()
        assert state.pl_mean > before
    assert state.optimizer_g.param_groups[0]["lr"] == config.optim.generator_lr
    assert state.optimizer_d.param_groups[0]["lr"] == config.optim.discriminator_lr


def test_a_parameter_that_only_the_second_micro_batch_reaches_moves(run_config, monkeypatch):
    state = TrainState(run_config.with_overrides("runtime.batch_gpu=4"), torch.device("cpu"))
    state.iteration = 1  # without regularizers
    const, calls = state.generator.synthesis.b4.const, []

    def loss(generator, *args, **options):
        calls.append(1)
        rest = sum(p.sum() for p in generator.parameters() if p is not const)
        return Loss(total=rest if len(calls) == 1 else rest + const.sum(), terms={})

    monkeypatch.setattr(step, "generator_loss", loss)
    before = const.detach().clone()
    train_step(state, batch())
    assert len(calls) == 2
    assert not torch.equal(const, before)


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
def test_the_order_of_the_networks(run_config, order):
    state = TrainState(run_config.with_overrides(f"optim.order={order}"), torch.device("cpu"))
    kinds = []
    train_step(state, batch(), timer=lambda kind: nullcontext(kinds.append(kind)))
    first, second = ("G", "D") if order == "generator-first" else ("D", "G")
    assert kinds == [first, "regularizers", second, "regularizers"]


def test_wgan_gp_trains(run_config):
    config = run_config.with_overrides("loss.adversarial=wgan-gp", "loss.gamma=0")
    state = TrainState(config, torch.device("cpu"))
    terms = train_step(state, batch())
    assert terms["gradient_penalty"] > 0
    assert (state.skipped, "r1/penalty" in terms) == (0, False)


def grown(config, num):
    """Train to a number of images on noise, and return the state and its stages."""
    state = TrainState(config, torch.device("cpu"))
    stages = [state.stage]
    while state.nimg < num:
        side = state.stage.resolution
        train_step(state, torch.randn(state.stage.batch, 3, side, side))
        stages.append(state.stage)
    return state, stages


def test_all_networks_follow_the_schedule_of_growing(growing_config):
    state, stages = grown(growing_config, 96)
    lods = [2, 2, 4 / 3, 7 / 6, 1, 1, 1, 1, 1, 5 / 6, 1 / 2, 1 / 6, 0, 0, 0]
    assert [stage.lod for stage in stages] == pytest.approx(lods)
    assert [stage.resolution for stage in stages] == [4] * 2 + [8] * 7 + [16] * 6
    assert (state.nimg, state.generator.lod, state.discriminator.lod) == (100, 0, 0)
    for nimg in (0, 30, 60):
        state, _ = grown(growing_config, nimg)
        for _, network in state.networks.items():
            assert network.lod == state.stage.lod


def test_learning_rates_follow_the_level_with_the_lazy_correction(growing_config):
    state, _ = grown(growing_config, 24)
    assert state.stage.resolution == 8
    assert state.optimizer_g.param_groups[0]["lr"] == pytest.approx(0.001 * 4 / 5)
    assert state.optimizer_d.param_groups[0]["lr"] == pytest.approx(0.001 * 4 / 5)
    state, _ = grown(growing_config, 80)
    assert state.optimizer_g.param_groups[0]["lr"] == pytest.approx(0.002 * 4 / 5)


def test_both_optimizers_start_anew_at_the_borders_of_fades(growing_config):
    state = TrainState(growing_config, torch.device("cpu"))
    emptied = []
    while state.nimg < 104:
        side, key = state.stage.resolution, state.stage.key
        train_step(state, torch.randn(state.stage.batch, 3, side, side))
        is_empty = [not optimizer.state for optimizer in (state.optimizer_g, state.optimizer_d)]
        assert is_empty == [state.stage.key != key] * 2
        emptied += [state.nimg] if all(is_empty) else []
    assert emptied == [32, 40, 60, 84]


def test_real_images_fade_like_generated_ones(growing_config, monkeypatch):
    seen = []

    def note(discriminator, reals, *args, **options):
        seen.append(reals)
        return discriminator_loss(discriminator, reals, *args, **options)

    state, _ = grown(growing_config, 64)
    assert state.stage.fade == pytest.approx(0.5)
    monkeypatch.setattr("stylegan.training.step.discriminator_loss", note)
    reals = batch()
    train_step(state, reals)
    small = upsample_nearest(downsample_box(reals))
    torch.testing.assert_close(seen[0], (reals + small) / 2)


def test_styles_cross_over_within_the_current_level(growing_config):
    for nimg, last in ((0, 1), (24, 3), (80, 5)):
        state, _ = grown(growing_config, nimg)
        crossovers = set()
        for place in range(200):
            state.nimg = place
            crossovers.add(sample_inputs(state, "G", 1).crossover)
        assert crossovers == set(range(1, last + 1))


def test_draws_depend_on_place_and_phase_only(state):
    first, again, other = (sample_inputs(state, phase, 8) for phase in ("G", "G", "D"))
    assert torch.equal(first.z, again.z)
    assert not torch.equal(first.z, other.z)
    state.nimg = 8
    assert not torch.equal(first.z, sample_inputs(state, "G", 8).z)


def test_styles_are_mixed_in_nine_of_ten_batches_at_every_crossover(state):
    drawn = []
    for iteration in range(400):
        state.nimg = iteration * 8
        drawn.append(sample_inputs(state, "G", 1))
    share = sum(one.z_mix is not None for one in drawn) / len(drawn)
    assert abs(share - 0.9) < 0.05  # three standard deviations
    assert {one.crossover for one in drawn} == set(range(1, state.generator.num_ws))


def test_training_leaves_the_global_random_state_alone(state):
    reals, before = batch(), torch.random.get_rng_state()
    train_step(state, reals)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_ema_half_way_is_the_mean_and_copies_buffers(state):
    target = state.generator
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.add_(1)
    target.mapping.w_avg.fill_(3)
    before = snapshot(state.generator_ema)
    update_ema(state.generator_ema, target, 0.5)
    after = state.generator_ema.state_dict()
    torch.testing.assert_close(after["synthesis.b4.const"], before["synthesis.b4.const"] + 0.5)
    assert torch.equal(after["mapping.w_avg"], torch.full([12], 3.0))


def test_a_step_with_non_finite_gradients_is_left_out_and_counted(state):
    before = snapshot(state.discriminator)
    state.iteration = 1  # no regularizers
    train_step(state, torch.full([8, 3, 16, 16], torch.nan))
    assert (state.skipped, state.skipped_in_row["D"]) == (1, 1)
    assert moved(before, state.discriminator) == set()
    train_step(state, batch())
    assert (state.skipped, state.skipped_in_row["D"]) == (1, 0)


def test_twenty_bad_steps_of_a_phase_in_a_row_stop_training(state):
    with torch.no_grad():
        state.discriminator.b4.out.bias.fill_(torch.nan)  # spoils all but the path length
    for _ in range(MAX_SKIPPED_IN_ROW - 1):
        train_step(state, batch())
    with pytest.raises(StyleganError, match="non-finite gradients in 20 steps of phase"):
        train_step(state, batch())


def test_a_regularizer_that_always_fails_is_noticed(state, monkeypatch):
    monkeypatch.setattr(
        "stylegan.losses.objective.r1_penalty", lambda logits, images: logits * torch.nan
    )
    monkeypatch.setattr("stylegan.training.step.MAX_SKIPPED_IN_ROW", 3)
    for _ in range(4 * 2):  # R1 comes every fourth iteration
        train_step(state, batch())
    with pytest.raises(StyleganError, match="in 3 steps of phase R1 in a row"):
        train_step(state, batch())


def test_the_mean_path_length_stays_where_its_step_was_left_out(state, monkeypatch):
    monkeypatch.setattr(
        "stylegan.training.step.path_length_loss",
        lambda *args, **options: (
            Loss(total=state.generator.synthesis.b4.const.sum() * torch.nan, terms={}),
            torch.tensor(5.0),
        ),
    )
    train_step(state, batch())
    assert (state.pl_mean.item(), state.skipped) == (0, 1)


def test_the_timer_sees_each_kind_of_work(state):
    kinds = []
    train_step(state, batch(), timer=lambda kind: nullcontext(kinds.append(kind)))
    assert kinds == ["G", "regularizers", "D", "regularizers"]


def test_bfloat16_gradients_point_the_same_way(run_config):
    gradients = {}
    for precision in ("fp32", "bf16"):
        state = TrainState(run_config.with_overrides(f"precision={precision}"), torch.device("cpu"))
        torch.manual_seed(0)
        loss = discriminator_loss(state.discriminator, batch(), batch(), config=LossConfig())
        gradients[precision] = torch.autograd.grad(loss.total, [*state.discriminator.parameters()])
    for exact, rounded in zip(*gradients.values(), strict=True):
        cosine = torch.nn.functional.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0)
        assert cosine > 0.95  # 8 bits in ten layers, and real and fake nearly cancel


@pytest.mark.gpu
def test_a_resumed_step_on_cuda(run_config):
    state = TrainState(run_config, torch.device("cuda"))
    for _ in range(2):
        train_step(state, batch().cuda())
    other = TrainState(run_config, torch.device("cuda"))
    saved = state.state_dict()
    saved["averages"] = {
        part: {name: value.cpu() for name, value in values.items()}
        for part, values in saved["averages"].items()
    }
    other.load_state_dict(saved)
    train_step(other, batch().cuda())
    assert "r1/penalty" in other.averages.report()  # summed before and after the resume


def test_the_phase_of_g_asks_for_no_gradients_of_ds_weights(run_config, monkeypatch):
    state, asked = TrainState(run_config, torch.device("cpu")), []
    real = step.generator_loss

    def loss(generator, discriminator, *args, **options):
        asked.extend(parameter.requires_grad for parameter in discriminator.parameters())
        return real(generator, discriminator, *args, **options)

    monkeypatch.setattr(step, "generator_loss", loss)
    train_step(state, batch())
    assert asked
    assert not any(asked)
    assert all(parameter.requires_grad for parameter in state.discriminator.parameters())
