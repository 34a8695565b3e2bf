import json

import pytest
import torch
from safetensors.torch import save_file

import stylegan
from stylegan.errors import ConfigError, DataError
from stylegan.latent.directions import (
    Directions,
    check_fit,
    factorize,
    principal,
    read_directions,
    separating,
    style_affines,
    sum_strengths,
    write_directions,
)
from stylegan.latent.layers import parse_layers
from stylegan.latent.statistics import sample_styles


def network(preset="stylegan2-f", side=16):
    torch.manual_seed(0)
    return stylegan.create(
        preset, side, channel_base=128, channel_max=16, z_dim=16, w_dim=16
    ).generator.eval()


@pytest.fixture(scope="module")
def w():
    return sample_styles(network(), num=400)


def assert_orthonormal(vectors):
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(len(vectors)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("preset", "per_input"),
    [("stylegan2-f", 1), ("stylegan2-d", 1), ("stylegan-f", 1), ("stylegan-c", 1)],
)
def test_each_style_input_has_the_layers_that_read_it(preset, per_input):
    generator = network(preset)
    affines = style_affines(generator)
    assert len(affines) == generator.num_ws
    # the last input of StyleGAN2 goes to RGB only
    expected = [per_input] * (generator.num_ws - 1) + [0 if "2" in preset else 1]
    assert [len(each) for each in affines] == expected
    names = {module: name for name, module in generator.synthesis.named_modules()}
    order = [names[affine] for each in affines for affine in each]
    assert order == [name for name in names.values() if name in order]  # coarse to fine


def test_networks_without_styles_have_none():
    for preset in ("progan", "stylegan-b"):
        generator = stylegan.create(preset, 16, channel_base=64).generator.eval()
        assert style_affines(generator) == [[]]
        with pytest.raises(ConfigError, match="without styles"):
            factorize(generator, torch.randn(9, generator.w_dim), layers=[0], num=2)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("preset", ["stylegan2-f", "stylegan-f"])
def test_factorization_finds_what_changes_styles_most(preset, normalize):
    generator = network(preset)
    w = sample_styles(generator, num=200)
    layers = [0, 1, 2]
    found = factorize(generator, w, layers=layers, num=16, normalize=normalize)
    assert_orthonormal(found.vectors)
    a = torch.cat(
        [
            affine.weight * affine.scale
            for layer in layers
            for affine in style_affines(generator)[layer]
        ]
    ).detach()
    if normalize:
        a = a / a.norm(dim=1, keepdim=True)
    change = (a @ found.vectors.T).square().sum(dim=0)
    torch.testing.assert_close(change, found.importances, rtol=1e-3, atol=1e-5)
    assert (change.diff() <= 1e-5).all()
    random = torch.nn.functional.normalize(torch.randn(100, 16), dim=1)
    assert (a @ random.T).square().sum(dim=0).max() <= change[0] * 1.0001
    assert found.names[:2] == ["factorize-0", "factorize-1"]
    expected = (w @ found.vectors.T).std(dim=0)
    torch.testing.assert_close(found.stds, expected, rtol=1e-4, atol=1e-6)


def test_normalization_decides_whether_long_or_many_style_weights_count():
    # one long weight vector along axis 0, all others short along axis 1
    generator = network()
    (affine,) = style_affines(generator)[0]
    with torch.no_grad():
        affine.weight.zero_()
        affine.weight[:, 1] = 0.1 / affine.scale
        affine.weight[0, :2] = torch.tensor([100.0, 0.0]) / affine.scale
    num_styles = len(affine.weight)
    w = sample_styles(generator, num=50)
    axes = torch.eye(16)
    authors = factorize(generator, w, layers=[0], num=2)
    assert authors.facts == {"normalize": True}
    torch.testing.assert_close(authors.vectors, axes[[1, 0]])
    torch.testing.assert_close(authors.importances, torch.tensor([num_styles - 1.0, 1.0]))
    paper = factorize(generator, w, layers=[0], num=2, normalize=False)
    assert paper.facts == {"normalize": False}
    torch.testing.assert_close(paper.vectors, axes[[0, 1]])
    expected = torch.tensor([100.0**2, 0.1**2 * (num_styles - 1)])
    torch.testing.assert_close(paper.importances, expected)


def test_a_style_without_weights_is_left_out_of_the_normalization():
    generator = network()
    (affine,) = style_affines(generator)[0]
    with torch.no_grad():
        affine.weight.zero_()
        affine.weight[0, 3] = 2.0
    found = factorize(generator, sample_styles(generator, num=50), layers=[0], num=1)
    torch.testing.assert_close(found.vectors, torch.eye(16)[[3]])


def test_principal_components_of_a_known_spread():
    basis = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    spread = torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1, 0.01])
    sample = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(1)) * spread
    found = principal(sample @ basis.T + 7, layers=[0], num=3)
    assert_orthonormal(found.vectors)
    cosines = (found.vectors * basis.T[:3]).sum(dim=1).abs()
    torch.testing.assert_close(cosines, torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.stds, spread[:3], rtol=0.02, atol=0)
    shares = spread.square() / spread.square().sum()
    torch.testing.assert_close(found.importances, shares[:3], rtol=0.04, atol=0)


def test_the_sign_does_not_depend_on_the_machine(w):
    found = principal(w, layers=[0], num=8)
    largest = found.vectors.abs().argmax(dim=1, keepdim=True)
    assert (found.vectors.gather(1, largest) > 0).all()


