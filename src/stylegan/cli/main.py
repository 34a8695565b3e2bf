"""The command table, exit codes, and the one place that turns our errors into one line."""

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import stylegan
from stylegan.errors import PeerError, StyleganError

COMMANDS = {
    "data": ("stylegan.cli.data", "make, check and describe image sets"),
    "train": ("stylegan.cli.train", "start a run, and with the same line go on with it"),
    "train-classifier": ("stylegan.cli.train_classifier", "fit attribute classifiers to labels"),
    "evaluate": ("stylegan.cli.evaluate", "measure networks and images by the papers' metrics"),
    "generate": ("stylegan.cli.generate", "make images, mixing sheets and videos"),
    "directions": ("stylegan.cli.directions", "find and apply directions of change in w"),
    "project": ("stylegan.cli.project", "find the latents of pictures"),
    "attribute": ("stylegan.cli.attribute", "say which network made an image, if any"),
    "analyze": ("stylegan.cli.analyze", "see in a network what the papers saw in theirs"),
    "report": ("stylegan.cli.report", "show all that can be seen of a network on one page"),
    "convert": ("stylegan.cli.convert", "turn weight files of other programs into ours, and back"),
    "bench": ("stylegan.cli.bench", "measure how fast this machine samples and trains"),
    "demo": ("stylegan.cli.demo", "train a small network for minutes and show what came of it"),
}
"""Each command's module, imported when it is run; its `main` takes the arguments after it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    0: done. 1: a failure, told in one line. 2: wrong usage. 130: interrupted, 143: terminated.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"stylegan {stylegan.__version__}\n")
        return 0
    if arguments[:1] in ([], ["-h"], ["--help"]):
        sys.stdout.write(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        sys.stderr.write(f"stylegan: no command {name!r}\n{_usage()}")
        return 2
    _configure_logging()
    before = _on_sigterm(_terminate)
    try:
        status: int = importlib.import_module(COMMANDS[name][0]).main(rest)
    except PeerError as error:
        sys.stderr.write(f"stylegan {name}: stopped with the others; {error.found}\n")
        return 1
    except StyleganError as error:
        sys.stderr.write(f"stylegan {name}: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"stylegan {name}: interrupted\n")
        return 130
    except _TerminatedError:
        sys.stderr.write(f"stylegan {name}: terminated\n")
        return 143
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        return 1
    except OSError as error:  # the disk is full, a folder is not writable
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"stylegan {name}: {where}{error.strerror or error}\n")
        return 1
    except RuntimeError as error:
        if "out of memory" not in str(error) and "not enough memory" not in str(error):
            raise
        sys.stderr.write(
            f"stylegan {name}: the device has not enough memory; expected room for the batch; "
            "lower --batch, the widths or the resolution\n"
        )
        return 1
    except MemoryError:
        sys.stderr.write(
            f"stylegan {name}: this machine has not enough memory; expected room for the data and "
            "networks; close other programs, or use smaller ones\n"
        )
        return 1
    finally:
        _on_sigterm(before)
    return status


class _TerminatedError(BaseException):
    """SIGTERM, raised like Ctrl-C so that what is half done is cleaned up."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def _on_sigterm(handler: Any) -> Any:
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, handler)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = (f"  {name:{width}}  {about}\n" for name, (_, about) in COMMANDS.items())
    return (
        "usage: stylegan COMMAND ...   (`stylegan COMMAND --help` explains one)\n\n"
        + "".join(rows)
        + "\nExample:\n  stylegan train --preset stylegan2-small --data photos/ --out runs/photos\n"
    )


class _StandardError(logging.Handler):
    """Writes to standard error as it is at that moment: a live line may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(self.format(record) + "\n")


def _configure_logging() -> None:
    from stylegan import distributed  # imports torch, which `stylegan --help` does not need

    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(message)s"))
    library = logging.getLogger("stylegan")
    library.handlers = [handler]
    library.setLevel(logging.INFO if distributed.reports_to_user() else logging.ERROR)
    library.propagate = False
