"""Files at URLs: downloaded once into a cache, complete and with their checksum verified.

http and https are read with urllib: fsspec would need aiohttp for them, with six packages of its
own, and does not resume. Object stores are read with fsspec.
"""

import errno
import hashlib
import http.client
import io
import logging
import os
import re
import shutil
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

import fsspec
from filelock import FileLock, Timeout

from stylegan.errors import WeightsError
from stylegan.files import file_sha256
from stylegan.progress import Counter

logger = logging.getLogger(__name__)

OBJECT_STORES = ("s3", "gs", "gcs", "az", "abfs", "hf", "hdfs")
"""Schemes of URLs that fsspec reads, if the package for it, such as s3fs, is installed."""

_CHUNK = 1 << 18
_TRIES = 4
_CONNECT_TIMEOUT_S = 3.0  # short, so that a missing network is reported within seconds
_READ_TIMEOUT_S = 30.0


class DownloadError(OSError):
    """A URL cannot be read; the message names it."""


class _ConnectionLostError(DownloadError):
    """A connection ended early; another attempt may succeed."""


def is_url(source: str) -> bool:
    """Return whether a source starts as a URL does, such as `https://`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def cache_folder() -> Path:
    """Return the folder $STYLEGAN_CACHE, or `~/.cache/stylegan`; it may not exist."""
    return Path(os.environ.get("STYLEGAN_CACHE") or Path.home() / ".cache" / "stylegan")


def cached(source: str) -> Path:
    """Return the path of a URL's file in the cache, whether it exists or not.

    Raises:
        WeightsError: if the URL is malformed, its scheme is not supported, or its fragment is not
            `#sha256=` and 64 hexadecimal digits.
    """
    return _parse(source)[2]


def fetch(source: str, *, progress: Counter | None = None) -> Path:
    """Return a file of the cache, downloaded if it is not there yet.

    If several processes need the same file, one downloads it and the others wait. Without a network
    this fails within seconds.

    Args:
        source: a URL, to which `#sha256=` and 64 hexadecimal digits may be added.
        progress: called with the bytes that have arrived and their total, if it is known.

    Raises:
        WeightsError: as `cached`; or if the file cannot be downloaded, is a web page, or has
            another checksum. The message names the path to put the file at by hand.
    """
    url, sha256, target = _parse(source)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("%s is being downloaded by another process; waiting", url)
            lock.acquire()
        try:
            if not target.is_file():
                _download(url, sha256, target, progress)
                return target
        finally:
            lock.release()
    if sha256 is not None:
        _verify(target, url, sha256)
    return target


def read_url(url: str) -> bytes:
    """Return the content of a URL.

    Raises:
        DownloadError: if it cannot be read, or its scheme is not supported.
    """
    try:
        url = _normalized(url)
    except WeightsError as error:
        raise DownloadError(str(error)) from error
    buffer = io.BytesIO()
    _receive(url, buffer, version=None, progress=None)
    return buffer.getvalue()


def _parse(source: str) -> tuple[str, str | None, Path]:
    """Return the URL without its fragment, the checksum in it, and the path in the cache."""
    url, _, fragment = source.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and match is None:
        raise WeightsError(
            f"{url} must be followed by #sha256= and 64 hexadecimal digits, or by nothing, "
            f"got #{fragment[:80]!a}"
        )
    url = _normalized(url)
    # The file's name, for people, and a hash of the URL, as other URLs may end in the same name.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(urllib.parse.urlsplit(url).path).name)[-80:]
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name or 'weights'}"
    return url, match[1].lower() if match else None, cache_folder() / name


def _normalized(url: str) -> str:
    """Check a URL, and quote characters that are not allowed in one, such as spaces."""
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https", *OBJECT_STORES):
        raise WeightsError(
            f"{ascii(url)[:200]} has the scheme {scheme}, which is not supported; download the "
            "file, and pass its path"
        )
    try:
        parts = urllib.parse.urlsplit(urllib.parse.quote(url, safe="!$%&'()*+,/:;=?@[]~"))
        is_valid = bool(parts.hostname and parts.hostname.encode("idna")) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise WeightsError(f"{ascii(url)[:200]} is not a valid URL")
    return parts.geturl()


def _download(url: str, sha256: str | None, target: Path, progress: Counter | None) -> None:
    """Download a file under a temporary name, and rename it when it is complete and verified."""
    part, version = (target.with_name(target.name + suffix) for suffix in (".part", ".etag"))
    is_resumable = True
    try:
        with part.open("ab") as file:
            _receive(url, file, version=version, progress=progress)
            file.flush()
            os.fsync(file.fileno())
        is_resumable = False
        digest = _verify(part, url, sha256)
        with part.open("rb") as file:
            start = file.read(64).lstrip().lower()
        if not start or start.startswith((b"<!doctype", b"<html")):
            raise DownloadError(f"{url} is {'a web page' if start else 'an empty file'}")
        part.replace(target)
    except DownloadError as error:
        raise WeightsError(
            str(error), fix=f"check the address and the connection, or put the file at {target}"
        ) from error
    finally:
        if part.is_file() and not (is_resumable and part.stat().st_size > 0):
            part.unlink()
        if not part.is_file():
            version.unlink(missing_ok=True)
    if sha256 is None:
        logger.info("%s: sha256 %s, which was not verified", target, digest)


def _verify(path: Path, url: str, sha256: str | None) -> str:
    """Return a file's checksum; raise WeightsError if another one is required."""
    digest = file_sha256(path)
    if sha256 not in (None, digest):
        raise WeightsError(
            f"{path} from {url} has sha256 {digest}, not {sha256}; delete the file if it exists, "
            "and download it again"
        )
    return digest


