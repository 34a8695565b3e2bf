"""Damaged weight files of every format are read, or refused in one line, with little memory."""

import contextlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow_files
import torch
from interop_files import basicsr_tensors, persistent
from safetensors.torch import save_file
from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop import rosinality
from stylegan.interop.load import load_networks
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

PARITY = Path(__file__).parents[1] / "parity"
SIZES = {"resolution": 8, "channel_base": 32, "channel_max": 4}
GENERATOR = Generator(GeneratorConfig(**SIZES, z_dim=4, w_dim=4, mapping_layers=2))
DISCRIMINATOR = Discriminator(DiscriminatorConfig(**SIZES))
Tensors = dict[str, Tensor]
Change = Callable[[Tensors], Tensors]

TORCH = {
    "official": lambda g, d: {"G_ema": g, "D": d, "G_ema_kwargs": {"img_resolution": 8}},
    "bare": lambda g, _: g,
    "rosinality": lambda g, d: {"g_ema": g, "d": d, "latent_avg": torch.zeros(4)},
    "encoder": lambda g, _: {"state_dict": {f"decoder.{name}": v for name, v in g.items()}},
    "basicsr": lambda g, _: {"params_ema": g},
    "lucidrains": lambda g, _: {"GAN": {f"G.blocks.{name}": v for name, v in g.items()}},
}
KINDS = ("native", "pickle", "unknown", "tensorflow", *(f"{k}-{v}" for k in TORCH for v in "zl"))


def tensors_of(name: str) -> tuple[Tensors, Tensors]:
    """Return the tensors of a generator and a discriminator under the names of a format."""
    g, d = dict(GENERATOR.state_dict()), dict(DISCRIMINATOR.state_dict())
    if name in ("rosinality", "encoder"):
        del g["mapping.w_avg"]
        g = rosinality._generator_names(GENERATOR.config).write(g)
        d = rosinality._discriminator_names(DISCRIMINATOR.config).write(d)
    elif name == "basicsr":
        g = basicsr_tensors(GENERATOR)
    return g, d


@pytest.fixture
def write(tmp_path, write_pickle, write_tensorflow) -> Callable[[str, Change], Path]:
    """Return a function that writes a file of a format after a change of its tensors.

    It returns the file whose bytes may be damaged.
    """

    def write(kind: str, change: Change) -> Path:
        name, _, form = kind.partition("-")
        g, d = tensors_of(name)
        g, d = change(g), change(d)
        if kind == "native":
            folder = tmp_path / "native"
            io.save(Networks(generator_ema=GENERATOR, discriminator=DISCRIMINATOR), folder)
            ours = {f"generator_ema.{key}": value for key, value in g.items()}
            ours |= {f"discriminator.{key}": value for key, value in d.items()}
            save_file({k: v.contiguous() for k, v in ours.items()}, folder / "model.safetensors")
            return folder / "model.safetensors"
        if kind in ("pickle", "unknown"):
            critic = persistent("Discriminator", d) if kind == "pickle" else torch.nn.Linear(2, 2)
            root = {"G_ema": persistent("Generator", g), "D": critic}
            return write_pickle(root, name=f"{kind}.pkl")
        if kind == "tensorflow":
            root = (
                tensorflow_files.generator("G", GENERATOR),
                tensorflow_files.discriminator(DISCRIMINATOR),
                tensorflow_files.generator("Gs", GENERATOR),
            )
            for network in (root[0].state["components"]["mapping"], root[1]):
                pairs = change({k: torch.as_tensor(v) for k, v in network.state["variables"]})
                network.state["variables"] = [(key, v.numpy()) for key, v in pairs.items()]
            return write_tensorflow(root)
        path = tmp_path / f"{kind}.pt"
        torch.save(TORCH[name](g, d), path, _use_new_zipfile_serialization=form == "z")
        return path

    return write


