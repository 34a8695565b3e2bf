"""Train variants of a run with several seeds each, and compare their curves.

    python benchmarks/compare.py benchmarks/experiments/NAME.toml [--only VARIANT-SEED ...]
        [--runs runs/compare] [--plot FILE.png]

The TOML file has the data, the options of all runs ([options]) and those of each variant
([variants.VARIANT]), in the form of `stylegan train`. A variant with [variants.VARIANT.first]
starts from the weights of a run with these options. Each snapshot is measured with the features of
EfficientNet-Lite0 (images resized to 128 pixels): Frechet distance and KID to the training images
and to images that are held out, and the mean logits of the discriminator for training, held-out and
generated images. Samples are of the moving average of the generator, without truncation, with
random noise. Two further keys of the file are for the last snapshot: `metrics`, as `stylegan
evaluate` takes them, and `num_projected`: this many of the first images are projected into w with
the features of EfficientNet-Lite0.

Results are written to benchmarks/results/NAME.json after each run, and finished runs are not
repeated. Several processes may work on one experiment, each with one thread: each takes a run that
no other has.
"""

import argparse
import json
import platform
import random
import shutil
import statistics
import time
import tomllib
import zipfile
from collections import defaultdict
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout

import stylegan
from stylegan.data.dataset import ImageDataset
from stylegan.interop.load import complete_snapshots
from stylegan.metrics.frechet import frechet_distance
from stylegan.metrics.kernel import kernel_distance
from stylegan.metrics.moments import Moments
from stylegan.perceptual.networks import load_detector
from stylegan.plotting import write_plot
from stylegan.rng import generator_for
from stylegan.training.log import read_log
from stylegan.workflows.demo_report import sample

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NUM_SAMPLES = 1000
BATCH = 50
NUM_LOGITS = 512  # a multiple of the group size of the minibatch standard deviation
CURVES = {  # of the plot
    "kid_held_out": "KID x1000 to held-out images",
    "kid_train": "KID x1000 to training images",
    "gap": "D: mean logit of training - held-out images",
}


def resized(images):
    """Map uint8 [N, 3, H, W] to inputs of EfficientNet-Lite0, float32 [N, 3, 128, 128]."""
    sizes = {"size": (128, 128), "mode": "bicubic", "antialias": True, "align_corners": False}
    return (F.interpolate(images.float(), **sizes).clamp(0, 255) - 127) / 128


def emulate_bfloat16():
    """Replace convolutions in bfloat16 by float32 ones of rounded inputs, with rounded outputs.

    Gradients are rounded likewise. Products are summed in float32, as by AMX and GPUs. With
    torch's own convolutions, training took 11 times as long on a CPU with AVX2 only (torch 2.13).
    """

    def emulated(convolution):
        def call(x, *args, **kwargs):
            if x.dtype != torch.bfloat16:
                return convolution(x, *args, **kwargs)
            args = [v.float() if torch.is_tensor(v) else v for v in args]
            kwargs = {k: v.float() if torch.is_tensor(v) else v for k, v in kwargs.items()}
            return convolution(x.float(), *args, **kwargs).to(torch.bfloat16)

        return call

    F.conv2d, F.conv_transpose2d = emulated(F.conv2d), emulated(F.conv_transpose2d)


@torch.inference_mode()
def features_of(network, images):
    """Map uint8 [N, C, H, W] to features [N, 1280]."""
    return torch.cat([network(resized(part)) for part in images.split(BATCH)])


def distances(real, fake):
    """Return Frechet distance and KID x1000 of two sets of features."""
    moments = []
    for features in (real, fake):
        moments.append(Moments(features.shape[1]))
        moments[-1].update(features)
    kid = kernel_distance(real, fake, generator=generator_for("subsets", seed=0), num_subsets=50)
    return frechet_distance(*moments, unbiased=True), 1000 * kid.value


