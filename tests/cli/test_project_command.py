import json
from io import BytesIO

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

import stylegan
from stylegan import images
from stylegan.captions import draw_line, font_size, line_height
from stylegan.cli.generate import main as generate
from stylegan.cli.project import main
from stylegan.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    StyleganError,
    WeightsError,
)
from stylegan.images import to_uint8
from stylegan.latent import projection_folder
from stylegan.latent.project import Projector
from stylegan.latent.projection_folder import ProjectionFolder
from stylegan.latent.saved import read_latents
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models import io
from stylegan.perceptual.discriminator import DiscriminatorDistance

FILES = ["project.json", "projected.png", "projected_w.npz", "steps", "strip.png", "target.png"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = stylegan.create("stylegan2-e", 16, channel_base=128, z_dim=16, w_dim=16)
    folder = tmp_path_factory.mktemp("weights") / "network"
    io.save(networks, folder)
    return str(folder)


@pytest.fixture
def pictures(network, tmp_path):
    generator = stylegan.load(network)
    for seed in (1, 2):
        image = to_uint8(generator(latents_from_seeds([seed], 16)))[0]
        images.write(image, tmp_path / "pictures" / f"seed{seed}.png")
    return tmp_path / "pictures"


def run(*paths, **options):
    words = [str(path) for path in paths]
    options = {"perceptual": "discriminator", "steps": 10, "device": "cpu"} | options
    for name, value in options.items():
        words.append(("--no-" if value is False else "--") + name.replace("_", "-"))
        if not isinstance(value, bool):
            words.append(str(value))
    assert main(words) == 0


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "project.json"
    }