def changed(dice: random.Random) -> Change:
    """Return a change of tensors: one or two are removed, renamed, or get another form."""

    def change(tensors: Tensors) -> Tensors:
        result = dict(tensors)
        for name in dice.sample(sorted(tensors), dice.choice([0, 1, 1, 2])):
            tensor = result.pop(name)
            form = dice.randrange(8)
            if form == 1:
                result[name + dice.choice(["", "x", "\n", "\x1b", "x" * 300])] = tensor
            elif form == 2:
                result[name] = tensor.t() if tensor.ndim == 2 else tensor[None]
            elif form == 3:
                result[name] = tensor.flatten()[: dice.randrange(4)]
            elif form == 4:
                dtypes = [torch.int64, torch.bool, torch.float16, torch.float64, torch.uint8]
                result[name] = tensor.to(dice.choice(dtypes))
            elif form == 5:
                result[name] = tensor * dice.choice([float("nan"), float("inf"), 0.0])
            elif form == 6:
                result[name] = torch.zeros(dice.choice([(), (0,), (1, 0, 3), (2, 2), (1,) * 7]))
            elif form == 7:
                result[name] = tensor.repeat_interleave(2, dim=0) if tensor.ndim else tensor
        return result

    return change


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Return bytes after one to three kinds of damage."""
    content = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 3])):
        start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
        size = min(dice.choice([1, 4, 16, 200]), len(content) - start)
        form = dice.randrange(8)
        if form in (0, 1) and size:
            content[start] ^= 1 << dice.randrange(8)
        elif form == 2 and size:
            content[start : start + size] = dice.randbytes(size)
        elif form == 3:
            del content[start:]
        elif form == 4:
            del content[start : start + size]
        elif form == 5:
            content[start:start] = content[end : end + size]
        elif form == 6:
            middle = (start + end) // 2
            content[start:end] = content[middle:end] + content[start:middle]
        else:
            content[start : start + size] = bytes(size)
        if not content:
            break
    return bytes(content)


def check(path: Path) -> bool:
    """Return whether a file is read; otherwise the refusal must be one line."""
    try:
        load_networks(path)
    except WeightsError as error:
        message = str(error)
    else:
        return True
    assert message.isprintable(), ascii(message)
    assert len(message) < 1500
    return False


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@contextlib.contextmanager
def growing_by_at_most(mib):
    """Check the peak of memory in the block against what the process had before."""

    def kib(field):
        return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0])

    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = kib("VmRSS")
    yield
    assert kib("VmHWM") - before < mib * 1024


def num_read(write: Callable[[str, Change], Path], kind: str, num: int, seed: int) -> int:
    """Check mutants of a format, of their tensors and of their bytes; return how many are read."""
    dice = random.Random(f"{kind}/{seed}")
    read = 0
    for _ in range(num // 10):
        path = write(kind, dice.choice([changed(dice), dict]))
        source = path.parent if kind == "native" else path
        read += check(source)
        for _ in range(9):
            is_description = kind == "native" and dice.random() < 0.3
            target = path.with_name("model.json") if is_description else path
            data = target.read_bytes()
            target.write_bytes(damaged(data, dice))
            read += check(source)
            target.write_bytes(data)
    return read


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "-l" not in kind or "off" in kind])
def test_mutants_are_read_or_refused_in_one_line(write, kind):
    assert num_read(write, kind, num=10, seed=0) < 10


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_mutants_are_read_or_refused_in_one_line_below_a_gigabyte(write, kind):
    with growing_by_at_most(700):  # the interpreter and torch take less than 300 MiB
        read = num_read(write, kind, num=550, seed=1)
    assert (read == 0) if kind.startswith("lucidrains") else (10 < read < 500)


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("path", sorted(PARITY.glob("*-t*.pkl")), ids=lambda path: path.stem)
def test_mutants_of_official_files_are_read_or_refused_in_one_line(path, tmp_path):
    data, dice = path.read_bytes(), random.Random(path.stem)
    target = tmp_path / "mutant.pkl"
    with growing_by_at_most(700):
        for _ in range(200):
            target.write_bytes(damaged(data, dice))
            check(target)
