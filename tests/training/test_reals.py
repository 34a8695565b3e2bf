import json
import shutil
from dataclasses import replace

import pytest
import torch

from stylegan import distributed
from stylegan.data.dataset import ImageDataset
from stylegan.data.shards import write_shards
from stylegan.errors import ConfigError, DataError
from stylegan.models import progan
from stylegan.training.reals import check_dataset, hold_out, open_dataset, open_stream
from stylegan.training.state import TrainState


@pytest.fixture
def folder(image_folder, tmp_path):
    return shutil.copytree(image_folder, tmp_path / "labelled")


def label(folder, labels):
    pairs = [[f"{index:02d}.png", value] for index, value in enumerate(labels)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))


def config_with(config, folder, *, c_dim):
    return replace(
        config,
        generator=replace(config.generator, c_dim=c_dim),
        discriminator=replace(config.discriminator, c_dim=c_dim),
        data=replace(config.data, path=str(folder), labels=c_dim > 0),
    )


def test_labels_that_are_not_used_are_reported_with_the_way_to_use_them(run_config, folder, caplog):
    label(folder, [0, 1] * 6)
    config = config_with(run_config, folder, c_dim=0)
    check_dataset(open_dataset(config), config)
    (message,) = caplog.messages
    assert "has labels, which this run does not use: --cond (data.labels)" in message


def test_labels_that_are_used_need_no_word(run_config, folder, caplog):
    label(folder, [0, 1] * 6)
    config = config_with(run_config, folder, c_dim=2)
    check_dataset(open_dataset(config), config)
    assert caplog.messages == []


@pytest.mark.parametrize("labels", [None, [0, 1, 2, 3] * 3])
def test_labels_of_another_width_are_refused(run_config, folder, labels):
    if labels is not None:
        label(folder, labels)
    config = config_with(run_config, folder, c_dim=2)
    found = 0 if labels is None else 4
    with pytest.raises(
        ConfigError, match=f"has labels of width {found}, but the networks have a c_dim of 2"
    ):
        check_dataset(open_dataset(config), config)


def test_missing_labels_are_counted_and_the_first_is_named(run_config, folder):
    label(folder, [0, 1, 1])
    config = config_with(run_config, folder, c_dim=2)
    with pytest.raises(DataError, match=r"9 of 12 images have no label, the first is 03.png"):
        check_dataset(open_dataset(config), config)


def test_a_discriminator_that_guesses_labels_refuses_lists_of_numbers(run_config, folder):
    sizes = {"resolution": 16, "channel_base": 64, "channel_max": 6, "c_dim": 2}
    config = replace(
        config_with(run_config, folder, c_dim=2),
        family="progan",
        generator=progan.GeneratorConfig(**sizes, z_dim=8),
        discriminator=progan.DiscriminatorConfig(**sizes),
        loss=replace(run_config.loss, pl_weight=0.0, mixing_prob=0.0),
    )
    label(folder, [[0.5, 0.5]] * 12)
    with pytest.raises(
        ConfigError, match="progan needs an integer class as the label of each image"
    ):
        check_dataset(open_dataset(config), config)
    label(folder, [0, 1] * 6)
    check_dataset(open_dataset(config), config)


def test_a_set_is_opened_as_the_config_says(run_config):
    dataset = open_dataset(run_config)
    assert isinstance(dataset, ImageDataset)
    assert (dataset.resolution, dataset.is_mirrored) == (16, True)


def test_a_growing_run_reads_from_shards_what_its_ranks_take(
    growing_config, image_folder, tmp_path, monkeypatch
):
    """Three ranks: their fractions of the batch change as it becomes smaller."""
    shards = tmp_path / "shards"
    write_shards(ImageDataset(image_folder), shards, shard_bytes=1)
    growth = replace(growing_config.growth, batches={"4": 32, "8": 16, "16": 16})
    config = replace(
        growing_config,
        growth=growth,
        data=replace(growing_config.data, path=str(shards), mirror=False),
        discriminator=replace(growing_config.discriminator, mbstd_group_size=4),
    )
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    fractions = set()
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        state = TrainState(config, torch.device("cpu"))
        num_read = 0
        with open_stream(open_dataset(config), config, torch.device("cpu")) as stream:
            for _ in range(8):
                rows = state.shard(state.stage.batch)
                assert stream._num_read(state.nimg, rows) == num_read
                fractions.add((rank, rows.fraction))
                state.advance(rows.batch_size)
                num_read += len(rows)
    assert len(fractions) > 3


def test_images_of_shards_cannot_be_held_out(tmp_path, run_config, image_folder):
    write_shards(ImageDataset(image_folder), tmp_path / "shards", shard_bytes=10**6)
    data = replace(run_config.data, path=str(tmp_path / "shards"), holdout=0.1)
    config = replace(run_config, data=data)
    with pytest.raises(ConfigError, match="--holdout needs a folder or zip"):
        hold_out(open_dataset(config), config)
