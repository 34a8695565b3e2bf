import pytest

from stylegan import download
from stylegan.perceptual import weights
from stylegan.workflows.networks import choose_perceptual


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
