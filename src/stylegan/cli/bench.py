"""`stylegan bench`: how fast this machine samples and trains."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.table import Table

import stylegan
from stylegan.cli import options
from stylegan.errors import ConfigError, check_not_negative
from stylegan.files import write_atomic
from stylegan.ops.precision import float32_precision
from stylegan.profiling.roofline import Layer, Pass, measure_layers
from stylegan.profiling.speed import Speed, measure
from stylegan.training.config import Precision, RunConfig
from stylegan.training.configure import Choices, configure
from stylegan.training.state import TrainState

_BENCH = """Measure sampling and each phase of training on this machine, on images of noise.

The share is that of the rate of large matrix products, measured in the same run.

Example: stylegan bench --preset stylegan2-e --resolution 64 --batch 16 --channel-base 8192"""

NAMES = {
    "sample": "sampling",
    "G": "G main",
    "path_length": "path length",
    "D": "D main",
    "R1": "R1",
    "iteration": "iteration",
}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Options of `stylegan bench`."""

    preset: Annotated[
        str, tyro.conf.arg(help="A row of the preset table, as of `stylegan train`.")
    ] = "stylegan2-e"
    resolution: Annotated[int, tyro.conf.arg(help="Side of the images, in pixels.")] = 64
    batch: Annotated[int | None, tyro.conf.arg(help="Images in an iteration.")] = None
    batch_gpu: Annotated[
        int | None, tyro.conf.arg(help="Images computed with at once; the rest follows.")
    ] = None
    channel_base: Annotated[
        int | None, tyro.conf.arg(help="A block at resolution r has this divided by r channels.")
    ] = None
    channel_max: Annotated[int | None, tyro.conf.arg(help="Most channels of a block.")] = None
    label_dim: Annotated[
        int, tyro.conf.arg(help="Numbers in the label of an image; 0 for networks without.")
    ] = 0
    precision: Annotated[
        Precision | None,
        tyro.conf.arg(help="Of the convolutions. Default: as of `stylegan train`."),
    ] = None
    compile: Annotated[
        bool, tyro.conf.arg(help="Let torch.compile compile what takes no second derivatives.")
    ] = False
    layers: Annotated[
        bool, tyro.conf.arg(help="Also time each layer on its own, and tell what bounds it.")
    ] = False
    rounds: Annotated[int, tyro.conf.arg(help="How often each phase is timed; medians count.")] = 5
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON object in place of a table.")] = False
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE.json", help="Write the JSON object, too.")
    ] = None
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", help="Any field of the configuration. May be repeated."),
    ] = ()
    device: options.Device = "auto"
    seed: options.Seed = 0

    def run(self) -> int:
        """Measure and tell."""
        if self.rounds < 1:
            raise ConfigError(f"--rounds {self.rounds}", expected="1 or more", fix="leave it out")
        check_not_negative("--label-dim", self.label_dim)
        device = options.resolve_device(self.device)
        choices = Choices(
            resolution=self.resolution,
            batch=self.batch,
            batch_gpu=self.batch_gpu,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            label_dim=self.label_dim,
            precision=self.precision,
            device=device.type,
            seed=self.seed,
            overrides=(*self.set, "runtime.compile=true") if self.compile else self.set,
        )
        config, _ = configure(self.preset, "none", choices)
        with options.progress(transient=True) as bar:
            task = bar.add_task("measuring", total=self.rounds)
            speed = measure(
                config,
                rounds=self.rounds,
                on_round=lambda: bar.advance(task),
            )
        found = record(config, speed)
        if self.layers:
            # grown, and uncompiled: a compiled block has no layers that could be timed
            plain = replace(config, growth=None, runtime=replace(config.runtime, compile=False))
            with float32_precision(tf32=config.precision == "tf32"):
                found |= record_layers(
                    *measure_layers(TrainState(plain, device), rounds=self.rounds)
                )
        text = json.dumps(found, indent=2)
        if self.out is not None:
            write_atomic(self.out, text + "\n")
        out = options.console()
        if self.json:
            out.print(text, markup=False)
        else:
            _print_table(found)
            if self.layers:
                _print_layers(found)
        return 0


