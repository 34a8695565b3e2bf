"""`stylegan project`."""

import math
from collections.abc import Sequence

from rich.console import Console

from stylegan.cli.command import Command, run
from stylegan.workflows.project import Projections, project


def present(projections: Projections, out: Console) -> None:
    """Print a line for each image."""
    for image in projections:
        psnr = "equal pixels" if math.isinf(image.psnr) else f"PSNR {image.psnr:.1f} dB"
        out.print(
            f"{image.folder}: {image.distance_name} {image.distance:.4f}, {psnr}", markup=False
        )
        if image.tuned_psnr is not None:
            out.print(f"{image.folder}/tuned: PSNR {image.tuned_psnr:.1f} dB", markup=False)


COMMAND = Command(
    function=project,
    present=present,
    positional=("images",),
    required=("out",),
    aliases={"class_index": ("--class",)},
    metavars={
        "images": "IMAGE...",
        "network": "NET",
        "out": "DIR",
        "class_index": "NAME",
        "init": "FILE",
    },
    example="stylegan project photos/ --network runs/faces --out projected",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan project`."""
    return run(COMMAND, arguments, prog="stylegan project")
