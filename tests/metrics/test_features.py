"""Features are computed once, kept, and found again."""

import errno
import os

import numpy as np
import pytest
import torch
from metric_helpers import PlainDetector

from stylegan import images
from stylegan.data.pictures import Pictures
from stylegan.errors import DataError
from stylegan.image_size import ImageSize
from stylegan.metrics import features
from stylegan.metrics.features import FeatureRequest, cache_folder, extract
from stylegan.metrics.sources import StoredImages
from stylegan.perceptual.detector import as_rgb_uint8


def request(detector, folder, *storage):
    return {"plain": FeatureRequest(detector=detector, storage=frozenset(storage), folder=folder)}


def test_moments_and_rows_are_those_of_all_images(detector, smooth_folder, tmp_path):
    pictures = Pictures(smooth_folder)
    storage = request(detector, tmp_path / "kept", "moments", "float32", "float16")
    found = extract(StoredImages(pictures), storage)["plain"]
    stacked = torch.stack([pictures[index] for index in range(len(pictures))])
    expected = detector(detector.prepare(stacked)).detach()
    assert np.array_equal(found.float32, expected.numpy())
    assert np.array_equal(found.float16, expected.half().numpy())
    assert torch.allclose(found.moments.mean, expected.double().mean(dim=0), rtol=1e-12)
    covariance = torch.cov(expected.double().T)
    assert torch.allclose(found.moments.covariance(unbiased=True), covariance, rtol=1e-10)


def test_what_is_there_is_not_computed_again(detector, smooth_folder, tmp_path):
    source = StoredImages(Pictures(smooth_folder))
    storage = request(detector, tmp_path / "kept", "moments")
    first = extract(source, storage)["plain"]
    assert detector.num_seen == 150
    second = extract(source, storage)["plain"]
    assert detector.num_seen == 150
    assert torch.equal(first.moments.mean, second.moments.mean)
    extract(source, request(detector, tmp_path / "kept", "moments", "float32"))
    assert detector.num_seen == 300


