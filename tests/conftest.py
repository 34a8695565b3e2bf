"""What all tests share: fixed seeds, tiny networks, the GPU marker."""

import functools
import json
import os
import shutil
import sys
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry as fsspec_registry

from stylegan import images
from stylegan.losses.objective import LossConfig
from stylegan.models import progan, stylegan
from stylegan.models.stylegan2 import DiscriminatorConfig, GeneratorConfig
from stylegan.perceptual import efficientnet
from stylegan.training.config import (
    DataConfig,
    EmaConfig,
    GrowthConfig,
    OutputConfig,
    RunConfig,
)
from stylegan.training.loop import train

# One thread for each process of the tests: pytest's workers share the cores, and sums do not depend
# on their number. Subprocesses inherit the variable.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

if not torch.cuda.is_available():
    # Triton's kernels run in its interpreter, which is chosen when Triton is first imported
    assert "triton" not in sys.modules
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache folder for the session, so that tests leave the user's alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # as the commands do


@pytest.fixture(scope="session")
def generator_config():
    """Tiny options: 16x16, three blocks."""
    return GeneratorConfig(
        resolution=16, z_dim=8, w_dim=12, mapping_layers=2, channel_base=64, channel_max=6
    )


@pytest.fixture(scope="session")
def discriminator_config():
    return DiscriminatorConfig(resolution=16, channel_base=64, channel_max=6)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Twelve noise images, 16x16."""
    folder = tmp_path_factory.mktemp("images")
    stream = torch.Generator().manual_seed(1)
    for index in range(12):
        image = torch.randint(0, 256, [3, 16, 16], generator=stream, dtype=torch.uint8)
        images.write(image, folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def run_config(generator_config, discriminator_config, image_folder):
    """A run of 20 iterations of tiny networks; a step takes milliseconds."""
    return RunConfig(
        preset="tiny",
        family="stylegan2",
        generator=generator_config,
        discriminator=discriminator_config,
        data=DataConfig(path=str(image_folder), mirror=True),
        loss=LossConfig(gamma=1.0, r1_interval=4),
        ema=EmaConfig(half_life_kimg=0.1, rampup=0.05),
        output=OutputConfig(
            total_kimg=0.16,
            tick_kimg=0.024,
            snapshot_kimg=0.08,
            checkpoint_kimg=0.04,
            keep_checkpoints=2,
            samples=4,
        ),
        batch=8,
    )


@pytest.fixture(scope="session")
def classes_folder(image_folder, tmp_path_factory):
    """The images of `image_folder`, in three classes."""
    folder = shutil.copytree(image_folder, tmp_path_factory.mktemp("classes") / "images")
    pairs = [[path.name, index % 3] for index, path in enumerate(sorted(folder.glob("*.png")))]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return folder


@pytest.fixture(scope="session")
def family_config(run_config, classes_folder):
    """Return a function that gives the tiny run the networks of a family, or labels."""

    def configure(name):
        if name == "stylegan2":
            return run_config
        if name == "conditional":
            return replace(
                run_config,
                generator=replace(run_config.generator, c_dim=3),
                discriminator=replace(run_config.discriminator, c_dim=3),
                data=replace(run_config.data, path=str(classes_folder), labels=True),
            )
        module = {"progan": progan, "stylegan": stylegan}[name]
        sizes = {"resolution": 16, "channel_base": 64, "channel_max": 6}
        widths = {"z_dim": 8}
        loss = replace(run_config.loss, r1_interval=None)
        if name == "progan":
            loss = replace(
                loss, adversarial="wgan-gp", gamma=0, pl_weight=0, pl_interval=None, mixing_prob=0
            )
        else:
            widths |= {"w_dim": 12, "mapping_layers": 2}
        return replace(
            run_config,
            family=name,
            generator=module.GeneratorConfig(**sizes, **widths),
            discriminator=module.DiscriminatorConfig(**sizes),
            loss=loss,
            optim=replace(run_config.optim, order="discriminator-first"),
        )

    return configure


@pytest.fixture(scope="session")
def finished_runs(family_config, tmp_path_factory):
    """Return a function that gives the finished tiny run of a family, or the "conditional" one.

    Each is trained once. They are shared: copy a run before changing it.
    """

    @functools.cache
    def finished(name):
        folder = tmp_path_factory.mktemp(name) / "run"
        assert train(family_config(name), folder).is_complete
        return folder

    return finished


@pytest.fixture(scope="session")
def finished_run(finished_runs):
    """The folder of `run_config`, trained to its end. Copy it before changing it."""
    return finished_runs("stylegan2")


@pytest.fixture(scope="session")
def growing_config(run_config):
    """The same run, growing from 4x4: fades from image 16 to 40 and from 56 to 80."""
    return replace(
        run_config,
        generator=replace(run_config.generator, architecture="growing"),
        discriminator=replace(run_config.discriminator, architecture="growing"),
        growth=GrowthConfig(
            initial_resolution=4,
            train_kimg=0.016,
            fade_kimg=0.024,
            batches={"4": 16, "8": 4},
            lrs={"8": 0.001},
        ),
    )


@pytest.fixture(scope="session")
def machine_measured_once():
    """Measure the rates of the machine once for all benchmarks: each takes a second."""
    from stylegan.profiling import roofline, speed  # they import Triton

    peak_flops = functools.cache(speed.measure_peak_flops)
    bandwidth = functools.cache(speed.measure_bandwidth)
    with pytest.MonkeyPatch.context() as patch:
        for module in (roofline, speed):
            patch.setattr(module, "measure_peak_flops", peak_flops)
            patch.setattr(module, "measure_bandwidth", bandwidth)
        yield


@pytest.fixture(scope="module")
def small_detectors():
    """Feature networks that see 32x32 images in place of 224x224, for tests of what uses them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet, "SIZE", 32)
        yield


@pytest.fixture(scope="session")
def labeled_folder(tmp_path_factory):
    """Sixty images, 8x8, whose labels the pixels decide: bright or dark, top or bottom brighter."""
    folder = tmp_path_factory.mktemp("labeled")
    stream = torch.Generator().manual_seed(2)
    labels = []
    for index in range(60):
        bright, top = index % 2, index // 2 % 2
        image = torch.randint(0, 60, [3, 8, 8], generator=stream, dtype=torch.uint8) + 100 * bright
        image[:, :4] += 40 * top
        image[:, 4:] += 40 * (1 - top)
        images.write(image, folder / f"{index:02d}.png")
        labels.append([f"{index:02d}.png", [bright, top]])
    content = {"labels": labels, "attributes": ["Bright_Pixels", "top"]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


class ObjectStore(MemoryFileSystem):
    """An object store in memory."""

    protocol = ("s3",)
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("s3://").strip("/")


@pytest.fixture
def object_store(monkeypatch):
    """A store of objects whose URLs start with s3://."""
    monkeypatch.setitem(fsspec_registry, "s3", ObjectStore)
    store = ObjectStore()
    yield store
    store.store.clear()
