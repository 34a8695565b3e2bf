"""The official networks have names, and names are told from paths."""

from stylegan.interop import catalogue


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
