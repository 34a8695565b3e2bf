"""Classifiers learn what pixels decide, and go on where they were stopped."""

import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from stylegan import images
from stylegan.classifiers import fit
from stylegan.classifiers.attributes import find_attributes, split
from stylegan.classifiers.fit import ClassifierConfig, train_classifiers
from stylegan.data.dataset import ImageDataset
from stylegan.errors import CheckpointError, ConfigError, StyleganError
from stylegan.models import io
from stylegan.training.checkpoint import lock_run_folder

CONFIG = ClassifierConfig(resolution=8, kimg=0.8, lr=3e-3, channel_base=64, channel_max=8)
SHORT = replace(CONFIG, kimg=0.032)


@pytest.fixture
def train(labeled_folder, tmp_path):
    """Return a function that trains on the labeled images, to a folder of a name."""

    def run(config=SHORT, *, out="out", selection=None, data=labeled_folder, names=None, **options):
        dataset = ImageDataset(data, mirror=config.mirror)
        attributes = find_attributes(dataset, path=str(data), selection=selection, names=names)
        return train_classifiers(attributes, dataset, tmp_path / out, config, **options)

    return run


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_pixels_decide_is_learned(train, tmp_path):
    seen = []
    outcome = train(CONFIG, observe=seen.append)
    assert outcome.is_complete
    assert outcome.signal is None
    assert names(tmp_path / "out") == ["00-bright-pixels", "01-top"]
    for result, name in zip(outcome.results, ["Bright_Pixels", "top"], strict=True):
        assert (result.name, result.num_images, result.num_with) == (name, 60, 30)
        assert (result.accuracy, result.auc, result.num_held_out) == (1, 1, 6)
        metadata = io.read_metadata(result.folder)
        assert metadata["kind"] == "classifier"
        assert (metadata["attribute"], metadata["index"]) == (name, result.index)
        assert (metadata["accuracy"], metadata["auc"], metadata["held_out"]) == (1, 1, 6)
        assert metadata["made_with"]["kimg"] == 0.8
        assert len(metadata["made_with"]["data"]) == 64
    assert [fitting.nimg for fitting in seen] == 2 * [0, 256, 512, 768, 800]
    assert seen[3].loss < seen[2].loss < seen[1].loss < 0.7
    assert seen[4].total_nimg == 800
    assert seen[4].images_per_second > 0


def test_a_verdict_does_not_depend_on_the_images_beside_it(train, tmp_path):
    (result,) = train(selection="top").results
    network = io.load(result.folder).discriminator
    batch = torch.randn(8, 3, 8, 8)
    torch.testing.assert_close(network(batch)[:1], network(batch[:1]))


def test_equal_arguments_give_equal_weights_and_another_seed_others(train, tmp_path):
    before = torch.random.get_rng_state()
    for out, config in (("a", SHORT), ("b", SHORT), ("c", replace(SHORT, seed=1))):
        train(config, out=out)
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, other = [weights(tmp_path / out / "01-top") for out in "abc"]
    assert first == again != other
    assert first != weights(tmp_path / "a" / "00-bright-pixels")


@pytest.mark.parametrize("mirror", [False, True])
def test_stopped_after_every_step_it_ends_as_if_never_stopped(train, tmp_path, mirror):
    config = replace(SHORT, mirror=mirror)
    train(config, out="whole", selection="top")
    num_starts = 0
    while not (outcome := train(config, selection="top", max_minutes=0)).is_complete:
        num_starts += 1
        assert outcome.results == ()
        assert names(tmp_path / "out") == ["unfinished"]
    assert num_starts == 3
    assert names(tmp_path / "out") == ["01-top"]
    assert weights(tmp_path / "out" / "01-top") == weights(tmp_path / "whole" / "01-top")


def test_a_signal_saves_and_ends(train, tmp_path, caplog):
    def interrupt(fitting):
        if fitting.nimg == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = train(observe=interrupt)
    assert outcome.signal == signal.SIGTERM
    assert not outcome.is_complete
    assert names(tmp_path / "out" / "unfinished" / "00-bright-pixels" / "checkpoints")
    with caplog.at_level("INFO"):
        assert train().is_complete
    assert "Bright_Pixels: resumed at 8 images" in caplog.text


def test_finished_ones_are_left_alone_whatever_else_is_asked_for(train, tmp_path):
    train(selection="top")
    time = (tmp_path / "out" / "01-top" / "model.json").stat().st_mtime_ns
    seen = []
    outcome = train(observe=seen.append)
    assert [result.index for result in outcome.results] == [0, 1]
    assert {fitting.attribute.index for fitting in seen} == {0}
    assert (tmp_path / "out" / "01-top" / "model.json").stat().st_mtime_ns == time
    again = train(selection="top", max_minutes=0)  # nothing to do takes no time
    assert again.is_complete
    assert again.results == outcome.results[1:]


def test_other_options_are_refused_by_name_for_finished_and_unfinished_ones(train, tmp_path):
    train(selection="top")
    train(selection="0", max_minutes=0)
    for selection, where in (("1", "01-top"), ("0", "00-bright-pixels")):
        with pytest.raises(CheckpointError, match=f"{where} was made with other options") as caught:
            train(replace(SHORT, lr=1e-3, batch=4), selection=selection)
        assert "batch: 8 -> 4; lr: 0.003 -> 0.001" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"01-top has the index of 01-bottom"):
        train(selection="1", names="bright,bottom")


