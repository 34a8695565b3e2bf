import json
import logging
import multiprocessing
import os
import signal
from itertools import islice

import pytest
import torch

from stylegan import distributed
from stylegan.data.dataset import ImageDataset
from stylegan.data.loader import Stream, batches
from stylegan.data.sampler import InfiniteSampler
from stylegan.errors import DataError
from stylegan.images import from_uint8
from stylegan.microbatch import BatchSlice


def drawn(dataset, num, **options):
    stream = batches(dataset, **{"batch_size": 4, "seed": 3} | options)
    result = [batch.images for batch in islice(stream, num)]
    stream.close()
    return torch.stack(result)


def test_batches_follow_the_sampler_and_span_epochs(folder):
    dataset = ImageDataset(folder)
    order = list(islice(InfiniteSampler(7, seed=3), 16))
    result = drawn(dataset, 4)
    assert result.dtype == torch.float32
    assert result.device.type == "cpu"
    assert torch.equal(result.flatten(0, 1), from_uint8(dataset.gather(order)))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(folder, make_zip, tmp_path, workers):
    dataset = ImageDataset(make_zip(folder, tmp_path / "set.zip"), mirror=True)
    dataset[0]  # the parent has the zip open; a worker must not share its file offset
    assert torch.equal(drawn(dataset, 6, workers=workers), drawn(dataset, 6))


def test_batches_do_not_depend_on_the_cache(folder):
    cached = ImageDataset(folder, mirror=True)
    cached.preload(2**20, 1)
    expected = drawn(ImageDataset(folder, mirror=True), 6)
    assert torch.equal(drawn(cached, 6, workers=2), expected)


def test_a_stream_started_later_continues_exactly(folder):
    dataset = ImageDataset(folder)
    assert torch.equal(drawn(dataset, 3, start=12, workers=1), drawn(dataset, 6)[3:])


