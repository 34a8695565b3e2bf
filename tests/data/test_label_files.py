"""Labels by names as people write them."""

import json
import logging
import shutil
import zipfile

import pytest
import torch

from stylegan import images
from stylegan.data.dataset import ImageDataset
from stylegan.data.label_files import (
    labels_by_folder,
    natural_key,
    read_csv_labels,
    read_labels,
    wrapping_folder,
)
from stylegan.data.prepare import PrepareOptions, prepare
from stylegan.data.sources.open import open_source
from stylegan.errors import DataError

CATS_AND_DOGS = [f"{kind}/{index}.png" for kind in ("cats", "dogs") for index in range(3)]
PAIRS = [[name, int(name.startswith("dogs"))] for name in CATS_AND_DOGS]


def write_images(folder, names):
    for index, name in enumerate(names):
        images.write(torch.full([3, 16, 16], 10 * index, dtype=torch.uint8), folder / name)
    return folder


def write_labels(folder, pairs, **more):
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs, **more}))


def zipped(folder, path, *, separator="/"):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = file.relative_to(folder).as_posix().replace("/", separator)
                info = zipfile.ZipInfo("x")
                info.filename = name  # as it is, with backslashes
                archive.writestr(info, file.read_bytes())
    return path


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        ([], ""),
        (["a.png", "b/c.png"], ""),
        (["photos/cats/1.png", "photos/dogs/1.png"], "photos/"),
        (["photos/cats/1.png", "photos/catty/1.png"], "photos/"),
        (["a/b/c/1.png", "a/b/2.png"], "a/b/"),
        (["/a/1.png", "/a/2.png"], "a/"),
    ],
)
def test_the_wrapping_folder_holds_all_images(names, folder):
    assert wrapping_folder(names) == folder


@pytest.mark.parametrize("depth", ["photos", "download/photos"])
@pytest.mark.parametrize("kind", ["folder", "zip", "backslashes"])
def test_a_wrapping_folder_does_not_hide_labels_and_classes(tmp_path, depth, kind):
    photos = write_images(tmp_path / "set" / depth, CATS_AND_DOGS)
    write_labels(photos, PAIRS)
    source = tmp_path / "set"
    if kind != "folder":
        separator = "/" if kind == "zip" else "\\"
        source = zipped(source, tmp_path / "set.zip", separator=separator)
    opened = open_source(source)
    assert sorted(read_labels(opened).by_name.values()) == [0, 0, 0, 1, 1, 1]
    labels = labels_by_folder(opened)
    assert labels.classes == ("cats", "dogs")
    assert [labels.by_name[name] for name in opened.images] == [0, 0, 0, 1, 1, 1]
    assert ImageDataset(source).labels == (0, 0, 0, 1, 1, 1)


@pytest.mark.parametrize("written", ["", "photos/"])
@pytest.mark.parametrize("is_zip", [False, True])
def test_a_picture_beside_the_wrapping_folder_does_not_hide_labels(
    tmp_path, written, is_zip, caplog
):
    photos = write_images(tmp_path / "set" / "photos", CATS_AND_DOGS)
    write_images(tmp_path / "set", ["cover.png", "more/cover.png"])
    write_labels(photos, [[written + name, label] for name, label in PAIRS])
    source = tmp_path / "set"
    labels = read_labels(open_source(zipped(source, tmp_path / "set.zip") if is_zip else source))
    assert labels.by_name == {f"photos/{name}": label for name, label in PAIRS}
    (line,) = caplog.messages
    assert "photos/dataset.json; 2 images outside of that folder have no label" in line


def test_labels_of_several_folders_are_not_mixed(tmp_path, caplog):
    for name in ("a", "b"):
        write_labels(write_images(tmp_path / name, CATS_AND_DOGS), PAIRS)
    assert read_labels(open_source(tmp_path)) is None
    (line,) = caplog.messages
    assert "no labels are read, as 2 folders have a dataset.json; a/ and b/" in line
    assert "name one of the folders" in line


