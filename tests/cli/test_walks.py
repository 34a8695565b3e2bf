"""What `stylegan generate` does with saved latents, blends, sweeps and videos."""

import math

import pytest
import torch
from PIL import Image

from stylegan import images
from stylegan.cli.generate import main
from stylegan.errors import ConfigError, DataError
from stylegan.images import to_uint8
from stylegan.interop.load import load
from stylegan.latent.render import map_latents
from stylegan.latent.saved import write_latents
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.noise import noise_maps, synthesize
from stylegan.models.registry import create
from stylegan.workflows.generate import truncation, video

STEP = 18


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = create("stylegan2-small", 16, channel_base=128, z_dim=16, w_dim=16).generator
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.5)
            generator.mapping.w_avg.copy_(torch.randn(16))
    folder = tmp_path_factory.mktemp("weights") / "network"
    io.save(Networks(generator_ema=generator), folder)
    return str(folder)


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    """A file of one latent with noise, and what it looks like."""
    generator = load(network)
    ws = map_latents(generator, latents_from_seeds([77], 16))
    stream = torch.Generator().manual_seed(5)
    noise = {
        layer: torch.randn(values.shape, generator=stream)
        for layer, values in noise_maps(generator).items()
    }
    path = tmp_path_factory.mktemp("cat") / "projected_w.npz"
    write_latents(path, ws, noise=noise)
    return path, to_uint8(synthesize(generator, ws, noise=noise))[0]


def run(command, network, **options):
    words = [command, "--network", network, "--device", "cpu"]
    for name, value in options.items():
        if value is False:
            words.append("--no-" + name.replace("_", "-"))
            continue
        words.append("--" + name.replace("_", "-"))
        if isinstance(value, list | tuple):
            words += map(str, value)
        elif value is not True:
            words.append(str(value))
    assert main(words) == 0


def still(network, seed, **options):
    generator = load(network)
    return to_uint8(generator(latents_from_seeds([seed], 16), **options))[0]


def frames_of(folder):
    return [images.read(path) for path in sorted(folder.iterdir())]


def test_saved_latents_give_their_picture_with_their_noise(network, saved, tmp_path):
    path, picture = saved
    run("images", network, seeds=f"3,{path},{path},4", out=tmp_path)
    name = path.parent.name
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        [f"{name}-2.png", f"{name}.png", "seed0003.png", "seed0004.png"]
    )
    for copy in (f"{name}.png", f"{name}-2.png"):
        assert (tmp_path / copy).read_bytes() == images.png_bytes(picture)
    for seed in (3, 4):  # the file's noise does not stay
        assert torch.equal(images.read(tmp_path / f"seed000{seed}.png"), still(network, seed))


def test_noise_from_a_file_is_that_of_all_images(network, saved, tmp_path):
    path, picture = saved
    run("images", network, seeds=f"77,{path}", noise_from=path, out=tmp_path)
    assert torch.equal(images.read(tmp_path / "seed0077.png"), picture)
    assert torch.equal(images.read(tmp_path / f"{path.parent.name}.png"), picture)


def test_a_file_of_several_latents_without_noise_has_numbered_pictures(network, tmp_path):
    ws = map_latents(load(network), latents_from_seeds([5, 6], 16))
    write_latents(tmp_path / "two.npz", ws)
    run("images", network, seeds=tmp_path / "two.npz", out=tmp_path / "out", grid=True)
    for index, seed in enumerate((5, 6)):
        found = images.read(tmp_path / "out" / f"two-000{index}.png")
        assert torch.equal(found, still(network, seed))
    with pytest.raises(DataError, match="without noise maps"):
        run("images", network, seeds="1", noise_from=tmp_path / "two.npz", out=tmp_path / "o")


