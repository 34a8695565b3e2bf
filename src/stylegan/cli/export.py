"""`stylegan export onnx | pt2`."""

from collections.abc import Sequence

from stylegan.cli.command import Command, present_text, run_group
from stylegan.workflows import export

COMMANDS = {
    "onnx": Command(
        function=export.onnx,
        present=present_text,
        metavars={"network": "NET", "out": "FILE.onnx"},
        example="stylegan export onnx --network runs/photos --out photos.onnx",
    ),
    "pt2": Command(
        function=export.pt2,
        present=present_text,
        metavars={"network": "NET", "out": "FILE.pt2"},
        example="stylegan export pt2 --network runs/photos --out photos.pt2",
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan export`."""
    return run_group(COMMANDS, arguments, prog="stylegan export")