@pytest.mark.parametrize("place", ["", "photos/"])
@pytest.mark.parametrize("written", ["", "photos/"])
def test_names_in_labels_may_have_the_wrapping_folder_or_not(tmp_path, place, written):
    write_images(tmp_path / "set" / "photos", CATS_AND_DOGS)
    write_labels(tmp_path / "set" / place, [[written + name, label] for name, label in PAIRS])
    assert ImageDataset(tmp_path / "set").labels == (0, 0, 0, 1, 1, 1)


def test_files_of_macos_and_readmes_are_outside_the_wrapping_folder(tmp_path):
    photos = write_images(tmp_path / "set" / "photos", CATS_AND_DOGS)
    write_labels(photos, PAIRS)
    shutil.copytree(photos, tmp_path / "set" / "__MACOSX" / "photos")
    (tmp_path / "set" / "README.txt").write_text("photos of cats and dogs")
    opened = open_source(zipped(tmp_path / "set", tmp_path / "set.zip"))
    assert sorted(read_labels(opened).by_name.values()) == [0, 0, 0, 1, 1, 1]
    assert labels_by_folder(opened).classes == ("cats", "dogs")


def test_entries_of_a_zip_may_have_a_leading_dot_and_a_drive(tmp_path):
    photos = write_images(tmp_path / "photos", CATS_AND_DOGS)
    write_labels(photos, PAIRS)
    for prefix in ("./", "/", "../me/", "C:\\Users\\me\\"):
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for path in sorted(photos.rglob("*.*")):
                name = prefix + path.relative_to(tmp_path).as_posix()
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes())
        assert ImageDataset(tmp_path / "set.zip").labels == (0, 0, 0, 1, 1, 1), prefix
        assert labels_by_folder(open_source(tmp_path / "set.zip")).classes == ("cats", "dogs")


@pytest.mark.parametrize("prefix", ["C:\\Users\\me\\set\\", "/home/me/set/", "set/", "..\\set\\"])
def test_a_folder_that_all_names_begin_with_is_passed_over(tmp_path, prefix, caplog):
    folder = write_images(tmp_path / "set", CATS_AND_DOGS)
    write_labels(folder, [[prefix + name.replace("/", "\\"), label] for name, label in PAIRS])
    with caplog.at_level(logging.INFO):
        assert ImageDataset(folder).labels == (0, 0, 0, 1, 1, 1)
    assert "names are compared without their folder" in caplog.text
    rows = [f"{prefix}{name},{label}\n" for name, label in PAIRS]
    (tmp_path / "labels.csv").write_text("".join(rows))
    labels = read_csv_labels(tmp_path / "labels.csv", open_source(folder))
    assert labels.by_name == dict(PAIRS)


def test_a_folder_is_not_passed_over_where_some_names_are_those_of_images(tmp_path):
    folder = write_images(tmp_path / "set", ["a.png", "b.png", "old/a.png"])
    write_labels(folder, [["old/a.png", 1], ["old/b.png", 2]])
    assert read_labels(open_source(folder)).by_name == {"old/a.png": 1}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("cats/1.png", "cats\\1.png"),
        ("cats/1.png", ".\\cats\\1.png"),
        ("cats/1.png", "cats//1.png "),
        ("cats/1.png", "CATS\\1.PNG"),
        ("cats/1.png", "./cats/1.png"),
        ("cats/1.png", "/cats/1.png"),
        ("Café.png", "Cafe\u0301.png"),
        ("Cafe\u0301.png", "Café.png"),
        ("IMG_1.JPG.png", "img_1.jpg.PNG"),
    ],
)
def test_names_are_compared_after_normalization(tmp_path, name, written):
    folder = write_images(tmp_path / "set", [name, "other.png"])
    write_labels(folder, [[written, 3], ["other.png", 1]])
    (image,) = [each for each in open_source(folder).images if each != "other.png"]
    assert read_labels(open_source(folder)).by_name == {image: 3, "other.png": 1}


def test_ambiguous_case_is_not_guessed(tmp_path):
    folder = write_images(tmp_path / "set", ["a.png", "A.png", "b.png"])
    write_labels(folder, [["a.PNG", 3], ["B.png", 1]])
    assert read_labels(open_source(folder)).by_name == {"b.png": 1}


