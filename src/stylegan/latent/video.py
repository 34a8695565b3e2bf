"""Videos as MP4, WebM, GIF, or a folder of PNG files."""

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
MAX_GIF_FPS = 50  # viewers slow down shorter frames
MAX_FPS = 240
MIN_ENCODED_SIDE = 256  # pixels; smaller images lose their colors in a compressed video

_CODECS = {
    ".mp4": ("libx264", "mp4", {"crf": "14", "preset": "medium"}, {"movflags": "faststart"}),
    ".webm": ("libvpx-vp9", "webm", {"crf": "20", "b:v": "0", "row-mt": "1"}, {}),
}


def check_video(path: Path, fps: float) -> None:
    """Check that a video can be written, before its frames are computed.

    Args:
        path: a file whose suffix gives the format, or a folder for PNG files (no suffix).
        fps: frames per second.

    Raises:
        ConfigError: if the format does not exist or does not support the rate, or PyAV is not
            installed.
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
    """Return the default factor by which frames are enlarged.

    Compressed videos have colors at half the resolution, so small images are enlarged for them.
    """
    is_encoded = path.suffix.lower() in ENCODED_SUFFIXES
    return max(1, math.ceil(MIN_ENCODED_SIDE / side)) if is_encoded else 1


def write_video(frames: Iterable[Tensor], path: Path, *, fps: float, scale: int = 1) -> int:
    """Encode frames as they are computed. A file is written atomically, a folder frame by frame.

    MP4 is H.264 and WebM VP9, both in 4:2:0, which all players support; at an odd size, the last
    row or column is repeated. The frames of a GIF are held in memory. It has at most 256 colors a
    frame, and shows equal consecutive frames as one longer frame.

    Args:
        frames: uint8 [C, H, W] of one size, C 1 or 3.
        path: as for `check_video`.
        fps: frames per second. A GIF has a resolution of hundredths of a second, so the durations
            of frames may differ by one hundredth, but not their sum.
        scale: enlarge by this whole number, repeating pixels.

    Returns:
        The number of frames.

    Raises:
        ConfigError: as `check_video`.
        ValueError: if there is no frame.
    """
    check_video(path, fps)
    enlarged = (images.enlarge(frame, scale) for frame in frames)
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
    """An iterator that counts its items."""

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


def _even(frame: Tensor) -> Tensor:
    """Repeat the last row or column of an odd size."""
    height, width = frame.shape[1:]
    frame = torch.cat([frame, frame[:, -1:]], dim=1) if height % 2 else frame
    return torch.cat([frame, frame[:, :, -1:]], dim=2) if width % 2 else frame


def _import_av(path: Path) -> ModuleType:
    return import_extra("av", extra="video", purpose=f"--out {path} (.gif and folders need none)")
