"""A zip that is written entry by entry, and continued where a process was stopped."""

import contextlib
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from stylegan.errors import ConfigError, DataError
from stylegan.files import flush_to_disk

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold


class ResumableZip:
    """A zip under the temporary name `NAME.part`, with a journal `NAME.part.jsonl` of its entries.

    Entries are stored without compression, as images are compressed already. Created by
    `resumable_zip`.

    Attributes:
        journal: what `add` recorded in the process that was stopped, in order.
    """

    def __init__(self, file: IO[bytes], journal_file: IO[str], recovered: "_Recovered") -> None:
        self.journal = [facts for facts, _ in recovered]
        self._file, self._journal_file = file, journal_file
        # Mode "w" writes from the position of the file on; the directory lists both kinds.
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        for _, info in recovered:
            if info is not None:
                self._archive.infolist().append(info)

    def add(self, facts: Mapping[str, Any], name: str | None = None, data: bytes = b"") -> None:
        """Write an entry, and record facts about it in the journal.

        Args:
            facts: a JSON object.
            name: of the entry. None: only record the facts.
            data: content of the entry.
        """
        line: dict[str, Any] = {"facts": facts}
        if name is not None:
            line |= {"name": name, "offset": self._file.tell(), "size": len(data)}
            line["crc32"] = zlib.crc32(data)
            self.write(name, data)
            self._file.flush()
        self._journal_file.write(json.dumps(line) + "\n")
        self._journal_file.flush()

    def write(self, name: str, data: bytes) -> None:
        """Write an entry that is made again when the zip is continued."""
        self._archive.writestr(_info(name), data)

    def close(self) -> None:
        """Write the directory of the zip, and close it."""
        self._archive.close()


@contextlib.contextmanager
def resumable_zip(path: Path, *, key: str) -> Iterator[ResumableZip]:
    """Open a zip for writing; it gets the name `path` when the block ends.

    If the process is killed or interrupted in the block, what was written stays, and the next call
    with the same key continues it. After an error in the block nothing stays.

    Args:
        path: of the zip. A file there is replaced.
        key: of everything that decides the content. A zip with another key is started again.

    Raises:
        ConfigError: if another process is writing this zip.
        DataError: if it cannot be written.
    """
    part, journal = Path(f"{path}.part"), Path(f"{path}.part.jsonl")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", blocking=False) as lock:
            try:
                with _opened(part, journal, key) as archive:
                    yield archive
                flush_to_disk(part)
                part.replace(path)
            except Exception:
                part.unlink(missing_ok=True)
                raise
            finally:
                if not part.exists():
                    journal.unlink(missing_ok=True)
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise ConfigError(f"another process is writing {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror})") from error


_Recovered = list[tuple[dict[str, Any], zipfile.ZipInfo | None]]


@contextlib.contextmanager
def _opened(part: Path, journal: Path, key: str) -> Iterator[ResumableZip]:
    recovered, end, lines = _recover(part, journal, key)
    with part.open("r+b" if end else "wb") as file:
        file.seek(end)
        file.truncate()
        with journal.open("w", encoding="utf-8") as journal_file:
            journal_file.writelines([json.dumps({"key": _digest(key)}) + "\n", *lines])
            journal_file.flush()
            archive = ResumableZip(file, journal_file, recovered)
            try:
                yield archive
            finally:
                archive.close()


def _recover(part: Path, journal: Path, key: str) -> tuple[_Recovered, int, list[str]]:
    """Return complete entries of a stopped process, where they end, and their journal's lines."""
    recovered: _Recovered = []
    end, lines = 0, []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        first, *rest = journal.read_text(encoding="utf-8").splitlines(keepends=True)
        if json.loads(first) != {"key": _digest(key)}:
            return [], 0, []
        with part.open("rb") as file:
            for line in rest:
                entry = json.loads(line)
                info = None
                if "name" in entry:
                    info = _info(entry["name"])
                    info.header_offset, info.CRC = entry["offset"], entry["crc32"]
                    info.file_size = info.compress_size = entry["size"]
                    header = info.FileHeader()
                    data = file.read(len(header) + info.file_size)
                    content = data[len(header) :]
                    if not data.startswith(header) or zlib.crc32(content) != info.CRC:
                        break
                    end += len(data)
                recovered.append((entry["facts"], info))
                lines.append(line)
    return recovered, end, lines


def _info(name: str) -> zipfile.ZipInfo:
    """Return the header of an entry. It is the same on every system and at every time."""
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.create_system = 3  # Unix
    info.external_attr = 0o644 << 16
    return info


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