def test_whole_floats_and_names_are_classes(tmp_path):
    folder = write_images(tmp_path / "set", ["a.png", "b.png", "c.png"])
    write_labels(folder, [["a.png", 0.0], ["b.png", 2.0], ["c.png", 1]])
    assert ImageDataset(folder).labels == (0, 2, 1)
    assert ImageDataset(folder).label_table.has_classes
    write_labels(folder, {"a.png": "10", "b.png": "cat", "c.png": "9"})
    labels = read_labels(open_source(folder))
    assert labels.classes == ("9", "10", "cat")
    assert labels.by_name == {"a.png": 1, "b.png": 2, "c.png": 0}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ('[["a.png", 1e0], ["b.png", -0.0]]', (1, 0)),
        ('[["a.png", 1.0], ["b.png", NaN]]', (1, None)),
        ('[["a.png", null], ["b.png", 1.0]]', (None, 1)),
        ('[["a.png", true], ["b.png", false]]', (1, 0)),
        ('{"a.png": "1.0", "b.png": "0.0"}', (1, 0)),
        ('[["a.png", [0.0, 1]], ["b.png", [1.0, 0]]]', ((0, 1), (1, 0))),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_are_read_as_other_programs_write_them(tmp_path, labels, expected, encoding):
    folder = write_images(tmp_path / "set", ["a.png", "b.png"])
    text = f'{{"labels":\r\n{labels}}}'
    (folder / "dataset.json").write_text(text, encoding=encoding, newline="")
    found = ImageDataset(folder).labels
    assert (found, list(map(type, found))) == (expected, list(map(type, expected)))


def test_a_file_that_names_other_images_is_reported_and_leaves_them_usable(tmp_path, caplog):
    folder = write_images(tmp_path / "set", ["a.png", "b.png"])
    write_labels(folder, [["img0.png", 0], ["img1.png", 1]])
    assert ImageDataset(folder).labels is None
    assert "such as 'img0.png' where the images have names such as 'a.png'" in caplog.text
    options = PrepareOptions(resolution=16)
    assert prepare(folder, tmp_path / "set.zip", options=options).num_images == 2


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["10/a.png", "2/a.png", "1/a.png"], ("1", "2", "10")),
        (["v1.10/a.png", "v1.9/a.png"], ("v1.9", "v1.10")),
        (["b/a.png", "A/a.png", "c/a.png"], ("A", "b", "c")),
        (["photos/cats/a.png", "photos/cats/b.png"], ("cats",)),
        (["cats/a.png"], ("cats",)),
        (["class 10/a.png", "Class 9/a.png", "class 1/a.png"], ("class 1", "Class 9", "class 10")),
        (["10_dog/a.png", "2_eel/a.png", "1_cat/b/a.png"], ("1_cat", "2_eel", "10_dog")),
        (["010/a.png", "10/a.png", "9/a.png"], ("9", "010", "10")),
        (["photos/10/x/a.png", "photos/2/a.png", "photos/1/y/a.png"], ("1", "2", "10")),
    ],
)
def test_folders_are_classes_in_natural_order(tmp_path, names, classes):
    source = open_source(write_images(tmp_path / "set", names))
    assert labels_by_folder(source).classes == classes
    assert len(labels_by_folder(source).by_name) == len(names)


def test_images_beside_numbered_folders_have_no_class(tmp_path):
    source = open_source(write_images(tmp_path / "set", ["10/a.png", "2/a.png", "b.png"]))
    assert labels_by_folder(source).classes == ("2", "10")
    assert labels_by_folder(source).by_name == {"10/a.png": 1, "2/a.png": 0}


def test_natural_order():
    names = ["img10", "img9", "Img1", "2", "10", "a"]
    assert sorted(names, key=natural_key) == ["2", "10", "a", "Img1", "img9", "img10"]


