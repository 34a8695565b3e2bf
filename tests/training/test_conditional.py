"""Training on labels: what the networks learn of them, and where they flow."""

import copy
import dataclasses
import json
import shutil
from dataclasses import replace

import pytest
import torch

import stylegan as library
from stylegan import images
from stylegan.captions import MIN_SIDE, draw_line, font_size, line_height
from stylegan.data.shards import ShardSet
from stylegan.latent.project import DEFAULTS
from stylegan.models import progan, stylegan
from stylegan.models.stylegan2 import Generator
from stylegan.profiling.estimate import estimate
from stylegan.training import step
from stylegan.training.checkpoint import list_checkpoints
from stylegan.training.configure import configure
from stylegan.training.log import read_log
from stylegan.training.loop import train
from stylegan.training.presets import PRESETS
from stylegan.training.sampling import sample_inputs
from stylegan.training.state import TrainState
from stylegan.training.step import train_step
from stylegan.workflows.project import open_projector

CPU = torch.device("cpu")
SIZES = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2}


def small_run(preset, *overrides, resolution=16, img_channels=3, label_dim=2, **choices):
    """The preset's run with tiny networks and two classes."""
    sizes = {"channel_base": 128, "channel_max": 16, "precision": "fp32"}
    images = {"resolution": resolution, "img_channels": img_channels, "label_dim": label_dim}
    config, _ = configure(preset, sizes | choices, **images)
    options = dataclasses.asdict(config.generator)
    own = [f"generator.{key}={size}" for key, size in SIZES.items() if options.get(key, 0) > 0]
    if options.get("mapping_layers") == 0:  # w is z, and as many numbers for the labels
        own.append("generator.w_dim=16")
    if config.growth is not None:
        overrides = ("growth.lrs=none", "growth.batches=none", *overrides)
    return config.with_overrides(*own, *overrides)


def draw_labels(num, stream):
    return torch.eye(2)[torch.randint(2, [num], generator=stream)]


def draw_of_three(num, stream):
    return torch.eye(3)[torch.randint(3, [num], generator=stream)]


def halves(num, stream):
    """Images that are light on the left, class 0, or on the right, class 1."""
    c = draw_labels(num, stream)
    images = torch.ones(num, 1, 8, 8)
    images[c[:, 0] > 0, :, :, 4:] = -1
    images[c[:, 1] > 0, :, :, :4] = -1
    return images * (0.6 + 0.4 * torch.rand(num, 1, 1, 1, generator=stream)), c


# Projection of embedded labels, one output for each class, and an auxiliary classifier.
@pytest.mark.parametrize(
    ("preset", "iterations"),
    [
        pytest.param("stylegan2-e", 140, marks=pytest.mark.slow),
        pytest.param("progan", 220, marks=pytest.mark.slow),
        pytest.param("stylegan-f", 300, marks=pytest.mark.slow),
    ],
)
def test_generated_images_follow_their_label(preset, iterations):
    overrides = ["optim.generator_lr=0.01", "optim.discriminator_lr=0.01"]
    if preset != "stylegan2-e":  # the others grow
        overrides.append("growth.initial_resolution=8")
    gamma = None if preset == "progan" else 0.1
    config = small_run(preset, *overrides, resolution=8, img_channels=1, batch=16, gamma=gamma)
    state = TrainState(config, CPU)
    for index in range(iterations):
        reals, c = halves(16, torch.Generator().manual_seed(index))
        train_step(state, reals, real_c=c, draw_labels=draw_labels)
    z = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        light_left = [
            (images[..., :4].mean((1, 2, 3)) > images[..., 4:].mean((1, 2, 3))).float().mean()
            for images in (state.generator(z, c.expand(64, -1)) for c in torch.eye(2).split(1))
        ]
    # both are 1.0 where this was written; without labels in D they are equal
    assert light_left[0] > 0.9
    assert light_left[1] < 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_a_step_with_labels_that_reaches_them(preset):
    config = small_run(preset, "output.samples=4", batch=4)
    state = TrainState(config, CPU)
    before = {name: copy.deepcopy(net.state_dict()) for name, net in state.networks.items()}
    side = state.stage.resolution
    reals, c = torch.randn(4, 3, side, side), torch.eye(2)[[0, 1, 1, 0]]
    terms = train_step(state, reals, real_c=c, draw_labels=draw_labels)
    assert all(torch.isfinite(value) for value in terms.values())
    assert state.skipped == 0
    assert ("label_loss/G" in terms) == state.discriminator.guesses_labels
    for name, network in state.networks.items():
        for key, value in network.state_dict().items():
            if "embed" in key or key.startswith("b4.out"):
                assert not torch.equal(value, before[name][key]), f"{name}.{key}"
    assert estimate(config).activation_bytes > 0