@torch.inference_mode()
def mean_logit(discriminator, images):
    """Return the mean logit of uint8 [N, C, H, W], of up to `NUM_LOGITS` images at random.

    Their order is random, as in training, as the groups of the minibatch standard deviation must
    not consist of similar images.
    """
    order = torch.randperm(len(images), generator=generator_for("logits", seed=0))[:NUM_LOGITS]
    parts = [discriminator(part.float() / 127.5 - 1) for part in images[order].split(32)]
    return torch.cat(parts).mean().item()


def split(data, num_train, folder):
    """Write train.zip with `num_train` images of a zip, chosen once, and held-out.zip."""
    paths = [folder / "train.zip", folder / "held-out.zip"]
    with FileLock(folder / "split.lock"):
        if not all(path.exists() for path in paths):
            with zipfile.ZipFile(data) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".png"))
                random.Random(0).shuffle(names)
                for path, chosen in zip(paths, (names[:num_train], names[num_train:]), strict=True):
                    with zipfile.ZipFile(path.with_suffix(".tmp"), "w") as part:
                        for name in sorted(chosen):
                            part.writestr(name, archive.read(name))
                    path.with_suffix(".tmp").rename(path)
    return paths


def measure(snapshot, sets, network, reals):
    """Measure one snapshot; `sets` are images and `reals` their features, by name."""
    nets = stylegan.load_networks(snapshot)
    fakes = sample(nets.generator_ema.eval(), NUM_SAMPLES, seed=0)
    fake = features_of(network, fakes)
    record = {"kimg": int(snapshot.name) / 1000}
    for name, real in reals.items():
        record[f"fd_{name}"], record[f"kid_{name}"] = distances(real, fake)
    discriminator = nets.discriminator.eval()
    for name, images in (*sets.items(), ("fake", fakes)):
        record[f"logit_{name}"] = mean_logit(discriminator, images)
    if "held_out" in sets:
        record["gap"] = record["logit_train"] - record["logit_held_out"]
    return record


def measure_last(experiment, out, *, data, seed):
    """Return the values of the last snapshot of a run: metrics, and distances of projections."""
    values = {}
    if names := experiment.get("metrics"):
        evaluation = stylegan.evaluate(out, data=data, metrics=names, out=out / "metrics.jsonl")
        values |= {record["metric"]: record["values"] for record in evaluation.records}
    if num := experiment.get("num_projected"):
        dataset = ImageDataset(data, resolution=experiment["options"]["resolution"])
        projections = stylegan.project(
            dataset.gather(range(num)),
            out,
            steps=300,
            noise_maps=False,
            perceptual="efficientnet",
            seed=seed,
        )
        values["projection/distance"] = statistics.mean(each.distance for each in projections)
        values["projection/psnr"] = statistics.mean(each.psnr for each in projections)
    return values


def run_one(experiment, variant, seed, *, out, sets, network, reals, data):
    """Train one variant with one seed, and return its record."""
    options = experiment["options"] | experiment["variants"][variant]
    first = options.pop("first", None)
    start, cpu_start = time.perf_counter(), time.process_time()
    stages = [(out, options)]
    if first is not None:
        start_from = out.with_name(f"{out.name}-first")
        stages = [(start_from, options | first), (out, options | {"init_from": start_from})]
    for folder, settings in stages:
        result = stylegan.train(data, folder, seed=seed, metrics="none", threads=1, **settings)
        if result.outcome.signal is not None:
            raise SystemExit(f"{folder} was interrupted and saved")
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    log = read_log(out)
    ticks = [line for line in log if line["kind"] == "tick"]
    return {
        "minutes": seconds / 60,
        "cpu_minutes": cpu_seconds / 60,
        "last": measure_last(experiment, out, data=data, seed=seed),
        "points": [measure(snapshot, sets, network, reals) for snapshot in complete_snapshots(out)],
        "augment_p": [
            (line["nimg"] / 1000, line["terms"]["augment/p"])
            for line in ticks
            if "augment/p" in line["terms"]
        ],
    }