def test_a_full_disk_is_reported_and_nothing_is_left(
    detector, smooth_folder, tmp_path, monkeypatch
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    storage = request(detector, tmp_path / "kept", "float32")
    with pytest.raises(OSError, match="No space left"):
        extract(StoredImages(Pictures(smooth_folder)), storage)
    assert list((tmp_path / "kept").iterdir()) == []


def test_the_cache_distinguishes_sets_options_and_networks(detector, smooth_folder, monkeypatch):
    pictures = Pictures(smooth_folder)
    sources = [
        StoredImages(pictures),
        StoredImages(pictures, num=100),
        StoredImages(pictures, num=100, spread=True),
        StoredImages(pictures, mirror_seed=0),
        StoredImages(pictures, mirror_seed=1),
    ]
    folders = [cache_folder(source, detector) for source in sources]
    folders.append(cache_folder(StoredImages(pictures, size=ImageSize(16, 16)), detector))
    for name, value in (("weights_sha256", "1" * 64), ("resize", "bicubic to 8"), ("name", "x")):
        with monkeypatch.context() as patch:
            patch.setattr(detector, name, value)
            folders.append(cache_folder(sources[0], detector))
    with monkeypatch.context() as patch:
        patch.setattr(features, "_FORMAT", 2)
        folders.append(cache_folder(sources[0], detector))
    assert len(set(folders)) == 10
    # all images are all images, whatever count asked for them
    assert cache_folder(StoredImages(pictures, num=900), detector) == folders[0]


def test_images_of_several_sizes_are_resized_one_by_one(detector, tmp_path):
    for index, (height, width) in enumerate([(16, 16), (24, 10), (9, 30), (16, 16)]):
        images.write(
            torch.full([3, height, width], 40 * index, dtype=torch.uint8), tmp_path / f"{index}.png"
        )
    pictures = Pictures(tmp_path)
    assert pictures.size is None
    found = extract(StoredImages(pictures), request(detector, tmp_path / "kept", "float32"))
    assert found["plain"].float32.shape == (4, 24)
    assert np.allclose(found["plain"].float32[3], 3 * found["plain"].float32[1], atol=1e-5)


class SelfResizing(PlainDetector):
    """As the official files: images are of the network's size only within it."""

    def prepare(self, images):
        return as_rgb_uint8(images)

    def forward(self, prepared):
        return super().forward(super().prepare(prepared))


def test_networks_that_resize_by_themselves_take_several_sizes(smooth_folder, tmp_path):
    pictures = Pictures(smooth_folder)
    shapes = [(16, 16), (12, 10), (9, 16), (16, 16)]
    for index, (height, width) in enumerate(shapes):
        images.write(pictures[index][:, :height, :width], tmp_path / "set" / f"{index}.png")
    several = Pictures(tmp_path / "set")
    found = [
        extract(StoredImages(several), request(each, tmp_path / type(each).__name__, "float32"))
        for each in (SelfResizing(), PlainDetector())
    ]
    assert np.array_equal(found[0]["plain"].float32, found[1]["plain"].float32)


def test_large_images_are_prepared_a_few_at_a_time(detector, smooth_folder, tmp_path, monkeypatch):
    source = StoredImages(Pictures(smooth_folder))
    whole = extract(source, request(detector, tmp_path / "whole", "float32"))["plain"].float32
    sizes = []
    prepare = PlainDetector.prepare
    monkeypatch.setattr(
        PlainDetector, "prepare", lambda s, pixels: sizes.append(len(pixels)) or prepare(s, pixels)
    )
    monkeypatch.setattr(features, "_PIXELS_AT_ONCE", 16 * 16 * 10)
    parts = extract(source, request(detector, tmp_path / "parts", "float32"))["plain"].float32
    assert sizes == [10, 10, 10, 10, 10, 10, 4] * 2 + [10, 10, 2]
    assert np.array_equal(parts, whole)
    monkeypatch.setattr(features, "_PIXELS_AT_ONCE", 1)  # images beyond it go one by one
    parts = extract(source, request(detector, tmp_path / "single", "float32"))["plain"].float32
    assert sizes[-150:] == [1] * 150


def test_two_evaluations_at_once_do_not_meet(detector, smooth_folder, tmp_path):
    kept = tmp_path / "kept"
    storage = request(detector, kept, "float32", "moments")
    source = StoredImages(Pictures(smooth_folder))

    class Interrupted(StoredImages):
        """In the midst of its images, another evaluation storage and writes the same."""

        def chunks(self, indices):
            for index, chunk in enumerate(super().chunks(indices)):
                if index == 1:
                    extract(source, storage)
                yield chunk

    outer = extract(Interrupted(Pictures(smooth_folder)), storage)["plain"].float32
    expected = extract(source, request(detector, tmp_path / "alone", "float32"))["plain"].float32
    assert np.array_equal(outer, expected)
    assert {path.name for path in kept.iterdir()} == {"float32.npy", "moments.safetensors"}


def test_a_pass_that_fails_leaves_nothing_behind(detector, smooth_folder, tmp_path, monkeypatch):
    def fail(images):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(detector, "prepare", fail)
    kept = tmp_path / "kept"
    with pytest.raises(RuntimeError):
        extract(StoredImages(Pictures(smooth_folder)), request(detector, kept, "float32"))
    assert list(kept.iterdir()) == []


def test_damaged_statistics_are_reported(detector, smooth_folder, tmp_path):
    source = StoredImages(Pictures(smooth_folder))
    storage = request(detector, tmp_path / "kept", "moments", "float32")
    extract(source, storage)
    for name in ("moments.safetensors", "float32.npy"):
        before = (tmp_path / "kept" / name).read_bytes()
        (tmp_path / "kept" / name).write_bytes(before[:50])
        with pytest.raises(DataError, match="damaged statistics"):
            extract(source, storage)
        (tmp_path / "kept" / name).write_bytes(before)
