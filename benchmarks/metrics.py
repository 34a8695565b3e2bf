"""How metrics respond to degraded real images, and how much memory they need.

    python benchmarks/metrics.py [--out benchmarks/results/NAME.json] [--work runs/metrics]
    python benchmarks/metrics.py --draw benchmarks/results/NAME.json docs/images/NAME.png
    python benchmarks/metrics.py --memory inception-v3:1000 efficientnet-lite0:10000 [--out ...]

The first form uses the 3,391 emoji and EfficientNet-Lite0. Random halves of the set, compared with
each other, give the value of a metric without any difference. Then one half is compared with copies
of the other that are blurred, noisy, compressed, or lack kinds of images, with increasing strength.
Features are cached in the work folder, so an interrupted start can be continued.

The last form computes `fid` in one process per feature network and count, with generated images of
64x64, and reports the peak memory of the process. Inception has random weights.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from degrade import NUM_KINDS, add_noise, blur, compress, drop_kinds, kinds_of

import stylegan
from stylegan.data.dataset import ImageDataset
from stylegan.image_size import ImageSize
from stylegan.metrics.features import FeatureRequest, extract
from stylegan.metrics.frechet import frechet_distance
from stylegan.metrics.kernel import kernel_distance
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.moments import Moments
from stylegan.metrics.precision_recall import precision_recall
from stylegan.metrics.protocols import parse
from stylegan.metrics.sliced_wasserstein import sliced_wasserstein_distance
from stylegan.metrics.sources import CHUNK, AbstractSource
from stylegan.metrics.suite import evaluate
from stylegan.metrics.targets import NetworkTarget, RealImages
from stylegan.perceptual.inception import InceptionV3
from stylegan.perceptual.networks import load_detector
from stylegan.rng import generator_for

ROOT = Path(__file__).parents[1]
DATA = ROOT / "demo" / "emoji64.zip"
FEATURES = "efficientnet-lite0"
STRENGTHS = {  # in increasing order
    "blur": (0.5, 1, 2, 4),
    "noise": (2, 8, 32, 64),
    "jpeg": (75, 50, 25, 10),
    "kinds": (24, 16, 8, 4),
}
NUM_HALVINGS = 5
NUM_SUBSETS = 20  # of the kernel distance; the protocol has 100, which takes five times as long
NUM_SWD = 1024
NUM_REAL = 256  # for measuring memory
METRICS = {  # title, and whether larger is worse
    "fid": ("FID", True),
    "kid": ("KID x 1000", True),
    "precision": ("precision", False),
    "recall": ("recall", False),
    "swd": ("SWD", True),
}


class Batch(AbstractSource):
    """Images in memory, uint8 [N, C, H, W]."""

    def __init__(self, images):
        self.num = len(images)
        self._images = images

    def chunks(self, indices):
        for index in indices:
            yield list(self._images[index * CHUNK : (index + 1) * CHUNK])

    def facts(self):
        return {"num": self.num}


def features_of(images, detector, folder):
    request = FeatureRequest(detector=detector, storage={"float32"}, folder=folder)
    found = extract(Batch(images), {"": request})[""].float32
    return torch.from_numpy(found.copy())


def moments_of(features):
    moments = Moments(features.shape[1])
    moments.update(features)
    return moments


def measure(real, fake, real_images, fake_images, *, seed=0, num_subsets=NUM_SUBSETS):
    """Return all metrics of features and images of both sides."""
    kernel = kernel_distance(
        real, fake, generator=generator_for("kid subsets", seed=seed), num_subsets=num_subsets
    )
    shares = precision_recall(real, fake)
    sliced = sliced_wasserstein_distance(real_images[:NUM_SWD], fake_images[:NUM_SWD], seed=seed)
    return {
        "fid": frechet_distance(moments_of(real), moments_of(fake), unbiased=False),
        "kid": 1e3 * kernel.value,
        "kid_error": 1e3 * (kernel.error or 0.0),  # one subset has no standard error
        "precision": shares.precision,
        "recall": shares.recall,
        "swd": sliced.average,
    }


def halves(num, seed):
    order = torch.randperm(num, generator=generator_for("halves", seed=seed))
    return order[: num // 2], order[num // 2 : num // 2 * 2]


def is_monotone(values, *, rises):
    """Return whether values never decrease, or never increase."""
    return all(a <= b if rises else a >= b for a, b in itertools.pairwise(values))


def show(name, result):
    kid = f"{result['kid']:8.2f} ± {result['kid_error']:.2f}"
    print(
        f"| {name:18} | {result['fid']:7.2f} | {kid} | {result['precision']:.3f} "
        f"| {result['recall']:.3f} | {result['swd']:6.1f} |",
        flush=True,
    )


def measure_all(work, *, strengths=STRENGTHS, num_halvings=NUM_HALVINGS):
    """Return the metrics of halves, and of each degradation by strength."""
    dataset = ImageDataset(DATA)
    images = dataset.gather(range(len(dataset)))
    detector = load_detector(FEATURES)
    features = features_of(images, detector, work / "all")
    nothing = []
    for seed in range(num_halvings):
        a, b = halves(len(images), seed)
        nothing.append(measure(features[a], features[b], images[a], images[b], seed=seed))
        show(f"halves {seed}", nothing[-1])
    a, b = halves(len(images), 0)
    real, real_images, other, other_images = features[a], images[a], features[b], images[b]
    kinds = kinds_of(other)
    change = {"blur": blur, "noise": add_noise, "jpeg": compress}
    degraded = {}
    for name, numbers in strengths.items():
        degraded[name] = {}
        for number in numbers:
            if name == "kinds":
                places = drop_kinds(kinds, number)
                fake, fake_images = other[places], other_images[places]
            else:
                fake_images = change[name](other_images, number)
                fake = features_of(fake_images, detector, work / f"{name}-{number}")
            degraded[name][str(number)] = measure(real, fake, real_images, fake_images)
            show(f"{name} {number}", degraded[name][str(number)])
    return {"images": len(a), "halves": nothing, "degraded": degraded}


def monotone_of(found):
    """Return for each metric and degradation whether it is monotone, starting from the halves."""
    start = found["halves"][0]
    return {
        metric: {
            name: is_monotone([start[metric], *(r[metric] for r in rows.values())], rises=rises)
            for name, rows in found["degraded"].items()
        }
        for metric, (_, rises) in METRICS.items()
    }


COLUMNS = {  # name and title
    "blur": ("Gaussian blur", "deviation, pixels"),
    "noise": ("Gaussian noise", "deviation, of 255"),
    "jpeg": ("JPEG", "quality"),
    "kinds": ("missing kinds", f"kinds left, of {NUM_KINDS}"),
}
ROWS = {  # title, metrics, scale of the axis
    "FID": (["fid"], {"value": "log"}),
    "KID, times 1000": (["kid"], {"value": "symlog", "linthresh": 1}),
    "precision, recall": (["precision", "recall"], {"value": "linear"}),
    "SWD": (["swd"], {"value": "log"}),
}
COLORS = {"fid": "C0", "kid": "C0", "swd": "C0", "precision": "C2", "recall": "C1"}


def draw(found, path):
    """Draw a row per metric and a column per degradation; dashed lines are the values of halves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, axes = pyplot.subplots(
        len(ROWS), len(COLUMNS), figsize=(9, 8.4), sharex="col", sharey="row", layout="constrained"
    )
    for row, (title, (metrics, scale)) in enumerate(ROWS.items()):
        axes[row][0].set_ylabel(title, fontsize=11)
        for column, name in enumerate(COLUMNS):
            axis = axes[row][column]
            axis.set_yscale(**scale)
            for metric in metrics:
                _draw_line(axis, found, name, metric)
            if title == "FID":
                axis.yaxis.set_major_formatter(ScalarFormatter())
                axis.yaxis.set_minor_formatter(NullFormatter())
                axis.set_yticks([10, 20, 50, 100, 200])
            elif title == "SWD":
                axis.yaxis.set_major_formatter(ScalarFormatter())
                axis.yaxis.set_minor_formatter(NullFormatter())
                axis.set_yticks([10, 20, 50, 100])
            elif title.startswith("KID"):
                axis.set_yticks([-1, 0, 1, 10, 100], ["-1", "0", "1", "10", "100"])
            axis.grid(alpha=0.25)
    axes[2][0].legend(fontsize=9, loc="lower left")
    for column, (name, (title, label)) in enumerate(COLUMNS.items()):
        axes[0][column].set_title(title, fontsize=11)
        ticks = ["none", *found["degraded"][name]]
        ticks[0] = str(NUM_KINDS) if name == "kinds" else ticks[0]
        axes[-1][column].set_xticks(range(len(ticks)), ticks)
        axes[-1][column].set_xlabel(label, fontsize=10)
    figure.savefig(path, dpi=100)


