"""`stylegan generate images | mix | blend | truncation | video`."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from stylegan.cli.command import Command, run_group
from stylegan.workflows import generate
from stylegan.workflows.generate import GeneratedImages, ImageGrid, Video


def _present_images(result: GeneratedImages, out: Console) -> None:
    out.print(f"{len(result)} images in {result.folder}", markup=False)


def _present_grid(result: ImageGrid, out: Console) -> None:
    out.print(f"{result.rows} rows and {result.columns} columns in {result.path}", markup=False)


def _present_video(result: Video, out: Console) -> None:
    out.print(f"{result.num_frames} frames in {result.path}", markup=False)


def _command(
    function: Callable[..., Any],
    present: Callable[[Any, Console], None],
    example: str,
    **metavars: str,
) -> Command:
    shared = {"network": "NET", "class_index": "NAME", "cutoff": "N", "noise_from": "FILE.npz"}
    return Command(
        function=function,
        present=present,
        example=f"stylegan generate {function.__name__} --network runs/demo {example}",
        required=() if function is generate.video else ("out",),
        aliases={"class_index": ("--class",)},
        metavars=shared | metavars,
    )


COMMANDS = {
    "images": _command(
        generate.images,
        _present_images,
        "--seeds 0-63 --psi 0.7 --out out --grid",
        seeds="KEYS",
        out="DIR",
    ),
    "mix": _command(
        generate.mix,
        _present_grid,
        "--rows 85,100 --cols 55,821 --out mix.png",
        rows="KEYS",
        cols="KEYS",
        out="GRID.png",
        layers="LAYERS",
    ),
    "blend": _command(
        generate.blend,
        _present_grid,
        "--seeds 0-31 --latents 3 --out blend.png",
        seeds="KEYS",
        out="GRID.png",
        crossovers="LAYERS",
    ),
    "truncation": _command(
        generate.truncation,
        _present_grid,
        "--seeds 91,388 --out truncation.png",
        seeds="KEYS",
        out="GRID.png",
        psis="PSI,...",
    ),
    "video": _command(
        generate.video,
        _present_video,
        "--seeds 1-6 --psi 0.7 --out loop.gif",
        seeds="KEYS",
        grid="CxR",
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan generate`."""
    return run_group(COMMANDS, arguments, prog="stylegan generate")