def test_a_mix_takes_seeds_and_saved_latents(network, saved, tmp_path):
    run(
        "mix",
        network,
        rows=f"1,{saved[0]}",
        cols="2",
        layers="all",
        captions=False,
        out=tmp_path / "a.png",
    )
    run("mix", network, rows="1,77", cols="2", layers="all", captions=False, out=tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    run(
        "mix",
        network,
        rows="1",
        cols="2",
        psi=0.5,
        cutoff=2,
        layers="none",
        captions=False,
        out=tmp_path / "c.png",
    )
    expected = still(network, 1, truncation_psi=0.5, truncation_cutoff=2)
    assert torch.equal(images.read(tmp_path / "c.png")[:, STEP:, STEP:], expected)


def test_a_truncation_grid_of_chosen_strengths(network, tmp_path):
    run(
        "truncation",
        network,
        seeds="4-5",
        psis=[1, 0, -1],
        cutoff=3,
        captions=False,
        out=tmp_path / "a.png",
    )
    sheet = images.read(tmp_path / "a.png")
    assert sheet.shape == (3, 2 * STEP - 2, 3 * STEP - 2)
    for row, seed in enumerate((4, 5)):
        for column, psi in enumerate((1, 0, -1)):
            cell = sheet[:, row * STEP :, column * STEP :][:, :16, :16]
            expected = still(network, seed, truncation_psi=psi, truncation_cutoff=3)
            assert torch.equal(cell, expected)


def test_a_blend_of_one_latent_is_its_still_and_crossovers_can_be_given(network, tmp_path):
    run("blend", network, seeds="9", latents=1, num=1, out=tmp_path / "a.png")
    assert torch.equal(images.read(tmp_path / "a.png"), still(network, 9))
    run("blend", network, seeds="1-3", latents=3, num=4, crossovers="2,4", out=tmp_path / "b.png")
    run("blend", network, seeds="1-3", latents=3, num=4, seed=1, out=tmp_path / "c.png")
    pictures = [images.read(tmp_path / f"{name}.png") for name in "bc"]
    assert pictures[0].shape == (3, 2 * STEP - 2, 2 * STEP - 2)
    assert not torch.equal(*pictures)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize("fps", [25, 12.5])
def test_videos_decode_to_the_frames_and_the_rate_asked_for(network, tmp_path, suffix, fps):
    path = tmp_path / f"a{suffix}"
    run("video", network, seeds="4,9", seconds=0.8, fps=fps, out=path)
    num = 2 * round(0.8 * fps)
    if suffix == ".gif":
        with Image.open(path) as gif:
            assert (gif.n_frames, gif.size, gif.info["duration"]) == (num, (16, 16), 1000 / fps)
        return
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == fps
    assert len(decoded) == num
    assert decoded[0].shape == (256, 256, 3)  # enlarged
    for index, seed in ((0, 4), (num // 2, 9)):
        pixels = torch.from_numpy(decoded[index]).permute(2, 0, 1)[:, 8::16, 8::16].float()
        assert (pixels - still(network, seed)).abs().mean() < 6  # after compression


@pytest.mark.parametrize("easing", ["none", "in-out", "in", "out"])
@pytest.mark.parametrize("interpolation", ["spline", "linear", "spherical"])
def test_key_frames_are_stills_of_seeds_and_saved_latents(
    network, saved, tmp_path, easing, interpolation
):
    keys = f"4,{saved[0]},9"
    options = {"seconds": 0.4, "fps": 10, "easing": easing, "interpolation": interpolation}
    run("video", network, seeds=keys, noise_from=saved[0], out=tmp_path / "loop", **options)
    run("video", network, seeds=keys, loop=False, out=tmp_path / "open", **options)
    loop, path = frames_of(tmp_path / "loop"), frames_of(tmp_path / "open")
    assert (len(loop), len(path)) == (12, 9)
    assert torch.equal(loop[4], saved[1])
    assert torch.equal(path[0], still(network, 4))
    assert torch.equal(path[4], still(network, 77))
    assert torch.equal(path[8], still(network, 9))


def test_the_frame_after_the_last_is_the_first(network, tmp_path):
    # twice around is once around and again
    options = {"seconds": 0.4, "fps": 10}
    run("video", network, seeds="4,9,2", out=tmp_path / "once", **options)
    run("video", network, seeds="4,9,2,4,9,2", out=tmp_path / "twice", **options)
    once, twice = frames_of(tmp_path / "once"), frames_of(tmp_path / "twice")
    assert len(twice) == 2 * len(once) == 24
    assert all(torch.equal(a, b) for a, b in zip(once + once, twice, strict=True))


def test_a_sweep_of_truncation_goes_there_and_back_or_ends(network, tmp_path):
    options = {"seeds": "4", "seconds": 0.8, "fps": 10, "psi": 1, "psi_to": -0.5}
    run("video", network, out=tmp_path / "loop", **options)
    frames = frames_of(tmp_path / "loop")
    assert len(frames) == 8
    assert torch.equal(frames[0], still(network, 4))
    assert torch.equal(frames[4], still(network, 4, truncation_psi=-0.5))
    assert torch.equal(frames[3], frames[5])
    run("video", network, **(options | {"seeds": "4,9"}), loop=False, out=tmp_path / "open")
    frames = frames_of(tmp_path / "open")
    assert len(frames) == 9
    assert torch.equal(frames[0], still(network, 4))
    assert torch.equal(frames[8], still(network, 9, truncation_psi=-0.5))


def test_a_grid_shares_the_keys_out(network, tmp_path):
    options = {"seconds": 0.2, "fps": 10}
    run("video", network, seeds="1-6", grid="3x1", out=tmp_path / "grid", **options)
    frames = frames_of(tmp_path / "grid")
    assert len(frames) == 4
    assert frames[0].shape == (3, 16, 48)
    for cell, seeds in enumerate(((1, 2), (3, 4), (5, 6))):
        shown = [frame[:, :, 16 * cell : 16 * cell + 16] for frame in frames]
        assert torch.equal(shown[0], still(network, seeds[0]))
        assert torch.equal(shown[2], still(network, seeds[1]))
    run("video", network, grid="2x1", out=tmp_path / "wander", **options)
    both = frames_of(tmp_path / "wander")[0]
    assert not torch.equal(both[:, :, :16], both[:, :, 16:])


def test_noise_that_is_asked_for_changes_in_each_frame(network, tmp_path):
    options = {"seeds": "4", "seconds": 0.3, "fps": 10, "noise_mode": "random"}
    run("video", network, out=tmp_path / "a", **options)
    run("video", network, out=tmp_path / "b", **options)
    run("video", network, out=tmp_path / "c", seed=1, **options)
    a, b, c = (frames_of(tmp_path / name) for name in "abc")
    assert not torch.equal(a[0], a[1])
    assert all(torch.equal(*pair) for pair in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])


def test_scale_enlarges(network, tmp_path):
    run("video", network, seeds="4", seconds=0.1, fps=10, scale=3, out=tmp_path / "a")
    (frame,) = frames_of(tmp_path / "a")
    assert frame.shape == (3, 48, 48)
    assert torch.equal(frame[:, 1::3, 1::3], still(network, 4))


@pytest.mark.parametrize("preset", ["progan", "stylegan-b", "stylegan-f", "stylegan2-d"])
def test_every_family_walks_at_its_level_of_detail(preset, tmp_path):
    generator = create(preset, 16, channel_base=64, channel_max=8).generator
    generator.lod = 1.0
    io.save(Networks(generator_ema=generator), tmp_path / "n")
    for space in ("z", "w"):
        run(
            "video",
            str(tmp_path / "n"),
            seeds="1,2",
            seconds=0.2,
            fps=10,
            space=space,
            out=tmp_path / space,
        )
        assert [frame.shape for frame in frames_of(tmp_path / space)] == [(3, 8, 8)] * 4


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("video", {"seeds": "1", "grid": "2"}, "grid must be columns and rows such as 3x2, got 2"),
        (
            "video",
            {"seeds": "1-3", "grid": "2x1"},
            "3 seeds cannot be divided .* 2 paths of grid 2x1",
        ),
        ("video", {"loop": False}, "without seeds is a loop.*--no-loop"),
        ("video", {"seeds": "a.npz", "space": "z"}, "space z needs seeds"),
        ("video", {"seeds": "1", "scale": 0}, "scale must be from 1 to 64, got 0"),
        ("blend", {"seeds": "1-9", "latents": 5}, "latents must be from 1 to 4, got 5"),
        (
            "blend",
            {"seeds": "1", "latents": 2},
            "1 seeds and latents were given, but each image needs 2",
        ),
        ("blend", {"seeds": "1-9", "num": 0}, "num must be 1 or more, got 0"),
        (
            "blend",
            {"seeds": "1-9", "crossovers": "0"},
            "crossovers must be 1 .* for 2 latents, got 0",
        ),
        (
            "blend",
            {"seeds": "1-9", "crossovers": "1,2"},
            "crossovers must be 1 .* for 2 latents, got 1,2",
        ),
        ("truncation", {"seeds": "x"}, "'x'"),
    ],
)
def test_a_mistake_is_reported(network, tmp_path, command, options, message):
    out = tmp_path / ("o.gif" if command == "video" else "o.png")
    with pytest.raises(ConfigError, match=message):
        run(command, network, out=out, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["blend", "mix", "truncation"])
