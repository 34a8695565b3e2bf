"""Sampling and training against the plain reference, side by side in one run.

    python benchmarks/speed.py [--out benchmarks/results/NAME.json] [--rounds 5]

Ours and the reference take turns, so that what else the machine does meets both; the figures
are medians. A training iteration counts path length at a quarter and R1 at a sixteenth.
"""

import argparse
import json
import platform
import statistics
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch
from reference import make_plain

import stylegan
from stylegan.training.configure import Choices, configure
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

SIZES = {"resolution": 64, "batch": 16, "channel_base": 8192, "channel_max": 256}


def make_state(precision, *, plain):
    choices = Choices(**SIZES, precision=precision)
    config, _ = configure("stylegan2-e", "none", choices)
    state = TrainState(config, torch.device("cpu"))
    if plain:
        make_plain(state.generator, state.discriminator)
    return state


class Contestant:
    def __init__(self, name, precision, *, plain=False):
        self.name = name
        self.state = make_state(precision, plain=plain)
        self.seconds = {"sample": [], "G": [], "D": [], "path_length": [], "R1": []}

    def sample(self, z):
        start = time.perf_counter()
        with torch.no_grad():
            images = self.state.generator(z)
        self.seconds["sample"].append(time.perf_counter() - start)
        return images

    def train(self, reals, *, with_regularizers):
        kinds = iter(["G", "path_length", "D", "R1"] if with_regularizers else ["G", "D"])

        @contextmanager
        def timer(_):
            start = time.perf_counter()
            yield
            self.seconds[next(kinds)].append(time.perf_counter() - start)

        self.state.iteration = 0 if with_regularizers else 1
        train_step(self.state, reals, timer=timer)

    def report(self):
        median = {kind: statistics.median(values) for kind, values in self.seconds.items()}
        step = median["G"] + median["D"] + median["path_length"] / 4 + median["R1"] / 16
        return {
            "sample_images_per_second": SIZES["batch"] / median["sample"],
            "train_images_per_second": SIZES["batch"] / step,
            "seconds": median,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    contestants = [
        Contestant("ours, bf16", "bf16"),
        Contestant("ours, fp32", "fp32"),
        Contestant("reference, fp32", "fp32", plain=True),
    ]
    z = torch.randn(SIZES["batch"], contestants[0].state.generator.z_dim)
    reals = torch.randn(SIZES["batch"], 3, SIZES["resolution"], SIZES["resolution"])
    images = {contestant.name: contestant.sample(z) for contestant in contestants}
    torch.testing.assert_close(
        images["ours, fp32"], images["reference, fp32"], rtol=1e-4, atol=1e-4
    )
    for contestant in contestants:  # warm up, and forget
        contestant.train(reals, with_regularizers=True)
        contestant.seconds = {kind: [] for kind in contestant.seconds}
    for _ in range(arguments.rounds):
        for contestant in contestants:
            for _ in range(3):
                contestant.sample(z)
            contestant.train(reals, with_regularizers=True)
            contestant.train(reals, with_regularizers=False)
    reports = {contestant.name: contestant.report() for contestant in contestants}
    base = reports["reference, fp32"]
    for name, report in reports.items():
        ratios = [
            report[key] / base[key]
            for key in ("sample_images_per_second", "train_images_per_second")
        ]
        print(
            f"{name:16} sample {report['sample_images_per_second']:7.1f} img/s ({ratios[0]:.2f}x)"
            f"   train {report['train_images_per_second']:6.2f} img/s ({ratios[1]:.2f}x)"
        )
    if arguments.out:
        record = {
            "date": date.today().isoformat(),
            "stylegan": stylegan.__version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}",
            "sizes": SIZES,
            "results": reports,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
