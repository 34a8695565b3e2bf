import json
import os
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import processes
from stylegan import images
from stylegan.data import prepare as preparing
from stylegan.data.dataset import ImageDataset
from stylegan.data.prepare import PrepareOptions, fit, prepare
from stylegan.data.readers import parse_color
from stylegan.errors import ConfigError, DataError


def made(source, destination, *, progress=None, overwrite=False, **options):
    return prepare(
        source,
        destination,
        options=PrepareOptions(**{"resolution": 8} | options),
        progress=progress,
        overwrite=overwrite,
    )


def content_of(archive):
    with zipfile.ZipFile(archive) as file:
        record = json.loads(file.read("prepare.json"))
        return file.infolist(), json.loads(file.read("dataset.json")), record


def ramp(width, height):
    """An L image whose pixel at (x, y) is 16 y + x."""
    levels = 16 * np.arange(height)[:, None] + np.arange(width)
    return Image.fromarray(levels.astype(np.uint8))


def test_the_zip_is_in_the_official_layout(folder, tmp_path):
    prepared = made(folder, tmp_path / "set.zip")
    infos, labels, record = content_of(tmp_path / "set.zip")
    names = [f"00000/img0000000{index}.png" for index in range(7)]
    assert [info.filename for info in infos] == [*names, "dataset.json", "prepare.json"]
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr for info in infos} == {0o644 << 16}
    assert labels == {"labels": None}
    assert [image["name"] for image in record["images"]] == names
    assert [image["source"] for image in record["images"]] == [f"00{i}.png" for i in range(7)]
    assert (prepared.num_images, prepared.skipped, prepared.mode) == (7, (), "RGB")
    assert prepared.num_bytes == (tmp_path / "set.zip").stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"set", "set.zip"}


def test_the_thousand_and_first_image_opens_a_second_folder(tmp_path):
    (tmp_path / "set").mkdir()
    data = None
    for index in range(1001):
        path = tmp_path / "set" / f"{index:04d}.png"
        if data is None:
            Image.new("L", (4, 4)).save(path)
            data = path.read_bytes()
        path.write_bytes(data)
    made(tmp_path / "set", tmp_path / "set.zip", resolution=4)
    _, _, record = content_of(tmp_path / "set.zip")
    assert record["images"][999]["name"] == "00000/img00000999.png"
    assert record["images"][1000]["name"] == "00001/img00001000.png"
    assert ImageDataset(tmp_path / "set.zip").image_names[1000] == "00001/img00001000.png"


def test_the_bytes_depend_on_images_and_options_only(rogues, tmp_path):
    options = PrepareOptions(resolution=8)
    for workers in (1, 2, 5):
        prepare(rogues, tmp_path / f"{workers}.zip", options=options, workers=workers)
    first = (tmp_path / "1.zip").read_bytes()
    assert (tmp_path / "2.zip").read_bytes() == first
    assert (tmp_path / "5.zip").read_bytes() == first
    made(rogues, tmp_path / "box.zip", filter="box")
    assert (tmp_path / "box.zip").read_bytes() != first


def test_images_of_the_right_size_keep_their_pixels(folder, tmp_path):
    made(folder, tmp_path / "set.zip", resolution=16)
    before, after = ImageDataset(folder), ImageDataset(tmp_path / "set.zip")
    assert torch.equal(before.gather(range(7)), after.gather(range(7)))
    _, _, record = content_of(tmp_path / "set.zip")
    assert all(image["steps"] == [] for image in record["images"])


