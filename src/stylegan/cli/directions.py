"""`stylegan directions`: find directions of change in w, look at them, apply them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.table import Table
from rich.text import Text
from torch import Tensor

import stylegan
from stylegan import images
from stylegan.cli.drawing import Batch, Class, Cutoff, Keys, Network, Psi
from stylegan.cli.options import Device, Seed, console, progress
from stylegan.errors import ConfigError
from stylegan.files import unique_name
from stylegan.images import to_uint8
from stylegan.interop.classifiers import load_classifiers
from stylegan.interop.load import origin_of, weights_path
from stylegan.latent.directions import (
    Directions,
    add_up,
    check_fit,
    factorize,
    principal,
    read_directions,
    separating,
    write_directions,
)
from stylegan.latent.grids import PADDING
from stylegan.latent.layers import parse_layers
from stylegan.latent.render import render
from stylegan.latent.saved import Key, name_of, parse_keys, styles_of, write_latents
from stylegan.latent.statistics import sample_styles
from stylegan.metrics.separability import fit_plane
from stylegan.models.base import AbstractGenerator
from stylegan.models.classifiers import Classifier
from stylegan.workflows.networks import (
    check_batch,
    check_psi,
    check_suffix,
    check_truncation,
    label_of,
    load_generator,
)

STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)
NUM_LABELLED = 2000  # images that classifiers look at; the surer half counts
NUM_STYLES = 10_000

_FIND = """Find orthonormal directions in w, and save them under names.

factorize reads them off the weights (SeFa); pca takes the principal components of w (GANSpace);
labels takes the planes that separate what attribute classifiers say (InterFaceGAN).

Example: stylegan directions find --network runs/faces --layers coarse --out coarse.safetensors"""

_LIST = """List the directions of a file.

Example: stylegan directions list --directions coarse.safetensors"""

_SHEET = """Draw images moved along each direction: a row for each, the strength rises to the right.

Example:
    stylegan directions sheet --network runs/faces --directions d.safetensors --seeds 1 --out d.png
"""

_APPLY = """Move images along directions, and write pictures and latents.

Strengths are in deviations of w along the direction; several of one name add up.