def test_labels_have_a_stream_of_their_own(run_config):
    plain = TrainState(run_config, CPU)
    state = TrainState(conditional(run_config), CPU)
    drawn = sample_inputs(state, "G", 8, draw_of_three)
    assert torch.equal(drawn.z, sample_inputs(plain, "G", 8).z)
    assert sample_inputs(plain, "G", 8).c is None
    assert torch.equal(drawn.c, sample_inputs(state, "G", 8, draw_of_three).c)
    assert not torch.equal(drawn.c, sample_inputs(state, "D", 8, draw_of_three).c)
    state.nimg += 8
    assert not torch.equal(drawn.c, sample_inputs(state, "G", 8, draw_of_three).c)


def test_generated_images_are_judged_with_the_labels_that_they_were_made_for(
    run_config, monkeypatch
):
    state = TrainState(conditional(run_config), CPU)
    expected, real_c = (
        sample_inputs(state, "D", 8, draw_of_three).c,
        torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]],
    )
    seen = {}

    def note(name):
        original = getattr(step, name)

        def noted(*args, **options):
            seen[name] = options
            return original(*args, **options)

        monkeypatch.setattr(step, name, noted)

    note("discriminator_loss")
    note("r1_loss")
    train_step(state, torch.randn(8, 3, 16, 16), real_c=real_c, draw_labels=draw_of_three)
    assert torch.equal(seen["discriminator_loss"]["fake_c"], expected)
    assert torch.equal(seen["discriminator_loss"]["real_c"], real_c)
    assert torch.equal(seen["r1_loss"]["real_c"], real_c)


def test_labels_are_there_for_networks_that_have_some_and_for_no_others(run_config):
    state = TrainState(conditional(run_config), CPU)
    reals, c = torch.randn(8, 3, 16, 16), torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]
    with pytest.raises(ValueError, match="real_c must be given"):
        train_step(state, reals)
    with pytest.raises(ValueError, match="networks with labels need draw_labels"):
        train_step(state, reals, real_c=c)
    with pytest.raises(ValueError, match="real_c must be given"):
        train_step(TrainState(run_config, CPU), reals, real_c=c)


def conditional(config, path=None):
    data = replace(config.data, labels=True, path=config.data.path if path is None else str(path))
    return replace(
        config,
        data=data,
        generator=replace(config.generator, c_dim=3),
        discriminator=replace(config.discriminator, c_dim=3),
    )


