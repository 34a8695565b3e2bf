import os
import pickle
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from stylegan.cli.data import main
from stylegan.data.check import examine
from stylegan.data.dataset import ImageDataset
from stylegan.data.readers import decode, map_in_order
from stylegan.data.sources.open import open_source
from stylegan.data.sources.video import VideoSource
from stylegan.errors import ConfigError, DataError

av = pytest.importorskip("av")


def write_video(path, *, num=20, size=(32, 16), codec="libx264"):
    """Frame n has the grey level 10 n, and a bright top row of blocks."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num):
            pixels = np.full((height, width, 3), 10 * number, np.uint8)
            pixels[: height // 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


def number_of(data):
    return round(np.asarray(decode(data).image)[-2:].mean() / 10)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.MOV", "mpeg4"),
        ("a.mkv", "ffv1"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
    ],
)
def test_every_frame_of_every_format_is_read_in_order(tmp_path, name, codec):
    source = open_source(write_video(tmp_path / name, codec=codec, num=6))
    assert source.images == tuple(f"{number:08d}" for number in range(6))
    assert [number_of(source.read(each)) for each in source.images] == list(range(6))


def test_frames_are_decoded_once_when_threads_read_them_in_order(video, monkeypatch):
    starts = []
    restart = VideoSource._restart
    monkeypatch.setattr(VideoSource, "_restart", lambda self: (starts.append(1), restart(self)))
    source = open_source(video)
    numbers = map_in_order(lambda name: number_of(source.read(name)), source.images, workers=8)
    assert list(numbers) == list(range(20))
    assert len(starts) == 1


def test_waiting_threads_are_served_in_the_order_of_frames(video, monkeypatch):
    source = open_source(video)
    decoded, may_go, frame = [], threading.Event(), VideoSource._frame

    def slow(self, index):
        may_go.wait(10)
        decoded.append(index)
        return frame(self, index)

    monkeypatch.setattr(VideoSource, "_frame", slow)

    def wait_for(condition):
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end

    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(source.read, "00000000")
        wait_for(lambda: source._is_busy)
        others = [pool.submit(source.read, f"{number:08d}") for number in (5, 3, 1, 4, 2)]
        wait_for(lambda: len(source._waiting) == 5)
        may_go.set()
        assert [number_of(each.result()) for each in (first, *others)] == [0, 5, 3, 1, 4, 2]
    assert decoded == [0, 1, 2, 3, 4, 5]


def test_earlier_and_repeated_frames_copies_and_forks_are_read_too(video):
    source = open_source(video)
    for number in (7, 3, 3, 19, 0):
        assert number_of(source.read(f"{number:08d}")) == number
    assert number_of(pickle.loads(pickle.dumps(source)).read("00000005")) == 5
    child = os.fork()
    if child == 0:
        os._exit(number_of(source.read("00000004")) != 4)
    assert os.waitpid(child, 0)[1] == 0
    assert number_of(source.read("00000001")) == 1


def test_frames_that_were_passed_over_are_kept_until_they_are_read(video, monkeypatch):
    source = open_source(video)
    source.read("00000005")
    monkeypatch.setattr(VideoSource, "_restart", None)  # reading does not start again
    assert [number_of(source.read(f"{number:08d}")) for number in (4, 2, 6)] == [4, 2, 6]
    assert sorted(source._held) == [0, 1, 3]


def test_the_frames_that_wait_to_be_read_are_limited(video, monkeypatch):
    monkeypatch.setattr("stylegan.data.sources.video._MAX_HELD", 0)
    source = open_source(video)
    source.read("00000019")
    assert len(source._held) == 7
    assert number_of(source.read("00000002")) == 2


# ISO 14496-12, 8.3.2: the matrix of the track header, here for a turn by a quarter or a half
@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)]
)
def test_frames_are_turned_as_the_file_says(tmp_path, matrix, turns):
    path = write_video(tmp_path / "a.mp4", num=2)
    (plain, _) = [np.asarray(decode(open_source(path).read(f"0000000{n}")).image) for n in (0, 1)]
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (65536 * value for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    turned = np.asarray(decode(open_source(path).read("00000000")).image)
    assert np.array_equal(turned, np.rot90(plain, turns))


def test_prepare_takes_every_nth_frame(video, tmp_path, capsys):
    archive = tmp_path / "p.zip"
    line = ["prepare", str(video), str(archive), "--resolution", "8", "--every", "6"]
    assert main([*line, "--workers", "3"]) == 0
    assert "4 images, 8x8 RGB" in capsys.readouterr().out
    dataset = ImageDataset(archive)
    assert [round(image[:, -1].float().mean().item() / 10) for image in dataset] == [0, 6, 12, 18]


def test_every_needs_a_video_and_a_positive_number(video, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    line = ["prepare", str(tmp_path), str(tmp_path / "p.zip"), "--resolution", "8", "--every"]
    with pytest.raises(ConfigError, match=r"--every 2 takes frames of videos, and .* has no video"):
        main([*line, "2"])
    with pytest.raises(ConfigError, match="every must be 1 or more, got 0"):
        main([*line, "0"])


def test_odd_sizes_and_a_single_frame_are_read(tmp_path):
    source = open_source(write_video(tmp_path / "a.avi", num=1, size=(34, 18), codec="mpeg4"))
    assert decode(source.read("00000000")).image.size == (34, 18)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99, b"#EXTM3U\nhttp://x/y.ts\n"])
def test_files_of_other_kinds_are_refused(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: truncated or damaged (")
    assert "\n" not in str(caught.value)


def test_a_truncated_video_gives_the_frames_that_it_has(tmp_path):
    path = write_video(tmp_path / "a.mkv", codec="ffv1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    assert 2 < len(source.images) < 20
    entries = examine(source)
    readable = [entry.name for entry in entries if entry.reason is None]
    assert [number_of(source.read(name)) for name in readable] == list(range(len(readable)))
    assert len(readable) >= len(entries) - 1
    for entry in entries[len(readable) :]:
        assert (entry.reason or "").startswith("truncated or damaged")


def test_metadata_in_another_encoding_does_not_matter(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"T\xcfTL\xc9"))
    assert decode(open_source(path).read("00000000")).image.size == (16, 16)


def test_a_file_with_sound_only_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="the file has no video stream"):
        open_source(tmp_path / "a.mkv")


def test_without_its_package_the_extra_is_named(video, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'stylegan\[video\]'"):
        open_source(video)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "clip.mp4").write_bytes(video.read_bytes())
    dataset = ImageDataset(tmp_path)
    assert dataset.image_names == ("a.png",)
    assert dataset.bad[0][1].endswith("pip install 'stylegan[video]'")