def test_every_kind_of_image_becomes_part_of_the_set_and_the_rest_is_named(
    rogues, rogue_reasons, tmp_path, caplog
):
    prepared = made(rogues, tmp_path / "set.zip")
    of_a_wrong_size = {"large.png", "oblong.png"}  # these can be made to fit
    skipped = dict(prepared.skipped)
    assert set(skipped) == set(rogue_reasons) - of_a_wrong_size
    for name, reason in skipped.items():
        assert reason.startswith(rogue_reasons[name])
        assert any(name in line and f": {reason} (" in line for line in caplog.messages)
    assert prepared.num_images == 11
    _, _, record = content_of(tmp_path / "set.zip")
    steps = {image["source"]: image["steps"] for image in record["images"]}
    resized = "resized 16x16 to 8x8 (lanczos)"
    assert steps["grey.png"] == [resized, "converted grey to RGB"]
    assert steps["rgba.png"] == ["composed RGBA on #ffffff", resized]
    assert steps["palette.png"] == ["converted P to RGB", resized]
    assert steps["cmyk.jpg"] == ["converted CMYK to RGB", resized]
    assert steps["rotated.png"] == ["turned upright (EXIF orientation 6)", resized]
    assert steps["sixteen.png"] == ["scaled 16 bits to 8", resized, "converted grey to RGB"]
    assert steps["oblong.png"] == ["cropped to 8x8 at (4, 0)"]
    assert steps["large.png"] == ["resized 32x32 to 8x8 (lanczos)"]
    modes = {image["source"]: image["mode"] for image in record["images"]}
    assert (modes["palette.png"], modes["cmyk.jpg"]) == ("P", "CMYK")
    assert {entry["source"] for entry in record["skipped"]} == set(skipped)
    dataset = ImageDataset(tmp_path / "set.zip")
    assert (len(dataset), dataset.bad, dataset.num_channels) == (11, (), 3)


def test_on_bad_fail_names_the_file_and_leaves_nothing(rogues, tmp_path):
    (rogues / "notes.txt").unlink()
    with pytest.raises(DataError, match=r"empty\.png: empty; repair or remove the file"):
        made(rogues, tmp_path / "set.zip", on_bad="fail")
    assert list(tmp_path.iterdir()) == [rogues]


def test_a_set_of_grey_images_stays_grey(tmp_path):
    (tmp_path / "set").mkdir()
    ramp(8, 8).save(tmp_path / "set" / "a.png")
    assert made(tmp_path / "set", tmp_path / "set.zip").mode == "L"
    dataset = ImageDataset(tmp_path / "set.zip")
    assert dataset.num_channels == 1
    assert torch.equal(dataset[0][0], torch.from_numpy(np.array(ramp(8, 8))))


def test_crop_center_keeps_the_central_square():
    image, steps = fit(ramp(13, 8), options=PrepareOptions(resolution=8))
    assert np.array_equal(np.asarray(image), np.asarray(ramp(13, 8))[:, 2:10])
    assert steps == ("cropped to 8x8 at (2, 0)",)


def test_crop_none_resizes_the_whole_image():
    options = PrepareOptions(resolution=4, crop="none", filter="box")
    image, steps = fit(ramp(8, 4), options=options)
    # Means of two neighbours: 16 y + 2 x + 1/2, and Pillow rounds halves up.
    assert np.asarray(image).tolist() == [[16 * y + 2 * x + 1 for x in range(4)] for y in range(4)]
    assert steps == ("resized 8x4 to 4x4 (box)",)


def test_crop_wide_takes_central_rows_at_full_width_on_black():
    options = PrepareOptions(resolution=8, crop="wide", wide_height=4, filter="box")
    levels = np.zeros((16, 16), dtype=np.uint8)
    levels[4:12] = 200  # the 8 = 8 * 16 / 16 central rows
    image, steps = fit(Image.fromarray(levels), options=options)
    expected = np.zeros((8, 8), dtype=np.uint8)
    expected[2:6] = 200
    assert np.array_equal(np.asarray(image), expected)
    assert steps == (
        "cropped to 16x8 at (0, 4)",
        "resized 16x8 to 8x4 (box)",
        "centered on a black 8x8 square",
    )


def test_crop_wide_is_three_quarters_high_and_refuses_small_images(tmp_path):
    options = PrepareOptions(resolution=8, crop="wide")
    image, _ = fit(Image.new("L", (8, 6), 255), options=options)
    assert np.asarray(image)[:, 0].tolist() == [0, 255, 255, 255, 255, 255, 255, 0]
    for size in ((7, 8), (8, 5), (16, 10)):
        with pytest.raises(DataError, match="wrong size"):
            fit(Image.new("L", size), options=options)


