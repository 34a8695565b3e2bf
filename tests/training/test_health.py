"""Signs of overfitting, collapse and divergence, and the measurements that they follow from."""

import logging
from dataclasses import replace

import pytest
import torch

from stylegan.data.dataset import ImageDataset
from stylegan.errors import ConfigError
from stylegan.images import from_uint8
from stylegan.rng import generator_for
from stylegan.training.health import MIN_LINES_BEFORE, NUM_LINES, HealthProbe, signs, spread
from stylegan.training.log import RunLog, read_log
from stylegan.training.loop import train
from stylegan.training.sampling import sample_grid_latents
from stylegan.training.state import TrainState

NUM = MIN_LINES_BEFORE + NUM_LINES


def lines_of(num=NUM, **terms):
    """Return log lines; a term is a number, or one for each line."""
    return [
        {
            "kind": "tick",
            "nimg": 100 * index,
            "iteration": 10 * index,
            "skipped": 0,
            "terms": {
                name.replace("__", "/"): value[index] if isinstance(value, list) else value
                for name, value in terms.items()
            },
        }
        for index in range(num)
    ]


def late(value, *, before=0.0, num=NUM_LINES):
    return [before] * (NUM - num) + [value] * num


HEALTHY = {
    "logits__real": 1.0,
    "logits__fake": -1.0,
    "logits__real_sign": 0.6,
    "overfitting__r_v": 0.1,
    "samples__diversity": 0.9,
    "grad_norm__G": 3.0,
    "grad_norm__D": 2.0,
}


def test_a_healthy_run_has_no_signs():
    assert signs(lines_of(**HEALTHY), has_logits=True) == {}


@pytest.mark.parametrize(
    ("sign", "terms", "seen"),
    [
        ("overfitting", {"overfitting__r_v": late(0.6)}, "r_v 0.60"),
        ("collapse", {"samples__diversity": late(0.2, before=0.9)}, "diversity 0.20"),
        ("divergence", {"logits__real": late(90.0, before=1.0)}, "logits/real 90"),
        ("divergence", {"logits__fake": late(-90.0, before=-1.0)}, "logits/fake -90"),
        ("divergence", {"grad_norm__G": late(500.0, before=3.0)}, "grad_norm/G 500, 3 before"),
        ("divergence", {"grad_norm__D": late(500.0, before=3.0)}, "grad_norm/D 500, 3 before"),
    ],
)
def test_a_sign_needs_all_of_the_last_lines_and_names_what_to_change(sign, terms, seen):
    lines = lines_of(**HEALTHY | terms)
    found = signs(lines, has_logits=True)
    assert list(found) == [sign]
    assert seen in found[sign]
    assert "--init-from" in found[sign] or "--augment ada" in found[sign]
    assert signs(lines[:-1], has_logits=True) == {}  # one line fewer


def test_without_held_out_images_the_sign_of_overfitting_is_certainty():
    terms = {name: value for name, value in HEALTHY.items() if name != "overfitting__r_v"}
    certain = lines_of(**terms | {"logits__real_sign": late(0.99, before=0.6)})
    assert "r_t 0.99" in signs(certain, has_logits=True)["overfitting"]
    # held-out images say more
    certain = lines_of(**HEALTHY | {"logits__real_sign": late(0.99, before=0.6)})
    assert signs(certain, has_logits=True) == {}


def test_a_run_that_adapts_its_augmentation_is_not_told_to():
    lines = lines_of(**HEALTHY | {"overfitting__r_v": late(0.6), "augment__p": 0.3})
    text = signs(lines, has_logits=True)["overfitting"]
    assert "--augment ada" not in text
    assert "--augment-target" in text


def test_the_outputs_of_a_critic_are_no_logits():
    terms = {"logits__real": 90.0, "logits__real_sign": 1.0, "overfitting__r_v": 0.9}
    assert signs(lines_of(**HEALTHY | terms), has_logits=False) == {}


def test_samples_that_were_never_diverse_have_not_collapsed():
    assert signs(lines_of(**HEALTHY | {"samples__diversity": 0.2}), has_logits=True) == {}


def test_many_skipped_steps_are_divergence():
    lines = lines_of(**HEALTHY)
    for number, line in enumerate(lines[-NUM_LINES:]):
        line["skipped"] = 5 * number
    assert "20 of the last optimizer steps" in signs(lines, has_logits=True)["divergence"]


def test_the_first_lines_of_a_run_have_no_signs():
    lines = lines_of(MIN_LINES_BEFORE, **HEALTHY | {"overfitting__r_v": 0.9})
    assert signs(lines, has_logits=True) == {}


def test_a_run_is_warned_of_a_sign_once_also_after_resuming(tmp_path, caplog):
    log = RunLog(tmp_path, nimg=0)
    log.write({"kind": "tick", "nimg": 5, "terms": {}})
    for nimg in (10, 20):
        log.warn_once({"collapse": "alike"}, nimg=nimg)
    assert [record["nimg"] for record in read_log(tmp_path)] == [5, 10]
    log.close()
    resumed = RunLog(tmp_path, nimg=10)
    assert [tick["nimg"] for tick in resumed.ticks] == [5]
    resumed.warn_once({"collapse": "alike"}, nimg=20)
    assert caplog.text.count("alike") == 1
    resumed.close()
    earlier = RunLog(tmp_path, nimg=5)  # from a checkpoint before the warning
    earlier.warn_once({"collapse": "alike"}, nimg=10)
    assert caplog.text.count("alike") == 2
    earlier.close()


