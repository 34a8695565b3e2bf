"""Classifiers come from our folders, from runs, and from official pickles."""

import hashlib

import pytest
import tensorflow_files
import torch

from stylegan.errors import WeightsError
from stylegan.interop.classifiers import load_classifiers
from stylegan.interop.load import load_networks
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.registry import create


def tiny(**options):
    sizes = {"channel_base": 64, "channel_max": 6, **options}
    return create("stylegan-f", 8, **sizes).discriminator


def equal(classifier, network):
    ours, theirs = classifier.network.state_dict(), network.state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_folder_of_our_folders(tmp_path):
    networks = {index: tiny(mbstd_num_channels=0) for index in (100, 3, 20)}
    for index, network in networks.items():
        metadata = {"kind": "classifier", "attribute": f"Name {index}", "index": index}
        io.save(Networks(discriminator=network), tmp_path / f"{index:02d}-name", metadata=metadata)
    (tmp_path / "unfinished" / "05-bald" / "checkpoints").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("nothing")
    found = load_classifiers(tmp_path)
    assert [(c.index, c.name) for c in found] == [(3, "Name 3"), (20, "Name 20"), (100, "Name 100")]
    for classifier in found:
        assert equal(classifier, networks[classifier.index])
        assert not classifier.network.training
        assert not any(p.requires_grad for p in classifier.network.parameters())
        file = tmp_path / f"{classifier.index:02d}-name" / "model.safetensors"
        assert classifier.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    (one,) = load_classifiers(tmp_path / "20-name")
    assert one.name == "Name 20"


def test_the_discriminator_of_a_run_or_of_a_folder_without_a_name(tmp_path):
    first, last = tiny(), tiny()
    io.save(Networks(discriminator=first), tmp_path / "run" / "snapshots" / "000000008")
    io.save(Networks(discriminator=last), tmp_path / "run" / "snapshots" / "000000016")
    (found,) = load_classifiers(tmp_path / "run")
    assert (found.name, found.index) == ("run", 0)
    assert equal(found, last)
    io.save(Networks(discriminator=first), tmp_path / "07-eye-glasses")
    (found,) = load_classifiers(str(tmp_path / "07-eye-glasses"))
    assert (found.name, found.index) == ("eye-glasses", 7)


def test_official_pickles_of_one_network(write_tensorflow, tmp_path):
    networks = [tiny(), tiny()]
    for index, name in ((1, "smiling"), (0, "5-o-clock")):
        root = tensorflow_files.classifier("celebahq", networks[index], resolution=8)
        write_tensorflow(root, name=f"celebahq-classifier-{index:02d}-{name}.pkl")
    found = load_classifiers(tmp_path)
    assert [(c.index, c.name) for c in found] == [(0, "5-o-clock"), (1, "smiling")]
    for classifier, network in zip(found, networks, strict=True):
        assert equal(classifier, network)
        images = torch.randn(4, 3, 8, 8)
        assert torch.equal(classifier.logits(images), network(images).squeeze(1))
    (alone,) = load_classifiers(tmp_path / "celebahq-classifier-01-smiling.pkl")
    assert (alone.index, alone.name) == (1, "smiling")
    file = tmp_path / "celebahq-classifier-01-smiling.pkl"
    assert alone.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert load_networks(file).discriminator is not None


def test_a_network_alone_that_reads_no_images_is_refused(write_tensorflow):
    for variables in ({}, {"4x4/Dense/weight": torch.zeros(2, 2).numpy()}):
        path = write_tensorflow(tensorflow_files.Network("vgg16", variables))
        with pytest.raises(WeightsError, match="holds network 'vgg16'"):
            load_classifiers(path)


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        load_classifiers(tmp_path / "missing")
    with pytest.raises(WeightsError, match="has no classifiers"):
        load_classifiers(tmp_path)
    networks = create("stylegan-f", 8, channel_base=64, channel_max=6)
    io.save(Networks(generator=networks.generator), tmp_path / "generator")
    with pytest.raises(WeightsError, match="generator has no discriminator"):
        load_classifiers(tmp_path / "generator")
    io.save(Networks(discriminator=tiny(c_dim=2)), tmp_path / "labels")
    with pytest.raises(
        WeightsError, match=r"labels is not a classifier \(a classifier has no labels"
    ):
        load_classifiers(tmp_path / "labels")
