import pytest
import torch

import stylegan
from stylegan import download
from stylegan.errors import WeightsError
from stylegan.models.base import Networks
from stylegan.perceptual import weights
from stylegan.perceptual.discriminator import DiscriminatorDistance
from stylegan.workflows.networks import choose_perceptual, load_perceptual


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["lpips", "efficientnet", "discriminator"])
def test_a_distance_that_is_asked_for_is_taken(name):
    assert choose_perceptual(name, weights_dir=None) == name


def test_without_lpips_on_this_machine_efficientnet_is_taken_and_reported(caplog):
    caplog.set_level("INFO")
    assert choose_perceptual("auto", weights_dir=None) == "efficientnet"
    assert "EfficientNet-Lite0, as the weights of LPIPS are not on this machine" in caplog.text


@pytest.mark.parametrize("name", ["vgg16-397923af.pth", "vgg16.pt"])
def test_lpips_is_taken_from_the_users_folder(tmp_path, name, caplog):
    (tmp_path / name).touch()
    assert choose_perceptual("auto", weights_dir=tmp_path) == "lpips"
    assert caplog.text == ""


def test_lpips_is_taken_from_the_cache():
    path = download.cached(f"{weights.VGG16.url}#sha256={weights.VGG16.sha256}")
    path.parent.mkdir(parents=True)
    path.touch()
    assert choose_perceptual("auto", weights_dir=None) == "lpips"


def test_without_any_lpips_is_left_to_be_downloaded(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_perceptual("auto", weights_dir=None) == "lpips"


def test_without_any_and_without_a_connection_the_discriminator_is_taken(
    tmp_path, monkeypatch, caplog
):
    def fetch(*_, **__):
        raise WeightsError("https://x cannot be reached")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(download, "fetch", fetch)
    networks = stylegan.create("stylegan2-small", 16, channel_base=64, channel_max=6)
    stylegan.save(networks, tmp_path / "all")
    stylegan.save(Networks(generator_ema=networks.generator), tmp_path / "generator")
    options = {"weights_dir": None, "device": torch.device("cpu")}
    distance = load_perceptual("auto", tmp_path / "all", **options)
    assert isinstance(distance, DiscriminatorDistance)
    assert "the network's own discriminator, as " in caplog.text
    assert "https://x cannot be reached; for EfficientNet-Lite0" in caplog.text
    for name, source in (("auto", "generator"), ("lpips", "all")):
        with pytest.raises(WeightsError, match="cannot be reached"):
            load_perceptual(name, tmp_path / source, **options)