@pytest.fixture
def labelled(image_folder, tmp_path):
    """The twelve images with three classes."""
    folder = shutil.copytree(image_folder, tmp_path / "labelled")
    pairs = [[f"{index:02d}.png", ["cat", "dog", "owl"][index % 3]] for index in range(12)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return folder


def test_names_of_classes_go_from_the_set_to_the_weights_and_their_copies(
    run_config, labelled, tmp_path
):
    run = tmp_path / "run"
    train(conditional(run_config, labelled), run, max_minutes=0)
    train(conditional(run_config, labelled), run, max_minutes=0)  # resumed
    names = ("cat", "dog", "owl")
    assert library.load(run).class_names == names
    library.convert(run, tmp_path / "copy")
    assert library.load(tmp_path / "copy").class_names == names
    images = library.generate.images(run, [0], class_index="dog", device="cpu")
    numbered = library.generate.images(run, [0], class_index=1, device="cpu")
    other = library.generate.images(run, [0], class_index="owl", device="cpu")
    assert torch.equal(images.pixels[0], numbered.pixels[0])
    assert not torch.equal(images.pixels[0], other.pixels[0])


def test_names_of_classes_go_through_shards(labelled, tmp_path):
    library.shard(labelled, tmp_path / "shards")
    assert ShardSet(str(tmp_path / "shards")).class_names == ("cat", "dog", "owl")


@pytest.mark.slow
def test_a_run_with_labels_resumes_exactly_and_draws_the_same_sheets(
    run_config, labelled, tmp_path
):
    config = conditional(run_config, labelled)
    train(config, tmp_path / "whole")

    def die(progress):
        if progress.nimg == 104:  # between two checkpoints
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(config, tmp_path / "halves", observe=die)
    train(config, tmp_path / "halves")
    whole, other = (
        torch.load(list_checkpoints(tmp_path / name)[-1])["state"] for name in ("whole", "halves")
    )
    for network in ("generator", "generator_ema", "discriminator"):
        for key, value in whole[network].items():
            assert torch.equal(value, other[network][key]), f"{network}.{key}"
    terms = [[line["terms"] for line in read_log(tmp_path / name)] for name in ("whole", "halves")]
    assert terms[0] == terms[1]
    for sheet in (tmp_path / "whole" / "samples").iterdir():
        assert sheet.read_bytes() == (tmp_path / "halves" / "samples" / sheet.name).read_bytes()


def test_sheets_show_labels_of_the_set(run_config, labelled, tmp_path, monkeypatch):
    seen = []
    forward = Generator.forward
    monkeypatch.setattr(
        Generator, "forward", lambda self, z, c=None: (seen.append(c), forward(self, z, c))[1]
    )
    config = conditional(run_config, labelled).with_overrides("output.samples=20")
    train(config, tmp_path / "run", max_minutes=0)
    first, rest, *again = seen
    assert (first.shape, rest.shape) == ((16, 3), (4, 3))
    classes = torch.cat([first, rest]).argmax(dim=1).tolist()
    assert classes == sorted(classes)  # images of a class are side by side
    assert torch.cat([first, rest]).sum(dim=0).min() > 0
    assert torch.equal(again[0], first)


def test_sheets_of_samples_and_reals_name_the_class_of_each_image(run_config, labelled, tmp_path):
    config = conditional(run_config, labelled)
    train(config, tmp_path / "run", max_minutes=0)
    line = line_height(font_size(MIN_SIDE))
    for path in (tmp_path / "run" / "reals.png", *(tmp_path / "run" / "samples").iterdir()):
        sheet = images.read(path)
        assert sheet.shape == (3, 2 * (64 + line + 2) - 2, 2 * 64 + 2)
        strips = [sheet[0, y + 64 : y + 64 + line, :64] for y in (0, 66 + line)]
        names = [255 - draw_line(name, width=64, size=11) for name in ("cat", "dog", "owl")]
        for strip in strips:
            assert any(torch.equal(strip, name) for name in names)


def test_an_auxiliary_classifier_trains_in_a_run(run_config, labelled, tmp_path):
    sizes = {"resolution": 16, "channel_base": 64, "channel_max": 6, "c_dim": 3}
    config = replace(
        run_config,
        family="progan",
        generator=progan.GeneratorConfig(**sizes, z_dim=8),
        discriminator=progan.DiscriminatorConfig(**sizes),
        data=replace(run_config.data, path=str(labelled), labels=True),
        loss=replace(run_config.loss, pl_weight=0.0, mixing_prob=0.0),
    )
    train(config, tmp_path / "run")
    terms = read_log(tmp_path / "run")[-1]["terms"]
    assert {"label_loss/G", "label_loss/real", "label_loss/fake"} <= terms.keys()


@pytest.mark.parametrize("family", ["stylegan", "stylegan2"])
def test_vectors_are_labels_too(run_config, labelled, tmp_path, family):
    pairs = [[f"{index:02d}.png", [index / 12, -1, 0.5]] for index in range(12)]
    (labelled / "dataset.json").write_text(json.dumps({"labels": pairs}))
    config = run_config
    if family == "stylegan":
        sizes = {"resolution": 16, "channel_base": 64, "channel_max": 6}
        config = replace(
            run_config,
            family="stylegan",
            generator=stylegan.GeneratorConfig(**sizes, z_dim=8, w_dim=8, mapping_layers=2),
            discriminator=stylegan.DiscriminatorConfig(**sizes),
        )
    outcome = train(conditional(config, labelled), tmp_path / "run")
    assert outcome.is_complete
    assert read_log(tmp_path / "run")[-1]["skipped"] == 0


def test_records_hold_the_number_of_a_class(run_config, labelled, tmp_path):
    train(conditional(run_config, labelled), tmp_path / "run", max_minutes=0)
    for index, name in enumerate(("dog", "1", 1)):
        analysis = library.analyze.spectra(
            tmp_path / "run", num=2, class_index=name, device="cpu", out=tmp_path / f"a{index}"
        )
        assert analysis.record["class"] == 1
        projector, _ = open_projector(
            tmp_path / "run",
            perceptual="discriminator",
            weights_dir=None,
            class_index=name,
            config=DEFAULTS["w"],
            device="cpu",
            seed=0,
        )
        assert projector.setting["class"] == 1
