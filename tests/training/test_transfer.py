"""A run starts from the weights of networks with other options, or refuses them in one line."""

import json
import random
from dataclasses import replace

import pytest
import torch

import stylegan
from stylegan.errors import ConfigError, StyleganError
from stylegan.models import io
from stylegan.models.base import Networks, num_parameters
from stylegan.models.registry import build_discriminator, build_generator, create
from stylegan.models.stylegan2 import Generator
from stylegan.ops.box import upsample_nearest
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel, upsample2d
from stylegan.pixel_format import channel_means
from stylegan.training.checkpoint import list_checkpoints
from stylegan.training.configure import configure
from stylegan.training.loop import train
from stylegan.training.state import TrainState
from stylegan.training.transfer import read_transfer, transfer_weights
from stylegan.workflows.initial import find_initial

TINY = {"channel_base": 64, "channel_max": 6, "z_dim": 8, "w_dim": 12, "mapping_layers": 2}


def randomized(networks: Networks) -> Networks:
    """Give every number another value, so that zeros of the initialization hide nothing."""
    for _, network in networks.items():
        for index, tensor in enumerate(network.state_dict().values()):
            stream = torch.Generator().manual_seed(index)
            tensor.copy_(torch.randn(tensor.shape, generator=stream))
    return networks


def networks_of(name: str = "stylegan2-e", resolution: int = 16, **options) -> Networks:
    tiny = {
        k: v for k, v in TINY.items() if name != "progan" or k not in ("w_dim", "mapping_layers")
    }
    return randomized(create(name, resolution, **(tiny | options)))


def start(source: Networks, preset: str, resolution: int, options=None, **sizes) -> TrainState:
    """Return the state of a new run that adopts the source's options, before weights are copied."""
    loaded = [source.generator_ema, source.discriminator]
    config, _ = configure(
        preset,
        {"device": "cpu", "precision": "fp32", **(options or {})},
        resolution=resolution,
        initial=[network.config for network in loaded],
        **sizes,
    )
    return TrainState(config, torch.device("cpu"))