def test_networks_without_styles_or_mean_are_refused(tmp_path, command):
    io.save(Networks(generator_ema=create("progan", 16, channel_base=64).generator), tmp_path / "n")
    keys = {"rows": "1", "cols": "2"} if command == "mix" else {"seeds": "1-2"}
    with pytest.raises(ConfigError, match=r"no styles to mix|no mapping network"):
        run(command, str(tmp_path / "n"), out=tmp_path / "o.png", **keys)


def spread_and_steps(folder):
    """Return the deviation of the pixels over a video, and the distances between its frames."""
    frames = torch.stack([images.read(path) for path in sorted(folder.iterdir())])
    steps = (frames.float() - frames.roll(1, dims=0).float()).square().mean(dim=(1, 2, 3)).sqrt()
    return frames.float().std(dim=0).mean(), steps


@pytest.mark.parametrize(
    ("seconds", "fps"), [(1, 10), (2, 10), (3, 10), (8, 10), (0.5, 24), (1, 60)]
)
def test_a_random_walk_of_any_length_moves_smoothly(network, tmp_path, seconds, fps):
    video(network, out=tmp_path / "frames", seconds=seconds, fps=fps)
    spread, steps = spread_and_steps(tmp_path / "frames")
    assert spread > 10
    assert steps.min() > 1
    assert steps.max() < 2 * spread