def test_the_global_generator_is_left_alone(folder):
    before = torch.get_rng_state()
    drawn(ImageDataset(folder), 2, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_closing_the_stream_ends_its_workers(folder):
    stream = batches(ImageDataset(folder), batch_size=2, seed=0, workers=2)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")
def test_ctrl_c_does_not_reach_a_worker(folder):
    dataset = ImageDataset(folder)
    stream = batches(dataset, batch_size=4, seed=3, workers=1)
    result = [next(stream)]  # so the worker is up
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    result += islice(stream, 9)  # more than what it has decoded ahead
    stream.close()
    assert torch.equal(torch.stack([batch.images for batch in result]), drawn(dataset, 10))


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_break_later_are_named_by_the_error(folder, workers):
    dataset = ImageDataset(folder)
    for name in ("003.png", "004.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be read any more \(00[34].png in .*: empty"):
        drawn(dataset, 4, workers=workers)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("rank", "num_warnings"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_replaced_image_is_warned_of_once_on_rank_0(
    folder, tmp_path, monkeypatch, workers, rank, num_warnings
):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    dataset = ImageDataset(folder, mirror=True)
    (folder / "003.png").write_bytes(b"")
    handler = logging.FileHandler(tmp_path / "log")  # workers are forked, and would write to it too
    logging.getLogger("stylegan").addHandler(handler)
    try:
        first = drawn(dataset, 12, workers=workers)  # each image three times
        assert torch.equal(drawn(dataset, 12, workers=workers), first)
        assert (tmp_path / "log").read_text().count("003.png in") == num_warnings
        dataset.without_mirror().gather(range(7))
        assert (tmp_path / "log").read_text().count("003.png in") == num_warnings
    finally:
        logging.getLogger("stylegan").removeHandler(handler)
        handler.close()
    assert len(dataset.unreadable) == 1


def _decode_all(dataset):
    return dataset.gather(range(len(dataset))).sum().item()


@pytest.mark.slow
def test_a_spawned_process_reads_the_same_images(folder, make_zip, tmp_path):
    dataset = ImageDataset(make_zip(folder, tmp_path / "set.zip"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_decode_all, (dataset,)) == _decode_all(dataset)


def test_a_batch_of_nothing_is_refused_before_the_first_is_drawn(folder):
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        batches(ImageDataset(folder), batch_size=0, seed=0)


def test_smaller_batches_are_box_means_of_the_images_rounded_once(folder):
    dataset = ImageDataset(folder)
    (small,) = drawn(dataset, 1, resolution=dataset.resolution // 4)
    pixels = dataset.gather(list(islice(InfiniteSampler(7, seed=3), 4)))
    means = torch.nn.functional.avg_pool2d(pixels.double(), 4)
    assert torch.equal(small, from_uint8((means + 0.5).floor().to(torch.uint8)))
    assert small.dtype == torch.float32


@pytest.mark.parametrize("resolution", [0, 3, 1024])
def test_resolutions_that_do_not_divide_the_sets_are_refused(folder, resolution):
    with pytest.raises(ValueError, match="resolution must divide"):
        batches(ImageDataset(folder), batch_size=1, seed=0, resolution=resolution)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_follows_changes_of_size_in_the_order_of_the_set(folder, workers):
    dataset = ImageDataset(folder)
    side = dataset.resolution
    sizes = [(4, side // 2), (4, side // 2), (2, side), (3, side)]
    order = list(islice(InfiniteSampler(7, seed=3), 13))
    place = 0
    with Stream(dataset, seed=3, workers=workers) as stream:
        for num, resolution in sizes:
            expected = dataset.gather(order[place : place + num], resolution=resolution)
            found = stream.take(BatchSlice.whole(num), start=place, resolution=resolution)
            assert torch.equal(found.images, from_uint8(expected))
            assert found.labels is None
            place += num
        again = stream.take(BatchSlice.whole(4), start=0, resolution=side)  # anywhere
        assert torch.equal(again.images, from_uint8(dataset.gather(order[:4])))
    assert multiprocessing.active_children() == []


def test_a_stream_keeps_its_workers_while_the_size_stays(folder):
    with Stream(ImageDataset(folder), seed=3, workers=1) as stream:
        stream.take(BatchSlice.whole(2), start=0, resolution=4)
        (worker,) = multiprocessing.active_children()
        stream.take(BatchSlice.whole(2), start=2, resolution=4)
        assert multiprocessing.active_children() == [worker]
        stream.take(BatchSlice.whole(4), start=4, resolution=4)
        assert [child.pid for child in multiprocessing.active_children()] != [worker.pid]


def label(folder, labels):
    names = [f"{index:03d}.png" for index in range(len(labels))]
    pairs = [list(pair) for pair in zip(names, labels, strict=True)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_come_with_their_images_and_change_none(folder, workers):
    label(folder, [0, 1, 2, 0, 1, 2, 0])
    dataset = ImageDataset(folder, mirror=True)
    order = list(islice(InfiniteSampler(14, seed=3), 24))
    with Stream(dataset, seed=3, workers=workers, labels=True) as stream:
        for start in (0, 4, 8, 12, 16, 20):
            batch = stream.take(BatchSlice.whole(4), start=start, resolution=16)
            indices = order[start : start + 4]
            assert torch.equal(batch.images, from_uint8(dataset.gather(indices)))
            assert batch.labels.argmax(dim=1).tolist() == [index % 7 % 3 for index in indices]
            assert (batch.labels.shape, batch.labels.dtype) == ((4, 3), torch.float32)


def test_labels_of_a_set_without_any_cannot_be_asked_for(folder):
    with pytest.raises(ValueError, match="set has no labels"):
        batches(ImageDataset(folder), batch_size=1, seed=0, labels=True)


def test_no_room_in_shared_memory_is_reported(image_folder, monkeypatch):
    def full(tensor):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # workers are forked
    stream = batches(ImageDataset(image_folder), batch_size=4, seed=0, workers=1)
    with pytest.raises(DataError, match=r"not enough shared memory \(/dev/shm\) for .* of 0.0 MB"):
        next(stream)
    stream.close()