def _receive(url: str, file: IO[bytes], *, version: Path | None, progress: Counter | None) -> None:
    """Download into an open file, which may hold the start; try again while bytes arrive."""
    for attempt in range(1, _TRIES + 1):
        before = file.tell()
        try:
            if url.startswith(("http:", "https:")):
                _receive_http(url, file, version, progress)
            else:
                _receive_object(url, file)
            return
        except _ConnectionLostError as error:
            if attempt == _TRIES or file.tell() == before:
                raise DownloadError(
                    f"{url}: the connection ended after {file.tell():,} bytes ({error})"
                ) from error
            logger.warning("%s: connection lost after %s bytes", url, f"{file.tell():,}")


def _receive_object(url: str, file: IO[bytes]) -> None:
    """Read an object of a store with fsspec."""
    file.seek(0)
    file.truncate()
    try:
        with fsspec.open(url, "rb") as source:
            shutil.copyfileobj(source, file, _CHUNK)
    except Exception as error:  # each store raises classes of its own
        raise DownloadError(f"{url} cannot be read ({error})") from error


def _receive_http(
    url: str, file: IO[bytes], version: Path | None, progress: Counter | None
) -> None:
    """Download what is missing, over one connection.

    Args:
        url: to download.
        file: open at the end of what has arrived before.
        version: holds the server's name (ETag) of the version that has arrived in part; None
            always downloads all.
        progress: called for each chunk.
    """
    start = file.tell()
    headers = {"User-Agent": "stylegan", "Accept-Encoding": "identity"}
    tag = version.read_text() if start and version is not None and version.is_file() else ""
    if tag:
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    try:
        _check_connection(url)
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener()
        with opener.open(request, timeout=_READ_TIMEOUT_S) as response:
            if response.headers.get_content_type() == "text/html":
                raise DownloadError(f"{url} is a web page")
            content_range = response.headers.get("Content-Range", "")
            if response.status != http.client.PARTIAL_CONTENT:  # the complete file
                file.seek(start := 0)
                file.truncate()
                if version is not None:
                    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
                    version.write_text(tag or "")
            elif not content_range.startswith(f"bytes {start}-"):
                raise DownloadError(
                    f"{url}: the server sent the wrong bytes, {content_range[:40]!a}"
                )
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdecimal() else None
            if start == 0:
                logger.info(
                    "downloading %s%s", url, "" if total is None else f" ({total / 1e6:.1f} MB)"
                )
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                if progress is not None:
                    progress(file.tell(), total)
            if total is not None and file.tell() < total:
                raise _ConnectionLostError(f"of {total:,}")
    except DownloadError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from error
        file.seek(0)
        file.truncate()
        raise _ConnectionLostError("the server has another file now") from error
    except urllib.error.URLError as error:
        raise DownloadError(f"{url} cannot be reached ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise DownloadError(f"{url} redirects to a malformed address") from error
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # the disk is full
        raise _ConnectionLostError(str(error) or type(error).__name__) from error


def _check_connection(url: str) -> None:
    """Connect once within a few seconds.

    The time limit of a socket covers neither the resolution of names nor the sum over all
    addresses of a host, and an answer may take longer than a connection.

    Raises:
        URLError: if there is no connection.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    errors: list[OSError] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S).close()
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_TIMEOUT_S)
    if thread.is_alive():
        raise urllib.error.URLError(f"no connection within {_CONNECT_TIMEOUT_S:g} s")
    if errors:
        raise urllib.error.URLError(errors[0])
