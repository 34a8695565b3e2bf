import json
import logging
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.data.array_files import reduce
from stylegan.data.dataset import ImageDataset
from stylegan.data.prepare import PrepareOptions, prepare
from stylegan.data.readers import Reading
from stylegan.data.sources.zip import ZipSource
from stylegan.errors import ConfigError, DataError


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB")).transpose(2, 0, 1).copy())


def test_images_come_in_the_order_of_their_names_with_their_pixels(folder):
    (folder / "001.png").rename(folder / "z.png")
    (folder / "sub").mkdir()
    (folder / "002.png").rename(folder / "sub" / "a.png")
    dataset = ImageDataset(folder)
    assert dataset.image_names == (
        *("000.png", "003.png", "004.png", "005.png", "006.png"),
        *("sub/a.png", "z.png"),
    )
    for index, name in enumerate(dataset.image_names):
        assert torch.equal(dataset[index], pixels(folder / name))
    assert dataset[0].dtype == torch.uint8
    assert (dataset.resolution, dataset.num_channels, len(dataset)) == (16, 3, 7)
    assert (dataset.name, dataset.bad, dataset.labels) == ("set", (), None)


def test_a_zip_gives_what_its_folder_gives(folder, make_zip, tmp_path):
    in_folder = ImageDataset(folder)
    in_zip = ImageDataset(make_zip(folder, tmp_path / "set.zip"))
    assert in_zip.image_names == in_folder.image_names
    assert in_zip.fingerprint == in_folder.fingerprint
    assert in_zip.name == "set"
    assert all(torch.equal(in_zip[index], in_folder[index]) for index in range(7))


def test_a_mirrored_set_has_a_flipped_second_half(folder):
    dataset, plain = ImageDataset(folder, mirror=True), ImageDataset(folder)
    assert len(dataset) == 14
    for index in range(7):
        assert torch.equal(dataset[index], plain[index])
        assert torch.equal(dataset[7 + index], plain[index].flip(2))
    with pytest.raises(IndexError, match="image 14 of 14"):
        dataset[14]


def test_reduction_is_one_mean_rounded_once_to_nearest_with_halves_up():
    image = torch.tensor([[[0, 1, 4, 4], [1, 0, 4, 5], [0, 0, 0, 255], [0, 1, 0, 0]]])
    expected = torch.tensor([[[1, 4], [0, 64]]], dtype=torch.uint8)  # 0.5, 4.25, 0.25, 63.75
    assert torch.equal(reduce(image.to(torch.uint8), 2), expected)
    assert reduce(torch.full((1, 4, 4), 255, dtype=torch.uint8), 4).item() == 255
    # Four means of 1/2 each: rounded at every halving they would come out as 1.
    image = torch.tensor([1, 0, 1, 0, 0, 1, 0, 0], dtype=torch.uint8).repeat(2).reshape(1, 4, 4)
    assert reduce(image, 4).item() == 0  # 6 / 16
    assert reduce(reduce(image, 2), 2).item() == 1


def test_a_lower_resolution_is_box_filtered_on_the_fly(folder):
    dataset, plain = ImageDataset(folder, resolution=4), ImageDataset(folder)
    assert dataset.resolution == 4
    mean = plain[2].to(torch.float64).reshape(3, 4, 4, 4, 4).mean(dim=(2, 4))
    assert torch.equal(dataset[2], (mean + 0.5).floor().to(torch.uint8))


def test_what_cannot_be_used_is_skipped_by_name_and_the_rest_is_converted(
    rogues, rogue_reasons, caplog
):
    dataset = ImageDataset(rogues)
    assert dataset.image_names == (
        *("000.png", "001.png", "002.png", "cmyk.jpg", "grey.png", "palette.png"),
        *("rgba.png", "rotated.png", "sixteen.png"),
    )
    assert [name for name, _ in dataset.bad] == sorted(rogue_reasons)
    for name, reason in dataset.bad:
        assert reason.startswith(rogue_reasons[name])
        assert any(name in line and f": {reason} (" in line for line in caplog.messages)
    assert "skipped 7 files; 9 images left" in caplog.messages
    assert "2 grey images in a color set: converted to RGB" in caplog.messages
    assert {tuple(dataset[index].shape) for index in range(9)} == {(3, 16, 16)}
    by_name = {name: dataset[index] for index, name in enumerate(dataset.image_names)}
    assert torch.equal(by_name["grey.png"][0], by_name["grey.png"][2])
    turned = pixels(rogues / "rotated.png").rot90(-1, dims=(1, 2))  # 6: turn clockwise to view
    assert torch.equal(by_name["rotated.png"], turned)


def test_transparent_pixels_become_white_if_that_is_the_background(tmp_path):
    levels = np.zeros((16, 16, 4), dtype=np.uint8)
    levels[:, :8, 3] = 255
    Image.fromarray(levels).save(tmp_path / "half.png")
    image = ImageDataset(tmp_path, reading=Reading(background=(255, 255, 255)))[0]
    assert image[:, :, :8].max() == 0
    assert image[:, :, 8:].min() == 255


