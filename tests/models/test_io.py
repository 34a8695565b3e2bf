"""Native folders come back as they were, whole or not at all."""

import json
import os
import shutil

import pytest
import safetensors.torch
import torch

from stylegan.errors import WeightsError
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

NARROW = {"resolution": 8, "channel_base": 32, "channel_max": 4}


def networks(seed: int = 0) -> Networks:
    torch.manual_seed(seed)
    config = GeneratorConfig(z_dim=3, w_dim=4, mapping_layers=2, **NARROW)
    return Networks(
        generator=Generator(config),
        generator_ema=Generator(config),
        discriminator=Discriminator(DiscriminatorConfig(architecture="skip", **NARROW)),
    )


def assert_equal(found: Networks, expected: Networks) -> None:
    assert [name for name, _ in found.items()] == [name for name, _ in expected.items()]
    for (_, ours), (_, theirs) in zip(found.items(), expected.items(), strict=True):
        assert type(ours) is type(theirs)
        assert ours.config == theirs.config
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name


def refusal(folder) -> str:
    with pytest.raises(WeightsError) as caught:
        io.load(folder)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.fixture
def saved(tmp_path):
    io.save(networks(), tmp_path / "net")
    return tmp_path / "net"


def edit(folder, change) -> None:
    description = json.loads((folder / "model.json").read_text())
    change(description)
    (folder / "model.json").write_text(json.dumps(description))


def edit_tensors(folder, change) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def test_weights_may_be_read_by_all_who_may_read_their_description(tmp_path):
    io.save(networks(), tmp_path / "net")
    modes = {path.stat().st_mode for path in (tmp_path / "net").iterdir()}
    assert len(modes) == 1


def test_networks_and_metadata_come_back(tmp_path):
    io.save(networks(), tmp_path / "a" / "net", metadata={"nimg": 5, "data": "emoji"})
    assert_equal(io.load(tmp_path / "a" / "net"), networks())
    assert io.read_metadata(tmp_path / "a" / "net") == {"nimg": 5, "data": "emoji"}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["net"]
    names = sorted(path.name for path in (tmp_path / "a" / "net").iterdir())
    assert names == ["model.json", "model.safetensors"]