@pytest.mark.parametrize(
    ("preset", "c_dim", "options"),
    [
        ("progan", 0, {}),
        ("stylegan-f", 0, {"psi": 0.5}),
        ("stylegan2-small", 3, {"class_index": 2}),
        ("stylegan2-small", 0, {"space": "z", "seed": 5}),
    ],
)
def test_a_short_walk_of_every_kind_of_network_moves(tmp_path, preset, c_dim, options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = create(preset, 16, channel_base=64, c_dim=c_dim).generator
    video(generator, out=tmp_path / "frames", seconds=1, fps=3, **options)
    spread, steps = spread_and_steps(tmp_path / "frames")
    assert spread > 5
    assert steps.min() > 1


@pytest.mark.parametrize("more", [{}, {"seeds": "1-2"}, {"seeds": "1-2", "psi_to": "0"}])
def test_a_video_of_the_mean_image_is_warned_of(network, tmp_path, caplog, more):
    run("video", network, seconds="0.1", fps="20", psi="0", out=tmp_path / "v", **more)
    assert "with psi 0 each one is the mean image; give another psi" in caplog.text
    assert "several seeds" not in caplog.text


def test_a_still_is_warned_of(network, tmp_path, caplog):
    video(network, out=tmp_path / "still", seeds=[3], seconds=1, fps=4, device="cpu")
    assert "all frames are the same" in caplog.text
    caplog.clear()
    video(network, out=tmp_path / "a", seeds=[3], seconds=1, fps=4, noise_mode="random")
    video(network, out=tmp_path / "b", seeds=[3, 4], seconds=1, fps=4)
    video(network, out=tmp_path / "c", seeds=[3], seconds=1, fps=4, psi_to=0.5)
    assert caplog.text == ""


def test_a_psi_that_is_no_number_is_refused(network, tmp_path):
    with pytest.raises(ConfigError, match="psi must be a finite number, got nan"):
        video(network, tmp_path / "o.gif", seeds="1", psi_to=math.nan)
    with pytest.raises(ConfigError, match="psi must be a finite number, got inf"):
        truncation(network, "1", psis=[1, math.inf])
