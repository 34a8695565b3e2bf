"""Folders that hold files of several kinds."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from stylegan.cli.data import main
from stylegan.data.check import examine
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError


@pytest.fixture
def mixed(tmp_path):
    """A folder of two PNG files, with what else people have in such folders."""
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/z.png"):
        Image.new("L", (8, 8), 7).save(folder / name)
    np.save(folder / "images.npy", np.zeros((2, 8, 8), np.uint8))
    np.save(folder / "latents.npy", np.zeros((1, 8, 512)) - 1)
    np.save(folder / "none.npy", np.zeros((0, 8, 8), np.uint8))
    np.savez(folder / "sub" / "stats.npz", mean=np.zeros(4))
    (folder / "clip.mp4").write_bytes(b"no video")
    (folder / "sub" / "x-r05.tfrecords").write_bytes(b"x")
    (folder / "photos.zip").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    return folder


def test_files_of_several_images_are_read_and_all_others_named_with_a_reason(mixed):
    source = open_source(mixed)
    rows = ("images.npy/00000000", "images.npy/00000001")
    assert source.images == ("a.png", *rows, "latents.npy", "sub/z.png")
    reasons = dict(source.left_out)
    assert reasons.pop("clip.mp4").startswith(("truncated or damaged (", "reading a video: "))
    latents = next(entry for entry in examine(source) if entry.name == "latents.npy")
    assert (latents.reason or "").startswith("wrong mode float32 (floats from -1 to -1; state")
    assert reasons.pop("none.npy") == "empty"
    assert reasons.pop("sub/stats.npz").startswith("not an image (no array of images among mean")
    assert reasons == {
        "notes.txt": "not an image (by its file name extension)",
        "photos.zip": "not an image (an archive; extract it, or name it instead)",
        "sub/x-r05.tfrecords": "not an image (TFRecords; name this file instead)",
    }


def test_check_lists_them_and_prepare_packs_the_images(mixed, tmp_path, capsys):
    assert main(["check", str(mixed)]) == 1
    out = capsys.readouterr().out
    assert "4 images can be trained on at 8x8." in out
    assert "7 files cannot, and training skips them." in out
    assert main(["prepare", str(mixed), str(tmp_path / "p.zip"), "--resolution", "8"]) == 0
    assert "4 images, 8x8 L" in capsys.readouterr().out


def test_named_pipes_do_not_block(tmp_path):
    names = ["a.npy", "a.tif", "clip.mp4", "x.tfrecords"]
    for name in names:
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="does not exist"):
            open_source(tmp_path / name)
    source = open_source(tmp_path)
    assert source.images == ("a.tif",)
    assert [name for name, _ in source.left_out] == ["a.npy", "clip.mp4", "x.tfrecords"]
    with pytest.raises(DataError, match="not a regular file"):
        source.read("a.tif")


def test_containers_in_a_zip_are_named(mixed, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("a.png", "images.npy", "clip.mp4"):
            archive.write(mixed / name, name)
    source = open_source(tmp_path / "set.zip")
    reason = "not an image (arrays and videos in a zip are not read; extract the zip)"
    assert source.left_out == (("clip.mp4", reason),)
    reasons = {entry.name: entry.reason for entry in examine(source)}
    # an NPY file in a zip is one image
    assert reasons["images.npy"] is None or "not one image" in reasons["images.npy"]


def test_images_beside_another_data_set_are_named(mixed):
    (mixed / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, *([0, 0, 0, 1] * 3), 9]))
    source = open_source(mixed)
    assert source.images == ("00000000",)
    reason = "not an image of the data set in this folder (move it to another folder)"
    assert source.left_out[0] == ("a.png", reason)
    assert {name for name, _ in source.left_out} >= {"sub/z.png", "images.npy", "clip.mp4"}


def test_other_files_are_refused_in_one_line(tmp_path):
    for name in ("notes.txt", "model.pkl", "a.jpg"):
        (tmp_path / name).write_text("no images")
        with pytest.raises(DataError, match="neither a folder nor a readable zip") as caught:
            open_source(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="does not exist; name a folder of images, or a zip"):
        open_source(tmp_path / "missing")
