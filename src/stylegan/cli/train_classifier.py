"""`stylegan train-classifier`."""

from collections.abc import Sequence

from rich.console import Console

from stylegan.classifiers.fit import ClassifiersOutcome
from stylegan.cli.command import Command, present_text, run
from stylegan.workflows.train_classifier import train_classifier


def present(outcome: ClassifiersOutcome, console: Console) -> int:
    """Print the results; the exit status is that of the signal that ended the training, if any."""
    present_text(outcome, console)
    return 0 if outcome.signal is None else 128 + outcome.signal


COMMAND = Command(
    function=train_classifier,
    present=present,
    metavars={
        "data": "DATA",
        "out": "DIR",
        "attributes": "A,B,...",
        "names": "A,B,...",
        "resolution": "R",
    },
    example="stylegan train-classifier --data celeba.zip --out classifiers --names celeba",
)


def main(arguments: Sequence[str]) -> int:
    """Run `stylegan train-classifier`."""
    return run(COMMAND, arguments, prog="stylegan train-classifier")