def images_of(generator, *, seed=0, num=2, c=None):
    z = torch.randn(num, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return generator(z, c)


def test_networks_of_the_same_options_start_equal():
    source = networks_of()
    state = start(source, "stylegan2-e", 16)
    transfer = transfer_weights(state, source)
    assert transfer.notes == ()
    for name, network in state.networks.items():
        theirs = getattr(source, name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in network.state_dict().items())
        table = transfer.networks[name]
        assert table.kept.num_tensors == len(theirs)
        assert table.new.num_tensors == table.dropped.num_tensors == 0
        assert "0 new, 0 dropped" in str(table)


@pytest.mark.parametrize("resolution", [32, 64])
def test_a_larger_skip_generator_starts_as_the_old_images_through_its_own_filter(resolution):
    source = networks_of("stylegan2-e", 16)
    state = start(source, "stylegan2-e", resolution)
    transfer = transfer_weights(state, source)
    expected = images_of(source.generator_ema)
    while expected.shape[-1] < resolution:
        expected = upsample2d(expected, fir_kernel(RESAMPLE_TAPS))
    for network in (state.generator, state.generator_ema):
        assert torch.equal(images_of(network), expected)
    assert transfer.notes == (
        "the first images are the 16x16 images of the initial weights, upsampled with the filter "
        "[1, 3, 3, 1]",
    )
    table = transfer.networks["generator"]
    assert table.new.names[0] == "synthesis.b32.*"
    assert len(table.new.names) == len(state.generator.synthesis.resolutions) - 3
    assert table.dropped.num_tensors == 0


def test_the_new_blocks_of_a_larger_skip_generator_learn():
    source = networks_of()
    state = start(source, "stylegan2-e", 32)
    transfer_weights(state, source)
    state.generator(torch.randn(2, 8)).square().sum().backward()
    assert state.generator.synthesis.b32.torgb.weight.grad.abs().min() > 0


@pytest.mark.parametrize(("preset", "lod"), [("progan", 0), ("stylegan-f", 0), ("stylegan2-b", 1)])
def test_a_larger_growing_network_starts_as_the_old_images_with_repeated_pixels(preset, lod):
    source = networks_of(preset, 16)
    for _, network in source.items():
        network.lod = lod
    side = 16 >> lod
    state = start(source, preset, 32, grown_to=side)
    transfer = transfer_weights(state, source)
    before, after = images_of(source.generator_ema), images_of(state.generator_ema)
    assert after.shape[-1] == side
    assert torch.equal(after, before)
    assert transfer.notes == (
        f"the first images are the {side}x{side} images of the initial weights, pixels repeated "
        "up to 32x32",
    )
    # the fade begins at the same images
    finest = state.generator_ema.img_resolution // side
    state.generator_ema.lod = finest.bit_length() - 1 - 1e-6
    start_of_fade = images_of(state.generator_ema)
    torch.testing.assert_close(start_of_fade, upsample_nearest(before), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "resolution", "reason"),
    [
        ("orig", 32, "the RGB layer of this size is new"),
        ("resnet", 32, "the RGB layer of this size is new"),
        ("mipmap", 32, "the RGB layer of this size is new"),
        ("growing", 32, "the RGB layer of this size is new"),
        ("orig", 8, "the RGB layer of this size is new"),
        ("resnet", 8, "the RGB layer of this size is new"),
        ("skip", 8, "RGB of the larger blocks is missing"),
        ("mipmap", 8, "they are those of its image pyramid at this size"),
        ("growing", 8, "RGB of this size was last trained when the network had grown to it"),
    ],
)
def test_images_of_another_size_that_cannot_be_the_old_ones_are_warned_of(
    architecture, resolution, reason, caplog
):
    options = {"generator.architecture": architecture, "discriminator.architecture": architecture}
    source = networks_of(architecture=architecture)
    state = start(source, "stylegan2-e", resolution, options)
    transfer = transfer_weights(state, source)
    (note,) = transfer.notes
    expected = f"the first images differ from the 16x16 images of the initial weights: {reason}"
    assert note == expected
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [expected]
    if architecture == "mipmap" and resolution == 8:
        ws = source.generator_ema.mapping(torch.ones(1, 8))
        with torch.no_grad():
            old, new = source.generator_ema.synthesis, state.generator_ema.synthesis
            assert torch.equal(new.images(ws[:, :4])[0], old.images(ws)[1])


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
@pytest.mark.parametrize("preset", ["progan", "stylegan-f", "stylegan2-e"])
def test_grey_is_the_mean_of_rgb_in_both_networks(preset, before, after):
    source = networks_of(preset, img_channels=before)
    state = start(source, preset, 16, img_channels=after)
    transfer = transfer_weights(state, source)
    assert len(transfer.notes) == 1
    assert "RGB layers were converted" in transfer.notes[0]
    old, new = images_of(source.generator_ema), images_of(state.generator_ema)
    converted = old.mean(dim=1, keepdim=True) if after == 1 else old.expand(-1, 3, -1, -1)
    torch.testing.assert_close(new, converted, rtol=1e-4, atol=1e-4)
    grey = torch.randn(4, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            state.discriminator(grey.expand(-1, after, -1, -1)),
            source.discriminator(grey.expand(-1, before, -1, -1)),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("preset", ["progan", "stylegan-f", "stylegan2-e", "stylegan2-f"])
def test_rgb_weights_start_rgba_networks_with_opaque_images(preset):
    source = networks_of(preset, img_channels=3)
    state = start(source, preset, 16, img_channels=4)
    transfer = transfer_weights(state, source)
    assert transfer.notes == (
        "the RGB layers were converted: colors are kept, and images are opaque",
    )
    old, new = images_of(source.generator_ema), images_of(state.generator_ema)
    torch.testing.assert_close(new[:, :3], old)
    assert torch.equal(new[:, 3], torch.ones_like(new[:, 3]))
    images = torch.randn(4, 4, 16, 16)
    with torch.no_grad():
        logits = state.discriminator(images)
        torch.testing.assert_close(
            logits, source.discriminator(images[:, :3]), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("after", [2, 7])
def test_other_channels_are_means_of_neighbors(after):
    source = networks_of(img_channels=3)
    state = start(source, "stylegan2-e", 16, img_channels=after)
    assert "a mean of neighbors of 3" in transfer_weights(state, source).notes[0]
    old, new = images_of(source.generator_ema), images_of(state.generator_ema)
    expected = torch.einsum("rc,nchw->nrhw", channel_means(3, after), old)
    torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["growing", "mipmap"])
def test_another_use_of_the_same_tensors_is_warned_of(architecture):
    source = networks_of(architecture=architecture)
    options = {"generator.architecture": "skip", "discriminator.architecture": "resnet"}
    transfer = transfer_weights(start(source, "stylegan2-e", 32, options), source)
    assert transfer.networks["generator"].new.names == ("synthesis.b32.*",)
    (note,) = transfer.notes
    assert "differ from the 16x16 images" in note
    assert "or their options differ" in note


def test_a_run_with_labels_starts_as_the_network_without_them():
    source = networks_of("stylegan2-e", 16)
    state = start(source, "stylegan2-e", 32, label_dim=3)
    transfer = transfer_weights(state, source)
    expected = upsample2d(images_of(source.generator_ema), fir_kernel(RESAMPLE_TAPS))
    for c in torch.eye(3):
        found = images_of(state.generator_ema, c=c.expand(2, -1))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert "labels of 0 numbers (c_dim), this run of 3" in transfer.notes[0]
    assert "upsampled" in transfer.notes[1]
    assert transfer.networks["generator"].new.names[-1] == "mapping.embed.*"


def test_a_run_without_labels_keeps_the_columns_of_z():
    source = networks_of("stylegan2-e", 16, c_dim=3)
    state = start(source, "stylegan2-e", 16)
    transfer_weights(state, source)
    silent = source.generator_ema.mapping
    torch.nn.init.zeros_(silent.embed.weight)
    torch.nn.init.zeros_(silent.embed.bias)
    expected = images_of(source.generator_ema, c=torch.eye(3)[:2])
    torch.testing.assert_close(images_of(state.generator_ema), expected, rtol=1e-4, atol=1e-4)


def test_a_source_without_a_discriminator_is_enough(caplog):
    source = networks_of()
    state = start(source, "stylegan2-e", 16)
    transfer = transfer_weights(state, Networks(generator_ema=source.generator_ema))
    assert transfer.networks.keys() == {"generator", "generator_ema"}
    assert "discriminator: not in the source, starts with random weights" in caplog.text


@pytest.mark.parametrize("options", [{"z_dim": 5, "w_dim": 7, "channel_max": 3}, {}])
def test_weights_that_fit_nowhere_are_refused(run_config, options):
    other = "stylegan-f" if options == {} else "stylegan2-e"
    state = TrainState(run_config, torch.device("cpu"))
    message = "another family" if options == {} else "no weight that fits the generator"
    with pytest.raises(ConfigError, match=message):
        transfer_weights(state, networks_of(other, img_channels=1, **options))


def test_what_was_kept_is_in_the_run_folder_also_after_resuming(run_config, tmp_path, caplog):
    caplog.set_level("INFO", logger="stylegan")
    config = replace(run_config, output=replace(run_config.output, total_kimg=0.008))
    source = Networks(generator=Generator(replace(config.generator, resolution=32)))
    train(config, tmp_path / "run", initial=source)
    written = json.loads((tmp_path / "run" / "initial.json").read_text())
    table = written["networks"]["generator"]
    assert table["dropped"]["names"] == ["synthesis.b32.*"]
    assert table["new"] == {"num_tensors": 0, "num_parameters": 0, "names": []}
    state = TrainState(config, torch.device("cpu"))
    transfer = transfer_weights(state, source)
    assert read_transfer(tmp_path / "run") == transfer
    dropped = sum(key.startswith("synthesis.b32.") for key in source.generator.state_dict())
    assert f"{dropped} dropped (synthesis.b32.*)" in caplog.text
    assert str(transfer).startswith("generator: ")
    longer = replace(config, output=replace(config.output, total_kimg=0.016))
    train(longer, tmp_path / "run")
    assert read_transfer(tmp_path / "run") == transfer
    assert len(list_checkpoints(tmp_path / "run")) > 0
    assert read_transfer(tmp_path) is None


def test_a_run_from_weights_keeps_the_layers_that_it_freezes(run_config, tmp_path):
    source = networks_of(resolution=16)
    io.save(source, tmp_path / "source")
    options = {"freeze_d": 4, "freeze_mapping": True, "kimg": 0.016, "batch": 8}
    result = stylegan.train(
        run_config.data.path,
        tmp_path / "run",
        preset="stylegan2-e",
        resolution=16,
        metrics="none",
        init_from=str(tmp_path / "source"),
        **options,
    )
    trained = io.load(result.snapshot)
    for before, after, frozen in (
        (source.discriminator, trained.discriminator, "b16."),
        (source.generator, trained.generator, "mapping."),
    ):
        kept = {
            name
            for name, value in after.named_parameters()
            if torch.equal(value, before.get_parameter(name))
        }
        assert kept == {name for name in kept if name.startswith(frozen)} != set()


def test_layers_without_initial_weights_cannot_be_frozen():
    source = networks_of(resolution=16)
    larger = start(source, "stylegan2-e", 32, {"freeze_d": 2, "init_from": "source"})
    with pytest.raises(ConfigError, match=r"discriminator would stay random: .* no b32\."):
        transfer_weights(larger, source)
    equal = start(source, "stylegan2-e", 16, {"freeze_d": 2, "init_from": "source"})
    transfer_weights(equal, source)
    source.discriminator = None
    with pytest.raises(ConfigError, match="discriminator would stay random"):
        transfer_weights(equal, source)


PRESETS = ("progan", "stylegan-b", "stylegan-c", "stylegan-f", "stylegan2-b", "msg-stylegan2")


PAIRS = (
    *[("skip", "resnet"), ("skip", "orig"), ("resnet", "skip"), ("orig", "resnet")],
    *[("mipmap", "mipmap"), ("growing", "growing")],
)


def random_networks(
    dice: random.Random, preset: str | None = None
) -> tuple[str, dict[str, object], dict[str, object]]:
    """Draw a preset unless it is given, options of its networks, and sizes of its images."""
    preset = preset or dice.choice([*PRESETS, *["stylegan2-e"] * 6])
    options: dict[str, object] = {
        "channel_base": dice.choice([32, 48, 64]),
        "channel_max": dice.choice([4, 6]),
        "generator.z_dim": dice.choice([4, 6]),
    }
    if preset not in ("progan", "stylegan-b"):
        options["generator.w_dim"] = dice.choice([4, 6])
        options["generator.mapping_layers"] = dice.choice([1, 2])
    if preset == "stylegan-b":
        options["generator.w_dim"] = options["generator.z_dim"]
    if preset in ("stylegan2-b", "stylegan2-e"):
        options["generator.label_norm"] = dice.choice(["separate", "joint"])
        options["discriminator.label_head"] = dice.choice(["projection", "select"])
    if preset == "stylegan2-e":
        kinds = dice.choice(PAIRS)
        for network, kind in zip(("generator", "discriminator"), kinds, strict=True):
            options[f"{network}.architecture"] = kind
    sizes: dict[str, object] = {
        "resolution": dice.choice([8, 16, 32]),
        "img_channels": dice.choice([1, 3, 3, 4]),
        "label_dim": dice.choice([0, 0, 2, 3]),
    }
    return preset, options, sizes


def refusal_of_pair(seed: int, folder) -> str | None:
    """Start a run of random options from a network of other random options; return a refusal."""
    dice = random.Random(seed)
    preset, options, sizes = random_networks(dice)
    config, _ = configure(preset, options, **sizes)
    source = randomized(
        Networks(
            generator_ema=build_generator(config.family, config.generator),
            discriminator=build_discriminator(config.family, config.discriminator),
        )
    )
    if source.generator_ema.is_growing:
        level = dice.choice([0, 0, 1, 0.5])
        source.generator_ema.lod = source.discriminator.lod = level
    dropped = dice.choice([None, None, None, "discriminator"])
    if dropped:
        source.discriminator = None
    io.save(source, folder / f"source{seed}")

    other, others, sizes = random_networks(dice, dice.choice([preset, preset, None]))
    given = others if dice.random() < 0.5 else {}  # what is not given is adopted from the source
    given["device"], given["precision"] = "cpu", "fp32"
    try:
        initial = find_initial(str(folder / f"source{seed}"), folder / "run")
        new, _ = configure(
            other, given, **sizes, initial=initial.architectures, grown_to=initial.grown_to
        )
        state = TrainState(new, torch.device("cpu"))
        transfer = transfer_weights(state, initial.networks)
    except StyleganError as error:
        return str(error)
    for name, network in state.networks.items():
        if name not in transfer.networks:
            assert dropped
            continue
        table, parameters = transfer.networks[name], num_parameters(network)
        assert table.kept.num_tensors + table.new.num_tensors == len(network.state_dict())
        assert table.kept.num_parameters + table.new.num_parameters == parameters
        original = getattr(source, name) or source.generator_ema
        assert table.kept.num_tensors + table.dropped.num_tensors == len(original.state_dict())
        assert "\n" not in str(table)
    c = torch.eye(2, new.generator.c_dim) if new.generator.c_dim else None
    images = images_of(state.generator_ema, c=c)
    assert images.isfinite().all()
    is_upsampled = "upsampled" in " ".join(transfer.notes)
    if is_upsampled and new.generator.img_channels == source.generator_ema.img_channels:
        label = torch.eye(2, source.generator_ema.c_dim) if source.generator_ema.c_dim else None
        expected = images_of(source.generator_ema, c=label)
        while expected.shape[-1] < images.shape[-1]:
            expected = upsample2d(expected, fir_kernel(RESAMPLE_TAPS))
        torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-3)
    return None


