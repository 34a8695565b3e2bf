"""The official networks have names, and names are told from paths."""

import pytest

import stylegan
from stylegan.errors import WeightsError
from stylegan.interop import catalogue
from stylegan.interop.load import weights_path
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator


def test_names_and_urls_are_distinguished_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "https://example.org/network.pkl"
    assert catalogue.url_of(url) == url
    name = "stylegan2-ffhq-config-f"
    assert catalogue.url_of(name) == catalogue.KNOWN[name]
    assert catalogue.url_of("network.pkl") is None
    (tmp_path / name).mkdir()
    assert catalogue.url_of(name) is None


def test_every_known_name_has_an_address_of_its_own():
    assert len(set(catalogue.KNOWN.values())) == len(catalogue.KNOWN) == 12 + 6 + 18 + 5
    assert all(url.startswith("https://") for url in catalogue.KNOWN.values())
    assert catalogue.KNOWN["stylegan2-car-config-e-Gskip-Dorig"].endswith(
        "/networks/table2/stylegan2-car-config-e-Gskip-Dorig.pkl"
    )


@pytest.fixture
def bundled(monkeypatch, tmp_path, generator_config):
    monkeypatch.setattr(catalogue, "BUNDLED", tmp_path / "bundled")
    folder = tmp_path / "bundled" / "tiny16"
    stylegan.save(Networks(generator_ema=Generator(generator_config)), folder)
    return folder


def test_bundled_networks_are_found_by_name_from_anywhere(bundled, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert catalogue.bundled_names() == ["tiny16"]
    assert weights_path("tiny16") == bundled
    assert stylegan.load("tiny16").img_resolution == 16
    for name in ("tiny8", "", ".", "..", "bundled/tiny16"):
        assert catalogue.bundled_path(name) is None, name
    with pytest.raises(WeightsError, match=r"tiny61 does not exist.*did you mean tiny16"):
        stylegan.load("tiny61")


def test_a_path_of_the_same_name_comes_before_a_bundled_network(bundled, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny16").mkdir()
    with pytest.raises(WeightsError, match="unknown kind"):
        stylegan.load("tiny16")
