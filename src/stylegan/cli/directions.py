"""`stylegan directions find | list | sheet | apply`."""

from collections.abc import Sequence

from rich.console import Console

from stylegan.cli.command import Command, present_text, run_group
from stylegan.workflows import directions
from stylegan.workflows.directions import EditedImages
from stylegan.workflows.generate import ImageGrid

_CLASS = {"class_index": ("--class",)}
_METAVARS = {
    "network": "NET",
    "directions": "FILE.safetensors|NAME",
    "seeds": "KEYS",
    "cutoff": "N",
    "class_index": "NAME",
}


def _present_grid(result: ImageGrid, out: Console) -> None:
    out.print(f"{result.rows} rows in {result.path}", markup=False)


def _present_images(result: EditedImages, out: Console) -> None:
    out.print(f"{len(result)} images and latents in {result.folder}", markup=False)


COMMANDS = {
    "find": Command(
        function=directions.find,
        present=present_text,
        required=("out",),
        aliases=_CLASS,
        metavars={
            "network": "NET",
            "out": "FILE.safetensors",
            "layers": "LAYERS",
            "count": "K",
            "names": "A,B,...",
            "classifiers": "DIR",
            "class_index": "NAME",
        },
        example="stylegan directions find --network runs/faces --layers coarse "
        "--out coarse.safetensors",
    ),
    "list": Command(
        function=directions.list,
        present=present_text,
        metavars={"directions": "FILE.safetensors"},
        example="stylegan directions list --directions coarse.safetensors",
    ),
    "sheet": Command(
        function=directions.sheet,
        present=_present_grid,
        required=("out",),
        aliases=_CLASS,
        metavars=_METAVARS | {"out": "GRID.png", "names": "A,B,...", "strengths": "S,..."},
        example="stylegan directions sheet --network runs/faces --directions d.safetensors "
        "--seeds 1 --out d.png",
    ),
    "apply": Command(
        function=directions.apply,
        present=_present_images,
        required=("out",),
        aliases=_CLASS,
        metavars=_METAVARS | {"out": "DIR", "edit": "NAME=S,..."},
        example="stylegan directions apply --network runs/faces --directions d.safetensors "
        "--seeds 1-8 --edit factorize-0=2,factorize-3=-1 --out edited",
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan directions`."""
    return run_group(COMMANDS, arguments, prog="stylegan directions")