def test_lanczos_keeps_a_flat_image_flat_and_is_not_the_box():
    flat, _ = fit(Image.new("RGB", (32, 32), (10, 20, 30)), options=PrepareOptions(resolution=8))
    assert flat.getcolors() == [(64, (10, 20, 30))]
    step = Image.fromarray(np.repeat([[0] * 7 + [255] * 9], 16, axis=0).astype(np.uint8))
    lanczos, _ = fit(step, options=PrepareOptions(resolution=8))
    box, _ = fit(step, options=PrepareOptions(resolution=8, filter="box"))
    assert np.asarray(box)[0].tolist() == [0, 0, 0, 128, 255, 255, 255, 255]
    assert np.asarray(lanczos)[0].tolist() != np.asarray(box)[0].tolist()


def test_transparency_shows_the_chosen_background(tmp_path):
    (tmp_path / "set").mkdir()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "set" / "a.png")
    made(tmp_path / "set", tmp_path / "set.zip", background="#010203")
    assert ImageDataset(tmp_path / "set.zip")[0].unique(dim=1).flatten().tolist() == [
        *(1,) * 8,
        *(2,) * 8,
        *(3,) * 8,
    ]


def test_enlarging_is_counted_and_warned_of(folder, tmp_path, caplog):
    prepared = made(folder, tmp_path / "set.zip", resolution=32)
    assert prepared.num_enlarged == 7
    assert "7 images enlarged, 0 files skipped" in str(prepared)
    assert any(line.startswith("enlarged 7 files: smaller than") for line in caplog.messages)
    assert made(folder, tmp_path / "same.zip", resolution=16).num_enlarged == 0


def test_labels_are_carried_over_and_images_without_are_left_out_if_asked(folder, tmp_path, caplog):
    pairs = [["000.png", 2], ["003.png", [0.5, 1.0]], ["absent.png", 1]]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    assert made(folder, tmp_path / "all.zip").num_images == 7
    _, labels, _ = content_of(tmp_path / "all.zip")
    assert labels == {
        "labels": [["00000/img00000000.png", 2], ["00000/img00000003.png", [0.5, 1.0]]]
    }
    assert "5 of 7 images have no label; --labels-from json leaves them out" in caplog.text
    prepared = made(folder, tmp_path / "set.zip", labels_from="json")
    _, labels, _ = content_of(tmp_path / "set.zip")
    assert labels == {
        "labels": [["00000/img00000000.png", 2], ["00000/img00000001.png", [0.5, 1.0]]]
    }
    assert ("001.png", "no label") in prepared.skipped
    assert ImageDataset(tmp_path / "set.zip").labels == (2, (0.5, 1.0))


def test_names_of_attributes_go_with_their_labels(folder, tmp_path):
    pairs = [[f"{index:03d}.png", [index % 2, 1]] for index in range(7)]
    content = {"labels": pairs, "attributes": ["bald", "young"]}
    (folder / "dataset.json").write_text(json.dumps(content))
    made(folder, tmp_path / "set.zip")
    _, labels, _ = content_of(tmp_path / "set.zip")
    assert labels["attributes"] == ["bald", "young"]
    (folder / "dataset.json").write_text(json.dumps(content | {"labels": None}))
    made(folder, tmp_path / "none.zip")
    assert content_of(tmp_path / "none.zip")[1] == {"labels": None}


def test_labels_can_number_the_top_folders(folder, tmp_path):
    for index, name in enumerate(["dogs", "cats/black", "cats"]):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / f"00{index}.png").rename(folder / name / f"00{index}.png")
    prepared = made(folder, tmp_path / "set.zip", labels_from="folders")
    _, labels, record = content_of(tmp_path / "set.zip")
    assert [label for _, label in labels["labels"]] == [0, 0, 1]
    assert record["classes"] == ["cats", "dogs"]
    assert [image["source"] for image in record["images"]] == [
        *("cats/002.png", "cats/black/001.png", "dogs/000.png")
    ]
    assert len(prepared.skipped) == 4


