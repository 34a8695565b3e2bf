import pytest
import torch

import stylegan
from stylegan import images
from stylegan.captions import draw_line, font_size, line_height, row_title_width
from stylegan.cli.directions import main
from stylegan.errors import ConfigError, DataError
from stylegan.interop.load import load
from stylegan.latent.directions import read_directions
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.registry import create


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = create("stylegan2-small", 16, channel_base=128, z_dim=16, w_dim=16)
    folder = tmp_path_factory.mktemp("weights") / "network"
    io.save(Networks(generator_ema=networks.generator), folder)
    return str(folder)


def run(command, **options):
    words = [command]
    for name, value in options.items():
        values = value if isinstance(value, list | tuple) else [] if value is True else [value]
        words += ["--" + name.replace("_", "-"), *map(str, values)]
    assert main(words) == 0


@pytest.fixture
def found(network, tmp_path):
    path = tmp_path / "d.safetensors"
    run("find", network=network, layers="coarse", count=3, names="a,b,c", out=path)
    return path


def test_directions_are_found_named_and_listed(network, found, capsys):
    directions = read_directions(found)
    assert directions.names == ["a", "b", "c"]
    assert directions.layers == [0, 1, 2, 3]
    assert directions.facts["network"]["path"] == network
    assert directions.facts["normalize"] is True
    capsys.readouterr()
    run("list", directions=found)
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()] == ["name", "a", "b", "c"]


@pytest.mark.parametrize("method", ["factorize", "pca"])
def test_methods_find_other_directions(network, tmp_path, method):
    run("find", network=network, method=method, out=tmp_path / "d.safetensors")
    assert read_directions(tmp_path / "d.safetensors").names == [f"{method}-{i}" for i in range(8)]


def test_a_sheet_has_a_row_for_each_seed_and_direction(network, found, tmp_path):
    out = tmp_path / "s.png"
    options = {"network": network, "directions": found, "out": out, "no_captions": True}
    run("sheet", seeds="1-2", strengths=[-2, 0, 2], **options)
    sheet = images.read(out)
    assert sheet.shape == (3, 6 * 18 - 2, 3 * 18 - 2)
    middle = [sheet[:, 18 * row : 18 * row + 16, 18:34] for row in range(6)]
    assert torch.equal(middle[0], middle[1])  # of no strength: the seed itself
    assert torch.equal(middle[3], middle[5])
    assert not torch.equal(middle[0], middle[3])
    assert not torch.equal(sheet[:, :16, :16], middle[0])
    run("sheet", seeds="1", names="b", **options)
    assert images.read(out).shape == (3, 16, 5 * 18 - 2)
    run("sheet", network=network, directions=found, seeds="1", names="b", strengths=[2], out=out)
    titles, line = row_title_width(["seed0001, b"], font_size(64)), line_height(font_size(64))
    named = images.read(out)
    assert named.shape == (3, line + 64, titles + 64)
    expected = 255 - draw_line("+2", width=64, size=font_size(64))
    assert torch.equal(named[0, :line, titles:], expected)