Example:
    stylegan directions apply --network runs/faces --directions d.safetensors --seeds 1-8
        --edit factorize-0=2,factorize-3=-1 --out edited"""

File = Annotated[
    Path, tyro.conf.arg(metavar="FILE.safetensors", help="Directions of `directions find`.")
]


@dataclass(frozen=True, kw_only=True)
class Find:
    """Options of `stylegan directions find`."""

    network: Network
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.safetensors", help="The file to write.")]
    method: Annotated[
        Literal["factorize", "pca", "labels"], tyro.conf.arg(help="How they are found.")
    ] = "factorize"
    layers: Annotated[
        str,
        tyro.conf.arg(
            metavar="LAYERS",
            help='Style inputs that they act on: coarse, middle, fine, all, or such as "0-3,6".',
        ),
    ] = "all"
    count: Annotated[
        int | None,
        tyro.conf.arg(metavar="K", help="How many; left out: 8, or one for each attribute."),
    ] = None
    names: Annotated[
        str | None,
        tyro.conf.arg(metavar="A,B,...", help="Their names; left out: such as factorize-0."),
    ] = None
    classifiers: Annotated[
        str | None,
        tyro.conf.arg(metavar="DIR", help="Attribute classifiers, for --method labels."),
    ] = None
    class_index: Class = None
    device: Device = "auto"
    seed: Seed = 0

    def run(self) -> int:
        """Find and save them."""
        check_suffix(self.out, ".safetensors")
        if (self.method == "labels") != (self.classifiers is not None):
            raise ConfigError(
                f"--method {self.method} {'without' if self.method == 'labels' else 'with'} "
                "--classifiers",
                expected="both or neither",
                fix="make some by `stylegan train-classifier`, or choose another method",
            )
        path = weights_path(self.network)
        generator = load_generator(path, self.device)
        label = label_of(self.class_index, generator)
        layers = parse_layers(self.layers, generator.num_ws)
        if not layers:
            raise ConfigError("--layers none", expected="at least one layer", fix="name some")
        w = sample_styles(generator, num=NUM_STYLES, seed=self.seed, c=label).cpu()
        count = self.count or 8
        if self.method == "factorize":
            found = factorize(generator, w, layers=layers, num=count)
        elif self.method == "pca":
            found = principal(w, layers=layers, num=count)
        else:
            found = self._separating(generator, label, w, layers)
        if self.names is not None:
            names = [name.strip() for name in self.names.split(",")]
            if len(set(names)) != len(found.names) or not all(map(_is_name, names)):
                raise ConfigError(
                    f"--names {self.names} for {len(found.names)} directions",
                    expected="as many different names of letters, digits and dashes",
                    fix="change it",
                )
            found = found.renamed(names)
        facts = {
            "network": origin_of(path),
            "class": self.class_index,
            "seed": self.seed,
            "version": stylegan.__version__,
        }
        found = replace(found, facts=facts)
        write_directions(self.out, found)
        console().print(_table(found))
        return 0

    def _separating(
        self,
        generator: AbstractGenerator,
        label: Tensor | None,
        w: Tensor,
        layers: Sequence[int],
    ) -> Directions:
        """Separate what classifiers say of images of random w."""
        assert self.classifiers is not None
        device = next(generator.parameters()).device
        classifiers = load_classifiers(self.classifiers, device=device)
        if self.count is not None:
            classifiers = classifiers[: self.count]
        side = generator.img_resolution
        for classifier in classifiers:
            classifier.check(img_channels=generator.img_channels, resolution=side)
        shown = w[:NUM_LABELLED]
        logits = _logits(generator, shown, classifiers)
        normals = []
        for classifier, column in zip(classifiers, logits.unbind(dim=1), strict=True):
            order = column.abs().argsort(descending=True, stable=True)[: len(shown) // 2]
            labels = column[order] > 0
            if labels.all() or not labels.any():
                raise ConfigError(
                    f"the classifier {classifier.name} says the same of all images",
                    expected="images with and without the attribute",
                    fix="leave this classifier out",
                )
            normal, _, _ = fit_plane(shown[order], labels)
            normals.append(normal)
        return separating(normals, w, names=[each.name for each in classifiers], layers=layers)


@dataclass(frozen=True, kw_only=True)
class List:
    """Options of `stylegan directions list`."""

    directions: File

    def run(self) -> int:
        """Print them."""
        console().print(_table(read_directions(self.directions)))
        return 0


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Options of `stylegan directions sheet`."""

    network: Network
    directions: File
    seeds: Keys
    out: Annotated[Path, tyro.conf.arg(metavar="SHEET.png", help="The PNG to write.")]
    names: Annotated[
        str | None, tyro.conf.arg(metavar="A,B,...", help="Which directions; left out: all.")
    ] = None
    strengths: Annotated[
        tuple[float, ...],
        tyro.conf.arg(metavar="S...", help="A column each, in deviations of w."),
    ] = STRENGTHS
    psi: Psi = 1.0
    cutoff: Cutoff = None
    class_index: Class = None
    batch: Batch = 16
    device: Device = "auto"

    def run(self) -> int:
        """Draw the sheet."""
        keys = parse_keys(self.seeds)
        check_batch(self.batch)
        check_psi(self.psi)
        check_suffix(self.out, ".png")
        found = read_directions(self.directions)
        names = list(found.names) if self.names is None else self.names.split(",")
        generator, ws = _styles(self, keys, found)
        moved = [
            found.apply(each[None], {name.strip(): strength})
            for each in ws
            for name in names
            for strength in self.strengths
        ]
        rows = torch.cat(moved)
        pictures = torch.stack(list(render(generator, rows, batch=self.batch)))
        columns = len(self.strengths)
        images.write(images.grid(pictures, columns=columns, padding=PADDING), self.out)
        console().print(f"{len(rows) // columns} rows in {self.out}", markup=False)
        return 0