def _draw_line(axis, found, name, metric):
    nothing = [half[metric] for half in found["halves"]]
    results = [found["halves"][0], *found["degraded"][name].values()]
    values = [result[metric] for result in results]
    axis.axhline(statistics.mean(nothing), color="0.4", linestyle="--", linewidth=1, zorder=1)
    axis.plot(values, "o-", markersize=4, color=COLORS[metric], label=metric)


class Few:
    """The first images of a set, as a set."""

    preparation = None

    def __init__(self, images, num):
        self._images, self._num = images, num
        self.path, self.fingerprint = str(DATA), f"{images.fingerprint}, {num}"
        self.formats = {"PNG": num}

    def __len__(self):
        return self._num

    def __getitem__(self, index):
        return self._images[index]


def load_made_up(features):
    """Return a feature network; Inception has random weights, which need the same memory."""
    if features != "inception-v3":
        return load_detector(features)
    sys.path.insert(0, str(ROOT / "tests"))
    import made_up

    return InceptionV3(made_up.inception_v3())


def peak_of(features, count):
    """Compute `fid` of a small generator in this process; return the peak memory."""
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    detector = load_made_up(features)
    target = NetworkTarget(
        generator=stylegan.create("stylegan2-small", 64).generator_ema, origin={}
    )
    reals = RealImages(images=Few(ImageDataset(DATA), NUM_REAL), size=ImageSize(64, 64))
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["STYLEGAN_CACHE"] = cache
        dependencies = EvaluationDependencies(detectors={features: detector})
        (result,) = evaluate([parse(f"fid{count}:{features}")], target, reals, dependencies)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "features": features,
        "generated": count,
        "real": result.record["real"]["num"],
        "peak_mb": round(peak * 1024 / 1e6),
        "after_imports_mb": round(start * 1024 / 1e6),
        "seconds": round(time.monotonic() - begin_s, 1),
    }


