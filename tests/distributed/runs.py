"""Runs of tiny networks for the tests of several ranks."""

import torch
from safetensors.torch import load_file

OPTIONS = [
    *("--preset", "stylegan2-e", "--resolution", "16", "--channel-base", "64"),
    *("--channel-max", "8", "--batch", "8", "--device", "cpu", "--precision", "fp32"),
    *("--metrics", "none", "--set", "output.samples=4", "--set", "generator.mapping_layers=2"),
    *("--set", "output.tick_kimg=0.04", "--set", "output.snapshot_kimg=0.16"),
]


def train_line(data, out, *, kimg, checkpoint_kimg=0.04):
    """The arguments of `stylegan`."""
    return [
        *("train", "--data", str(data), "--out", str(out), *OPTIONS),
        *("--total-kimg", str(kimg), "--checkpoint-kimg", str(checkpoint_kimg)),
    ]


def weights(run):
    (*_, last) = sorted((run / "snapshots").iterdir())
    return last.name, load_file(last / "model.safetensors")


def check_same(run, other):
    """Check that the last snapshots of two runs are equal."""
    (nimg, tensors), (expected_nimg, expected) = weights(run), weights(other)
    assert nimg == expected_nimg
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())


def has_ticked(run):
    """Whether a run has written a log record."""
    log = run / "log.jsonl"
    return log.exists() and log.stat().st_size > 0
