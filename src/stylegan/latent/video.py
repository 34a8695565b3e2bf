"""Frames to a video: MP4, WebM, GIF, or a folder of PNG files."""

import base64
import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stylegan import images
from stylegan.errors import ConfigError
from stylegan.extras import import_extra
from stylegan.files import atomic_path
from stylegan.notebook import picture_html

ENCODED_SUFFIXES = (".mp4", ".webm")
SUFFIXES = (*ENCODED_SUFFIXES, ".gif")
MAX_GIF_FPS = 50  # viewers slow down frames of less than two hundredths of a second
MAX_FPS = 240
READABLE_SIDE = 256  # pixels; smaller pictures lose their colors in a compressed video

_CODECS = {
    ".mp4": ("libx264", "mp4", {"crf": "14", "preset": "medium"}, {"movflags": "faststart"}),
    ".webm": ("libvpx-vp9", "webm", {"crf": "20", "b:v": "0", "row-mt": "1"}, {}),
}


def check_video(path: Path, fps: float) -> None:
    """Check that a video can be written, before its frames are made.

    Args:
        path: a file whose suffix says the format, or a folder for PNG files (no suffix).
        fps: frames per second.

    Raises:
        ConfigError: if the suffix is none of these, the rate is one that the format does not
            have, or PyAV is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, "") or (path.is_dir() if suffix else path.is_file()):
        raise ConfigError(
            f"--out {path} must be a file that ends in {', '.join(SUFFIXES)}, or a folder"
        )
    highest, where = (MAX_GIF_FPS, " in a GIF") if suffix == ".gif" else (MAX_FPS, "")
    if not 0 < fps <= highest:
        raise ConfigError(f"fps must be more than 0 and at most {highest}{where}, got {fps:g}")
    if suffix in ENCODED_SUFFIXES:
        _import_av(path)


def auto_scale(path: Path, side: int) -> int:
    """Return the whole number by which frames are enlarged unless told otherwise.

    Compressed videos have colors at half the resolution, so small pictures are enlarged there.
    """
    is_encoded = path.suffix.lower() in ENCODED_SUFFIXES
    return max(1, math.ceil(READABLE_SIDE / side)) if is_encoded else 1


def write_video(frames: Iterable[Tensor], path: Path, *, fps: float, scale: int = 1) -> int:
    """Write frames as they come, whole or not at all; a folder gets them one by one.

    MP4 is H.264 and WebM VP9, both in 4:2:0, which plays everywhere; odd sizes get one more row or
    column, a copy of the last. A GIF holds its frames in memory until it is written, has at most
    256 colors a frame, and shows equal frames in a row as a longer one.

    Args:
        frames: uint8 [C, H, W], C 1 or 3, of one size; each may be made when it is asked for.
        path: as `check_video` takes it.
        fps: frames per second; a GIF counts in hundredths of a second, so frames may differ by
            one, but their sum does not.
        scale: enlarge by this whole number, pixels becoming squares.

    Returns:
        The number of frames.

    Raises:
        ConfigError: as `check_video`.
        ValueError: if there is no frame.
    """
    check_video(path, fps)
    enlarged = (_enlarged(frame, scale) for frame in frames)
    first = next(enlarged, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    counted = _Counted(itertools.chain([first], enlarged))
    suffix = path.suffix.lower()
    if suffix == "":
        for index, frame in enumerate(counted):
            images.write(frame, path / f"frame{index:05d}.png")
    elif suffix == ".gif":
        images.write_gif(list(counted), path, fps=fps)
    else:
        with atomic_path(path) as temporary:
            _encode(counted, temporary, suffix, fps)
    return counted.num


def video_html(path: Path) -> str:
    """Return an HTML element that shows a video without its file; of a folder the first frame."""
    suffix = path.suffix.lower()
    if suffix == "":
        return picture_html(images.read(min(path.glob("frame*.png"))))
    data = base64.b64encode(path.read_bytes()).decode()
    if suffix == ".gif":
        return f'<img src="data:image/gif;base64,{data}">'
    return f'<video controls loop src="data:video/{suffix[1:]};base64,{data}"></video>'


class _Counted:
    """Counts what passes through."""

    def __init__(self, frames: Iterator[Tensor]) -> None:
        self._frames = frames
        self.num = 0

    def __iter__(self) -> Iterator[Tensor]:
        for frame in self._frames:
            self.num += 1
            yield frame


def _encode(frames: Iterable[Tensor], path: Path, suffix: str, fps: float) -> None:
    av = _import_av(path)
    codec, container_format, codec_options, container_options = _CODECS[suffix]
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format=container_format, options=container_options) as container:
        stream: Any = None
        for index, frame in enumerate(frames):
            pixels = _even(frame).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=codec_options)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _enlarged(frame: Tensor, scale: int) -> Tensor:
    return frame.repeat_interleave(scale, 1).repeat_interleave(scale, 2) if scale > 1 else frame


def _even(frame: Tensor) -> Tensor:
    """Repeat the last row or column of an odd size."""
    height, width = frame.shape[1:]
    frame = torch.cat([frame, frame[:, -1:]], dim=1) if height % 2 else frame
    return torch.cat([frame, frame[:, :, -1:]], dim=2) if width % 2 else frame


def _import_av(path: Path) -> ModuleType:
    return import_extra("av", extra="video", purpose=f"--out {path} (.gif and folders need none)")
