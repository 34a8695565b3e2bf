import errno
import os

import numpy as np
import pytest

from stylegan import files
from stylegan.files import atomic_path, new_array


def test_two_may_write_the_same_file_at_once(tmp_path):
    path = tmp_path / "file"

    with atomic_path(path) as first:
        first.write_text("first")
        with atomic_path(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_array_has_its_room_on_the_disk(tmp_path):
    path = tmp_path / "array.npy"
    array = new_array(path, shape=(1000, 1000), dtype=np.float32)
    if hasattr(os, "posix_fallocate"):
        assert path.stat().st_blocks * 512 >= 4_000_000
    array[:] = 3
    array.flush()
    assert np.load(path).sum() == 3_000_000


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"No space left on device.*array\.npy"):
        new_array(tmp_path / "array.npy", shape=(3,), dtype=np.float32)


def test_a_file_system_that_cannot_reserve_is_taken_as_it_is(tmp_path, monkeypatch):
    def unknown(*args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(files.os, "posix_fallocate", unknown, raising=False)
    assert new_array(tmp_path / "array.npy", shape=(3,), dtype=np.float32).shape == (3,)