def test_an_existing_zip_is_kept_unless_asked_otherwise(folder, tmp_path):
    destination = tmp_path / "set.zip"
    destination.write_text("precious")
    with pytest.raises(ConfigError, match=r"set\.zip exists; .*--overwrite"):
        made(folder, destination)
    assert destination.read_text() == "precious"
    prepare(folder, destination, options=PrepareOptions(resolution=8), overwrite=True)
    assert len(ImageDataset(destination)) == 7


def interrupt_at(num):
    def interrupt(num_done, num_all):
        if num_done == num:
            raise KeyboardInterrupt

    return interrupt


def kill_at(num, source, destination):
    """Be a process that is killed after a number of files."""

    def kill(num_done, num_all):
        if num_done == num:
            os.kill(os.getpid(), signal.SIGKILL)

    made(source, destination, progress=kill)


@pytest.mark.parametrize("num_done", [1, 5, 13])
def test_an_interrupted_run_keeps_what_was_there_and_is_continued(rogues, tmp_path, num_done):
    whole, destination = tmp_path / "whole.zip", tmp_path / "set.zip"
    destination.write_text("precious")
    made(rogues, whole)
    with pytest.raises(KeyboardInterrupt):
        made(rogues, destination, overwrite=True, progress=interrupt_at(num_done))
    assert destination.read_text() == "precious"
    done = []
    prepared = made(rogues, destination, overwrite=True, progress=lambda num, _: done.append(num))
    assert destination.read_bytes() == whole.read_bytes()
    assert prepared.num_images == len(ImageDataset(whole))
    assert not list(tmp_path.glob("set.zip.*"))


def test_a_killed_run_is_continued_without_preparing_images_again(rogues, tmp_path, monkeypatch):
    destination = tmp_path / "set.zip"
    group = processes.start(kill_at, 9, rogues, destination, folder=tmp_path / "killed")
    assert group.join() == [-signal.SIGKILL]
    assert not destination.exists()
    made(rogues, tmp_path / "whole.zip")
    names = []
    convert = preparing._convert
    monkeypatch.setattr(
        preparing, "_convert", lambda *args, **options: names.append(1) or convert(*args, **options)
    )
    made(rogues, destination)
    assert destination.read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert len(names) == len(list(rogues.iterdir())) - 1 - 9
    assert not list(tmp_path.glob("set.zip.*"))


def test_what_was_written_for_other_options_or_images_is_not_used(folder, tmp_path):
    destination = tmp_path / "set.zip"
    with pytest.raises(KeyboardInterrupt):
        made(folder, destination, progress=interrupt_at(5), filter="box")
    made(folder, destination)
    made(folder, tmp_path / "whole.zip")
    assert destination.read_bytes() == (tmp_path / "whole.zip").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        made(folder, destination, progress=interrupt_at(5), overwrite=True)
    Image.new("RGB", (9, 9), "red").save(folder / "001.png")
    made(folder, destination, overwrite=True)
    made(folder, tmp_path / "red.zip")
    assert destination.read_bytes() == (tmp_path / "red.zip").read_bytes()


@pytest.mark.parametrize("place", [0.5, 0.7, 0.9])
def test_a_damaged_part_is_used_up_to_the_damage(folder, tmp_path, place):
    destination, part = tmp_path / "set.zip", tmp_path / "set.zip.part"
    with pytest.raises(KeyboardInterrupt):
        made(folder, destination, progress=interrupt_at(5))
    data = bytearray(part.read_bytes())
    data[round(place * len(data))] ^= 1
    part.write_bytes(data)
    made(folder, destination)
    made(folder, tmp_path / "whole.zip")
    assert destination.read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_two_processes_do_not_write_one_zip(folder, tmp_path):
    with (
        FileLock(tmp_path / "set.zip.lock"),
        pytest.raises(ConfigError, match=r"another process is writing .*set\.zip"),
    ):
        made(folder, tmp_path / "set.zip")


