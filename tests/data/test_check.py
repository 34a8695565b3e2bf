import json
import zipfile

import pytest
from PIL import Image

from stylegan.data.check import examine, read_record, select
from stylegan.data.prepare import PrepareOptions, prepare
from stylegan.data.sources.open import open_source
from stylegan.image_size import ImageSize


def selection_of(path, **options):
    source = open_source(path)
    return select(source, examine(source, workers=2), **options)


def test_every_offender_is_listed_once_with_its_reason(rogues, rogue_reasons):
    selection = selection_of(rogues)
    assert [name for name, _ in selection.bad] == sorted(rogue_reasons)
    for name, reason in selection.bad:
        assert reason.startswith(rogue_reasons[name])
    assert (selection.size, str(selection.pixels), len(selection.usable)) == (
        ImageSize(16, 16),
        "RGB",
        9,
    )


def save(path, *sizes):
    path.mkdir()
    for index, size in enumerate(sizes):
        Image.new("RGB", size).save(path / f"{index}.png")
    return path


def test_the_most_common_size_that_fits_is_the_sets(tmp_path):
    path = save(tmp_path / "a", *[(8, 8)] * 3, *[(32, 32)] * 2, *[(20, 20)] * 4, (64, 64))
    assert selection_of(path).size == ImageSize(8, 8)
    selection = selection_of(path, resolution=16)
    assert selection.size == ImageSize(32, 32)
    reasons = dict(selection.bad)
    assert reasons["0.png"] == "wrong size 8x8 (below the resolution 16)"
    assert reasons["5.png"] == "wrong size 20x20 (not a power of two)"
    assert reasons["9.png"] == "wrong size 64x64 (most images are 32x32)"
    assert len(selection.usable) == 2


def test_the_larger_of_two_equally_common_sizes_wins(tmp_path):
    assert selection_of(save(tmp_path / "a", (8, 8), (16, 16))).size == ImageSize(16, 16)
    assert selection_of(save(tmp_path / "b", (16, 16), (8, 8))).size == ImageSize(16, 16)


@pytest.mark.parametrize(("num_color", "mode"), [(1, "L"), (2, "RGB"), (3, "RGB")])
def test_the_majority_decides_about_color(tmp_path, num_color, mode):
    for index in range(4):
        Image.new("RGB" if index < num_color else "L", (8, 8)).save(tmp_path / f"{index}.png")
    selection = selection_of(tmp_path)
    assert str(selection.pixels) == mode
    assert len(selection.usable) == (4 if mode == "RGB" else 3)


def test_the_record_of_a_prepared_zip_spares_decoding(folder, tmp_path, monkeypatch):
    archive = tmp_path / "set.zip"
    prepare(folder, archive, options=PrepareOptions(resolution=8))
    source = open_source(archive)
    decoded = examine(open_source(folder))
    monkeypatch.setattr("stylegan.data.check.read_raster", None)
    entries = examine(source)
    assert [entry.size for entry in entries] == [(8, 8)] * len(decoded)
    assert {str(entry.pixels) for entry in entries} == {"RGB"}


def rewrite(archive, change):
    with zipfile.ZipFile(archive) as file:
        content = {name: file.read(name) for name in file.namelist()}
    change(content)
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


def test_a_record_that_does_not_fit_is_not_believed(folder, tmp_path):
    archive = tmp_path / "set.zip"

    def fresh():
        prepare(folder, archive, options=PrepareOptions(resolution=8), overwrite=True)
        assert read_record(open_source(archive)) is not None

    def cut(content):
        content["00000/img00000002.png"] = content["00000/img00000002.png"][:90]

    def take(content):
        del content["00000/img00000006.png"]

    def blank(content):
        content["prepare.json"] = json.dumps({"images": 3}).encode()

    for change in (cut, take, blank):
        fresh()
        rewrite(archive, change)
        assert read_record(open_source(archive)) is None
    fresh()
    rewrite(archive, cut)
    (bad,) = selection_of(archive).bad
    assert bad[0] == "00000/img00000002.png"
    assert bad[1].startswith("truncated or damaged")


def test_images_that_are_not_square_are_used_natively_if_nearly_all_have_one_size(tmp_path):
    wide = save(tmp_path / "a", *[(40, 24)] * 19, (16, 16))
    selection = selection_of(wide)
    assert (selection.size, len(selection.usable)) == (ImageSize(24, 40), 19)
    assert selection.bad == (("19.png", "wrong size 16x16 (most images are 40x24)"),)
    mixed = save(tmp_path / "b", *[(40, 24)] * 8, *[(16, 16)] * 2)
    assert selection_of(mixed).size == ImageSize(16, 16)
    # (6x4) * 2^2 and (25x15) * 2^1: too few doublings
    for name, size in (("c", (24, 16)), ("d", (50, 30))):
        assert selection_of(save(tmp_path / name, size)).size is None


def test_a_resolution_that_is_not_square_takes_its_multiples(tmp_path):
    path = save(tmp_path / "a", (40, 24), (80, 48), (80, 48), (24, 40), (20, 12), (120, 72))
    selection = selection_of(path, resolution="24x40")
    assert (selection.size, len(selection.usable)) == (ImageSize(48, 80), 2)
    reasons = dict(selection.bad)
    assert reasons["0.png"] == "wrong size 40x24 (most images are 80x48)"
    assert reasons["3.png"] == "wrong size 24x40 (below the resolution 24x40, height x width)"
    assert reasons["4.png"] == "wrong size 20x12 (below the resolution 24x40, height x width)"
    assert reasons["5.png"].endswith("(not 24x40, height x width, times a power of two)")
