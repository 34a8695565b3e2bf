"""The frames of a video, decoded with PyAV."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stylegan.data.readers import one_line, unusable
from stylegan.data.sources.arrays import encode
from stylegan.data.sources.base import AbstractSource
from stylegan.errors import DataError, StyleganError
from stylegan.extras import import_extra

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")

_MAX_HELD = 256 << 20
"""Limit in bytes on the frames that were decoded before they were read."""
_MIN_HELD = 8  # frames
# Other formats, such as playlists, may name further files and addresses.
_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
    "protocol_whitelist": "file",
}


class VideoSource(AbstractSource):
    """Frames of the first video stream, named by their numbers, rotated as the file says.

    Frames are decoded in order, without seeking. Threads that read the next frames are served in
    the order of the frames. Reading an earlier frame starts the video again.

    Args:
        path: the file.
        every: take every n-th frame, from the first.

    Raises:
        ConfigError: if the package av is not installed.
        DataError: if the file is no video, or damaged.
    """

    def __init__(self, path: Path, *, every: int = 1) -> None:
        self.path = path
        self._every = every
        self._start()
        with _damage_reported():
            num_frames = self._count()
        super().__init__(path, [f"{number:08d}" for number in range(0, num_frames, every)])

    @staticmethod
    def matches(path: Path) -> bool:
        """Return whether a path has the ending of a video file."""
        return path.suffix.lower() in SUFFIXES

    @property
    def has_frames(self) -> bool:
        """True."""
        return True

    def read(self, name: str) -> bytes:
        """Return a frame as PPM; see `AbstractSource.read`."""
        index = int(name)
        if self._process != os.getpid():
            self._start()  # a forked process shares the file offset with its parent
        with self._turn:
            self._waiting.append(index)
            self._turn.wait_for(lambda: not self._is_busy and index == min(self._waiting))
            self._waiting.remove(index)
            self._is_busy = True
        try:
            with _damage_reported():
                frame = self._frame(index)
        except DataError:
            self._restart()
            raise
        finally:
            with self._turn:
                self._is_busy = False
                self._turn.notify_all()
        with _damage_reported():
            pixels = frame.to_ndarray(format="rgb24", threads=1)
        return encode(np.rot90(pixels, round(frame.rotation / 90)))

    def _frame(self, index: int) -> Any:
        """Return a frame of PyAV, decoded up to there or kept from before."""
        if index < self._next and index not in self._held:
            self._restart()
        while self._next <= index:
            frame = next(self._frames, None)
            if frame is None:
                raise unusable(f"truncated or damaged (the video ends after {self._next} frames)")
            if self._next % self._every == 0:
                self._held[self._next] = frame
                limit = max(_MIN_HELD, _MAX_HELD // (2 * frame.width * frame.height))
                if len(self._held) > limit:
                    del self._held[min(self._held)]
            self._next += 1
        return self._held.pop(index)

    def _start(self) -> None:
        """Set everything that belongs to the process."""
        self._process = os.getpid()
        self._turn = threading.Condition()
        self._waiting: list[int] = []
        self._is_busy = False
        self._restart()

    def _restart(self) -> None:
        self._frames: Iterator[Any] = self._decode()
        self._held: dict[int, Any] = {}
        self._next = 0

    def _decode(self) -> Iterator[Any]:
        with self._open() as container:
            # Without threads: a forked process, such as a worker of a data loader, has none of
            # them, and would wait for them forever when it frees what it has inherited.
            container.streams.video[0].thread_type = "NONE"
            yield from container.decode(video=0)

    def _count(self) -> int:
        """Return the number of frames: packets that are shown, as few formats store the number."""
        with self._open() as container:
            if not container.streams.video:
                raise DataError("not an image (the file has no video stream)")
            packets = container.demux(container.streams.video[0])
            return sum(packet.size > 0 and not packet.is_discard for packet in packets)

    def _open(self) -> Any:
        av = import_extra("av", extra="video", purpose="reading a video")
        return av.open(str(self.path), metadata_errors="replace", options=_OPTIONS)

    def __getstate__(self) -> dict[str, object]:
        """Return what does not belong to the process."""
        return {"path": self.path, "images": self.images, "every": self._every}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore without an open file."""
        AbstractSource.__init__(self, state["path"], state["images"])
        self._every = state["every"]
        self._start()


@contextlib.contextmanager
def _damage_reported() -> Iterator[None]:
    """Raise DataError for the errors of PyAV, which are of many types."""
    try:
        yield
    except StyleganError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise unusable(f"truncated or damaged ({reason})") from error