@pytest.mark.parametrize(
    ("text", "labels", "classes", "attributes"),
    [
        ("a.png,1\nb.png,0\n", {"a.png": 1, "b.png": 0}, (), ()),
        ("file;kind\na.png;dog\nb.png;cat\n", {"a.png": 1, "b.png": 0}, ("cat", "dog"), ()),
        ("name\tlabel\na.png\t1.0\nb.png\t0.0\n", {"a.png": 1, "b.png": 0}, (), ()),
        (
            "name,Smiling,age\na.png,1,0.5\nb.png,0,0.25\n",
            {"a.png": (1, 0.5), "b.png": (0, 0.25)},
            (),
            ("Smiling", "age"),
        ),
        (",name,label\n0,a.png,1.0\n1,b.png,0.0\n", {"a.png": 1, "b.png": 0}, (), ()),
        (
            ",name,old,long\n7,a.png,1,0\n9,b.png,0,1\n",
            {"a.png": (1, 0), "b.png": (0, 1)},
            (),
            ("old", "long"),
        ),
        (
            ",old,long\na.png,1,0\nb.png,0,1\n",
            {"a.png": (1, 0), "b.png": (0, 1)},
            (),
            ("old", "long"),
        ),
        ("name,label\na.png,1.0\nb.png,\n", {"a.png": 1}, (), ()),
        ("name,label\na.png,nan\nb.png,cat\n", {"b.png": 0}, ("cat",), ()),
        ('sep=;\r\n"a.png";"1"\r\n"b.png";"0"\r\n', {"a.png": 1, "b.png": 0}, (), ()),
        ("a.png, 1\rb.png, 0\r", {"a.png": 1, "b.png": 0}, (), ()),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_gives_classes_or_vectors(tmp_path, text, labels, classes, attributes, encoding):
    source = open_source(write_images(tmp_path / "set", ["a.png", "b.png"]))
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding=encoding, newline="")
    table = read_csv_labels(path, source)
    assert table.by_name == labels
    assert (table.classes, table.attributes) == (classes, attributes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a name and the same number of labels in each row"),
        ("a.png\nb.png\n", "must have a name and the same number"),
        ("a.png,1\nb.png,1,2\n", "must have a name and the same number"),
        ("a.png,1,x\n", "label of a.png that is not a number"),
        ("x.png,1\ny.png,0\n", "names none of the images"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    source = open_source(write_images(tmp_path / "set", ["a.png", "b.png"]))
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_csv_labels(tmp_path / "labels.csv", source)


def test_a_table_in_another_encoding_is_refused_with_what_to_do(tmp_path):
    source = open_source(write_images(tmp_path / "set", ["a.png", "b.png"]))
    (tmp_path / "labels.csv").write_text("a.png;café\nb.png;x\n", encoding="cp1252")
    with pytest.raises(DataError, match=r"labels\.csv cannot be read .*; save it in UTF-8"):
        read_csv_labels(tmp_path / "labels.csv", source)


def test_prepare_prints_classes_and_the_set_keeps_their_names(tmp_path, caplog):
    folder = write_images(tmp_path / "set", ["1/a.png", "2/a.png", "10/a.png", "10/b.png"])
    options = PrepareOptions(resolution=16, labels_from="folders")
    prepared = prepare(folder, tmp_path / "set.zip", options=options)
    assert str(prepared).splitlines()[:3] == [
        "class 0 1: 1 images",
        "class 1 2: 1 images",
        "class 2 10: 2 images",
    ]
    assert ImageDataset(tmp_path / "set.zip").class_names == ("1", "2", "10")
    shutil.rmtree(folder / "1")
    shutil.rmtree(folder / "2")
    prepare(folder, tmp_path / "one.zip", options=options)
    assert "all images of" in caplog.text
    assert "are of one class" in caplog.text


@pytest.mark.parametrize(
    ("labels_from", "message"),
    [
        ("folders", "no image in a subfolder"),
        ("json", "no labels of its images in dataset.json"),
        ("absent.csv", "absent.csv cannot be read"),
    ],
)
def test_labels_that_are_asked_for_and_missing_are_refused(tmp_path, labels_from, message):
    folder = write_images(tmp_path / "set", ["a.png"])
    options = PrepareOptions(resolution=16, labels_from=labels_from)
    with pytest.raises(DataError, match=message):
        prepare(folder, tmp_path / "set.zip", options=options)
    assert not (tmp_path / "set.zip").exists()