def test_spread_is_the_standard_deviation_over_images():
    equal = torch.randn(1, 3, 8, 8).expand(4, -1, -1, -1)
    assert spread(equal) == 0
    stream = torch.Generator().manual_seed(0)
    assert spread(3 * torch.randn(400, 3, 8, 8, generator=stream)) == pytest.approx(3, rel=0.01)


@pytest.fixture
def probe_of(run_config, image_folder):
    def make(*overrides):
        config = run_config.with_overrides(*overrides)
        state = TrainState(config, torch.device("cpu"))
        training, held_out = ImageDataset(image_folder, resolution=16).split(0.5, seed=0)

        def reals(num, size):
            return torch.randn(num, 3, size.height, size.width)

        probe = HealthProbe(state, reals, training=training, held_out=held_out, draw_labels=None)
        return state, training, held_out, probe

    return make


def test_the_probe_measures_training_held_out_and_generated_images_at_one_moment(probe_of):
    state, *sets, probe = probe_of()
    stream = generator_for("probe order", seed=state.config.seed)
    order = torch.randperm(len(sets[0]), generator=stream).tolist()
    assert order != sorted(order)  # neighbors in a set are alike
    rows = [order[index % len(order)] for index in range(len(order) // 4 * 4)]
    z, _ = sample_grid_latents(state, 4, None)
    with torch.no_grad():
        means = [state.discriminator(from_uint8(part.gather(rows))).mean() for part in sets]
        means.append(state.discriminator(state.generator_ema(z)).mean())
    training, held_out, generated = (mean.item() for mean in means)
    found = probe.measure()
    assert found["logits/training"] == pytest.approx(training, rel=1e-4, abs=1e-6)
    assert found["logits/held_out"] == pytest.approx(held_out, rel=1e-4, abs=1e-6)
    if training > generated:
        r_v = (training - held_out) / (training - generated)
        assert found["overfitting/r_v"] == pytest.approx(r_v, rel=1e-3)
    assert found["samples/diversity"] > 0
    with torch.no_grad():
        for parameter in state.generator_ema.mapping.parameters():
            parameter.zero_()
    assert probe.measure()["samples/diversity"] == pytest.approx(0, abs=1e-6)


def test_r_v_is_one_where_held_out_images_look_generated(probe_of, monkeypatch):
    *_, probe = probe_of()
    outputs = iter([3.0, -1.0, -1.0])  # training, held-out, generated
    monkeypatch.setattr(probe, "_mean_logit", lambda *_: next(outputs))
    assert probe.measure()["overfitting/r_v"] == 1


def test_values_that_are_not_finite_are_left_out_of_the_log(probe_of):
    state, *_, probe = probe_of()
    for network in (state.generator_ema, state.discriminator):
        for parameter in network.parameters():
            parameter.data.fill_(float("nan"))
    assert probe.measure() == {}


def test_images_of_the_probe_are_augmented_like_the_others(probe_of):
    plain, augmented = (
        probe_of(*overrides)[-1].measure()
        for overrides in ((), ("augment.mode=fixed", "augment.p=1"))
    )
    for name in ("logits/training", "logits/held_out"):
        assert plain[name] != augmented[name]


def test_split_sets_are_disjoint_complete_and_depend_on_the_seed_only(classes_folder):
    whole = ImageDataset(classes_folder, resolution=16, mirror=True)
    train_set, held_out = whole.split(0.25, seed=0)
    names = set(whole.image_names)
    assert set(train_set.image_names) | set(held_out.image_names) == names
    assert not set(train_set.image_names) & set(held_out.image_names)
    assert len(held_out) == round(0.25 * len(names))  # not mirrored
    assert len(train_set) == 2 * (len(names) - len(held_out))
    assert train_set.fingerprint == held_out.fingerprint == whole.fingerprint
    assert whole.split(0.25, seed=0)[1].image_names == held_out.image_names
    assert whole.split(0.25, seed=1)[1].image_names != held_out.image_names
    position = {name: index for index, name in enumerate(whole.image_names)}
    for part in (train_set, held_out):
        indices = [position[name] for name in part.image_names]
        assert part.gather_labels(range(len(indices))).equal(whole.gather_labels(indices))
        assert torch.equal(part[0], whole[indices[0]])
    whole.preload(10**9)
    cached = whole.split(0.25, seed=0)[0]
    assert cached.is_cached
    assert torch.equal(cached[1], train_set[1])


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_side_without_images_is_refused(image_folder, fraction):
    with pytest.raises(ConfigError, match="leaves one side without images"):
        ImageDataset(image_folder, resolution=16).split(fraction, seed=0)


def test_a_run_never_trains_on_held_out_images_and_logs_their_output(
    run_config, tmp_path, monkeypatch
):
    seen = []
    gather = ImageDataset.gather

    def spy(self, indices, **options):
        seen.append(
            (len(self.image_names), {self.image_names[i % len(self.image_names)] for i in indices})
        )
        return gather(self, indices, **options)

    monkeypatch.setattr(ImageDataset, "gather", spy)
    config = replace(run_config, data=replace(run_config.data, holdout=0.25))
    train(config, tmp_path)
    sizes = sorted({size for size, _ in seen})
    held_out, trained = (set.union(*(n for size, n in seen if size == s)) for s in sizes)
    assert not held_out & trained
    assert all("logits/held_out" in line["terms"] for line in read_log(tmp_path))


def test_health_is_logged_without_held_out_images(run_config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(run_config, tmp_path)
    terms = read_log(tmp_path)[-1]["terms"]
    assert 0 < terms["samples/diversity"] < 10
    assert "overfitting/r_v" not in terms
    assert not [record for record in caplog.records if "see docs" in record.message]