def test_normals_become_orthogonal_in_their_order(w):
    normals = [torch.randn(16) * 5, torch.randn(16)]
    found = separating(normals, w, names=["smile", "hat"], layers=[0, 1])
    assert_orthonormal(found.vectors)
    torch.testing.assert_close(
        found.vectors[0], torch.nn.functional.normalize(normals[0], dim=0), atol=1e-6, rtol=0
    )
    assert found.vectors[1] @ normals[1] > 0
    assert found.importances[0] == pytest.approx(1)
    assert 0 < found.importances[1] < 1
    with pytest.raises(ConfigError, match="again is a combination"):
        separating([normals[0], 2 * normals[0]], w, names=["smile", "again"], layers=[0])


@pytest.mark.parametrize("layers", ["coarse", "middle", "1,3"])
def test_a_range_touches_its_layers_only(w, layers):
    indices = parse_layers(layers, 6)
    found = principal(w, layers=indices, num=3)
    ws = torch.randn(2, 6, 16)
    moved = found.apply(ws, {"pca-1": 2.0})
    for layer in range(6):
        change = moved[:, layer] - ws[:, layer]
        expected = 2 * found.stds[1] * found.vectors[1] if layer in indices else 0 * change[0]
        torch.testing.assert_close(change, expected.expand(2, -1), atol=1e-5, rtol=1e-5)
        assert torch.equal(moved[:, layer], ws[:, layer]) == (layer not in indices)


def test_there_and_back_is_the_identity_to_the_last_bit(w):
    found = principal(w, layers=[0, 1, 2], num=4)
    ws = torch.randn(3, 6, 16)
    edits = [("pca-0", 2.7), ("pca-2", -1.1), ("pca-0", -2.7), ("pca-2", 1.1)]
    assert sum_strengths(edits) == {}
    assert torch.equal(found.apply(ws, sum_strengths(edits)), ws)
    one_way = found.apply(ws, {"pca-0": 2.7})
    assert not torch.equal(one_way, ws)
    torch.testing.assert_close(found.apply(one_way, {"pca-0": -2.7}), ws, atol=1e-6, rtol=1e-6)


def test_strengths_sum_strengths_in_any_order(w):
    found = principal(w, layers=[0], num=4)
    ws = torch.randn(1, 6, 16)
    both = found.apply(ws, {"pca-0": 1.0, "pca-1": 2.0})
    other = found.apply(found.apply(ws, {"pca-1": 2.0}), {"pca-0": 1.0})
    torch.testing.assert_close(both, other, atol=1e-6, rtol=1e-6)
    assert sum_strengths([("a", 1.0), ("b", 2.0), ("a", 0.5)]) == {"a": 1.5, "b": 2.0}
    with pytest.raises(ConfigError, match="there is no direction 'x'"):
        found.apply(ws, {"x": 1.0})


def test_directions_survive_a_file(w, tmp_path):
    found = principal(w, layers=[1, 2], num=3).renamed(["a", "b", "c"])
    found = Directions(**{**found.__dict__, "facts": {"network": {"sha256": "x"}}})
    write_directions(tmp_path / "d.safetensors", found)
    again = read_directions(tmp_path / "d.safetensors")
    for name in ("vectors", "stds", "importances"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    for name in ("names", "layers", "method", "facts"):
        assert getattr(again, name) == getattr(found, name)


def stored(path, *, metadata=None, **tensors):
    save_file(tensors, path, metadata=metadata)


def description(**changes):
    content = {
        "format": "stylegan-directions",
        "version": 1,
        "names": ["a"],
        "layers": [0],
        "method": "pca",
        "facts": {},
    }
    return {"directions": json.dumps(content | changes)}


VECTORS = {"vectors": torch.eye(4)[:1], "deviations": torch.ones(1), "importances": torch.ones(1)}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: None,
        lambda path: path.write_bytes(b"no file"),
        lambda path: path.mkdir(),
        lambda path: stored(path, **VECTORS),
        lambda path: stored(path, metadata=description(version=2), **VECTORS),
        lambda path: stored(path, metadata=description(names=["a", "b"]), **VECTORS),
        lambda path: stored(path, metadata=description(layers="x"), **VECTORS),
        lambda path: stored(
            path, metadata=description(), **{**VECTORS, "vectors": 2 * torch.eye(4)[:1]}
        ),
        lambda path: stored(path, metadata=description(), vectors=torch.eye(4)[:1]),
        lambda path: stored(path, metadata={"directions": "[]"}, **VECTORS),
    ],
)
def test_files_that_hold_none_are_refused(write, tmp_path):
    write(tmp_path / "d.safetensors")
    with pytest.raises(DataError, match="holds no directions"):
        read_directions(tmp_path / "d.safetensors")


def test_directions_of_another_network_are_refused(w):
    found = principal(w, layers=[0, 5], num=2)
    check_fit(found, network())
    with pytest.raises(DataError, match="w_dim 16"):
        check_fit(found, stylegan.create("stylegan2-f", 16, channel_base=64).generator)
    with pytest.raises(DataError, match="layers up to 5"):
        check_fit(found, network(side=8))


@pytest.mark.parametrize("num", [0, 17])
def test_more_directions_than_there_are_dimensions_are_refused(w, num):
    with pytest.raises(ConfigError, match="1 to 16"):
        principal(w, layers=[0], num=num)
