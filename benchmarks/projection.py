"""Project and attribute emoji: the figures of docs/project.md and docs/attribution.md.

    python benchmarks/projection.py [--runs runs/attribution] [--out benchmarks/results/NAME.json]
        [--images docs/images]

This holds out 200 emoji (20 blocks of 10, chosen once), trains StyleGAN2 E and StyleGAN F at 32x32
on the others for the same number of images with `stylegan train`, and then
 - calibrates both with 50 generated and 50 training images (`stylegan attribute --calibrate`);
 - fits the calibration on every second image, and tests it on the others;
 - projects 20 images of StyleGAN2 E back into it, and renders the saved latents again;
 - projects 20 held-out images into W and into W+.
Existing results are kept, so the same command continues. The distance is that of
EfficientNet-Lite0.
"""

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import time
import zipfile
from datetime import date
from pathlib import Path

import torch

import stylegan
from stylegan import images
from stylegan.latent.attribution import Calibration, histogram_edges, roc_curve
from stylegan.latent.seeds import latents_from_seeds
from stylegan.plotting import GENERATED, REAL, import_matplotlib

ROOT = Path(__file__).parents[1]
DATA = ROOT / "demo" / "emoji64.zip"
NETWORKS = {"stylegan2-e": "StyleGAN2, E", "stylegan-f": "StyleGAN, F"}
KIMG = 120
NUM = 20  # of images projected back, and of held-out ones
PERCEPTUAL = ["--perceptual", "efficientnet"]


def command(*arguments):
    subprocess.run([sys.executable, "-m", "stylegan", *map(str, arguments)], check=True)


def split(folder):
    """Write train.zip and held-out.zip."""
    if all((folder / f"{part}.zip").exists() for part in ("train", "held-out")):
        return
    with zipfile.ZipFile(DATA) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        blocks = [names[start : start + 10] for start in range(0, len(names), 10)]
        held = set(random.Random(0).sample(range(len(blocks)), 20))
        for part in ("train", "held-out"):
            pictures = folder / part
            pictures.mkdir(parents=True, exist_ok=True)
            for index, block in enumerate(blocks):
                for name in block if (index in held) == (part == "held-out") else ():
                    (pictures / Path(name).name).write_bytes(archive.read(name))
            command("data", "prepare", pictures, folder / f"{part}.zip", "--resolution", 64)


def train(folder, name):
    options = ["--total-kimg", KIMG, "--precision", "bf16", "--metrics", "none"]
    where = ["--data", folder / "train.zip", "--out", folder / name]
    command("train", "--recipe", ROOT / "recipes" / f"emoji-{name}.toml", *where, *options)


def calibrate(folder, name):
    """Return the calibration, and its test when it is fitted on half of the images."""
    place = folder / "calibration" / name / "attribution.json"
    if not place.exists():
        where = ["--network", folder / name, "--data", folder / "train.zip"]
        out = ["--out", place.parent, "--calibration", place]
        command("attribute", "--calibrate", *where, *out, *PERCEPTUAL)
    found = Calibration.from_json(json.loads(place.read_text()))
    fitted = Calibration(generated=found.generated[::2], real=found.real[::2], facts={})
    own, real = found.generated[1::2], found.real[1::2]
    right = [fitted.probability(value) > 0.5 for value in own]
    right += [fitted.probability(value) < 0.5 for value in real]
    return found, {
        "own": {"median": statistics.median(found.generated), "largest": max(found.generated)},
        "real": {"median": statistics.median(found.real), "smallest": min(found.real)},
        "area_under_curve": found.area,
        "area_error": found.area_error,
        "overlap": found.overlap,
        "other_half_accuracy": statistics.mean(right),
    }


def records(folder):
    paths = sorted(folder.glob("*/project.json"))
    return {path.parent.name: json.loads(path.read_text())["result"] for path in paths}