def test_a_place_that_cannot_be_written_is_reported(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"set\.zip cannot be written"):
        made(folder, tmp_path / "file" / "set.zip")


def test_a_source_without_a_usable_image_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_text("no image")
    with pytest.raises(DataError, match="no usable image among 1 files"):
        made(tmp_path / "set", tmp_path / "set.zip")
    assert not Path(tmp_path / "set.zip").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 100}, r"the resolution 100 is \(25x25\) .*; choose 96"),
        ({"resolution": 2}, r"the resolution 2 is \(2x2\) .* sides of 3 or more"),
        ({"background": "beige-ish"}, "the color 'beige-ish'"),
        ({"compress_level": 10}, "compress_level must be from 0 to 9, got 10"),
        ({"wide_height": 9}, "wide_height must be from 1 to the resolution 8, got 9"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options, message):
    with pytest.raises(ConfigError, match=message):
        PrepareOptions(**{"resolution": 8} | options)


def test_the_destination_must_be_named_as_a_zip(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"must end in \.zip"):
        made(folder, tmp_path / "set")


@pytest.mark.parametrize("compress_level", [0, 9])
def test_the_compress_level_changes_size_and_no_pixel(folder, tmp_path, compress_level):
    plain = made(folder, tmp_path / "set.zip", resolution=64)
    other = made(folder, tmp_path / "other.zip", resolution=64, compress_level=compress_level)
    assert (other.num_bytes > plain.num_bytes) == (compress_level == 0)
    one, two = ImageDataset(tmp_path / "set.zip"), ImageDataset(tmp_path / "other.zip")
    assert torch.equal(one.gather(range(7)), two.gather(range(7)))


@pytest.mark.parametrize(("size", "box"), [((40, 64), (6, 0, 26, 32)), ((64, 16), (0, 12, 32, 20))])
@pytest.mark.parametrize("color", ["black", "#ff8000"])
def test_padding_loses_and_distorts_nothing(tmp_path, size, box, color):
    picture = Image.new("RGB", size, "#204060")
    picture.paste("red", (0, 0, size[0], 4))  # the top rows
    (tmp_path / "photos").mkdir()
    picture.save(tmp_path / "photos" / "a.png")
    prepared = made(
        tmp_path / "photos", tmp_path / "set.zip", resolution=32, crop="pad", pad_color=color,
        filter="box",
    )  # fmt: skip
    assert prepared.num_enlarged == 0
    pixels = ImageDataset(tmp_path / "set.zip")[0]
    left, top, right, bottom = box
    inside = pixels[:, top:bottom, left:right]
    expected = picture.resize((right - left, bottom - top), Image.Resampling.BOX)
    assert torch.equal(inside, images.from_pil(expected))
    assert inside[0, 0].min() > 120  # red
    padding = torch.tensor(parse_color(color), dtype=torch.uint8)[:, None, None]
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    assert (pixels == padding).all(dim=0)[outside].all()


