import math
from functools import partial
from io import BytesIO
from itertools import pairwise

import pytest
import torch
from PIL import Image

import stylegan
from stylegan import images
from stylegan.captions import draw_line, font_size, line_height, row_title_width
from stylegan.cli.generate import main
from stylegan.errors import ConfigError, WeightsError
from stylegan.images import from_pil, to_uint8
from stylegan.interop.load import load
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator, GeneratorConfig


def saved(folder, **options) -> str:
    config = GeneratorConfig(
        **{"resolution": 16, "z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 128}
        | options
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Generator(config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.5)
            network.mapping.w_avg.copy_(torch.randn(16))
    io.save(Networks(generator_ema=network), folder)
    return str(folder)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    return saved(tmp_path_factory.mktemp("weights") / "network")


def run(command, network, **options):
    words = [command, "--network", network, "--device", "cpu"]
    for name, value in options.items():
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(str(value))
    assert main(words) == 0


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(path):
    with Image.open(path) as picture:
        return from_pil(picture)


def direct(network, seed, **options):
    generator = load(network)
    return to_uint8(generator(latents_from_seeds([seed], generator.z_dim), **options))[0]


def test_each_seed_gets_its_image_under_its_name(network, tmp_path, capsys):
    run("images", network, seeds="3,100-101,12345", psi=0.7, cutoff=2, out=tmp_path / "new" / "out")
    names = ["seed0003.png", "seed0100.png", "seed0101.png", "seed12345.png"]
    assert sorted(contents(tmp_path / "new" / "out")) == names
    for name, seed in zip(names, (3, 100, 101, 12345), strict=True):
        expected = direct(network, seed, truncation_psi=0.7, truncation_cutoff=2)
        assert torch.equal(read(tmp_path / "new" / "out" / name), expected)
    assert capsys.readouterr().out == f"4 images in {tmp_path / 'new' / 'out'}\n"


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_a_seed_gives_the_same_file_in_any_company_and_at_any_batch_size(
    network, tmp_path, noise_mode
):
    run("images", network, seeds="0-9", batch=8, noise_mode=noise_mode, out=tmp_path / "a")
    run("images", network, seeds="7,3", batch=1, noise_mode=noise_mode, out=tmp_path / "b")
    together, alone = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {name: together[name] for name in alone} == alone
    assert len(set(together.values())) == 10


def test_long_lists_of_seeds_are_cut_without_a_seam(network, tmp_path, monkeypatch):
    run("images", network, seeds="0-6", out=tmp_path / "a", grid=True)
    monkeypatch.setattr("stylegan.workflows.generate.CHUNK_SEEDS", 3)
    run("images", network, seeds="0-6", out=tmp_path / "b", grid=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_random_noise_follows_the_seed_option(network, tmp_path):
    for folder, options in (
        ("a", {"noise_mode": "random", "seed": 1}),
        ("b", {"noise_mode": "random", "seed": 2}),
        ("again", {"noise_mode": "random", "seed": 2}),
        ("const", {"seed": 2}),
        ("none", {"noise_mode": "none", "seed": 2}),
    ):
        run("images", network, seeds="5", out=tmp_path / folder, **options)
    files = {
        name: contents(tmp_path / name)["seed0005.png"] for name in ("a", "b", "const", "none")
    }
    assert len(set(files.values())) == 4
    assert contents(tmp_path / "again")["seed0005.png"] == files["b"]


def test_a_grid_shows_the_seeds_row_by_row(network, tmp_path):
    run("images", network, seeds="0-4", out=tmp_path, grid=True)
    grid = read(tmp_path / "grid.png")
    assert grid.shape == (3, 32, 48)
    for index in range(5):
        y, x = index // 3 * 16, index % 3 * 16
        assert torch.equal(grid[:, y : y + 16, x : x + 16], direct(network, index))


def test_a_mix_of_all_layers_shows_the_columns_and_of_none_the_rows(network, tmp_path):
    pictures = {}
    for layers in ("all", "none", "0-3", "coarse"):
        path = tmp_path / f"{layers}.png"
        run(
            "mix",
            network,
            rows="1,2",
            cols="3-5",
            layers=layers,
            psi=0.5,
            out=path,
            no_captions=True,
        )
        pictures[layers] = read(path)
        assert pictures[layers].shape == (3, 3 * 18 - 2, 4 * 18 - 2)
    inner = slice(18, 34)  # the first picture that is mixed
    column = direct(network, 3, truncation_psi=0.5)
    row = direct(network, 1, truncation_psi=0.5)
    assert torch.equal(pictures["all"][:, inner, inner], column)
    assert torch.equal(pictures["none"][:, inner, inner], row)
    assert torch.equal(pictures["coarse"], pictures["0-3"])
    assert not torch.equal(pictures["coarse"], pictures["all"])
    assert not torch.equal(pictures["coarse"], pictures["none"])


@pytest.fixture
def written(monkeypatch):
    """The frames as they are before the GIF's palette, and their rate."""
    videos = []
    whole = images.write_gif

    def write_gif(frames, path, *, fps):
        videos.append((frames, fps))
        whole(frames, path, fps=fps)

    monkeypatch.setattr(images, "write_gif", write_gif)
    return videos


@pytest.mark.parametrize("space", ["z", "w"])
@pytest.mark.parametrize("interpolation", ["spline", "linear", "spherical"])
def test_the_key_frames_of_a_video_are_the_stills_of_their_seeds(
    network, tmp_path, written, space, interpolation
):
    run(
        "video",
        network,
        seeds="4,9,2",
        seconds=0.5,
        fps=10,
        psi=0.8,
        cutoff=3,
        space=space,
        interpolation=interpolation,
        out=tmp_path / "a.gif",
    )
    ((frames, fps),) = written
    assert fps == 10
    assert len(frames) == 15
    for index, seed in enumerate((4, 9, 2)):
        expected = direct(network, seed, truncation_psi=0.8, truncation_cutoff=3)
        assert torch.equal(frames[5 * index], expected)
    for frame, following in pairwise(frames):
        assert not torch.equal(frame, following)


def test_a_video_is_a_gif_with_every_frame_that_plays_for_ever(network, tmp_path, capsys):
    path = tmp_path / "loop.gif"
    run("video", network, seeds="4,9", seconds=0.4, fps=20, out=path)
    with Image.open(path) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 16
        assert gif.size == (16, 16)
        assert gif.info["duration"] == 50
        assert gif.info["loop"] == 0
    assert capsys.readouterr().out == f"16 frames in {path}\n"


def test_a_video_without_seeds_wanders_from_the_seed_option(network, tmp_path, written):
    for seed in (1, 1, 2):
        run("video", network, seconds=2, fps=8, seed=seed, out=tmp_path / "a.gif")
    first, again, other = (torch.stack(frames).float() for frames, _ in written)
    assert len(first) == 16
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # It is a loop: from the last frame to the first is a step like the others.
    steps = (first.roll(-1, 0) - first).abs().mean(dim=(1, 2, 3))
    assert steps[-1] < 2 * steps.mean()


def test_a_video_has_the_stored_noise_in_every_frame_or_none(network, tmp_path, written):
    run("video", network, seeds="4", seconds=0.3, fps=10, out=tmp_path / "a.gif")
    run("video", network, seeds="4", seconds=0.3, fps=10, noise_mode="none", out=tmp_path / "b.gif")
    (const, _), (none, _) = written
    assert all(torch.equal(frame, const[0]) for frame in const)
    assert torch.equal(none[0], direct(network, 4, noise_mode="none"))
    assert not torch.equal(none[0], const[0])


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("images", {"seeds": "3-1", "out": "o"}, "backwards"),
        ("images", {"seeds": "1", "out": "o", "batch": 0}, "batch must be 1 or more, got 0"),
        ("images", {"seeds": "1", "out": "o", "cutoff": 99}, "cutoff must be from 0 to 6.* got 99"),
        ("images", {"seeds": "1", "out": "a-file"}, "a-file is a file"),
        ("mix", {"rows": "1", "cols": "2", "out": "o.jpg"}, "ends in .png"),
        ("mix", {"rows": "1", "cols": "2", "out": "o.png", "layers": "fine"}, "'fine'"),
        ("mix", {"rows": "1", "cols": "x", "out": "o.png"}, "'x'"),
        ("video", {"seeds": "1", "out": "o.avi"}, "ends in .mp4, .webm, .gif, or a folder"),
        ("video", {"seeds": "1", "out": "o.gif", "fps": 60}, "at most 50 in a GIF, got 60"),
        ("video", {"seeds": "1", "out": "o.gif", "fps": 0}, "fps must be more than 0.* got 0"),
        ("video", {"seeds": "1", "out": "o.gif", "seconds": 0}, "at least one frame"),
        ("video", {"seeds": "1", "out": "o.gif", "cutoff": -1}, "cutoff .* got -1"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_written(
    network, tmp_path, monkeypatch, command, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    with pytest.raises(ConfigError, match=message):
        run(command, network, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_a_network_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        run("images", str(tmp_path / "nowhere"), seeds="1", out=tmp_path / "o")


def test_a_class_of_a_network_with_labels(tmp_path):
    network = saved(tmp_path / "labels", c_dim=3)
    run("images", network, **{"class": 2}, seeds="5", out=tmp_path / "out")
    generator = load(network)
    expected = generator(latents_from_seeds([5], generator.z_dim), torch.tensor([[0.0, 0, 1]]))
    assert torch.equal(read(tmp_path / "out" / "seed0005.png"), to_uint8(expected)[0])
    run("mix", network, **{"class": 2}, rows="5", cols="5", out=tmp_path / "mix.png")
    run("video", network, **{"class": 2}, seconds=0.08, out=tmp_path / "loop.gif")


def test_a_class_that_is_missing_or_not_there_is_refused(network, tmp_path):
    with pytest.raises(ConfigError, match="--class 0: this generator has no labels"):
        run("images", network, **{"class": 0}, seeds="1", out=tmp_path / "out")
    network = saved(tmp_path / "labels", c_dim=3)
    with pytest.raises(ConfigError, match="--class 3; the classes of this generator are 0 to 2"):
        run("images", network, **{"class": 3}, seeds="1", out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no --class was given; .* 0 to 2.*G\(z, c\)"):
        run("images", network, seeds="1", out=tmp_path / "o")


@pytest.mark.parametrize("command", ["images", "mix", "blend", "truncation", "video"])
def test_help_has_an_example_that_is_a_valid_line(command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("Example: ")]
    prefix = "Example: stylegan generate "
    assert line.startswith(prefix)
    with pytest.raises(WeightsError, match="runs/demo"):  # parsed, and only the network lacks
        main(line.removeprefix(prefix).split())


def test_wrong_usage_exits_with_two():
    with pytest.raises(SystemExit) as caught:
        main(["images", "--no-such-option"])
    assert caught.value.code == 2


def test_space_and_interpolation_decide_what_lies_between_the_keys(network, tmp_path, written):
    for space in ("z", "w"):
        for interpolation in ("spline", "linear", "spherical"):
            run(
                "video",
                network,
                seeds="4,9,2",
                seconds=0.3,
                fps=10,
                space=space,
                interpolation=interpolation,
                out=tmp_path / "a.gif",
            )
    assert len({frames[1].numpy().tobytes() for frames, _ in written}) == 6


@pytest.mark.parametrize(
    "call",
    [
        partial(stylegan.generate.images, seeds="0"),
        partial(stylegan.generate.mix, rows="0", cols="1"),
        partial(stylegan.generate.video, seeds="0-1", out="loop.gif"),
    ],
)
def test_a_psi_that_is_no_number_is_refused_before_anything_is_read(call):
    with pytest.raises(ConfigError, match="psi must be a finite number, got nan"):
        call("/nowhere", psi=math.nan)


def test_an_endless_video_is_refused(network, tmp_path):
    with pytest.raises(ConfigError, match="at least one frame"):
        stylegan.generate.video(network, seeds="1", seconds=math.inf, out=tmp_path / "o.gif")


def test_python_takes_a_loaded_generator_and_gives_images_without_files(network):
    generator = load(network)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    result = stylegan.generate.images(generator, [3, 100], psi=0.7)
    assert result.names == ["seed0003", "seed0100"]
    assert result.paths == []
    for image, seed in zip(result, (3, 100), strict=True):
        assert torch.equal(image, direct(network, seed, truncation_psi=0.7))
    shown = images.read(BytesIO(result._repr_png_()))
    assert torch.equal(shown, torch.cat(list(result), dim=2))
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_python_reads_images_from_their_files(network, tmp_path):
    result = stylegan.generate.images(network, "3-4", out=tmp_path, device=torch.device("cpu"))
    assert result.paths == [tmp_path / "seed0003.png", tmp_path / "seed0004.png"]
    assert torch.equal(result[1], direct(network, 4))
    assert len(list(result)) == 2


def test_grids_name_what_they_show(network, tmp_path):
    """The first tile, the captions around it, and what follows --captions and --scale."""
    line, side = line_height(font_size(64)), 64

    def words(text, width=side):
        return 255 - draw_line(text, width=width, size=font_size(64))

    titles = row_title_width(["seed0001", "seed0012"], font_size(64))
    run("truncation", network, seeds="1,12", psis="0.5", out=tmp_path / "t.png")
    sheet = read(tmp_path / "t.png")
    still = images.enlarge(direct(network, 1, truncation_psi=0.5), 4)
    assert torch.equal(sheet[:, line : line + side, titles:], still)
    assert torch.equal(sheet[0, :line, titles:], words("psi 0.5"))
    middle = slice(line + (side - line) // 2, line + (side - line) // 2 + line)
    size = font_size(64)
    expected = words("seed0001", titles - size // 2)
    place = slice(size // 4, size // 4 + titles - size // 2)
    assert torch.equal(sheet[0, middle, place], expected)
    run("mix", network, rows="1", cols="12", layers="0-3", out=tmp_path / "m.png")
    sheet = read(tmp_path / "m.png")
    assert torch.equal(sheet[0, :line, -2 * side - 2 : -side - 2], words("0-3"))
    assert torch.equal(sheet[0, :line, -side:], words("seed0012"))
    run("blend", network, seeds="7", latents=1, num=1, captions=True, out=tmp_path / "b.png")
    assert torch.equal(read(tmp_path / "b.png")[0, side:], words("7"))
    run("images", network, seeds="3", out=tmp_path / "i", grid=True, captions=True, scale=5)
    sheet = read(tmp_path / "i" / "grid.png")
    assert torch.equal(sheet[:, :80], images.enlarge(direct(network, 3), 5))
    assert torch.equal(sheet[0, 80:], words("seed0003", 80))
    assert torch.equal(read(tmp_path / "i" / "seed0003.png"), direct(network, 3))


@pytest.mark.parametrize("options", [{"captions": True}, {"scale": 2}])
def test_captions_and_scale_need_a_grid(network, tmp_path, options):
    with pytest.raises(ConfigError, match="captions and scale are options of the grid"):
        run("images", network, seeds="1", out=tmp_path / "o", **options)


def test_latents_stand_where_seeds_do(network):
    generator = load(network)
    ws = generator.mapping(latents_from_seeds([3], generator.z_dim), truncation_psi=0.7)
    result = stylegan.generate.images(generator, [ws, 5])
    assert result.names == ["latent", "seed0005"]
    assert torch.equal(result[0], direct(network, 3, truncation_psi=0.7))
    mixed = stylegan.generate.mix(generator, ws, [5], layers="none", captions=False)
    assert (mixed.rows, mixed.columns, mixed.path) == (1, 1, None)
    assert torch.equal(mixed.pixels[:, 18:, 18:], result[0])
    with pytest.raises(ConfigError, match=r"latents must be ws \[N, 6, 16\], got \[1, 5, 16\]"):
        stylegan.generate.images(generator, ws[:, :5])


def test_a_notebook_plays_a_video(network, tmp_path):
    video = stylegan.generate.video(network, tmp_path / "a.gif", seeds=[1, 2], seconds=0.1)
    assert video._repr_html_().startswith('<img src="data:image/gif;base64,')
    folder = stylegan.generate.video(network, tmp_path / "frames", seeds=[1], seconds=0.1)
    assert folder._repr_html_().startswith('<img src="data:image/png;base64,')