def project_back(folder):
    """Project images of the network into it, and render the saved latents."""
    work = folder / "own"
    generator = stylegan.load(folder / "stylegan2-e")
    for seed in range(NUM):
        path = work / "images" / f"seed{seed:04d}.png"
        if not path.exists():
            with torch.no_grad():
                image = generator(latents_from_seeds([seed], generator.z_dim))
            images.write(images.to_uint8(image)[0], path)
    network = ["--network", folder / "stylegan2-e"]
    command("project", work / "images", *network, "--out", work / "projected", *PERCEPTUAL)
    found = records(work / "projected")
    latents = [work / "projected" / name / "projected_w.npz" for name in found]
    for name, path in zip(found, latents, strict=True):
        command("generate", "images", *network, "--seeds", path, "--out", work / "again" / name)
    same = [
        (work / "projected" / name / "projected.png").read_bytes()
        == next((work / "again" / name).glob("*.png")).read_bytes()
        for name in found
    ]
    psnrs = [result["psnr"] for result in found.values()]
    return {
        "num": len(found),
        "median_psnr": statistics.median(psnrs),
        "smallest_psnr": min(psnrs),
        "same_png_again": sum(same),
    }


def compare_spaces(folder):
    """Project held-out images into W and W+."""
    generator = folder / "stylegan2-e"
    pictures = folder / "held-out-20"
    if not pictures.exists():
        with zipfile.ZipFile(folder / "held-out.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            for name in names[5 :: len(names) // NUM]:
                pictures.mkdir(exist_ok=True)
                (pictures / Path(name).name).write_bytes(archive.read(name))
    found = {}
    for space in ("w", "w+"):
        out = folder / "held-out-projected" / space
        where = ["--network", generator, "--space", space, "--out", out]
        command("project", pictures, *where, *PERCEPTUAL)
        found[space] = records(out)
    name = "efficientnet-lite0"
    nearer = [found["w+"][key][name] < found["w"][key][name] for key in found["w"]]
    return {
        "num": len(nearer),
        "w_plus_nearer": sum(nearer),
        **{
            space: {
                "median_distance": statistics.median(each[name] for each in results.values()),
                "median_psnr": statistics.median(each["psnr"] for each in results.values()),
            }
            for space, results in found.items()
        },
    }


def draw(found, folder):
    import_matplotlib("figures")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, 2, figsize=(8, 5.6), dpi=90, layout="constrained")
    edges = histogram_edges(
        [value for each in found.values() for value in each.generated],
        [value for each in found.values() for value in each.real],
    )
    for (name, each), top, bottom in zip(found.items(), rows[0], rows[1], strict=True):
        for values, label, color in ((each.generated, "own", GENERATED), (each.real, "real", REAL)):
            top.hist(values, edges, alpha=0.7, color=color, label=f"{len(values)} {label}")
        top.set_xscale("log")
        top.set_title(NETWORKS[name], fontsize="medium")
        top.set_xlabel("distance after projection")
        top.set_ylabel("images")
        top.legend(frameon=False, fontsize="small")
        false, true = roc_curve(each.generated, each.real)
        bottom.plot(false, true, color=GENERATED, drawstyle="steps-post")
        bottom.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
        bottom.set_xlabel("real images taken for own")
        bottom.set_ylabel("own images found")
        bottom.set_title(f"area {each.area:.4f}", fontsize="medium")
    figure.savefig(folder / "attribution.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "attribution")
    default = ROOT / "benchmarks" / "results" / f"{date.today()}-projection.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    begin = time.time()
    split(arguments.runs)
    found, attribution = {}, {}
    for name in NETWORKS:
        train(arguments.runs, name)
    back = project_back(arguments.runs)
    spaces = compare_spaces(arguments.runs)
    for name in NETWORKS:
        found[name], attribution[name] = calibrate(arguments.runs, name)
    draw(found, arguments.images)
    result = {
        "date": str(date.today()),
        "machine": platform.processor() or platform.machine(),
        "versions": {"stylegan": stylegan.__version__, "torch": torch.__version__},
        "kimg": KIMG,
        "resolution": 32,
        "distance": "efficientnet-lite0",
        "projected_back": back,
        "spaces": spaces,
        "attribution": attribution,
        "minutes": (time.time() - begin) / 60,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