@dataclass(frozen=True, kw_only=True)
class Apply:
    """Options of `stylegan directions apply`."""

    network: Network
    directions: File
    seeds: Keys
    edit: Annotated[
        str,
        tyro.conf.arg(metavar="NAME=S,...", help='Strengths, such as "factorize-0=2,smile=-1".'),
    ]
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="The folder to write to.")]
    psi: Psi = 1.0
    cutoff: Cutoff = None
    class_index: Class = None
    batch: Batch = 16
    device: Device = "auto"

    def run(self) -> int:
        """Write pictures and latents."""
        keys = parse_keys(self.seeds)
        check_batch(self.batch)
        check_psi(self.psi)
        if self.out.is_file():
            raise ConfigError(
                f"--out {self.out} is a file", expected="a folder", fix="choose another name"
            )
        strengths = add_up(_edits(self.edit))
        found = read_directions(self.directions)
        generator, ws = _styles(self, keys, found)
        moved = found.apply(ws, strengths)
        names = _names(keys, generator, len(ws))
        with progress() as bar:
            rendered = bar.track(
                render(generator, moved, batch=self.batch), total=len(moved), description="images"
            )
            for name, picture, row in zip(names, rendered, moved, strict=True):
                images.write(picture, self.out / f"{name}.png")
                write_latents(self.out / f"{name}.npz", row[None])
        console().print(f"{len(moved)} images and latents in {self.out}", markup=False)
        return 0


def _styles(
    command: Sheet | Apply, keys: Sequence[Key], found: Directions
) -> tuple[AbstractGenerator, Tensor]:
    """Load the network, check that the directions are its own, and return styles."""
    generator = load_generator(command.network, command.device)
    check_fit(found, generator, command.directions)
    check_truncation(command.psi, command.cutoff, generator)
    ws = styles_of(
        generator,
        keys,
        c=label_of(command.class_index, generator),
        psi=command.psi,
        cutoff=command.cutoff,
        batch=command.batch,
    )
    return generator, ws


def _names(keys: Sequence[Key], generator: AbstractGenerator, num: int) -> list[str]:
    """Name each row of the styles of keys."""
    names: list[str] = []
    taken: set[str] = set()
    for key in keys:
        if not isinstance(key, Path):
            names.append(unique_name(f"seed{key:04d}", taken))
            continue
        for _ in styles_of(generator, [key]):
            names.append(unique_name(name_of(key), taken))
    assert len(names) == num
    return names


def _edits(text: str) -> list[tuple[str, float]]:
    """Read strengths of directions, `"a=2,b=-1.5"`."""
    edits = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*", part, re.ASCII)
        if match is None:
            raise ConfigError(
                f"--edit has a part that reads {part.strip()!r}",
                expected="names of directions and strengths",
                fix='write them like "factorize-0=2,factorize-3=-1"',
            )
        edits.append((match[1], float(match[2])))
    return edits


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[\w-]+", name) is not None


def _logits(generator: AbstractGenerator, w: Tensor, classifiers: Sequence[Classifier]) -> Tensor:
    """Return what classifiers say of images of w [N, w_dim], [N, attributes]."""
    device = next(generator.parameters()).device
    step = max(1, min(32, 1024 // generator.img_resolution))
    rows = []
    with progress() as bar:
        for part in bar.track(torch.split(w, step), description="images"):
            ws = part.to(device)[:, None].expand(-1, generator.num_ws, -1)
            with torch.no_grad():
                picture = images.from_uint8(to_uint8(generator.synthesis(ws)))
                columns = [classifier.logits(picture).flatten() for classifier in classifiers]
            rows.append(torch.stack(columns, dim=1).cpu())
    return torch.cat(rows)


def _table(found: Directions) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("name")
    table.add_column("importance", justify="right")
    table.add_column("deviation of w", justify="right")
    table.add_column("layers")
    layers = ",".join(map(str, found.layers))
    for name, importance, deviation in zip(
        found.names, found.importances.tolist(), found.deviations.tolist(), strict=True
    ):
        table.add_row(Text(name), f"{importance:.4g}", f"{deviation:.4g}", layers)
    return table


_Command = (
    Annotated[Find, tyro.conf.subcommand("find", description=_FIND, prefix_name=False)]
    | Annotated[List, tyro.conf.subcommand("list", description=_LIST, prefix_name=False)]
    | Annotated[Sheet, tyro.conf.subcommand("sheet", description=_SHEET, prefix_name=False)]
    | Annotated[Apply, tyro.conf.subcommand("apply", description=_APPLY, prefix_name=False)]
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan directions` with its arguments, and return the exit status.

    Raises:
        StyleganError: for a user's mistake, which the caller reports.
        SystemExit: with 2 for wrong usage, with 0 after `--help`.
    """
    command: Find | List | Sheet | Apply = tyro.cli(
        _Command,
        prog="stylegan directions",
        description="Directions in w along which images change.",
        args=arguments,
    )
    return command.run()
