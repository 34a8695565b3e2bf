"""A chunk is a function of its index, whoever computes it."""

import pytest
import torch
from metric_helpers import plain_generator

from stylegan.data.dataset import ImageDataset
from stylegan.data.labels import LabelTable
from stylegan.data.pictures import Pictures
from stylegan.errors import WeightsError
from stylegan.metrics.sources import CHUNK, GeneratedImages, Latents, StoredImages, compute_chunks


def all_images(source):
    return torch.stack(
        [image for chunk in source.chunks(range(source.num_chunks)) for image in chunk]
    )


def test_a_smaller_count_is_the_beginning_of_a_larger_one(generator):
    few, many = (all_images(GeneratedImages(generator, num=num, seed=4)) for num in (70, 130))
    assert few.shape == (70, 3, 16, 16)
    assert few.dtype == torch.uint8
    assert torch.equal(few, many[:70])


def test_a_chunk_does_not_depend_on_those_made_before(generator):
    source = GeneratedImages(generator, num=3 * CHUNK, seed=4)
    alone = torch.stack([*next(source.chunks([2]))])
    assert torch.equal(alone, all_images(source)[2 * CHUNK :])


def test_each_image_has_noise_of_its_own_and_each_seed_its_images(generator):
    z_only = GeneratedImages(generator, num=64, seed=4, noise_mode="none")
    noisy, other = (GeneratedImages(generator, num=64, seed=seed) for seed in (4, 5))
    assert not torch.equal(all_images(noisy), all_images(z_only))
    assert not torch.equal(all_images(noisy), all_images(other))


def test_large_images_are_rendered_in_parts_that_do_not_change_with_the_count(
    monkeypatch, generator
):
    monkeypatch.setattr("stylegan.metrics.sources._PIXELS_AT_ONCE", 16 * 16 * 8)
    shapes = []
    source = GeneratedImages(generator, num=70, seed=4)
    for part in source.render(source.map(source.draw(1)), 1):
        shapes.append(len(part))
    assert shapes == [8]  # whole, though 6 are left
    assert torch.equal(
        all_images(source), all_images(GeneratedImages(generator, num=80, seed=4))[:70]
    )


def test_noise_differs_between_parts_chunks_and_seeds(monkeypatch, generator):
    monkeypatch.setattr("stylegan.metrics.sources._PIXELS_AT_ONCE", 16 * 16 * 32)
    source, other = (GeneratedImages(generator, num=128, seed=seed) for seed in (4, 5))
    ws = source.map(Latents(torch.ones(CHUNK, 8), None))  # one image but for its noise
    parts = [*source.render(ws, 0), *source.render(ws, 1), *other.render(ws, 0)]
    assert [len(part) for part in parts] == [32] * 6
    assert len({tuple(part.flatten().tolist()) for part in parts}) == 6


def test_truncation_brings_images_to_one_another(generator):
    none, half, full = (
        all_images(GeneratedImages(generator, num=8, seed=4, psi=psi, noise_mode="none")).float()
        for psi in (1.0, 0.5, 0.0)
    )
    assert full.std(dim=0).max() == 0
    assert 0 < half.std(dim=0).mean() < none.std(dim=0).mean()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_are_refused(value):
    generator = plain_generator()
    with torch.no_grad():
        generator.synthesis.b16.torgb.bias[1] = value
    source = GeneratedImages(generator, num=3, seed=4)
    with pytest.raises(WeightsError, match="makes images that are not finite"):
        next(source.chunks([0]))
    with pytest.raises(WeightsError, match="makes images that are not finite"):
        next(source.render(source.map(source.draw(0)), 0))


def test_only_a_few_images_are_decoded_ahead(monkeypatch):
    class Counted:
        fingerprint, path, preparation, formats, num_channels = "", "", None, {}, 1
        view = None
        num_read = 0

        def __len__(self):
            return 20 * CHUNK

        def seen(self, index):
            Counted.num_read += 1
            return torch.full([1, 2, 2], index % 256, dtype=torch.uint8)

    chunks = StoredImages(Counted()).chunks(range(3, 20, 5))
    assert [int(image[0, 0, 0]) for image in next(chunks)] == [*range(192, 256)]
    assert [int(image[0, 0, 0]) for image in next(chunks)] == [*range(CHUNK)]
    chunks.close()
    assert Counted.num_read <= 2 * CHUNK + 4 * 4


def test_labels_come_as_often_as_in_the_set():
    generator = plain_generator(c_dim=3)
    table = LabelTable([0, 1, 1, 2], list("abcd"))
    latents = torch.cat(
        [GeneratedImages(generator, num=640, seed=1, labels=table).draw(i).c for i in range(10)]
    )
    assert latents.shape == (640, 3)
    assert latents.mean(dim=0).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.06)
    with pytest.raises(ValueError, match="labels belong"):
        GeneratedImages(generator, num=1, seed=0)


def test_stored_images_come_in_order_spread_or_mirrored(smooth_folder):
    pictures = Pictures(smooth_folder)
    everything = all_images(StoredImages(pictures))
    assert everything.shape == (150, 3, 16, 16)
    assert torch.equal(all_images(StoredImages(pictures, num=70)), everything[:70])
    spread = StoredImages(pictures, num=50, spread=True)
    assert torch.equal(all_images(spread), everything[::3])
    flipped = all_images(StoredImages(pictures, mirror_seed=0))
    is_same = (flipped == everything).flatten(1).all(dim=1)
    assert torch.equal(flipped[~is_same], everything[~is_same].flip(3))
    assert 50 < int(is_same.sum()) < 100
    assert not torch.equal(is_same[:CHUNK], is_same[CHUNK : 2 * CHUNK])
    assert not torch.equal(all_images(StoredImages(pictures, mirror_seed=1)), flipped)
    assert StoredImages(pictures, num=1000).num == 150


def test_a_dataset_and_pictures_of_it_are_the_same_images(smooth_folder):
    dataset = ImageDataset(smooth_folder, mirror=True).without_mirror()
    pictures = Pictures(smooth_folder)
    assert len(dataset) == len(pictures) == 150
    assert dataset.fingerprint == pictures.fingerprint
    assert pictures.size == dataset.size
    assert dataset.resolution == 16
    assert torch.equal(dataset[3], pictures[3])


def test_what_is_computed_in_turn_comes_in_order(smooth_folder):
    source = StoredImages(Pictures(smooth_folder))
    reported = []
    rows = compute_chunks(
        source,
        lambda index: torch.arange(CHUNK)[:, None] + 100.0 * index,
        shape=[1],
        progress=lambda done, total: reported.append((done, total)),
    )
    found = torch.cat(list(rows))[:, 0].tolist()
    assert found == [*range(64), *range(100, 164), *range(200, 222)]
    assert reported == [(64, 150), (128, 150), (150, 150)]