def upright(mode="RGB", size=(40, 64)):
    """A dark picture whose top rows are red."""
    picture = Image.new("RGB", size, "#204060")
    picture.paste("red", (0, 0, size[0], max(1, size[1] // 16)))
    return picture.convert(mode)


def turned():
    """The same as a phone stores it: lying, with the orientation in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return upright().transpose(Image.Transpose.ROTATE_90), {"format": "JPEG", "exif": exif}


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        turned(),
        (upright("RGBA"), {"format": "PNG"}),
        (upright("P"), {"format": "GIF"}),
        (upright("CMYK"), {"format": "TIFF"}),
        (upright(size=(400, 640)), {"format": "WEBP", "quality": 95}),
        (upright(size=(10, 16)), {"format": "BMP"}),
    ],
    ids=["phone", "alpha", "palette", "CMYK", "large", "small"],
)
def test_upright_pictures_of_every_kind_are_padded_on_both_sides(tmp_path, picture, options):
    (tmp_path / "photos").mkdir()
    picture.save(tmp_path / "photos" / "a.png", **options)
    made(tmp_path / "photos", tmp_path / "set.zip", resolution=32, crop="pad", pad_color="#00ff00")
    pixels = ImageDataset(tmp_path / "set.zip")[0].to(torch.int32)
    padding = (pixels == torch.tensor([0, 255, 0])[:, None, None]).all(dim=0)
    assert padding.all(dim=0).nonzero().flatten().tolist() == [*range(6), *range(26, 32)]
    assert padding.sum() == 12 * 32
    red, rest = pixels[:, 0, 6:26], pixels[:, 4:, 6:26]
    assert (red - torch.tensor([255, 0, 0])[:, None]).abs().max() < 40
    assert (rest - torch.tensor([0x20, 0x40, 0x60])[:, None, None]).abs().max() < 40


@pytest.mark.parametrize(
    ("size", "box"),
    [((400, 3), (0, 15, 32, 16)), ((2, 900), (15, 0, 16, 32)), ((41, 63), (5, 0, 26, 32))],
    ids=["panorama", "tower", "odd"],
)
def test_the_longest_pictures_keep_a_row_or_a_column(tmp_path, size, box):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", size, "#204060").save(tmp_path / "photos" / "a.png")
    made(tmp_path / "photos", tmp_path / "set.zip", resolution=32, crop="pad", pad_color="white")
    inside = (ImageDataset(tmp_path / "set.zip")[0] != 255).any(dim=0)
    left, top, right, bottom = box
    assert inside.sum() == (right - left) * (bottom - top)
    assert inside[top:bottom, left:right].all()


def test_grey_images_are_padded_in_color_where_that_is_asked_for(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("L", (16, 32), 100).save(tmp_path / "photos" / "a.png")
    for color, mode in (("white", "L"), ("red", "RGB")):
        prepared = made(
            tmp_path / "photos", tmp_path / f"{color}.zip", resolution=32, crop="pad",
            pad_color=color,
        )  # fmt: skip
        assert prepared.mode == mode
    assert ImageDataset(tmp_path / "red.zip")[0][:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("crop", "size", "steps"),
    [
        ("center", (100, 100), ("cropped to 100x60 at (0, 20)", "resized 100x60 to 40x24 (box)")),
        ("center", (100, 20), ("cropped to 33x20 at (33, 0)", "resized 33x20 to 40x24 (box)")),
        (
            "pad",
            (100, 100),
            ("resized 100x100 to 24x24 (box)", "centered on a black 40x24 rectangle"),
        ),
        ("none", (100, 100), ("resized 100x100 to 40x24 (box)",)),
        ("wide", (80, 60), ("cropped to 80x30 at (0, 15)", "resized 80x30 to 40x24 (box)")),
    ],
)
def test_images_are_fitted_to_a_resolution_that_is_not_square(crop, size, steps):
    options = PrepareOptions(resolution="24x40", crop=crop, filter="box")
    image, done = fit(Image.new("RGB", size), options=options)
    assert (image.size, done) == ((40, 24), steps)


def test_a_prepared_zip_opens_at_its_resolution_and_below(tmp_path):
    (tmp_path / "set").mkdir()
    for index in range(3):
        Image.new("RGB", (90, 50), (index, 0, 0)).save(tmp_path / "set" / f"{index}.png")
    archive = tmp_path / "set.zip"
    made = prepare(tmp_path / "set", archive, options=PrepareOptions(resolution="24x40"))
    assert str(made).startswith(f"{archive}: 3 images, 24x40 RGB")
    assert ImageDataset(archive).resolution == "24x40"
    dataset = ImageDataset(archive, resolution="12x20")
    assert dataset[1].shape == (3, 12, 20)
    assert dataset.gather([0, 1], resolution="6x10").shape == (2, 3, 6, 10)
