"""Databases of LSUN: encoded images, mostly WebP, in the key-value store LMDB."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from stylegan.data.readers import one_line, unusable
from stylegan.data.sources.base import AbstractSource
from stylegan.errors import DataError
from stylegan.extras import import_extra

FILE_NAME = "data.mdb"

# A process may open an environment once only, and must not use it after a fork. So it is opened for
# each read, which takes 0.1 ms.
_lock = threading.Lock()


class LsunSource(AbstractSource):
    """The values of an LMDB folder; their keys are the names.

    Keys are bytes. They are decoded as latin1, which is reversible and keeps their order.

    Raises:
        ConfigError: if the package lmdb is not installed.
        DataError: if the database is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path if path.is_dir() else path.parent
        error_of_lmdb = self._lmdb().Error
        try:
            with self._transaction() as transaction:
                keys = [key.decode("latin1") for key in transaction.cursor().iternext(values=False)]
        except error_of_lmdb as error:
            raise DataError(
                f"{path} is no LMDB database, or a damaged one ({one_line(error)})",
                fix="copy or download it again",
            ) from error
        super().__init__(path, keys)

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path is the file of an LMDB database, or its folder."""
        return path.name == FILE_NAME or (path / FILE_NAME).is_file()

    def read(self, name: str) -> bytes:
        """Return an image as it is stored; see `AbstractSource.read`."""
        try:
            with self._transaction() as transaction:
                data: bytes | None = transaction.get(name.encode("latin1"))
        except self._lmdb().Error as error:
            raise unusable(f"unreadable ({one_line(error)})") from error
        if data is None:
            raise unusable("unreadable (removed from the database)")
        return data

    def _lmdb(self) -> ModuleType:
        return import_extra("lmdb", extra="lmdb", purpose=f"{self._folder} is an LMDB database")

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Open the database for reading.

        Raises:
            DataError: if the file is shorter than the database in it, as LMDB maps the file into
                memory, and reading behind its end would kill the process.
        """
        options = {"readonly": True, "lock": False, "readahead": False, "create": False}
        with _lock, self._lmdb().open(str(self._folder), **options) as database:
            num_bytes = (self._folder / FILE_NAME).stat().st_size
            if num_bytes < (database.info()["last_pgno"] + 1) * database.stat()["psize"]:
                raise DataError(f"{self._folder / FILE_NAME} is truncated", fix="copy it again")
            with database.begin() as transaction:
                yield transaction