def save(path, key, record):
    """Add the record of a run to the results of an experiment."""
    with FileLock(f"{path}.lock"):
        results = json.loads(path.read_text()) if path.exists() else {"runs": {}}
        results |= {
            "date": date.today().isoformat(),
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        }
        results["runs"][key] = record
        path.write_text(json.dumps(results, indent=1) + "\n")


def finished(path):
    """Return the names of finished runs."""
    return set(json.loads(path.read_text())["runs"]) if path.exists() else set()


def summarize(path, *, plot=None):
    """Print mean and spread of each variant, and plot the curves."""
    by_variant = defaultdict(list)
    for key, record in sorted(json.loads(path.read_text())["runs"].items()):
        by_variant[key.rpartition("-")[0]].append(record["points"])
    names = [name for name in CURVES if name in next(iter(by_variant.values()))[0][-1]]
    for variant, runs in by_variant.items():
        for points in by_position(runs):
            columns = [f"{variant:16} {points[0]['kimg']:6.0f} kimg  {len(points)} seeds"]
            for name in names:
                values = [point[name] for point in points]
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                columns.append(f"{name} {statistics.mean(values):8.2f} +- {spread:6.2f}")
            print("  ".join(columns))
    if plot is not None:
        for name in names:
            write_plot(
                lambda axes, name=name: draw(axes, by_variant, name),
                plot.with_stem(f"{plot.stem}-{name}"),
                what="the comparison",
            )


def by_position(runs):
    """Return the points of all runs at each number of images, in thousands, in order."""
    positions = defaultdict(list)
    for points in runs:
        for point in points:
            positions[round(point["kimg"])].append(point)
    return [positions[kimg] for kimg in sorted(positions)]


def draw(axes, by_variant, name):
    """Draw one line for each seed, and a thick one for their mean."""
    for index, (variant, runs) in enumerate(by_variant.items()):
        color = f"C{index}"
        for points in runs:
            x, y = zip(*((point["kimg"], point[name]) for point in points), strict=True)
            axes.plot(x, y, color=color, alpha=0.35, linewidth=0.8)
        means = [
            (points[0]["kimg"], statistics.mean(point[name] for point in points))
            for points in by_position(runs)
        ]
        axes.plot(*zip(*means, strict=True), color=color, linewidth=2, label=variant)
    axes.set(xlabel="images shown (thousands)", ylabel=CURVES[name])
    axes.legend(frameon=False)


def main():
    """Train and measure what is missing, then print and plot the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--only", nargs="*", default=None, help="runs, as VARIANT-SEED")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "compare")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    emulate_bfloat16()
    experiment = tomllib.loads(arguments.experiment.read_text())
    name = arguments.experiment.stem
    results = RESULTS / f"{name}.json"
    folder = arguments.runs / name
    folder.mkdir(parents=True, exist_ok=True)
    data = {"train": ROOT / experiment["data"]}
    if "num_train" in experiment:
        parts = split(data["train"], experiment["num_train"], folder)
        data = dict(zip(("train", "held_out"), parts, strict=True))
    resolution = experiment["options"]["resolution"]
    keys = [f"{v}-{s}" for s in experiment["seeds"] for v in experiment["variants"]]
    keys = arguments.only or keys
    sets = None
    for key in keys:
        variant, _, seed = key.rpartition("-")
        try:
            with FileLock(folder / f"{key}.lock", timeout=0):
                if key in finished(results):
                    continue
                if sets is None:
                    network = load_detector("efficientnet-lite0")
                    sets = {k: ImageDataset(p, resolution=resolution) for k, p in data.items()}
                    sets = {k: v.gather(range(len(v))) for k, v in sets.items()}
                    reals = {k: features_of(network, images) for k, images in sets.items()}
                record = run_one(
                    experiment,
                    variant,
                    int(seed),
                    out=folder / key,
                    sets=sets,
                    network=network,
                    reals=reals,
                    data=data["train"],
                )
                save(results, key, record)
                shutil.rmtree(folder / key / "checkpoints", ignore_errors=True)
        except Timeout:
            continue
    summarize(results, plot=arguments.plot)


if __name__ == "__main__":
    main()