def test_edits_add_up_and_there_and_back_gives_the_same_files(network, found, tmp_path):
    options = {"network": network, "directions": found, "seeds": "1-2", "psi": 0.7}
    run("apply", edit="a=2,b=-1", out=tmp_path / "moved", **options)
    run("apply", edit="a=2,b=0.5,a=-2,b=-.5", out=tmp_path / "back", **options)
    run("apply", edit="c=0", out=tmp_path / "still", **options)
    names = ["seed0001.npz", "seed0001.png", "seed0002.npz", "seed0002.png"]
    for folder in ("moved", "back", "still"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    for name in names:
        back, still, moved = (
            (tmp_path / folder / name).read_bytes() for folder in ("back", "still", "moved")
        )
        assert back == still != moved
    # and from the saved latents back again
    options["seeds"] = tmp_path / "moved" / "seed0001.npz"
    run("apply", edit="a=-2,b=1", out=tmp_path / "again", **options)
    again = images.read(tmp_path / "again" / "seed0001.png").int()
    assert (again - images.read(tmp_path / "still" / "seed0001.png").int()).abs().max() <= 1


def test_attribute_directions_raise_their_attribute(network, tmp_path):
    pytest.importorskip("sklearn")
    from stylegan.interop.classifiers import load_classifiers
    from stylegan.interop.load import load

    folder = tmp_path / "classifiers"
    for index in range(2):
        torch.manual_seed(10 + index)
        discriminator = create("stylegan2-small", 16, channel_base=128).discriminator
        with torch.no_grad():  # about half of the images have the attribute
            latents = torch.randn(200, 16)
            logits = discriminator(load(network)(latents))
            discriminator.b4.out.bias -= logits.median()
        io.save(Networks(discriminator=discriminator), folder / f"0{index}-attribute-{index}")
    out = tmp_path / "d.safetensors"
    run("find", network=network, method="labels", classifiers=folder, out=out)
    directions = read_directions(out)
    assert directions.names == ["attribute-0", "attribute-1"]
    generator = load(network)
    ws = generator.mapping(torch.randn(64, 16))
    for name, classifier in zip(directions.names, load_classifiers(folder), strict=True):
        less, more = (
            classifier.logits(generator.synthesis(directions.apply(ws, {name: strength}))).mean()
            for strength in (-2, 2)
        )
        assert more > less


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "d.npz"}, "ends in .safetensors"),
        ({"method": "labels"}, "method labels needs --classifiers"),
        ({"classifiers": "x"}, "method factorize takes no --classifiers"),
        ({"layers": "none"}, "at least one layer, got layers none"),
        ({"layers": "fine"}, "'fine'"),
        ({"count": 17}, "count must be from 1 to 16.* got 17"),
        ({"count": 2, "names": "a"}, "names must be 2 different names, got a"),
        ({"count": 2, "names": "a,a"}, "names must be 2 different names, got a,a"),
        ({"count": 2, "names": "a,b=2"}, "letters, digits, dashes and underscores, got 'b=2'"),
    ],
)
def test_a_mistake_in_finding_is_reported(network, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run("find", **({"network": network, "out": "d.safetensors"} | options))
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_applying_is_reported(network, found, tmp_path):
    options = {"network": network, "directions": found, "seeds": "1", "out": tmp_path / "o"}
    for edit, message in (
        ("a", "'a' in edit .* is not a name"),
        ("a=x", "'a=x' in edit .* is not a name"),
        ("z=1", "there is no direction 'z'"),
    ):
        with pytest.raises(ConfigError, match=message):
            run("apply", edit=edit, **options)
    with pytest.raises(DataError, match="holds no directions"):
        run("apply", edit="a=1", **(options | {"directions": tmp_path / "none"}))


def test_the_factorization_of_the_paper_does_not_normalize(network, found, tmp_path):
    out = tmp_path / "paper.safetensors"
    words = ["find", "--network", network, "--layers", "coarse", "--count", "3", "--no-normalize"]
    assert main([*words, "--out", str(out)]) == 0
    paper, authors = read_directions(out), read_directions(found)
    assert paper.facts["normalize"] is False
    assert not torch.allclose(paper.vectors, authors.vectors, atol=1e-2)


def test_python_finds_and_applies_directions_without_files(network, tmp_path):
    generator = load(network)
    stored = stylegan.directions.find(generator, layers="coarse", count=2, names=["a", "b"])
    assert stored.path is None
    assert stored.directions.facts["network"]["path"] is None
    assert [line.split()[0] for line in str(stored).splitlines()] == ["name", "a", "b"]
    directions = stored.directions
    written = stylegan.directions.find(
        network, layers="coarse", count=2, out=tmp_path / "d.safetensors"
    )
    assert torch.equal(written.directions.vectors, directions.vectors)
    edited = stylegan.directions.apply(generator, directions, [3, 4], {"a": 2.0})
    assert edited.names == ["seed0003", "seed0004"]
    ws = generator.mapping(latents_from_seeds([3], 16))
    assert torch.equal(edited.ws[:1], directions.apply(ws, {"a": 2.0}))
    assert torch.equal(edited[0], stylegan.generate.images(generator, edited.ws[:1])[0])
    grid = stylegan.directions.sheet(
        generator, directions, 3, names="a", strengths=[0, 2], captions=False
    )
    assert (grid.rows, grid.columns) == (1, 2)
    assert torch.equal(grid.pixels[:, :, 18:], edited[0])
