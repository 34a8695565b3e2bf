"""A model of the time and cost of training by the number of GPUs, fitted to measured times.

    python benchmarks/scaling.py TIMES.json [--price 2.5] [--kimg 25000] [--gpus 1 8 64]

TIMES.json maps a name to {GPUs: seconds for 1,000 images}. The model has two terms: work that is
divided among the GPUs, and a fixed cost per iteration (launches, collectives, EMA):

    seconds for 1,000 images = shared / GPUs + fixed

It is fitted by least squares on relative errors.
"""

import argparse
import json
from pathlib import Path

import numpy as np


def fit(times):
    """Return shared and fixed seconds, and the largest relative error, of {GPUs: seconds}."""
    gpus = np.array([float(num) for num in times])
    seconds = np.array([float(value) for value in times.values()])
    design = np.stack([1 / gpus, np.ones_like(gpus)], axis=1) / seconds[:, None]
    (shared, fixed), *_ = np.linalg.lstsq(design, np.ones_like(seconds), rcond=None)
    fixed = max(fixed, 0.0)
    error = np.abs((shared / gpus + fixed) / seconds - 1).max()
    return shared, fixed, error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("times", type=Path)
    parser.add_argument("--price", type=float, default=2.5, help="of a GPU for an hour")
    parser.add_argument("--kimg", type=float, default=25000)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    arguments = parser.parse_args()
    for name, times in json.loads(arguments.times.read_text()).items():
        shared, fixed, error = fit(times)
        print(f"{name}: {shared:.1f} / GPUs + {fixed:.2f} s for 1,000 images, within {error:.0%}")
        for num in arguments.gpus:
            seconds = shared / num + fixed
            hours = seconds * arguments.kimg / 3600
            cost = hours * num * arguments.price
            efficiency = (shared + fixed) / (num * seconds)
            print(
                f"  {num:3} GPUs  {seconds:7.2f} s   {hours / 24:6.2f} days   {cost:8.0f}   "
                f"efficiency {efficiency:.0%}"
            )


if __name__ == "__main__":
    main()