def test_equal_networks_give_equal_files(saved, tmp_path):
    io.save(networks(), tmp_path / "again")
    for name in ("model.json", "model.safetensors"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_networks_that_are_none_are_left_out(tmp_path):
    some = Networks(generator_ema=networks().generator_ema)
    io.save(some, tmp_path / "net")
    assert_equal(io.load(tmp_path / "net"), some)
    with pytest.raises(ValueError, match="at least one network"):
        io.save(Networks(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_only_reads_what_is_asked_for(saved):
    whole = networks()
    assert_equal(io.load(saved, only=["generator"]), Networks(generator=whole.generator))
    assert_equal(io.load(saved, only=[]), Networks())
    # What is not asked for is not even looked at.
    edit(saved, lambda d: d["networks"]["discriminator"].update(family="other"))
    assert io.load(saved, only={"generator_ema", "generator"}).discriminator is None
    with pytest.raises(ValueError, match="G_ema"):
        io.load(saved, only=["G_ema"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_half_as_large_and_load_as_float32(saved, tmp_path, dtype):
    io.save(networks(), tmp_path / "half", dtype=dtype)
    sizes = [(f / "model.safetensors").stat().st_size for f in (saved, tmp_path / "half")]
    header = int.from_bytes((saved / "model.safetensors").read_bytes()[:8], "little")
    assert sizes[1] - header < 0.51 * (sizes[0] - header) + 64
    for (_, ours), (_, theirs) in zip(
        io.load(tmp_path / "half").items(), networks().items(), strict=True
    ):
        for name, tensor in theirs.state_dict().items():
            assert ours.state_dict()[name].dtype == torch.float32
            assert torch.equal(ours.state_dict()[name], tensor.to(dtype).float())
    with pytest.raises(ValueError, match="floating-point"):
        io.save(networks(), tmp_path / "integers", dtype=torch.int8)


def test_loading_leaves_the_global_generator_alone(saved):
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    io.load(saved)
    assert torch.equal(torch.randn(3), expected)


def test_a_native_folder_is_replaced_whole(saved):
    (saved / "notes.txt").write_text("goes too")
    io.save(Networks(generator=networks(1).generator), saved)
    assert_equal(io.load(saved), Networks(generator=networks(1).generator))
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "model.safetensors"]
    assert [path.name for path in saved.parent.iterdir()] == ["net"]


def test_anything_else_is_not_overwritten(tmp_path):
    (tmp_path / "empty").mkdir()
    io.save(networks(), tmp_path / "empty")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(WeightsError, match="exists and is not a native folder"):
            io.save(networks(), tmp_path / name)
    assert (tmp_path / "photos" / "cat.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "photos"]


@pytest.mark.parametrize("failing", ["fsync", "json"])
def test_a_failed_save_leaves_the_old_folder(saved, monkeypatch, failing):
    def fail(_: int) -> None:
        raise OSError("disk full")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            io.save(networks(1), saved)
    else:
        with pytest.raises(TypeError, match="JSON"):
            io.save(networks(1), saved, metadata={"x": object()})
    assert_equal(io.load(saved), networks())
    assert [path.name for path in saved.parent.iterdir()] == ["net"]


def test_is_native_recognizes_native_folders(saved, tmp_path):
    assert io.is_native(saved)
    assert not io.is_native(tmp_path)
    assert not io.is_native(tmp_path / "missing")
    shutil.copytree(saved, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    assert not io.is_native(tmp_path / "half")
    for text in ("[]", "{", "{}", '{"format": "other"}'):
        (saved / "model.json").write_text(text)
        assert not io.is_native(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "has version 2, this version reads at most 1; upgrade"),
        (lambda d: d.update(version="1"), "does not describe networks of this library"),
        (lambda d: d.update(format="other"), "does not describe networks of this library"),
        (lambda d: d.update(networks={}), "does not describe networks of this library"),
        (lambda d: d.pop("metadata"), "does not describe networks of this library"),
        (lambda d: d["networks"].update(critic={}), "does not describe networks of this library"),
        (lambda d: d["networks"].pop("generator"), "unexpected tensors, generator."),
        (lambda d: d["networks"].update(generator=3), "does not describe generator"),
        (lambda d: d["networks"]["generator"].update(family="x\n"), r"of family 'x\n'"),
        (lambda d: d["networks"]["generator"].update(config=[]), "does not describe generator"),
        (lambda d: d["networks"]["generator"]["config"].update(resolution=16), "lacks synthesis."),
        (lambda d: d["networks"]["generator"]["config"].update(resolution=50), "impossible"),
        (lambda d: d["networks"]["generator"]["config"].update(resolution="8x"), "impossible"),
        (lambda d: d["networks"]["generator"]["config"].update(depth=8), "impossible"),
        (lambda d: d["networks"]["generator"]["config"].update(z_dim=5), "[4, 3] for [4, 5]"),
        (lambda d: d["networks"]["generator"]["config"].update(z_dim=10**9), "other shapes"),
        (lambda d: d["networks"]["generator"]["config"].update(z_dim=10**30), "impossible"),
        (
            lambda d: d["networks"]["generator"]["config"].update(
                resolution=2**40, channel_base=2**40
            ),
            "(generator)",
        ),
        (
            lambda d: d["networks"]["generator"]["config"].update(mapping_layers=10**9),
            "lacks tensors for its mapping layers",
        ),
        (
            lambda d: d["networks"]["generator"]["config"].update(mapping_layers="many"),
            "lacks tensors for its mapping layers",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused(saved, change, message):
    edit(saved, change)
    assert message in refusal(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("generator.mapping.w_avg"), "(generator) lacks mapping.w_avg"),
        (lambda t: t.update({"generator.x\n": torch.ones(1)}), r"unexpected tensors, 'x\n'"),
        (lambda t: t.update({"other.x": torch.ones(1)}), "unexpected tensors, other.x"),
        (lambda t: t.update({"generator.mapping.w_avg": torch.ones(5)}), "w_avg [5] for [4]"),
        (lambda t: t.update({"generator.mapping.w_avg": torch.ones(4).int()}), "integers in"),
        (
            lambda t: [t.pop(key) for key in list(t) if ".conv1." in key],
            "and 9 more",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(saved, change, message):
    edit_tensors(saved, change)
    assert message in refusal(saved)


def test_damaged_files_are_refused(saved):
    data = (saved / "model.safetensors").read_bytes()
    for damaged in (b"", data[:100], data[:-1], data + b"x", b"\xff" * 64):
        (saved / "model.safetensors").write_bytes(damaged)
        assert "model.safetensors cannot be read" in refusal(saved)
    (saved / "model.safetensors").unlink()
    assert "model.safetensors cannot be read" in refusal(saved)
    for damaged in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        (saved / "model.json").write_bytes(damaged)
        assert "model.json cannot be read" in refusal(saved)
    shutil.rmtree(saved)
    assert "model.json cannot be read" in refusal(saved)


def test_pipes_and_a_description_of_gigabytes_are_refused(saved):
    os.truncate(saved / "model.json", 4 << 30)
    assert not io.is_native(saved)
    assert "model.json cannot be read (more than 16 MiB)" in refusal(saved)
    description = saved / "model.json"
    description.unlink()
    os.mkfifo(description)
    assert not io.is_native(saved)
    assert "model.json cannot be read (not a regular file)" in refusal(saved)


def test_a_pipe_in_place_of_the_weights_is_refused(saved):
    (saved / "model.safetensors").unlink()
    os.mkfifo(saved / "model.safetensors")
    assert not io.is_native(saved)
    assert "model.safetensors cannot be read (not a regular file)" in refusal(saved)