def test_on_bad_fail_names_the_first_offender_and_the_count(rogues):
    with pytest.raises(
        DataError, match=r"rogues has 7 unusable files, the first is empty.png: empty"
    ):
        ImageDataset(rogues, on_bad="fail")


def test_a_grey_set_has_one_channel_and_no_room_for_color(tmp_path):
    for index in range(3):
        Image.new("L", (16, 16), index).save(tmp_path / f"{index}.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "color.png")
    dataset = ImageDataset(tmp_path)
    assert dataset.num_channels == 1
    assert dataset[2].tolist() == [[[2] * 16] * 16]
    assert dataset.bad == (("color.png", "wrong mode RGB (most images are grey)"),)


def test_a_set_with_no_usable_image_and_no_set_at_all_are_refused(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no usable image among 1 files"):
        ImageDataset(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        ImageDataset(tmp_path / "absent")
    with pytest.raises(DataError, match="neither a folder nor a readable zip"):
        ImageDataset(tmp_path / "a.png")


def test_images_below_the_resolution_and_odd_resolutions_are_refused(folder):
    with pytest.raises(DataError, match="no usable image among 7 files"):
        ImageDataset(folder, resolution=32)
    with pytest.raises(ConfigError, match="the resolution 25 is"):
        ImageDataset(folder, resolution=25)


def test_preloading_changes_nothing_but_the_speed(rogues):
    plain, cached = ImageDataset(rogues, mirror=True), ImageDataset(rogues, mirror=True)
    assert cached.preload(9 * 3 * 16 * 16, 2)
    assert cached.is_cached
    assert len(cached) == len(plain) == 18
    shutil.rmtree(rogues)  # the cache needs no file
    assert cached.gather(range(18)).shape == (18, 3, 16, 16)
    with pytest.raises(DataError):
        plain[0]


def test_the_set_without_its_mirrored_half_shares_the_cache(folder):
    dataset = ImageDataset(folder, mirror=True)
    assert not dataset.without_mirror().is_cached
    dataset.preload(2**20, 1)
    plain = dataset.without_mirror()
    assert plain.is_cached
    assert plain._cache is dataset._cache
    assert 2 * len(plain) == len(dataset)
    assert dataset.is_mirrored
    assert not plain.is_mirrored


def test_preloading_beyond_the_budget_is_declined_and_said(folder, caplog):
    caplog.set_level(logging.INFO)
    dataset = ImageDataset(folder)
    assert not dataset.preload(7 * 3 * 16 * 16 - 1, 1)
    assert not dataset.is_cached
    assert "exceed the budget" in caplog.text


def test_the_cache_holds_the_same_pixels(folder):
    plain, cached = ImageDataset(folder, resolution=8), ImageDataset(folder, resolution=8)
    calls = []
    assert cached.preload(2**20, 3, progress=lambda done, total: calls.append((done, total)))
    assert torch.equal(cached.gather(range(7)), plain.gather(range(7)))
    assert calls == [(done, 7) for done in range(1, 8)]


def test_a_file_that_breaks_later_is_named_and_the_set_keeps_its_length(folder):
    dataset = ImageDataset(folder)
    (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:300])
    (folder / "004.png").unlink()
    Image.new("RGB", (32, 32)).save(folder / "005.png")
    for index, reason in [
        (3, "truncated"),
        (4, "unreadable"),
        (5, "the size is 32x32 now, and was 16x16"),
    ]:
        with pytest.raises(DataError, match=rf"00{index}.png in .*: {reason}"):
            dataset[index]
    with pytest.raises(DataError, match=r"2 of 7 images cannot be read any more \(00"):
        dataset.preload(2**20, 1)
    assert len(dataset) == 7


@pytest.mark.parametrize("preload", [False, True])
def test_the_next_image_takes_the_place_of_one_that_breaks(folder, preload, caplog):
    pairs = [[f"{index:03d}.png", index] for index in range(7)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    intact = ImageDataset(folder).gather(range(7))
    dataset = ImageDataset(folder, mirror=True)
    (folder / "006.png").write_bytes(b"")
    if preload:
        dataset.preload(2**20, 1)
    expected = intact[[0, 1, 2, 3, 4, 5, 0]]
    for _ in range(2):
        assert torch.equal(dataset.gather(range(7)), expected)
    assert torch.equal(dataset.gather(range(7, 14)), expected.flip(3))
    assert dataset.gather_labels([5, 6, 13]).argmax(dim=1).tolist() == [5, 0, 0]
    (warning,) = [line for line in caplog.messages if "in its place" in line]
    assert warning.startswith(f"006.png in {folder}: empty")


def rot(path, num):
    """Change a byte in the middle of the first images of a zip."""
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".png")][:num]
    content = bytearray(path.read_bytes())
    for info in infos:
        content[info.header_offset + 100] ^= 1
    path.write_bytes(content)


def test_a_prepared_zip_is_verified_once(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "set.zip"
    prepare(folder, path, options=PrepareOptions(resolution=16))
    reads = []
    read = ZipSource.read
    monkeypatch.setattr(
        ZipSource, "read", lambda self, name: (reads.append(name), read(self, name))[1]
    )
    fingerprint = ImageDataset(path).fingerprint
    assert sum(name.endswith(".png") for name in reads) == 7
    reads.clear()
    ImageDataset(path)
    assert not any(name.endswith(".png") for name in reads)
    assert caplog.text == ""
    rot(path, 1)
    for num_read in (7, 0):
        caplog.clear()
        reads.clear()
        assert ImageDataset(path).fingerprint == fingerprint
        assert sum(name.endswith(".png") for name in reads) == num_read
        assert "img00000000.png in" in caplog.text
        assert "the next image is used in its place" in caplog.text
    rot(path, 3)  # the first one is whole again
    with pytest.raises(DataError, match="2 of 7 images cannot be read any more"):
        ImageDataset(path)


def flip_a_byte(content, start, end):
    content[(start + end) // 2] ^= 1


def blank_the_end(content, start, end):
    content[(start + end) // 2 : end] = bytes(end - (start + end) // 2)


def blank_the_header(content, start, end):
    content[start : start + 30] = bytes(30)


def put_another_image_there(content, start, end):
    """Exchange the compressed data of the entry and of the one that follows."""
    size = end - start
    content[start:end] = content[end : end + size]


@pytest.mark.parametrize(
    "damage", [flip_a_byte, blank_the_end, blank_the_header, put_another_image_there]
)
@pytest.mark.parametrize("preload", [False, True])
def test_a_prepared_zip_with_damage_of_any_kind_can_be_used(
    folder, tmp_path, caplog, damage, preload
):
    path = tmp_path / "set.zip"
    prepare(folder, path, options=PrepareOptions(resolution=16))
    intact = ImageDataset(path).gather(range(7))
    with zipfile.ZipFile(path) as archive:
        starts = [info.header_offset for info in archive.infolist()]
    content = bytearray(path.read_bytes())
    damage(content, starts[2], starts[3])
    path.write_bytes(content)
    for _ in range(2):  # found by reading all, then cached
        caplog.clear()
        dataset = ImageDataset(path, workers=1)
        if preload:
            dataset.preload(2**20, 1)
        for _ in range(2):
            assert torch.equal(dataset.gather(range(7)), intact[[0, 1, 3, 3, 4, 5, 6]])
        assert caplog.text.count("img00000002.png in") == 1


def test_the_fingerprint_sees_names_and_bytes_and_labels_only(folder, tmp_path):
    first = ImageDataset(folder).fingerprint
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert ImageDataset(copy, resolution=8, mirror=True).fingerprint == first
    (copy / "006.png").rename(copy / "007.png")
    assert ImageDataset(copy).fingerprint != first
    (copy / "007.png").rename(copy / "006.png")
    assert ImageDataset(copy).fingerprint == first
    for path, color in ((copy, "#010203"), (folder, "#010204")):  # the same number of bytes
        Image.new("RGB", (16, 16), color).save(path / "003.png")
    assert (copy / "003.png").stat().st_size == (folder / "003.png").stat().st_size
    first = ImageDataset(folder).fingerprint
    assert ImageDataset(copy).fingerprint != first
    (folder / "dataset.json").write_text(json.dumps({"labels": [["000.png", 1]]}))
    assert ImageDataset(folder).fingerprint != first


def test_labels_are_looked_up_by_name_and_missing_ones_are_counted(folder, caplog):
    labels = [["002.png", 5], ["000.png", 0], ["absent.png", 3]]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert ImageDataset(folder).labels == (0, None, 5, None, None, None, None)
    assert "5 of 7 images have no label" in caplog.messages
    (folder / "dataset.json").write_text(json.dumps({"labels": [["000.png", [0.5, 1]]]}))
    labels = ImageDataset(folder).labels
    assert labels is not None
    assert labels[0] == (0.5, 1)
    (folder / "dataset.json").write_text('{"labels": null}')
    assert ImageDataset(folder).labels is None


@pytest.mark.parametrize("content", ["{", "[]", '{"labels": 3}', '{"labels": [["a.png", 0.5]]}'])
def test_a_broken_label_file_is_refused(folder, content):
    (folder / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json in "):
        ImageDataset(folder)


def test_a_set_can_be_sent_to_another_process(folder, make_zip, tmp_path):
    dataset = ImageDataset(make_zip(folder, tmp_path / "set.zip"))
    dataset.preload(2**20, 1)
    copy = pickle.loads(pickle.dumps(dataset))
    assert not copy.is_cached
    assert torch.equal(copy.gather(range(7)), dataset.gather(range(7)))


def test_the_first_decoding_reports_its_progress(folder):
    calls = []
    ImageDataset(folder, workers=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 7) for done in range(1, 8)]
