import functools
import http.server
import itertools
import json
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import torch
from fsspec.registry import _registry as fsspec_registry

from stylegan import images
from stylegan.cli.data import main as data_main
from stylegan.cli.train import main as train_main
from stylegan.data.dataset import ImageDataset
from stylegan.data.shard_stream import ShardStream
from stylegan.data.shards import INDEX_NAME, ShardSet, is_shards, write_shards
from stylegan.errors import ConfigError, DataError
from stylegan.microbatch import BatchSlice

NUM = 26


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Images whose red is their number, with their number modulo 3 as label."""
    folder = tmp_path_factory.mktemp("source")
    stream = torch.Generator().manual_seed(0)
    for index in range(NUM):
        image = torch.randint(0, 256, [3, 16, 16], generator=stream).to(torch.uint8)
        image[0] = index
        image[1, :, 8:] = 255  # tells left from right
        image[1, :, :8] = 0
        images.write(image, folder / f"{index:02d}.png")
    labels = [[f"{index:02d}.png", index % 3] for index in range(NUM)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.fixture(scope="module")
def shards(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "set"
    index = write_shards(ImageDataset(source), folder, shard_bytes=1500)
    assert 5 < len(index.shards) < NUM
    return str(folder)


def numbers(batch):
    return (batch.images[:, 0, 0, 0] * 127.5 + 127.5).round().int().tolist()


def take(dataset, num, *, batch=4, start=0, **options):
    with ShardStream(dataset, seed=1, **options) as stream:
        rows = BatchSlice.whole(batch).shard(
            options.get("rank", 0), world_size=options.get("world_size", 1)
        )
        return [
            number
            for step in range(num)
            for number in numbers(
                stream.take(rows, start=start + step * batch, resolution=dataset.resolution)
            )
        ]


def test_each_epoch_has_each_image_once_in_an_order_of_its_own(shards):
    dataset = ShardSet(shards)
    assert (len(dataset), dataset.resolution, dataset.num_channels) == (NUM, 16, 3)
    found = take(dataset, 3 * NUM, batch=1)
    epochs = [found[:NUM], found[NUM : 2 * NUM], found[2 * NUM :]]
    assert all(sorted(epoch) == list(range(NUM)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("start", [4, 20, 24, 60])
@pytest.mark.parametrize("workers", [0, 3])
def test_a_stream_that_is_opened_later_goes_on_exactly(shards, start, workers):
    dataset = ShardSet(shards, mirror=True)
    whole = take(dataset, 24, batch=4)
    assert take(dataset, 24 - start // 4, batch=4, start=start, workers=workers) == whole[start:]


def test_processes_read_no_shard_twice_in_an_epoch(shards):
    dataset = ShardSet(shards)
    files = []
    for rank in range(2):
        stream = ShardStream(dataset, seed=1, rank=rank, world_size=2)
        files.append(set(stream._epoch(0, 0).shards))
        stream.close()
    assert files[0].isdisjoint(files[1])
    assert files[0] | files[1] == set(range(len(dataset.index.shards)))
    own = [take(dataset, 5, batch=4, rank=rank, world_size=2) for rank in range(2)]
    assert set(own[0]).isdisjoint(own[1])


def test_pixels_and_labels_are_those_of_the_source(source, shards):
    plain, dataset = ImageDataset(source), ShardSet(shards)
    assert dataset.label_dim == 3
    with ShardStream(dataset, seed=1, labels=True) as stream:
        batch = stream.take(BatchSlice.whole(8), start=0, resolution=16)
        small = stream.take(BatchSlice.whole(8), start=0, resolution=8)
    for row, number in enumerate(numbers(batch)):
        assert torch.equal(images.to_uint8(batch.images[row]), plain[number])
        assert batch.labels[row].tolist() == [float(number % 3 == each) for each in range(3)]
    assert torch.equal(small.labels, batch.labels)
    assert small.images.shape == (8, 3, 8, 8)


def test_a_mirrored_set_flips_half_of_the_images(shards):
    dataset = ShardSet(shards, mirror=True)
    assert len(dataset) == 2 * NUM
    with ShardStream(dataset, seed=1) as stream:
        batch = stream.take(BatchSlice.whole(2 * NUM), start=0, resolution=16)
    share = (batch.images[:, 1, 0, 0] > 0).float().mean()
    assert 0.2 < share < 0.8


def test_shards_are_read_from_a_server(shards, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=shards)
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert is_shards(url)
        found = [ShardSet(address) for address in (url, f"{url}/{INDEX_NAME}")]
        assert found[0].fingerprint == found[1].fingerprint == ShardSet(shards).fingerprint
        assert take(found[0], 8) == take(ShardSet(shards), 8)
        with pytest.raises(DataError, match="cannot be read"):
            ShardSet(f"{url}/elsewhere")
        server.shutdown()
        thread.join()


def test_a_run_trains_from_shards_and_goes_on(shards, tmp_path, capsys):
    line = [
        *("--preset", "stylegan2-e", "--data", shards, "--out", str(tmp_path / "run"), "--cond"),
        *("--channel-base", "64", "--channel-max", "8", "--batch", "8", "--device", "cpu"),
        *("--precision", "fp32", "--set", "output.samples=4"),
    ]
    assert train_main([*line, "--total-kimg", "0.016"]) == 0
    assert train_main([*line, "--total-kimg", "0.032"]) == 0
    assert "0.0 kimg, complete" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="fid50k cannot be computed with a data set in shards"):
        train_main([*line, "--total-kimg", "0.032", "--metrics", "fid50k"])


def test_the_command_writes_them(source, tmp_path, capsys):
    out = tmp_path / "set"
    assert data_main(["shard", str(source), str(out), "--shard-mb", "0.0015"]) == 0
    assert f"{NUM} images, 16x16" in capsys.readouterr().out
    names = sorted(path.name for path in out.iterdir())
    assert names[0] == "shard-000000.tar"
    assert names[-1] == INDEX_NAME
    with tarfile.open(out / names[0]) as archive:
        members = archive.getnames()
    assert {name.partition(".")[2] for name in members} == {"png", "json"}
    with pytest.raises(ConfigError, match="is not an empty folder"):
        data_main(["shard", str(source), str(out)])


def damaged(shards, tmp_path, change):
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    change(folder)
    return str(folder)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"version": 9}', '{"version": 1, "shards": [], "labels": null}'],
)
def test_a_damaged_index_is_reported(shards, tmp_path, content):
    path = damaged(shards, tmp_path, lambda folder: (folder / INDEX_NAME).write_text(content))
    with pytest.raises(DataError, match=r"shards\.json cannot be read"):
        ShardSet(path)


def test_an_index_cannot_run_commands(shards, tmp_path):
    def change(folder):
        index = json.loads((folder / INDEX_NAME).read_text())
        index["shards"][0]["name"] = "x.tar; touch /tmp/ran"
        (folder / INDEX_NAME).write_text(json.dumps(index))

    with pytest.raises(DataError, match="no shards"):
        ShardSet(damaged(shards, tmp_path, change))


def test_shards_are_read_from_an_object_store(shards, object_store, monkeypatch):
    for path in Path(shards).iterdir():
        object_store.pipe(f"s3://bucket/set/{path.name}", path.read_bytes())
    assert take(ShardSet("s3://bucket/set"), 8) == take(ShardSet(shards), 8)
    with pytest.raises(DataError, match="cannot be read"):
        ShardSet("s3://bucket/other")
    monkeypatch.delitem(fsspec_registry, "s3")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError, match="s3fs"):
        ShardSet("s3://bucket/set")


def test_an_address_cannot_run_commands(tmp_path):
    with pytest.raises(DataError, match="has the scheme pipe, which is not supported"):
        ShardSet(f"pipe://; touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()


def test_each_rank_reads_each_image_once_when_its_fraction_of_the_batch_changes(shards):
    """As in progressive growing: 4 groups of 4 among 3 ranks are 1, 1 and 2; 8 are 2, 3 and 3."""
    dataset = ShardSet(shards)
    sizes = [16, 16, 32, 32, 16]
    starts = list(itertools.accumulate(sizes, initial=0))

    def slice_of(batch_size, rank):
        return BatchSlice.whole(batch_size, group_size=4).shard(rank, world_size=3)

    fractions = {slice_of(size, 2).fraction for size in sizes}
    assert len(fractions) == 2
    for rank in range(3):

        def slice_at(nimg, rank=rank):
            return slice_of(sizes[starts.index(nimg)], rank)

        def read(first, slice_at=slice_at, rank=rank):
            options = {"rank": rank, "world_size": 3, "slice_at": slice_at}
            with ShardStream(dataset, seed=1, **options) as stream:
                return [
                    numbers(stream.take(slice_at(start), start=start, resolution=16))
                    for start in starts[first:-1]
                ]

        batches = read(0)
        for first in range(1, len(sizes)):
            assert read(first) == batches[first:]
        constant = take(dataset, 1, batch=3 * 64, rank=rank, world_size=3)
        found = [number for batch in batches for number in batch]
        assert found == constant[: len(found)]


def test_a_folder_may_have_a_colon_in_its_name(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards, "set:1")
    assert take(ShardSet("set:1"), 8) == take(ShardSet(shards), 8)


@pytest.mark.parametrize("kind", ["gone", "cut", "short", "changed"])
def test_a_damaged_shard_is_named(shards, tmp_path, kind):
    def change(folder):
        for path in folder.glob("*.tar"):
            if kind == "gone":
                path.unlink()
            elif kind == "cut":
                path.write_bytes(path.read_bytes()[:700])
            elif kind == "changed":  # still a tar file with the same images
                path.write_bytes(path.read_bytes()[:-1] + b"x")
            else:
                with tarfile.open(path, "w"):
                    pass

    dataset = ShardSet(damaged(shards, tmp_path, change))
    with pytest.raises(DataError, match=r"shard-0000..\.tar"):
        take(dataset, 1)


def test_more_processes_than_shards_are_refused(shards):
    with pytest.raises(ConfigError, match="fewer than the 99 ranks"):
        ShardStream(ShardSet(shards), seed=1, world_size=99)


def test_another_resolution_must_be_smaller(shards):
    assert ShardSet(shards, resolution=8).resolution == 8
    with pytest.raises(ConfigError, match=r"--resolution must be 16, .* got 32"):
        ShardSet(shards, resolution=32)
