"""Files at a URL arrive whole, once, and as stated, or not at all."""

import hashlib
import http.server
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator

import filelock
import pytest
from fsspec.registry import _registry as fsspec_registry

from stylegan import download
from stylegan.errors import WeightsError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """A server of one file that can break off, lie and change."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.content_type = "application/octet-stream"
        self.breaks_after: list[int] = []  # bytes to send of the next answers
        self.status = 200
        self.location: str | None = None  # where to send those who ask
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/folder/network.pkl"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.location is not None:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if asked is not None and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            end = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(len(server.content) - start))
        if server.etag is not None:
            self.send_header("ETag", server.etag)
        self.end_headers()
        num = server.breaks_after.pop(0) if server.breaks_after else len(server.content)
        self.wfile.write(server.content[start : start + num])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refusal(source: str) -> str:
    with pytest.raises(WeightsError) as caught:
        download.fetch(source)
    assert str(caught.value).isprintable()
    return str(caught.value)


def files(path) -> list[str]:
    # lock files stay, as removing one would let two processes hold the lock
    return sorted(file.name for file in path.iterdir() if file.suffix != ".lock")


def test_a_file_comes_once_and_then_out_of_the_cache(server, tmp_path, caplog):
    seen = []
    with caplog.at_level(logging.INFO):
        path = download.fetch(server.url, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path == download.cached(server.url)
    assert path.name.endswith("-network.pkl")
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert SHA256 in caplog.text
    assert download.fetch(server.url) == path
    assert len(server.asked) == 1
    assert files(tmp_path / "cache") == [path.name]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server):
    server.breaks_after = [300_000, 200_000]
    assert download.fetch(f"{server.url}#sha256={SHA256}").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_download_that_failed_goes_on_in_the_next_call(server, tmp_path):
    server.breaks_after = [300_000, 0]
    assert "the connection ended after 300,000 bytes" in refusal(server.url)
    assert download.fetch(server.url).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=300000-"
    assert len(files(tmp_path / "cache")) == 1


def test_a_file_that_changed_meanwhile_starts_again(server):
    server.breaks_after = [300_000, 0]
    refusal(server.url)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert download.fetch(server.url).read_bytes() == CONTENT[::-1]


def test_a_file_that_shrank_meanwhile_starts_again(server):
    server.breaks_after = [300_000, 0]
    refusal(server.url)
    server.content = b"\x80small"
    assert download.fetch(server.url).read_bytes() == b"\x80small"


def test_without_a_version_nothing_is_joined(server):
    server.etag = None
    server.breaks_after = [300_000]
    assert download.fetch(server.url).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_another_checksum_is_refused_and_nothing_stays(server, tmp_path):
    wrong = "0" * 64
    message = refusal(f"{server.url}#sha256={wrong}")
    assert f"has sha256 {SHA256}, not {wrong}" in message
    assert files(tmp_path / "cache") == []
    for fragment in ("sha256=12", "part"):
        message = refusal(f"{server.url}#{fragment}")
        assert "must be followed by #sha256= and 64 hexadecimal digits" in message


def test_the_cache_is_checked_too_where_a_checksum_is_stated(server):
    path = download.fetch(f"{server.url}#sha256={SHA256.upper()}")
    path.write_bytes(b"other")
    assert "has sha256" in refusal(f"{server.url}#sha256={SHA256}")


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream"])
def test_a_web_page_in_place_of_a_file_is_refused(server, tmp_path, content_type):
    server.content, server.content_type = b"\n<!DOCTYPE html><html>sign in</html>", content_type
    message = refusal(server.url)
    assert "is a web page" in message
    assert str(download.cached(server.url)) in message
    assert not download.cached(server.url).exists()


def test_an_empty_file_is_refused(server):
    server.content = b""
    assert "is an empty file" in refusal(server.url)


def test_a_missing_file_is_reported_with_the_servers_answer(server):
    server.status = 404
    message = refusal(server.url)
    assert f"{server.url}: the server answers 404" in message
    assert f"put the file at {download.cached(server.url)}" in message


def test_offline_the_error_names_the_address_and_the_place(server):
    url = server.url
    server.shutdown()
    server.server_close()
    message = refusal(url)
    assert f"{url} cannot be reached" in message
    assert f"put the file at {download.cached(url)}" in message


def test_a_file_put_into_the_cache_by_hand_is_used(server):
    path = download.cached(server.url)
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert download.fetch(server.url) == path
    assert server.asked == []


def test_two_downloads_of_one_file_wait_for_each_other(server, tmp_path, caplog):
    path = download.cached(server.url)
    path.parent.mkdir()
    results = []
    with caplog.at_level(logging.INFO), filelock.FileLock(f"{path}.lock"):
        threads = [
            threading.Thread(target=lambda: results.append(download.fetch(server.url)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        while caplog.text.count("is being downloaded by another process; waiting") < 3:
            threading.Event().wait(0.01)
        assert server.asked == []
    for thread in threads:
        thread.join()
    assert results == [path] * 3
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert files(tmp_path / "cache") == [path.name]


def test_a_file_in_an_object_store_is_downloaded_and_verified(object_store, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    object_store.pipe("s3://bucket/network.pkl", CONTENT)
    source = f"s3://bucket/network.pkl#sha256={SHA256}"
    assert download.fetch(source).read_bytes() == CONTENT
    object_store.rm("s3://bucket/network.pkl")
    assert download.fetch(source).read_bytes() == CONTENT
    message = refusal("s3://bucket/other.pkl")
    assert "s3://bucket/other.pkl cannot be read" in message
    assert f"put the file at {download.cached('s3://bucket/other.pkl')}" in message


def test_a_missing_package_of_an_object_store_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(fsspec_registry, "s3", raising=False)
    assert "s3fs" in refusal("s3://bucket/network.pkl")


def time_of_refusal(url: str) -> tuple[str, float]:
    start = time.perf_counter()
    return refusal(url), time.perf_counter() - start


def test_a_network_that_answers_nothing_is_given_up_soon(server, monkeypatch):
    monkeypatch.setattr(download, "_CONNECT_TIMEOUT_S", 0.2)
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        first.connect(("127.0.0.1", port))  # the queue is full; the kernel drops what comes now
        message, seconds = time_of_refusal(f"http://127.0.0.1:{port}/x.pth")
    assert "cannot be reached" in message
    assert seconds < 10  # not the 30 s that an answer may take


def test_names_that_nobody_resolves_are_given_up_soon(server, monkeypatch):
    released = threading.Event()

    def hang(*_: object, **__: object) -> None:
        released.wait(20)
        raise socket.gaierror("too late")

    monkeypatch.setattr(download, "_CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for scheme in ("http", "https"):
        message, seconds = time_of_refusal(f"{scheme}://example.invalid/x.pth")
        assert "cannot be reached (no connection within 0.2 s)" in message
        assert seconds < 10
    released.set()


def test_offline_is_heard_within_five_seconds_and_a_slow_answer_is_not_offline():
    assert download._CONNECT_TIMEOUT_S < 5
    assert download._READ_TIMEOUT_S >= 30


def test_urls_are_distinguished_from_paths_and_have_places_of_their_own():
    assert download.is_url("https://example.org/network.pkl")
    assert not download.is_url("network.pkl")
    one, other = (download.cached(f"https://example.org/{folder}/G.pkl") for folder in "ab")
    assert one != other
    assert download.cached("https://example.org/x y%2F..%2F?id=3#sha256=" + "a" * 64).parent


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("http://[bad/x.pkl", "is not a valid URL"),
        ("http://a..b/x.pkl", "is not a valid URL"),
        ("http:///x.pkl", "is not a valid URL"),
        ("http://host:port/x.pkl", "is not a valid URL"),
        (f"http://{'a' * 64}/x.pkl", "is not a valid URL"),
        ("ftp://host/x.pkl", "has the scheme ftp"),
        ("FILE:///etc/passwd", "has the scheme file"),
        ("scp://bucket/x\n.pkl", "has the scheme scp"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(source, found):
    assert download.is_url(source)
    assert found in refusal(source)


def test_blanks_and_a_scheme_in_capitals_are_understood(server):
    server_url = server.url.replace("network.pkl", "a b \u00e9.pkl")
    path = download.fetch(server_url.replace("http://", "HTTP://"))
    assert path.read_bytes() == CONTENT
    assert path == download.cached(server_url.replace(" ", "%20"))


def test_a_server_that_leads_to_no_address_is_reported(server):
    server.location = "http://a..b/x.pkl"
    assert "redirects to a malformed address" in refusal(server.url)