def measure_memory(counts):
    """Yield the result of `peak_of` for each FEATURES:COUNT, each in a new process."""
    for each in counts:
        command = [sys.executable, __file__, "--peak", each]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        yield json.loads(answer.splitlines()[-1])


def write(path, found, start_s):
    record = {
        "date": date.today().isoformat(),
        "stylegan": stylegan.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "minutes": round((time.monotonic() - start_s) / 60, 1),
    }
    path.write_text(json.dumps(record | found, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "metrics")
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("RESULT", "PICTURE"))
    parser.add_argument("--memory", nargs="+", metavar="FEATURES:COUNT")
    parser.add_argument("--peak", help="for --memory's own use")
    arguments = parser.parse_args()
    start_s = time.monotonic()
    if arguments.draw:
        draw(json.loads(arguments.draw[0].read_text()), arguments.draw[1])
    elif arguments.peak:
        features, count = arguments.peak.split(":")
        print(json.dumps(peak_of(features, int(count))))
    elif arguments.memory:
        found = {"memory": []}
        for peak in measure_memory(arguments.memory):
            print(json.dumps(peak), flush=True)
            found["memory"].append(peak)
            if arguments.out:
                write(arguments.out, found, start_s)
    else:
        found = measure_all(arguments.work)
        found["monotone"] = monotone_of(found)
        print(json.dumps(found["monotone"], indent=2))
        if arguments.out:
            write(arguments.out, found, start_s)


if __name__ == "__main__":
    main()
