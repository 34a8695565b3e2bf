"""Features are computed once, kept, and found again."""

import numpy as np
import pytest
import torch

from stylegan.data.pictures import Pictures
from stylegan.errors import DataError
from stylegan.metrics.features import Request, cache_folder, extract
from stylegan.metrics.sources import StoredImages


def request(detector, folder, *wants):
    return {"plain": Request(detector=detector, wants=frozenset(wants), folder=folder)}


def test_moments_and_rows_are_those_of_all_images(detector, smooth_folder, tmp_path):
    pictures = Pictures(smooth_folder)
    wants = request(detector, tmp_path / "kept", "moments", "float32", "float16")
    found = extract(StoredImages(pictures), wants)["plain"]
    stacked = torch.stack([pictures[index] for index in range(len(pictures))])
    expected = detector(detector.prepare(stacked)).detach()
    assert np.array_equal(found.float32, expected.numpy())
    assert np.array_equal(found.float16, expected.half().numpy())
    assert torch.allclose(found.moments.mean, expected.double().mean(dim=0), rtol=1e-12)
    covariance = torch.cov(expected.double().T)
    assert torch.allclose(found.moments.covariance(unbiased=True), covariance, rtol=1e-10)


def test_what_is_there_is_not_computed_again(detector, smooth_folder, tmp_path):
    source = StoredImages(Pictures(smooth_folder))
    wants = request(detector, tmp_path / "kept", "moments")
    first = extract(source, wants)["plain"]
    assert detector.num_seen == 150
    second = extract(source, wants)["plain"]
    assert detector.num_seen == 150
    assert torch.equal(first.moments.mean, second.moments.mean)
    extract(source, request(detector, tmp_path / "kept", "moments", "float32"))
    assert detector.num_seen == 300


def test_the_cache_tells_sets_choices_and_networks_apart(detector, smooth_folder):
    pictures = Pictures(smooth_folder)
    sources = [
        StoredImages(pictures),
        StoredImages(pictures, num=100),
        StoredImages(pictures, num=100, spread=True),
        StoredImages(pictures, mirror_seed=0),
        StoredImages(pictures, mirror_seed=1),
    ]
    folders = [cache_folder(source, detector) for source in sources]
    detector.weights_sha256 = "1" * 64
    folders.append(cache_folder(sources[0], detector))
    assert len(set(folders)) == 6
    # all images are all images, whatever count asked for them
    detector.weights_sha256 = "0" * 64
    assert cache_folder(StoredImages(pictures, num=900), detector) == folders[0]


def test_images_of_several_sizes_are_resized_one_by_one(detector, tmp_path):
    from stylegan import images

    for index, (height, width) in enumerate([(16, 16), (24, 10), (9, 30), (16, 16)]):
        images.write(
            torch.full([3, height, width], 40 * index, dtype=torch.uint8), tmp_path / f"{index}.png"
        )
    pictures = Pictures(tmp_path)
    assert pictures.side is None
    found = extract(StoredImages(pictures), request(detector, tmp_path / "kept", "float32"))
    assert found["plain"].float32.shape == (4, 24)
    assert np.allclose(found["plain"].float32[3], 3 * found["plain"].float32[1], atol=1e-5)


def test_a_pass_that_fails_leaves_nothing_behind(detector, smooth_folder, tmp_path, monkeypatch):
    def fail(images):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(detector, "prepare", fail)
    kept = tmp_path / "kept"
    with pytest.raises(RuntimeError):
        extract(StoredImages(Pictures(smooth_folder)), request(detector, kept, "float32"))
    assert list(kept.iterdir()) == []


def test_damaged_statistics_are_told_of(detector, smooth_folder, tmp_path):
    source = StoredImages(Pictures(smooth_folder))
    wants = request(detector, tmp_path / "kept", "moments", "float32")
    extract(source, wants)
    for name in ("moments.safetensors", "float32.npy"):
        before = (tmp_path / "kept" / name).read_bytes()
        (tmp_path / "kept" / name).write_bytes(before[:50])
        with pytest.raises(DataError, match="damaged statistics"):
            extract(source, wants)
        (tmp_path / "kept" / name).write_bytes(before)
