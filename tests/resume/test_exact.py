"""A run that is killed and started again is, bit for bit, the run that nobody touched."""

import os
import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import processes
from stylegan.data.prepare import PrepareOptions, prepare
from stylegan.training.checkpoint import list_checkpoints
from stylegan.training.config import RunConfig
from stylegan.training.log import read_log
from stylegan.training.loop import train


def train_until(moment: dict[str, int], config: RunConfig, run_dir: Path) -> None:
    """Train, and kill this process at a moment that the test chose."""
    save = torch.save
    saves = 0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def save_half(data, file):
        nonlocal saves
        saves += 1
        save(data, file)
        if saves == moment.get("checkpoint"):
            file.truncate(file.tell() // 2)
            file.flush()
            die()

    torch.set_num_threads(1)
    torch.save = save_half
    train(config, run_dir, observe=lambda p: die() if p.nimg == moment.get("nimg") else None)


def run_and_kill(config: RunConfig, run_dir: Path, moment: dict[str, int]) -> None:
    process = processes.CONTEXT.Process(target=train_until, args=(moment, config, run_dir))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def assert_same(a, b, path="state"):
    """Compare nested state exactly."""
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, path
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{path}[{index}]")
    else:
        assert a == b, path


def assert_same_run(one: Path, other: Path) -> None:
    for left, right in zip(list_checkpoints(one), list_checkpoints(other), strict=True):
        assert left.name == right.name
        assert_same(
            torch.load(left, weights_only=True)["state"],
            torch.load(right, weights_only=True)["state"],
        )
    logs = [
        [{key: value for key, value in record.items() if key != "time"} for record in read_log(run)]
        for run in (one, other)
    ]
    assert logs[0] == logs[1]
    for pattern in ("samples/*.png", "snapshots/*/*"):
        files = [
            sorted(path.relative_to(run) for path in run.glob(pattern)) for run in (one, other)
        ]
        assert files[0] == files[1]
        for path in files[0]:
            assert (one / path).read_bytes() == (other / path).read_bytes(), path


@pytest.fixture(scope="module")
def moments():
    """Five moments, drawn once: three after an iteration, two within a checkpoint's write."""
    stream = torch.Generator().manual_seed(20261124)
    nimgs = (torch.randperm(19, generator=stream)[:3] + 1) * 8
    between = [{"nimg": nimg} for nimg in sorted(nimgs.tolist())]
    return [{"checkpoint": 1}, *between, {"checkpoint": 1}]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_killed_at_five_random_moments_and_resumed(
    run_config, finished_run, tmp_path, moments, precision
):
    config = run_config.with_overrides(f"precision={precision}")
    whole = finished_run
    if precision != "fp32":
        whole = tmp_path / "whole"
        train(config, whole)
    # one run, killed again and again, for bf16 fewer times to save time
    for moment in moments if precision == "fp32" else moments[2:]:
        run_and_kill(config, tmp_path / "killed", moment)
    train(config, tmp_path / "killed")
    assert_same_run(whole, tmp_path / "killed")


@pytest.mark.parametrize(
    "family",
    ["stylegan2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("progan", "stylegan"))],
)
def test_a_growing_run_killed_within_a_fade_and_at_its_borders(
    growing_config, family_config, tmp_path, family
):
    config = growing_config
    if family != "stylegan2":
        config = replace(family_config(family), growth=growing_config.growth)
    train(config, tmp_path / "whole")
    # At 32 the first fade has begun, at 40 it ends, 68 is within the second, at 84 it ends: but at
    # 68 the optimizers have just started anew. Two more are drawn.
    later = torch.tensor([92, 100, 108, 116])
    drawn = torch.randperm(4, generator=torch.Generator().manual_seed(20261124))[:2]
    stops = [32, 40, 68, 84, *later[drawn].sort().values.tolist()]

    def interrupt(progress):
        if progress.nimg in stops:
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "stopped"
    run_and_kill(config, run, {"nimg": 36})  # before the first checkpoint: it starts anew
    run_and_kill(config, run, {"checkpoint": 1})
    seen = []
    while not (outcome := train(config, run, observe=interrupt)).is_complete:
        seen.append(outcome.nimg)
    assert seen == stops
    forget_stops(tmp_path, seen)
    assert_same_run(tmp_path / "whole", run)


def forget_stops(folder, stopped):
    """Delete what the stops left beside the cadence, which the whole run does not have."""
    for run in ("whole", "stopped"):
        for nimg in stopped:
            (folder / run / "samples" / f"{nimg:09d}.png").unlink(missing_ok=True)
            for path in (folder / run / "snapshots" / f"{nimg:09d}").glob("*"):
                path.unlink()


@pytest.mark.parametrize(
    "architectures",
    [
        ("resnet", "orig"),
        *(
            pytest.param(pair, marks=pytest.mark.slow)
            for pair in (("orig", "skip"), ("mipmap", "mipmap"))
        ),
    ],
)
def test_interrupted_and_resumed_in_other_architectures(run_config, tmp_path, architectures):
    g, d = architectures
    config = run_config.with_overrides(
        f"generator.architecture={g}", f"discriminator.architecture={d}"
    )
    train(config, tmp_path / "whole")

    def interrupt(progress):
        if progress.nimg in (40, 104):  # on and off the cadence of the log
            os.kill(os.getpid(), signal.SIGINT)

    stopped = []
    while not (outcome := train(config, tmp_path / "stopped", observe=interrupt)).is_complete:
        stopped.append(outcome.nimg)
    assert stopped == [40, 104]
    forget_stops(tmp_path, stopped)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_interrupted_and_resumed_on_a_zip_with_a_damaged_image(run_config, tmp_path):
    path = tmp_path / "set.zip"
    prepare(run_config.data.path, path, options=PrepareOptions(resolution=16))
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("00000/img00000003.png").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 200] ^= 1
    path.write_bytes(content)
    config = run_config.with_overrides(f"data.path={path}", "runtime.cache_gb=0")
    train(config, tmp_path / "whole")
    # each call in a process of its own, which has to find the damage again
    run_and_kill(config, tmp_path / "killed", {"nimg": 104})
    train(config, tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
