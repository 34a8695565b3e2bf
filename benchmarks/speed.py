"""Speed of sampling and training, compared with the plain reference in one run.

    python benchmarks/speed.py [--out benchmarks/results/NAME.json] [--rounds 5]

Measurements are interleaved, so that other load on the machine affects both; the figures are
medians. In a training iteration, lazy regularizers count in proportion to their intervals. MFU is
the fraction of the peak FLOP/s of large matrix products in the same precision. bfloat16 is skipped
on processors without native support.
"""

import argparse
import json
import platform
import statistics
from datetime import date
from pathlib import Path

import torch
from reference import make_plain

import stylegan
from stylegan.profiling.speed import PhaseTimer, measure_peak_flops
from stylegan.training.configure import configure
from stylegan.training.state import DTYPES, TrainState

SIZES = {"batch": 16, "channel_base": 8192, "channel_max": 256}


def make_state(precision, *, plain):
    config, _ = configure("stylegan2-e", {**SIZES, "precision": precision}, resolution=64)
    state = TrainState(config, torch.device("cpu"))
    if plain:
        for generator in (state.generator, state.generator_ema):
            make_plain(generator, state.discriminator)
    return state


def report(bench):
    phases = bench.phases()
    return {
        "sample_images_per_second": phases["sample"].images_per_second,
        "train_images_per_second": phases["iteration"].images_per_second,
        "seconds": {name: phase.seconds for name, phase in phases.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    default, _ = configure("stylegan2-e", {**SIZES, "precision": "auto"}, resolution=64)
    precisions = ["bf16", "fp32"] if default.precision == "bf16" else ["fp32"]
    contestants = {
        **{f"ours, {each}": PhaseTimer(make_state(each, plain=False)) for each in precisions},
        "reference, fp32": PhaseTimer(make_state("fp32", plain=True)),
    }
    images = {name: bench.sample() for name, bench in contestants.items()}
    torch.testing.assert_close(
        images["ours, fp32"], images["reference, fp32"], rtol=1e-4, atol=1e-4
    )
    rates = {precision: [] for precision in precisions}
    for bench in contestants.values():  # warm up
        bench.round()
        bench.seconds.clear()
    for _ in range(arguments.rounds):
        for bench in contestants.values():
            bench.round()
        for precision, each in rates.items():
            each.append(measure_peak_flops(torch.device("cpu"), DTYPES[precision]))
    product_rates = {precision: statistics.median(each) for precision, each in rates.items()}
    reports = {name: report(bench) for name, bench in contestants.items()}
    for name, bench in contestants.items():
        if name.startswith("reference"):
            continue  # torch's count of grouped convolutions is wrong
        rate = product_rates[name.rpartition(" ")[2]]
        reports[name]["share_of_product_rate"] = {
            kind: phase.mfu(rate) for kind, phase in bench.phases().items()
        }
    base = reports["reference, fp32"]
    for name, found in reports.items():
        ratios = [
            found[key] / base[key]
            for key in ("sample_images_per_second", "train_images_per_second")
        ]
        print(
            f"{name:16} sample {found['sample_images_per_second']:7.1f} img/s ({ratios[0]:.2f}x)"
            f"   train {found['train_images_per_second']:6.2f} img/s ({ratios[1]:.2f}x)   "
            + "  ".join(
                f"{kind} {100 * share:.0f}%"
                for kind, share in found.get("share_of_product_rate", {}).items()
            )
        )
    if arguments.out:
        record = {
            "date": date.today().isoformat(),
            "stylegan": stylegan.__version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}",
            "sizes": SIZES,
            "product_rates_flops": product_rates,
            "results": reports,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
