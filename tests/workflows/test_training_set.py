"""Images of any size are prepared for training."""

import json
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from stylegan.cli.main import main
from stylegan.data import check
from stylegan.errors import ConfigError, DataError
from stylegan.training.config import DataConfig
from stylegan.workflows import training_set
from stylegan.workflows.training_set import open_training_set


def write(folder, names, size=(40, 33), color="red"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Three sizes; the median of the shorter sides is 33."""
    write(tmp_path / "photos", [f"a{index}.png" for index in range(5)])
    write(tmp_path / "photos", [f"b{index}.png" for index in range(3)], (64, 64))
    return write(tmp_path / "photos", ["tiny.png"], (8, 8))


def opened(folder, *, resolution=None, keeps_file=True, **options):
    return open_training_set(
        DataConfig(path=str(folder), **options),
        resolution=resolution,
        run_dir=folder.parent / "runs" / "first",
        keeps_file=keeps_file,
    )


def files_beside(folder):
    return sorted(path.name for path in (folder.parent / "runs").glob("*"))


def test_images_of_different_sizes_are_prepared_at_their_median(photos, caplog):
    caplog.set_level("INFO")
    dataset = opened(photos)
    assert (len(dataset), dataset.resolution) == (9, 32)
    (name,) = files_beside(photos)
    assert name.startswith("photos-median-")
    assert dataset.path == str(photos.parent / "runs" / name)
    assert "prepared 9 images of 3 sizes: the central squares, at 32x32" in caplog.text
    assert "enlarged 1 file: smaller than the resolution (tiny.png)" in caplog.text


def test_they_are_prepared_once_and_again_when_a_file_changes(photos, monkeypatch):
    first = opened(photos)
    with monkeypatch.context() as patch:
        patch.setattr(training_set, "examine", lambda *args, **options: pytest.fail("examined"))
        assert opened(photos).fingerprint == first.fingerprint
    write(photos, ["a0.png"], color="blue")
    assert opened(photos).fingerprint != first.fingerprint
    assert len(files_beside(photos)) == 2


def test_the_resolution_of_the_run_decides(photos):
    assert opened(photos).resolution == 32
    assert opened(photos, resolution=16).resolution == 16
    assert opened(photos, resolution=16, mirror=True).num_channels == 3
    assert len(files_beside(photos)) == 2
    with pytest.raises(ConfigError, match="choose 24"):
        opened(photos, resolution=25)


def test_images_of_one_size_are_used_as_they_are(tmp_path):
    folder = write(tmp_path / "set", [f"{index}.png" for index in range(9)], (16, 16))
    write(folder, ["other.png"])  # a tenth may be left out
    dataset = opened(folder)
    assert (dataset.path, len(dataset)) == (str(folder), 9)
    assert files_beside(folder) == []
    write(folder, ["another.png"])
    assert len(opened(folder)) == 11


def test_sets_are_not_prepared_where_any_number_may_be_left_out(photos):
    dataset = opened(photos, on_bad="skip")
    assert (dataset.path, len(dataset), dataset.resolution) == (str(photos), 3, 64)


def test_a_size_that_is_no_power_of_two_is_prepared(tmp_path):
    folder = write(tmp_path / "set", ["a.png", "b.png"], (50, 50))
    assert opened(folder).resolution == 32


def test_photos_are_not_prepared_above_the_published_resolutions():
    entries = [check.Entry(name="a", num_bytes=1, crc32=1, size=(4000, 3000))]
    assert check.suggested_resolution(entries) == 1024


@pytest.mark.parametrize("on_bad", ["limit", "fail"])
def test_too_many_damaged_images_end_the_run(photos, on_bad):
    for index in range(2):
        (photos / f"damaged{index}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    message = "2 of 11 images cannot be used, which is more than 10%"
    with pytest.raises(DataError, match=message if on_bad == "limit" else "damaged0"):
        opened(photos, on_bad=on_bad)
    assert files_beside(photos) == []


def test_class_folders_become_labels_where_labels_are_learned(tmp_path):
    folder = write(tmp_path / "set", ["2/a.png", "2/b.png", "10/c.png"], (16, 16))
    assert opened(folder).path == str(folder)
    dataset = opened(folder, labels=True)
    assert dataset.labels == (1, 0, 0)  # 10/c.png is the first by name
    assert dataset.class_names == ("2", "10")


def test_labels_that_change_or_are_not_learned_at_first_are_found(tmp_path):
    photos = write(tmp_path / "photos", ["1/a.png", "2/b.png"])
    assert opened(photos).label_dim == 0
    assert opened(photos, labels=True, resolution=32).class_names == ("1", "2")
    names = [path.relative_to(photos).as_posix() for path in photos.rglob("*.png")]
    (photos / "dataset.json").write_text(json.dumps({"labels": [[name, 1] for name in names]}))
    assert set(opened(photos, labels=True).labels) == {1}


def test_a_dry_run_leaves_nothing(photos):
    assert opened(photos, keeps_file=False).resolution == 32
    assert files_beside(photos) == []


def test_a_prepared_set_is_not_examined(photos, monkeypatch):
    path = Path(opened(photos).path)
    monkeypatch.setattr(training_set, "examine", lambda *args, **options: pytest.fail("examined"))
    assert opened(path).path == str(path)


def write_photos_of_all_kinds(folder):
    """Write 50 files as people have them; one is damaged."""
    pillow_heif.register_heif_opener()
    generator = np.random.default_rng(0)
    folder.mkdir()

    def picture(width, height, channels=3, mode="RGB"):
        colors = generator.integers(0, 256, (6, 6, channels), dtype=np.uint8)
        return Image.frombytes(mode, (6, 6), colors.tobytes()).resize((width, height))

    for index in range(20):
        picture(80 + 3 * index, 100 + 5 * index).save(folder / f"photo {index}.jpg")
    for index in range(6):
        exif = Image.Exif()
        exif[0x0112] = index + 2
        picture(90, 70).save(folder / f"turned{index}.JPG", exif=exif)
    for index in range(5):
        picture(100, 90, 4, "CMYK").save(folder / f"print{index}.jpg")
        deep = generator.integers(0, 65536, (70, 90), dtype=np.uint16)
        Image.fromarray(deep).save(folder / f"deep{index}.png")
    for index in range(4):
        picture(120, 150).save(folder / f"IMG_{index}.HEIC")
        frames = [picture(99, 80) for _ in range(2)]
        frames[0].save(folder / f"moving{index}.gif", save_all=True, append_images=frames[1:])
        picture(64, 64, 4, "RGBA").save(folder / f"alpha{index}.png")
    picture(8, 8).save(folder / "tiny.png")
    (folder / "damaged.jpg").write_bytes((folder / "photo 0.jpg").read_bytes()[:300])
    return folder


def test_photos_of_all_kinds_go_straight_into_training(tmp_path, monkeypatch, capsys):
    folder = write_photos_of_all_kinds(tmp_path / "my photos")
    assert len(list(folder.iterdir())) == 50
    monkeypatch.chdir(tmp_path)
    sizes = ["--channel-base", "64", "--channel-max", "6", "--batch", "4", "--kimg", "0.008"]
    words = ["train", "--data", "my photos", "--out", "runs/first", "--preset", "stylegan2-small"]
    words += [*sizes, "--device", "cpu", "--metrics", "none"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "skipped 1 file: truncated or damaged" in printed.err
    assert "prepared 49 images of 27 sizes: the central squares, at 64x64" in printed.err
    assert "stylegan data prepare 'my photos' SET.zip" in printed.err
    assert len(printed.err.splitlines()) + len(printed.out.splitlines()) < 24  # one screen
    assert "stylegan2-small at 64x64" in printed.out
    # the same line finds the run complete, with the same images
    assert main(words) == 0