def test_each_picture_gets_a_folder(network, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    run(pictures, network=network, out=out, steps=20)
    for name in ("seed1", "seed2"):
        assert sorted(path.name for path in (out / name).iterdir()) == FILES
        record = json.loads((out / name / "project.json").read_text())
        assert record["options"]["num_steps"] == 20
        assert record["distance"]["name"] == "discriminator"
        assert record["image"]["path"] == f"{pictures}/{name}.png"
        assert set(record["result"]) == {
            "discriminator",
            "share_of_mean_image",
            "psnr",
            "seconds",
        }
        target, found = (
            images.read(out / name / f"{each}.png") for each in ("target", "projected")
        )
        assert torch.equal(target, images.read(pictures / f"{name}.png"))
        strip = images.read(out / name / "strip.png")
        assert strip.shape == (3, 16, 6 * 18 - 2)
        assert torch.equal(strip[:, :, :16], target)
        assert torch.equal(strip[:, :, -16:], found)
        ws = read_latents(out / name / "projected_w.npz", stylegan.load(network)).ws
        assert ws.shape == (1, 6, 16)
    text = capsys.readouterr().out
    assert text.count("discriminator 0.") == 2
    assert "PSNR" in text


def test_captions_and_scale_are_those_of_the_strip(network, pictures, tmp_path):
    out, line = tmp_path / "out", line_height(font_size(64))
    run(pictures, network=network, out=out, steps=10)
    plain = images.read(out / "seed1" / "strip.png")
    others = {name: data for name, data in contents(out).items() if "strip" not in name}
    run(pictures, network=network, out=out, steps=10, captions=True)
    sheet = images.read(out / "seed1" / "strip.png")
    assert sheet.shape == (3, line + 64, 6 * 66 - 2)
    assert torch.equal(sheet[:, line:, :64], images.enlarge(plain[:, :, :16], 4))
    assert torch.equal(sheet[:, line:, -64:], images.enlarge(plain[:, :, -16:], 4))
    titles = ["seed1", "step 2", "step 4", "step 6", "step 8", "step 10"]
    for column, title in enumerate(titles):
        words = 255 - draw_line(title, width=64, size=font_size(64))
        assert torch.equal(sheet[0, :line, 66 * column : 66 * column + 64], words)
    run(pictures, network=network, out=out, steps=10, scale=3)
    sheet = images.read(out / "seed1" / "strip.png")
    assert sheet.shape == (3, 48, 6 * 50 - 2)
    assert others == {name: data for name, data in contents(out).items() if "strip" not in name}


def test_saved_latents_generate_the_same_png(network, pictures, tmp_path):
    run(pictures, network=network, out=tmp_path / "out")
    keys = ",".join(str(tmp_path / "out" / f"seed{seed}" / "projected_w.npz") for seed in (1, 2))
    generate(["images", "--network", network, "--seeds", keys, "--out", str(tmp_path / "again")])
    for name in ("seed1", "seed2"):
        again = (tmp_path / "again" / f"{name}.png").read_bytes()
        assert again == (tmp_path / "out" / name / "projected.png").read_bytes()


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_stopped_projection_goes_on_as_if_it_had_not_stopped(
    network, pictures, tmp_path, monkeypatch, stop
):
    run(pictures, network=network, out=tmp_path / "whole")
    advance = Projector.advance

    def interrupted(self):
        if self.step == stop:
            raise KeyboardInterrupt
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Projector, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(pictures, network=network, out=tmp_path / "stopped")
    states = list((tmp_path / "stopped").glob("*/state.safetensors"))
    assert len(states) == 2
    run(pictures, network=network, out=tmp_path / "stopped")
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")


def test_states_are_saved_on_the_way_and_pictures_that_are_done_are_left(
    network, pictures, tmp_path, monkeypatch
):
    saved = []
    monkeypatch.setattr(projection_folder, "SAVE_SECONDS", 0)
    save_state = ProjectionFolder.save_state
    monkeypatch.setattr(
        ProjectionFolder,
        "save_state",
        lambda self, *a: (saved.append(1), save_state(self, *a)),
    )
    run(pictures, network=network, out=tmp_path / "out", batch=1)
    assert len(saved) == 20
    monkeypatch.setattr(Projector, "advance", lambda self: pytest.fail("projected again"))
    run(pictures, network=network, out=tmp_path / "out")


@pytest.mark.parametrize(
    "changed", [{"steps": 11}, {"seed": 1}, {"space": "w+"}, {"noise_maps": False}]
)
def test_a_folder_of_another_projection_is_refused(network, pictures, tmp_path, changed):
    run(pictures, network=network, out=tmp_path / "out")
    with pytest.raises(CheckpointError, match="holds a projection that differs in"):
        run(pictures, network=network, out=tmp_path / "out", **changed)
    other = torch.zeros(3, 16, 16, dtype=torch.uint8)
    images.write(other, tmp_path / "other" / "seed1.png")
    with pytest.raises(CheckpointError, match="differs in image"):
        run(tmp_path / "other", network=network, out=tmp_path / "out")


def test_options_change_what_is_found(network, pictures, tmp_path):
    found = {}
    for name, options in {
        "plain": {},
        "w+": {"space": "w+"},
        "seed": {"seed": 1},
        "rate": {"learning_rate": 0.01},
        "pixels": {"pixel_weight": 5},
        "stored": {"noise_maps": False},
    }.items():
        out = tmp_path / name
        run(pictures / "seed1.png", network=network, out=out, **options)
        found[name] = (out / "seed1" / "projected_w.npz").read_bytes()
    assert len(set(found.values())) == 6
    stored = read_latents(tmp_path / "stored" / "seed1" / "projected_w.npz", stylegan.load(network))
    assert stored.noise == {}
    layers = read_latents(tmp_path / "w+" / "seed1" / "projected_w.npz", stylegan.load(network))
    assert len(layers.ws[0].unique(dim=0)) == 6


def test_init_goes_on_from_saved_latents(network, pictures, tmp_path):
    run(pictures, network=network, out=tmp_path / "first", steps=20)
    latents = tmp_path / "first" / "seed1" / "projected_w.npz"
    options = {"network": network, "init": latents, "steps": 5, "learning_rate": 0.5}
    run(pictures / "seed1.png", out=tmp_path / "second", **options)
    results = [
        json.loads((tmp_path / name / "seed1" / "project.json").read_text())
        for name in ("first", "second")
    ]
    before, after = (each["result"] for each in results)
    assert after["discriminator"] <= before["discriminator"]
    for name in ("discriminator", "share_of_mean_image"):  # both compared with the mean image
        ratio = after[name] / before[name]
        assert ratio == pytest.approx(after["discriminator"] / before["discriminator"], rel=1e-4)
    assert results[0]["initial"] is None
    assert len(results[1]["initial"]["sha256"]) == 64
    run(pictures / "seed1.png", out=tmp_path / "second", **options)  # it is done
    np.save(tmp_path / "w.npy", np.zeros([1, 6, 16], np.float32))
    with pytest.raises(CheckpointError, match="differs in initial"):
        run(
            pictures / "seed1.png",
            out=tmp_path / "second",
            **(options | {"init": tmp_path / "w.npy"}),
        )
    rows = stylegan.load(network).mapping(latents_from_seeds([1, 2], 16))
    projections = stylegan.project(
        pictures, network, init=rows, perceptual="discriminator", steps=1, learning_rate=1e-6
    )
    assert min(each.psnr for each in projections) > 40  # a row for each picture


def test_init_that_does_not_fit_is_refused(network, pictures, tmp_path):
    out = tmp_path / "out"
    for shape, message in (
        ([3, 6, 16], "there are 3 initial latents for 2 images"),
        ([1, 6, 15], r"w is \[1, 6, 15\], but this network takes \[N, 6, 16\]"),
    ):
        np.save(tmp_path / "w.npy", np.zeros(shape, np.float32))
        with pytest.raises(StyleganError, match=message):
            run(pictures, network=network, out=out, init=tmp_path / "w.npy")
    with pytest.raises(DataError, match="does not exist"):
        run(pictures, network=network, out=out, init=tmp_path / "nowhere.npz")
    assert not out.exists()


def test_a_video_of_the_way(network, pictures, tmp_path):
    av = pytest.importorskip("av")
    run(pictures / "seed1.png", network=network, out=tmp_path, video=True)
    with av.open(str(tmp_path / "seed1" / "video.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 10
    assert (frames[0].width, frames[0].height) == (512, 256)


def test_a_tuned_network_is_saved_beside(network, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("stylegan.workflows.project.TuneConfig", projections_config)
    run(pictures / "seed1.png", network=network, out=tmp_path, tune=True)
    folder = tmp_path / "seed1"
    tuned = stylegan.load(folder / "tuned")
    latents = folder / "projected_w.npz"
    arguments = ["--network", str(folder / "tuned"), "--seeds", str(latents)]
    generate(["images", *arguments, "--out", str(tmp_path / "again")])
    again = (tmp_path / "again" / "seed1.png").read_bytes()
    assert again == (folder / "tuned.png").read_bytes()
    original = stylegan.load(network)
    assert not torch.equal(tuned.synthesis.b16.conv1.weight, original.synthesis.b16.conv1.weight)
    assert io.read_metadata(folder / "tuned")["tuned"]["of"]["path"] == network


def projections_config():
    from stylegan.latent.tune import TuneConfig

    return TuneConfig(num_steps=3)


def test_a_picture_unlike_the_network_s_is_warned_of(network, tmp_path, caplog, monkeypatch):
    images.write(torch.randint(0, 256, [3, 16, 16], dtype=torch.uint8), tmp_path / "noise.png")
    # the images of a network without training are noise themselves
    monkeypatch.setattr(projection_folder, "UNLIKE_FRACTION", 0.1)
    with caplog.at_level("WARNING", "stylegan"):
        run(tmp_path / "noise.png", network=network, out=tmp_path / "a")
    assert "noise.png looks unlike the network's images" in caplog.text
    caplog.clear()
    monkeypatch.setattr(projection_folder, "UNLIKE_FRACTION", 2.0)
    with caplog.at_level("WARNING", "stylegan"):
        run(tmp_path / "noise.png", network=network, out=tmp_path / "b")
    assert caplog.text == ""


def test_a_damaged_state_is_reported(network, pictures, tmp_path):
    folder = tmp_path / "out" / "seed1"
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(b"no state")
    with pytest.raises(CheckpointError, match="state of a projection"):
        run(pictures / "seed1.png", network=network, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ConfigError, "steps must be more than 0"),
        ({"learning_rate": -1}, ConfigError, "learning_rate"),
        ({"batch": 0}, ConfigError, "batch must be 1 or more"),
        ({"class": 1}, ConfigError, "--class 1"),
        ({"perceptual": "lpips", "weights_dir": "nowhere"}, WeightsError, "nowhere"),
    ],
)
def test_a_mistake_is_reported(network, pictures, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(pictures, network=network, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_bad_picture_a_file_in_the_way_and_a_missing_discriminator(network, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"bad.png: empty"):
        run(tmp_path / "bad.png", network=network, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="is a file"):
        run(pictures, network=network, out=tmp_path / "bad.png")
    generator = io.load(network)
    generator.discriminator = None
    io.save(generator, tmp_path / "alone")
    with pytest.raises(ConfigError, match="has no discriminator"):
        run(pictures, network=tmp_path / "alone", out=tmp_path / "out")


def test_lpips_that_cannot_be_had_names_the_alternatives(network, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))

    def offline(*arguments, **options):
        raise WeightsError("no network", expected="one", fix="connect")

    monkeypatch.setattr("stylegan.download.fetch", offline)
    with pytest.raises(WeightsError, match=r"use efficientnet-lite0, which.*discriminator"):
        run(pictures, network=network, out=tmp_path / "out", perceptual="lpips")


@pytest.mark.parametrize("preset", ["progan", "stylegan-b", "stylegan-f", "stylegan2-d"])
def test_every_family_can_be_projected_into(preset, tmp_path):
    networks = stylegan.create(preset, 16, channel_base=64, channel_max=8, c_dim=2)
    io.save(networks, tmp_path / "n")
    images.write(torch.full([3, 20, 30], 99, dtype=torch.uint8), tmp_path / "grey.png")
    options = {"network": tmp_path / "n", "out": tmp_path / "out", "class": 1, "steps": 2}
    run(tmp_path / "grey.png", **options)
    assert (tmp_path / "out" / "grey" / "projected_w.npz").exists()
    if networks.generator.num_ws == 1:
        with pytest.raises(ConfigError, match=r"space w\+ needs"):
            run(tmp_path / "grey.png", **(options | {"out": tmp_path / "o", "space": "w+"}))


def test_python_projects_without_files_what_the_command_writes(network, pictures, tmp_path):
    options = {"perceptual": "discriminator", "steps": 10, "device": "cpu"}
    calls = []
    written = stylegan.project(
        pictures,
        network,
        out=tmp_path / "out",
        progress=lambda *each: calls.append(each),
        **options,
    )
    assert calls[-1] == ("projection steps", 20, 20)
    assert len(calls) == 10
    kept = stylegan.project(pictures, network, **options)
    assert [each.name for each in kept] == ["seed1", "seed2"]
    for a, b in zip(written, kept, strict=True):
        assert a.folder == tmp_path / "out" / a.name
        assert b.folder is None
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.ws, b.ws)
        assert a.noise.keys() == b.noise.keys()
        assert all(torch.equal(a.noise[layer], b.noise[layer]) for layer in a.noise)
        assert (a.distance, a.distance_name) == (pytest.approx(b.distance), "discriminator")
    shown = images.read(BytesIO(kept._repr_png_()))
    assert torch.equal(shown[:, :16, :16], kept[0].target)
    assert torch.equal(shown[:, 18:, 18:], kept[1].image)
    line = line_height(font_size(64))
    named = kept.picture(captions=True).pixels
    assert torch.equal(named[:, 66 + line : 130 + line, 66:], images.enlarge(kept[1].image, 4))
    for x, text in ((0, "seed2"), (66, f"discriminator {kept[1].distance:.3f}")):
        words = 255 - draw_line(text, width=64, size=font_size(64))
        assert torch.equal(named[0, 130 + line :, x : x + 64], words)


def test_python_projects_tensors_into_a_loaded_generator(network, pictures, tmp_path):
    generator = stylegan.load(network)
    target = images.read(pictures / "seed1.png")
    distance = DiscriminatorDistance(stylegan.load_networks(network).discriminator)
    options = {"perceptual": distance, "steps": 3}
    (projection,) = stylegan.project(target, generator, out=tmp_path / "out", **options)
    assert projection.folder == tmp_path / "out" / "image0"
    assert torch.equal(projection.target, target)
    again = stylegan.generate.images(generator, projection.folder / "projected_w.npz")
    assert torch.equal(again[0], projection.image)
    with torch.no_grad():
        generator.synthesis.b16.torgb.bias += 1
    with pytest.raises(CheckpointError, match="differs in network"):
        stylegan.project(target, generator, out=tmp_path / "out", **options)
    with pytest.raises(DataError, match=r"images must be uint8 \['N', 3, 16, 16\]"):
        stylegan.project(target.float(), generator, **options)
    with pytest.raises(ConfigError, match="needs the source of a network"):
        stylegan.project(target, generator, perceptual="discriminator")
    with pytest.raises(
        ConfigError, match="tune concerns the files in the output folder, so it needs out"
    ):
        stylegan.project(target, generator, tune=True)
    with pytest.raises(
        ConfigError, match="captions concerns the files in the output folder, so it needs out"
    ):
        stylegan.project(target, generator, captions=True)


def test_seconds_before_an_interruption_count(network, pictures, tmp_path):
    def stop(description, completed, total):
        if completed == 8:
            raise KeyboardInterrupt

    options = {"perceptual": "discriminator", "steps": 10, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        stylegan.project(pictures / "seed1.png", network, progress=stop, **options)
    path = tmp_path / "seed1" / "state.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"seconds": "1000"}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    path.write_bytes(to_bytes(state, metadata=metadata))
    stylegan.project(pictures / "seed1.png", network, **options)
    record = json.loads((tmp_path / "seed1" / "project.json").read_text())
    assert record["result"]["seconds"] > 1000
