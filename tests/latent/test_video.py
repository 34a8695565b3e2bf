import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan import images
from stylegan.errors import ConfigError
from stylegan.latent import video
from stylegan.latent.video import auto_scale, check_video, write_video

av = pytest.importorskip("av")


def ramp(num, *, height=16, width=16, channels=3):
    """Frames of one grey each, far enough apart to be told apart after compression."""
    return [
        torch.full([channels, height, width], 20 + 10 * index, dtype=torch.uint8)
        for index in range(num)
    ]


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, stream.average_rate, stream.codec_context.pix_fmt


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("fps", [25, 30, 29.97, 7.5])
@pytest.mark.parametrize("num", [1, 20])
def test_a_video_decodes_to_as_many_frames_of_the_same_rate(tmp_path, suffix, fps, num):
    path = tmp_path / f"a{suffix}"
    assert write_video(iter(ramp(num)), path, fps=fps, scale=2) == num
    frames, rate, layout = decoded(path)
    assert len(frames) == num
    if num > 1:
        assert rate == pytest.approx(Fraction(fps).limit_denominator(1001), abs=1e-3)
    assert layout == "yuv420p"
    for index, frame in enumerate(frames):
        assert frame.shape == (32, 32, 3)
        assert np.abs(frame.astype(int) - (20 + 10 * index)).max() <= 4
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_sizes_get_a_row_and_a_column(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_video(ramp(3, height=33, width=35), path, fps=25)
    frames, _, _ = decoded(path)
    assert frames[0].shape == (34, 36, 3)


def test_an_mp4_can_be_played_before_it_is_loaded_whole(tmp_path):
    write_video(ramp(5), tmp_path / "a.mp4", fps=25, scale=4)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_has_every_frame_and_lasts_as_long_as_asked(tmp_path, channels):
    path = tmp_path / "a.gif"
    assert write_video(ramp(12, channels=channels), path, fps=30) == 12
    with Image.open(path) as gif:
        assert gif.n_frames == 12
        assert gif.info["loop"] == 0
        durations, values = [], []
        for index in range(12):
            gif.seek(index)
            durations.append(gif.info["duration"])
            values.append(gif.convert("L").getpixel((0, 0)))
    assert sum(durations) == 400
    assert set(durations) == {30, 40}
    assert values == [20 + 10 * index for index in range(12)]


def test_a_folder_has_the_frames_themselves(tmp_path):
    frames = list(torch.randint(0, 256, [3, 3, 8, 8], dtype=torch.uint8))
    assert write_video(frames, tmp_path / "frames", fps=25) == 3
    paths = sorted((tmp_path / "frames").iterdir())
    assert [path.name for path in paths] == [f"frame{index:05d}.png" for index in range(3)]
    for path, frame in zip(paths, frames, strict=True):
        assert path.read_bytes() == images.png_bytes(frame)


def test_frames_are_taken_as_they_come(tmp_path):
    alive = []

    def frames():
        for frame in ramp(20):
            alive.append(1)
            yield frame

    def watching(*arguments):
        alive.clear()
        return original(*arguments)

    original = video._even
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(video, "_even", lambda frame: (seen.append(len(alive)), original(frame))[1])
        write_video(frames(), tmp_path / "a.mp4", fps=25)
    assert seen == list(range(1, 21))


def test_a_video_that_fails_leaves_nothing(tmp_path):
    def frames():
        yield from ramp(3)
        raise RuntimeError("out of frames")

    with pytest.raises(RuntimeError, match="out of frames"):
        write_video(frames(), tmp_path / "a.mp4", fps=25)
    assert list(tmp_path.iterdir()) == []


def test_scaling_makes_squares_of_pixels(tmp_path):
    frame = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    write_video([frame], tmp_path / "frames", fps=1, scale=3)
    with Image.open(tmp_path / "frames" / "frame00000.png") as picture:
        found = images.from_pil(picture)
    assert torch.equal(found[:, ::3, ::3], frame)
    assert found.shape == (3, 6, 6)


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [("a.mp4", 32, 8), ("a.webm", 256, 1), ("a.mp4", 100, 3), ("a.gif", 32, 1), ("a", 32, 1)],
)
def test_small_pictures_are_enlarged_in_compressed_videos(tmp_path, name, side, expected):
    assert auto_scale(tmp_path / name, side) == expected


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("a.avi", 25, "ends in .mp4"),
        ("a.gif", 60, "at most 50 in a GIF"),
        ("a.mp4", 0, "more than 0"),
        ("a.mp4", float("nan"), "more than 0"),
        ("a.mp4", 1000, "at most 240"),
    ],
)
def test_what_no_video_is_made_of_is_refused(tmp_path, name, fps, message):
    with pytest.raises(ConfigError, match=message):
        check_video(tmp_path / name, fps)


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"stylegan\[video\]"):
        check_video(tmp_path / "a.mp4", 25)
    write_video(ramp(2), tmp_path / "a.gif", fps=25)  # needs none


def test_no_frame_is_no_video(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video([], tmp_path / "a.gif", fps=25)