def test_other_images_are_refused(train, labeled_folder, tmp_path):
    train(selection="top")
    other = shutil.copytree(labeled_folder, tmp_path / "other")
    images.write(torch.zeros([3, 8, 8], dtype=torch.uint8), other / "00.png")
    with pytest.raises(CheckpointError, match=r"01-top was made with other .*\(data: "):
        train(selection="top", data=other)


def test_what_else_is_in_its_place_is_refused_before_any_training(train, tmp_path):
    seen = []
    (tmp_path / "out" / "01-top").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="01-top is not a classifier"):
        train(observe=seen.append)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file is a file"):
        train(out="file", observe=seen.append)
    result = train(selection="0", out="shared").results[0]
    io.save(io.load(result.folder), tmp_path / "bare" / "00-bright-pixels")
    with pytest.raises(CheckpointError, match="attribute: None -> Bright_Pixels"):
        train(out="bare", observe=seen.append)
    metadata = {"made_with": io.read_metadata(result.folder)["made_with"]}
    io.save(io.load(result.folder), tmp_path / "bare" / "00-bright-pixels", metadata=metadata)
    with pytest.raises(CheckpointError, match="does not state the accuracy of the classifier"):
        train(out="bare", observe=seen.append)
    assert seen == []


def test_checkpoints_that_cannot_be_read_say_what_to_remove(train, tmp_path):
    train(selection="top", max_minutes=0)
    unfinished = tmp_path / "out" / "unfinished" / "01-top"
    for path in (unfinished / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=f"remove {unfinished} to train this attribute"):
        train(selection="top")


def test_two_processes_may_share_a_folder_but_not_an_attribute(train, tmp_path):
    with lock_run_folder(tmp_path / "out" / "unfinished" / "01-top"):
        assert train(selection="0").is_complete
        with pytest.raises(CheckpointError, match="another process is training in"):
            train(selection="top")
    assert train(selection="top").is_complete
    assert names(tmp_path / "out") == ["00-bright-pixels", "01-top"]


def test_what_another_process_finishes_meanwhile_is_not_done_again(train, monkeypatch):
    def finish_first(folder):
        monkeypatch.setattr(fit, "lock_run_folder", lock_run_folder)
        assert train(selection="top").is_complete
        return lock_run_folder(folder)

    seen = []
    monkeypatch.setattr(fit, "lock_run_folder", finish_first)
    assert train(selection="top", observe=seen.append).is_complete
    assert seen == []


def test_what_has_diverged_is_not_kept(train, tmp_path):
    config = replace(SHORT, lr=1e20)
    train(config, selection="top", max_minutes=0)
    folder = tmp_path / "out" / "unfinished" / "01-top" / "checkpoints"
    assert names(folder) == ["000000008.pt"]
    with pytest.raises(StyleganError, match="the loss of top is not finite at 16 images"):
        train(config, selection="top", max_minutes=0)
    assert names(folder) == ["000000008.pt"]


def test_a_loss_that_is_no_number_ends_the_training_without_a_classifier(train, tmp_path):
    with pytest.raises(StyleganError, match="the loss of Bright_Pixels is not finite at"):
        train(replace(CONFIG, lr=1e20))
    assert names(tmp_path / "out") == ["unfinished"]


@pytest.mark.parametrize("mirror", [False, True])
def test_images_held_out_are_not_trained_on(train, labeled_folder, monkeypatch, mirror):
    shown = []
    gather = ImageDataset.gather

    def recorded(self, indices, **options):
        shown.append(list(indices))
        return gather(self, indices, **options)

    monkeypatch.setattr(ImageDataset, "gather", recorded)
    train(replace(CONFIG, mirror=mirror, kimg=0.4), selection="top")
    dataset = ImageDataset(labeled_folder)
    (attribute,) = find_attributes(dataset, path=str(labeled_folder), selection="top")
    kept, held_out = split(attribute, dataset.image_names, seed=0)
    assert shown[-1] == held_out
    trained_on = {index for batch in shown[:-1] for index in batch}
    assert {index % 60 for index in trained_on} == set(kept)
    assert (max(trained_on) >= 60) == mirror


def test_images_are_reduced_to_the_resolution(train, labeled_folder, tmp_path):
    larger = tmp_path / "larger"
    larger.mkdir()
    dataset = ImageDataset(labeled_folder)
    for index, name in enumerate(dataset.image_names):
        image = dataset[index].repeat_interleave(2, 1).repeat_interleave(2, 2)
        images.write(image, larger / name)
    shutil.copy(labeled_folder / "dataset.json", larger)
    train(selection="top")
    train(selection="top", data=larger, out="larger-out")
    small, large = tmp_path / "out" / "01-top", tmp_path / "larger-out" / "01-top"
    assert weights(small) == weights(large)


def test_options_that_cannot_work_are_refused(train):
    for field in ("kimg", "batch", "lr"):
        with pytest.raises(ConfigError, match=f"{field} must be more than 0, got 0"):
            replace(SHORT, **{field: 0})
    with pytest.raises(
        ConfigError, match="channel_base must be at least the resolution of the last block, 8"
    ):
        train(replace(SHORT, channel_base=4))
    with pytest.raises(ValueError, match="differ in mirror"):
        train_classifiers([], ImageDataset("demo/emoji64.zip"), "out", replace(SHORT, mirror=True))
