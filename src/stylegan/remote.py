"""Files at a URL: downloaded once into a cache, whole, resumed where a connection broke off."""

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stylegan.errors import WeightsError

try:
    import fcntl
except ImportError:  # Windows: two processes that download the same at once are on their own
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and those there will be, None if the server says nothing."""

_CHUNK = 1 << 18
_TRIES = 4
# Short, so that who is offline hears of it at once; from the name to the handshake.
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 30.0
_POLL_S = 0.1


@dataclass(frozen=True)
class _Download:
    """One file of the cache, and the way to it.

    Args:
        url: without fragment.
        sha256: what the file must hash to, in lower case; None where nobody said.
        target: where the whole file lies.
        part: where what has come so far lies; beside it, the version that it is of.
    """

    url: str
    sha256: str | None
    target: Path
    part: Path

    @property
    def version(self) -> Path:
        """Where the server's name for the version of the part lies."""
        return self.part.with_name(self.part.name + ".etag")


class _BrokenError(Exception):
    """A connection that ended early; another try may go on."""


def _within(timeout_s: float, function: Callable[[], None], undo: Callable[[], None]) -> None:
    """Call a function that may take longer than it should, and stop waiting for it.

    A socket's timeout holds for each address of a host anew, and not at all for finding them.

    Args:
        timeout_s: how long to wait.
        function: what to call; it goes on in a thread of its own when nobody waits any more.
        undo: called after `function` then.

    Raises:
        TimeoutError: if it takes longer.
    """
    lock, errors = threading.Lock(), list[BaseException]()
    is_given_up = False

    def work() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
        with lock:
            if is_given_up:
                undo()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout_s)
    with lock:
        if thread.is_alive():
            is_given_up = True
            raise TimeoutError(f"no connection within {timeout_s:g} s")
    if errors:
        raise errors[0]


class _HTTPConnection(http.client.HTTPConnection):
    """A connection that is made soon or not at all, and then may be slow."""

    def connect(self) -> None:
        _within(_CONNECT_TIMEOUT_S, super().connect, self.close)
        self.sock.settimeout(_READ_TIMEOUT_S)


class _HTTPSConnection(http.client.HTTPSConnection):
    """The same, with the handshake of TLS in the time for connecting."""

    def connect(self) -> None:
        _within(_CONNECT_TIMEOUT_S, super().connect, self.close)
        self.sock.settimeout(_READ_TIMEOUT_S)


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPConnection, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPSConnection, req)