def record(config: RunConfig, speed: Speed) -> dict[str, Any]:
    """Return what was measured, where, and of what, as plain JSON data."""
    generator = config.to_json()["generator"]
    phases = {
        name: {
            "seconds": phase.seconds,
            "images_per_second": phase.images_per_second,
            "flops_per_image": phase.flops / phase.num,
            "share_of_product_rate": phase.share_of(speed.product_rate),
        }
        for name, phase in speed.phases.items()
    }
    return {
        "sample_images_per_second": speed.phases["sample"].images_per_second,
        "train_images_per_second": speed.phases["iteration"].images_per_second,
        "phases": phases,
        "product_rate_flops": speed.product_rate,
        "peak_memory_bytes": speed.peak_bytes,
        "settings": {
            "preset": config.preset,
            "resolution": config.generator.resolution,
            "batch": config.batch,
            "batch_gpu": config.runtime.batch_gpu,
            "channel_base": generator["channel_base"],
            "channel_max": generator["channel_max"],
            "label_dim": config.generator.c_dim,
            "precision": config.precision,
            "compile": config.runtime.compile,
        },
        "device": _device(config.runtime.device),
        "versions": {
            "stylegan": stylegan.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def record_layers(layers: Sequence[Layer], memory_rate: float) -> dict[str, Any]:
    """Return what bounds each layer as plain JSON data."""

    def direction(each: Pass) -> dict[str, Any]:
        return {
            "seconds": each.seconds,
            "flops": each.flops,
            "bytes": each.moved,
            "bound": each.bound,
            "share_of_bound": each.share,
        }

    return {
        "memory_rate_bytes": memory_rate,
        "layers": [
            {
                "network": layer.network,
                "name": layer.name,
                "shape": list(layer.shape),
                "forward": direction(layer.forward),
                "backward": direction(layer.backward),
            }
            for layer in layers
        ],
    }


def _device(name: str) -> str:
    if name == "cuda":
        return torch.cuda.get_device_name()
    if name == "mps":
        return "Apple GPU"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, {capability}"


def _print_table(found: dict[str, Any]) -> None:
    settings = found["settings"]
    out = options.console()
    out.print(
        f"{settings['preset']} at {settings['resolution']}x{settings['resolution']}, batch "
        f"{settings['batch']}, {settings['precision']}, on {found['device']}",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for title in ("", "images/s", "ms", "GFLOP/image", "share"):
        table.add_column(title, justify="left" if title == "" else "right")
    for name, title in NAMES.items():
        if name in found["phases"]:
            phase = found["phases"][name]
            table.add_row(
                title,
                f"{phase['images_per_second']:.1f}",
                f"{1000 * phase['seconds']:.1f}",
                f"{phase['flops_per_image'] / 1e9:.2f}",
                f"{100 * phase['share_of_product_rate']:.0f} %",
            )
    out.print(table)
    out.print(
        f"matrix products: {found['product_rate_flops'] / 1e12:.2f} TFLOP/s; "
        f"memory: {found['peak_memory_bytes'] / 1e9:.2f} GB",
        markup=False,
    )


def _print_layers(found: dict[str, Any]) -> None:
    out = options.console()
    out.print(
        f"memory moves {found['memory_rate_bytes'] / 1e9:.1f} GB/s; of what products and memory "
        "allow, layers take:",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for title in ("layer", "output", "forward", "share", "bound by", "back", "share", "bound by"):
        is_text = title in ("layer", "bound by")
        table.add_column(title, justify="left" if is_text else "right", no_wrap=True)
    for layer in found["layers"]:
        cells = [f"{layer['network']} {layer['name']}", "x".join(map(str, layer["shape"][1:]))]
        for each in (layer["forward"], layer["backward"]):
            cells.append(f"{1000 * each['seconds']:.2f} ms")
            cells.append(f"{100 * each['share_of_bound']:.0f} %")
            cells.append(each["bound"])
        table.add_row(*cells)
    out.print(table)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan bench` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command = tyro.cli(Bench, prog="stylegan bench", description=_BENCH, args=arguments)
    return command.run()
