"""Train every family on the emoji set for the same number of images, and compare them.

    python benchmarks/families.py [--runs runs/families] [--only emoji-progan ...]
        [--out benchmarks/results/NAME.json] [--sheet docs/images/families.png]

Each run is a recipe, trained by `stylegan train`, one after the other; existing runs are continued.
Distances are to 1,695 real images, of generators without truncation and with random noise. Speed is
that of complete iterations at full resolution, measured afterwards in interleaved order. The grid
has one row per family, with seeds 0 to 15, not selected.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import stylegan
from stylegan import images
from stylegan.data.dataset import ImageDataset
from stylegan.latent.render import map_latents, render
from stylegan.latent.seeds import latents_from_seeds
from stylegan.metrics.sliced_wasserstein import sliced_wasserstein_distance
from stylegan.models.base import num_parameters
from stylegan.training.checkpoint import read_config
from stylegan.training.state import TrainState
from stylegan.training.step import train_step
from stylegan.workflows.demo_report import sample, ticks

ROOT = Path(__file__).parents[1]
DATA = ROOT / "demo" / "emoji64.zip"
COLUMNS = 16
LABEL_WIDTH = 150


def train(recipe, run):
    command = [sys.executable, "-m", "stylegan", "train", "--recipe", str(recipe)]
    options = ["--data", str(DATA), "--out", str(run), "--metrics", "none"]
    subprocess.run([*command, *options], check=True)


def real_halves(resolution):
    reals = ImageDataset(DATA, resolution=resolution)
    order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(0)).tolist()
    num = len(reals) // 2
    return reals.gather(order[:num]), reals.gather(order[num : 2 * num])


def describe(run, reals):
    config = read_config(run)
    networks = stylegan.load_networks(run)
    generator = networks.generator_ema.eval()
    fakes = sample(generator, len(reals), seed=0)
    distance = sliced_wasserstein_distance(reals, fakes, seed=0)
    records = ticks(run)
    seconds = sum(record["time"]["seconds"] for record in records)
    return generator, {
        "preset": config.preset,
        "generator_parameters": num_parameters(networks.generator),
        "discriminator_parameters": num_parameters(networks.discriminator),
        "kimg": records[-1]["nimg"] / 1000,
        "minutes": seconds / 60,
        "swd": distance.average,
        "swd_levels": {str(side): value for side, value in distance.levels.items()},
    }


def measure_speed(configs, *, rounds):
    """Return images per second of each, over 16 iterations, which contain each lazy step once."""
    states, seconds = {}, {name: [] for name in configs}
    for name, config in configs.items():
        states[name] = TrainState(config, torch.device("cpu"))
        states[name].advance(round(config.output.total_kimg * 1000))  # fully grown
    for turn in range(rounds + 1):
        for name, state in states.items():
            side = state.config.generator.resolution
            reals = torch.randn(state.config.batch, 3, side, side)
            start = time.perf_counter()
            for _ in range(16):
                train_step(state, reals)
            if turn > 0:  # the first one is a warm-up
                seconds[name].append(time.perf_counter() - start)
    return {
        name: 16 * state.config.batch / statistics.median(seconds[name])
        for name, state in states.items()
    }


def draw_row(label, pictures):
    strip = images.grid(torch.stack(pictures), columns=COLUMNS, padding=2)
    height, width = strip.shape[1:]
    row = Image.new("RGB", (LABEL_WIDTH + width, height), "white")
    ImageDraw.Draw(row).text((4, height // 2 - 5), label, fill="black")
    row.paste(Image.fromarray(strip.permute(1, 2, 0).numpy()), (LABEL_WIDTH, 0))
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "families")
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    recipes = sorted((ROOT / "recipes").glob("emoji-*.toml"))
    recipes = [
        path for path in recipes if arguments.only in (None, []) or path.stem in arguments.only
    ]
    for recipe in recipes:
        train(recipe, arguments.runs / recipe.stem)
    resolution = read_config(arguments.runs / recipes[0].stem).generator.resolution
    reals, others = real_halves(resolution)
    other = sliced_wasserstein_distance(reals, others, seed=0)
    speeds = measure_speed(
        {path.stem: read_config(arguments.runs / path.stem) for path in recipes}, rounds=5
    )
    results, rows = {}, [draw_row("real images", list(others[:COLUMNS]))]
    for recipe in recipes:
        generator, result = describe(arguments.runs / recipe.stem, reals)
        results[recipe.stem] = result | {"images_per_second": speeds[recipe.stem]}
        z = latents_from_seeds(range(COLUMNS), generator.z_dim)
        rows.append(draw_row(result["preset"], list(render(generator, map_latents(generator, z)))))
        print(
            f"| `{result['preset']}` | {result['generator_parameters']:,} / "
            f"{result['discriminator_parameters']:,} | {result['kimg']:.0f} | "
            f"{speeds[recipe.stem]:.0f} | {result['swd']:.1f} |",
            flush=True,
        )
    print(f"other real images: {other.average:.1f}")
    if arguments.sheet:
        sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
        for index, row in enumerate(rows):
            sheet.paste(row, (0, index * rows[0].height))
        sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(
            arguments.sheet
        )
    if arguments.out:
        record = {
            "date": date.today().isoformat(),
            "stylegan": stylegan.__version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}",
            "images": len(reals),
            "swd_of_other_real_images": other.average,
            "results": results,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