def is_url(source: str) -> bool:
    """Tell a URL from a path or a name, by how it starts."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def cache_folder() -> Path:
    """Return the folder $STYLEGAN_CACHE, or `~/.cache/stylegan`; it may not exist."""
    return Path(os.environ.get("STYLEGAN_CACHE") or Path.home() / ".cache" / "stylegan")


def cached(source: str) -> Path:
    """Return where the file of a URL lies, or will lie, in the cache.

    Raises:
        WeightsError: if the URL states a checksum in another form than `#sha256=` and 64 digits,
            is malformed, or has another scheme than http and https.
    """
    return _planned(source).target


def fetch(source: str, *, progress: Progress | None = None) -> Path:
    """Return a file of the cache, downloaded if it is not there yet.

    Of several processes one downloads, and the others wait for it. Without a network the error
    comes within seconds, even if nothing answers or names are not resolved.

    Args:
        source: a URL, to which `#sha256=` and 64 digits may be added.
        progress: told of each piece that arrives.

    Raises:
        WeightsError: as `cached`; or if there is no connection and no file, the server has none
            or a web page in its place, or the checksum is another; it names the place to put the
            file by hand.
    """
    plan = _planned(source)
    if not plan.target.is_file():
        plan.target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(plan):
            if not plan.target.is_file():  # the other process may have brought it
                _download(plan, progress)
                return plan.target
    _check_sum(plan, plan.target)
    return plan.target


def _download(plan: _Download, progress: Progress | None) -> None:
    with plan.part.open("ab") as file:
        try:
            _receive(plan, file, progress)
        except BaseException:
            if file.tell() == 0:
                _discard(plan)
            raise
        file.flush()
        os.fsync(file.fileno())
    try:
        digest = _check_sum(plan, plan.part)
        _check_content(plan)
    except WeightsError:
        _discard(plan)
        raise
    plan.part.replace(plan.target)
    plan.version.unlink(missing_ok=True)
    if plan.sha256 is None:
        logger.info("%s: sha256 %s, which nobody stated", plan.target, digest)


def _planned(source: str) -> _Download:
    url, _, fragment = source.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and match is None:
        raise WeightsError(
            f"{url} is followed by #{fragment[:80]!a}",
            expected="#sha256= and 64 hexadecimal digits, or nothing",
            fix="correct the checksum",
        )
    url = _normalized(url)
    path = urllib.parse.urlsplit(url).path
    # A name to recognize, and a hash to tell apart what has the same name elsewhere.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).name)[-80:] or "weights"
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    target = cache_folder() / name
    sha256 = match[1].lower() if match else None
    return _Download(url, sha256, target, target.with_name(name + ".part"))


def _normalized(url: str) -> str:
    """Check a URL, and quote what may not stand in one, such as blanks."""
    try:
        parts = urllib.parse.urlsplit(urllib.parse.quote(url, safe="!$%&'()*+,/:;=?@[]~"))
        host, _ = parts.hostname or "", parts.port
        is_host = host != "" and bool(host.encode("idna"))
    except ValueError as error:
        raise _malformed(url) from error
    if parts.scheme not in ("http", "https"):
        raise WeightsError(
            f"{ascii(url)[:200]} has the scheme {parts.scheme}",
            expected="http or https",
            fix="download the file, and pass its path",
        )
    if not is_host:
        raise _malformed(url)
    return parts.geturl()


def _malformed(url: str) -> WeightsError:
    return WeightsError(
        f"{ascii(url)[:200]} is no URL",
        expected="http:// or https://, a host and a path",
        fix="correct the address",
    )


def _receive(plan: _Download, file: IO[bytes], progress: Progress | None) -> None:
    """Download into an open file that may hold a part; try again while something arrives."""
    for attempt in range(1, _TRIES + 1):
        before = file.tell()
        try:
            _receive_once(plan, file, progress)
            return
        except _BrokenError as error:
            if attempt == _TRIES or file.tell() == before:
                raise WeightsError(
                    f"{plan.url} broke off after {file.tell():,} bytes ({error})",
                    expected="the whole file",
                    fix="run the same line again to go on from there",
                ) from error
            logger.warning("%s broke off after %s bytes; going on", plan.url, f"{file.tell():,}")


def _receive_once(plan: _Download, file: IO[bytes], progress: Progress | None) -> None:
    """Download what is missing, over one connection.

    Raises:
        _BrokenError: if the connection ends early.
        WeightsError: if there is none, or the server has no such file.
    """
    start = file.tell()
    headers = {"User-Agent": "stylegan", "Accept-Encoding": "identity"}
    version = plan.version.read_text() if start and plan.version.is_file() else ""
    if version:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    request = urllib.request.Request(plan.url, headers=headers)
    try:
        opener = urllib.request.build_opener(_HTTPHandler, _HTTPSHandler)
        with opener.open(request, timeout=_CONNECT_TIMEOUT_S) as response:
            _check_type(plan, response.headers.get_content_type())
            place = response.headers.get("Content-Range", "")
            if response.status != http.client.PARTIAL_CONTENT:  # the whole file, or another
                file.truncate(start := 0)
                file.seek(0)
                named = response.headers.get("ETag") or response.headers.get("Last-Modified")
                plan.version.write_text(named or "")
            elif not place.startswith(f"bytes {start}-"):
                raise _unavailable(plan, f"gives another part than was asked for ({place[:40]!a})")
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdecimal() else None
            if start == 0:
                logger.info("downloading %s (%s) to %s", plan.url, _size(total), plan.target)
            for piece in iter(lambda: response.read(_CHUNK), b""):
                file.write(piece)
                if progress is not None:
                    progress(file.tell(), total)
            if total is not None and file.tell() < total:
                raise _BrokenError(f"of {total:,}")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            file.truncate(0)
            file.seek(0)
            raise _BrokenError("the server has another file now") from error
        raise _unavailable(plan, f"answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _unavailable(plan, f"cannot be reached ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:  # the server sends us to no URL
        raise _unavailable(plan, "leads to a malformed address") from error
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # the disk, not the connection
        raise _BrokenError(str(error) or type(error).__name__) from error


def _discard(plan: _Download) -> None:
    """Remove a part, so that the next download starts anew."""
    for path in (plan.part, plan.version):
        with contextlib.suppress(OSError):  # Windows removes no open file, which is no harm
            path.unlink()


@contextlib.contextmanager
def _alone(plan: _Download) -> Iterator[None]:
    """Keep two processes from writing one file: the second waits until the first is done."""
    if fcntl is None:
        yield
        return
    path = plan.target.with_name(plan.target.name + ".lock")
    while True:
        with path.open("ab") as file:
            _wait(file, plan)
            # Who had the lock has removed its file; a third may have made and locked another.
            if not _is_file_at(path, file):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_file_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _wait(file: IO[bytes], plan: _Download) -> None:
    """Take the lock of a file, however long that takes."""
    is_told = False
    while True:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not is_told:
                logger.info("%s is being downloaded by another process; waiting", plan.url)
            is_told = True
            time.sleep(_POLL_S)


def _check_sum(plan: _Download, path: Path) -> str:
    """Return a file's checksum; refuse it if another was stated."""
    if plan.sha256 is None and path == plan.target:
        return ""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if plan.sha256 not in (None, digest):
        raise WeightsError(
            f"{path} from {plan.url} has sha256 {digest}",
            expected=f"sha256 {plan.sha256}",
            fix="delete it if it is there, and download it again; do not use it",
        )
    return digest


def _check_type(plan: _Download, content_type: str) -> None:
    """Refuse a web page, such as a login or a warning, by what the server says."""
    if content_type == "text/html":
        raise _unavailable(plan, "gives a web page")


def _check_content(plan: _Download) -> None:
    """Refuse a web page by how it starts."""
    with plan.part.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")) or not start:
        raise _unavailable(plan, "gives a web page" if start else "gives an empty file")


def _unavailable(plan: _Download, found: str) -> WeightsError:
    return WeightsError(
        f"{plan.url} {found}",
        expected="a file of weights",
        fix=f"check the address and the connection, or put the file at {plan.target}",
    )


def _size(num_bytes: int | None) -> str:
    return "of unknown size" if num_bytes is None else f"{num_bytes / 1e6:.1f} MB"
