"""Files that a page made and downloads, in a temporary folder."""

import secrets
import shutil
import weakref
from pathlib import Path
from tempfile import mkdtemp

from stylegan.errors import ConfigError

MAX_FILES = 8  # older ones are removed


class Exports:
    """A temporary folder of files with random names, removed at the end of the process."""

    def __init__(self) -> None:
        self._folder = Path(mkdtemp(prefix="stylegan-explore-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._finished: list[Path] = []

    def new_path(self, suffix: str) -> Path:
        """Return a path to write to: a file, or a folder without a suffix."""
        return self._folder / f"{secrets.token_hex(8)}{suffix}"

    def finished(self, path: Path) -> Path:
        """Return the path of what was written, for `find`; of a folder that of its zip."""
        if path.is_dir():
            archive = Path(shutil.make_archive(str(path), "zip", path))
            shutil.rmtree(path)
            path = archive
        self._finished.append(path)
        while len(self._finished) > MAX_FILES:
            self._finished.pop(0).unlink(missing_ok=True)
        return path

    def find(self, name: str) -> Path:
        """Return the path of a finished file; ConfigError if there is none of that name."""
        for path in self._finished:
            if path.name == name:
                return path
        raise ConfigError("there is no such file")