def check_pairs(seeds, folder) -> int:
    """Check that each pair starts or is refused in one line; return how many start."""
    refusals = [refusal_of_pair(seed, folder) for seed in seeds]
    assert all(line.isprintable() for line in refusals if line is not None)
    return refusals.count(None)


@pytest.mark.parametrize("first", range(0, 36, 12))
def test_any_pair_of_options_starts_or_is_refused_in_one_line(first, tmp_path):
    assert check_pairs(range(first, first + 12), tmp_path) >= 3


@pytest.mark.slow
def test_hundreds_of_pairs_start_or_are_refused_in_one_line(tmp_path):
    assert 150 < check_pairs(range(36, 536), tmp_path) < 450


def test_weights_start_networks_of_another_shape_of_the_same_level(run_config):
    def state_of(resolution):
        config = replace(
            run_config,
            generator=replace(run_config.generator, resolution=resolution),
            discriminator=replace(run_config.discriminator, resolution=resolution),
        )
        return TrainState(config, torch.device("cpu"))

    state, initial = state_of("12x20"), state_of(16).networks  # (3x5) * 2^2 and (4x4) * 2^2
    transfer = transfer_weights(state, initial)
    new = transfer.networks["generator_ema"].new.names
    assert set(new) == {
        "synthesis.b4.const",
        *(f"synthesis.{layer}.noise_const" for layer in ("b4.conv1", "b8.conv0", "b8.conv1")),
        *(f"synthesis.b16.{layer}.noise_const" for layer in ("conv0", "conv1")),
    }
    assert transfer.networks["discriminator"].new.names == ("b4.fc.weight",)
    assert any("differ from the 16x16 images" in note for note in transfer.notes)
