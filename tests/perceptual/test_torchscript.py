"""Stand-ins with the calls of the official files; the files themselves are not ours to ship."""

import dataclasses
import warnings

import pytest
import torch
from torch import Tensor, nn

from stylegan.errors import ConfigError, WeightsError
from stylegan.files import file_sha256
from stylegan.perceptual import weights
from stylegan.perceptual.networks import load_detector, load_distance
from stylegan.perceptual.torchscript import ScriptedInception, ScriptedLPIPS, ScriptedVGG16
from stylegan.perceptual.weights import Located

LPIPS_LENGTH = 64 * 64**2 + 128 * 32**2 + 256 * 16**2 + 512 * 8**2 + 512 * 4**2


class Inception(nn.Module):
    """Features are means of the three channels and zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("other", torch.randn(1008, 2048))
        self.register_buffer("last", torch.randn(1008, 2048, 1, 1))

    def forward(
        self, img: Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        assert img.dtype == torch.uint8
        means = (img.to(torch.float32) / 255).mean(dim=[2, 3])
        features = torch.cat([means, torch.zeros(len(means), 2045, device=img.device)], dim=1)
        if return_features:
            return features
        scores = features @ self.last[:, :, 0, 0].T
        if not no_output_bias:
            scores = scores + 1
        return scores.softmax(dim=1)


class Vgg(nn.Module):
    """Features are means of the three channels; LPIPS is the squared difference of the first."""

    def forward(
        self,
        img: Tensor,
        resize_images: bool = True,
        return_features: bool = False,
        return_lpips: bool = False,
    ) -> Tensor:
        means = img.to(torch.float32).mean(dim=[2, 3])
        num = 4096
        if return_lpips:
            assert not resize_images
            assert img.dtype == torch.float32
            num = 499712 if img.shape[2] == 64 else 1000
        return torch.cat([means, torch.zeros(len(means), num - 3, device=img.device)], dim=1)


def save(module: nn.Module, path) -> Located:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return Located(path, "ab")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder with both official files."""
    folder = tmp_path_factory.mktemp("weights")
    save(Inception(), folder / "inception-2015-12-05.pt")
    save(Vgg(), folder / "vgg16.pt")
    return folder


def test_the_official_length_of_lpips_is_that_of_the_stand_in():
    assert LPIPS_LENGTH == 499712


def test_the_official_inception_takes_the_place_of_ours(folder):
    network = load_detector("inception-v3", weights_dir=folder, allow_unknown=True)
    assert isinstance(network, ScriptedInception)
    assert network.weights == "inception-2015-12-05.pt"
    assert len(network.weights_sha256) == 64
    assert network.resize != "bilinear-tf1 to 299"
    assert next(network.parameters()).device.type == "cpu"
    pictures = torch.randint(0, 256, [20, 1, 8, 8], dtype=torch.uint8)
    features = network(network.prepare(pictures))
    assert features.shape == (20, network.num_features)
    mean = (pictures / 255).mean(dim=(1, 2, 3))
    torch.testing.assert_close(features[:, :3], mean[:, None].expand(-1, 3))
    assert network.prepare(pictures).shape == (20, 3, 8, 8)  # left to the file
    with pytest.raises(ValueError, match="uint8"):
        network.prepare(pictures.float())


def test_its_probabilities_follow_from_features_without_the_last_bias(folder):
    network = load_detector("inception-v3", weights_dir=folder, allow_unknown=True)
    prepared = network.prepare(torch.randint(0, 256, [5, 3, 8, 8], dtype=torch.uint8))
    expected = network.network(prepared, no_output_bias=True)
    torch.testing.assert_close(network.probabilities(network(prepared)), expected)


def test_probabilities_that_no_matrix_explains_are_reported(tmp_path):
    class Sharper(Inception):
        def forward(
            self, img: Tensor, return_features: bool = False, no_output_bias: bool = False
        ) -> Tensor:
            means = (img.to(torch.float32) / 255).mean(dim=[2, 3])
            features = torch.cat([means, torch.zeros(len(means), 2045)], dim=1)
            if return_features:
                return features
            return (features @ self.last[:, :, 0, 0].T * 2).softmax(dim=1)

    network = ScriptedInception(save(Sharper(), tmp_path / "inception-2015-12-05.pt"))
    features = network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(WeightsError, match="that do not follow from its features"):
        network.probabilities(features)


def test_the_official_vgg16_takes_the_place_of_ours_twice(folder):
    network = load_detector("vgg16", weights_dir=folder, allow_unknown=True)
    assert isinstance(network, ScriptedVGG16)
    pictures = torch.full([9, 3, 8, 8], 7, dtype=torch.uint8)
    features = network(network.prepare(pictures))
    assert features.shape == (9, 4096)
    assert features[8, :4].tolist() == [7, 7, 7, 0]
    with pytest.raises(ConfigError, match="gives no probabilities"):
        network.probabilities(features)
    distance = load_distance("lpips-vgg16", weights_dir=folder, allow_unknown=True)
    assert isinstance(distance, ScriptedLPIPS)
    assert (distance.name, distance.weights) == ("lpips-vgg16", "vgg16.pt")
    a, b = torch.full([5, 1, 16, 16], -1.0), torch.full([5, 1, 16, 16], 1.2)
    # Range 0..255, neither rounded nor clamped.
    torch.testing.assert_close(distance.embed(b)[:, 0], torch.full([5], 2.2 * 127.5))
    torch.testing.assert_close(distance.distance(a, b), torch.full([5], 3 * (2.2 * 127.5) ** 2))


def test_gradients_pass_through_the_official_lpips(folder):
    distance = load_distance("lpips-vgg16", weights_dir=folder, allow_unknown=True)
    a = torch.zeros(1, 3, 16, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(distance.distance(a, torch.ones(1, 3, 16, 16)).sum(), a)
    assert (grad < 0).all()


def test_other_files_of_the_name_are_refused_in_one_line(tmp_path):
    path = tmp_path / "inception-2015-12-05.pt"
    path.write_bytes(b"no zip")
    with pytest.raises(WeightsError, match="is not a TorchScript file") as caught:
        load_detector("inception-v3", weights_dir=tmp_path, allow_unknown=True)
    assert str(caught.value).isprintable()
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="is not a TorchScript file"):
        load_detector("inception-v3", weights_dir=tmp_path, allow_unknown=True)
    save(nn.ReLU(), path)
    with pytest.raises(WeightsError, match="cannot be called like the official file"):
        load_detector("inception-v3", weights_dir=tmp_path, allow_unknown=True)
    save(Vgg(), path)
    with pytest.raises(WeightsError, match=r"features of shape \[1, 4096\], not \[1, 2048\]"):
        load_detector("inception-v3", weights_dir=tmp_path, allow_unknown=True)


@pytest.mark.parametrize("load", [load_detector, load_distance])
def test_a_program_that_is_not_the_published_one_is_not_loaded(folder, monkeypatch, load):
    def run(*_, **__):
        raise AssertionError("the file was loaded")

    monkeypatch.setattr("torch.jit.load", run)
    name = "vgg16" if load is load_detector else "lpips-vgg16"
    with pytest.raises(WeightsError, match=r"vgg16\.pt is a program and not the published one"):
        load(name, weights_dir=folder)


def test_the_published_program_is_loaded(folder, monkeypatch):
    path = folder / "vgg16.pt"
    published = dataclasses.replace(weights.OFFICIAL_VGG16, sha256=file_sha256(path))
    monkeypatch.setattr(weights, "OFFICIAL_VGG16", published)
    assert isinstance(load_detector("vgg16", weights_dir=folder), ScriptedVGG16)
