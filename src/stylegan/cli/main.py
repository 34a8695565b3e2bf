"""The table of commands, exit statuses, and the reporting of errors."""

import errno
import importlib
import io
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import stylegan
from stylegan.errors import PeerError, StyleganError

logger = logging.getLogger(__name__)

COMMANDS = {
    "data": ("stylegan.cli.data", "prepare, check, describe and shard image sets"),
    "train": ("stylegan.cli.train", "train a generator, or continue a run"),
    "train-classifier": ("stylegan.cli.train_classifier", "train attribute classifiers"),
    "evaluate": ("stylegan.cli.evaluate", "compute the papers' metrics"),
    "generate": ("stylegan.cli.generate", "generate images, style mixing grids and videos"),
    "directions": ("stylegan.cli.directions", "find and apply directions in latent space"),
    "project": ("stylegan.cli.project", "find latents that reproduce given images"),
    "attribute": ("stylegan.cli.attribute", "decide whether a network generated an image"),
    "analyze": ("stylegan.cli.analyze", "run the papers' analyses on a network"),
    "report": ("stylegan.cli.report", "write one page with all results for a network"),
    "pack": ("stylegan.cli.pack", "make a folder of a run to share, with a model card"),
    "export": ("stylegan.cli.export", "write a generator as an ONNX or pt2 file"),
    "convert": ("stylegan.cli.convert", "convert weight files from and to other formats"),
    "bench": ("stylegan.cli.bench", "measure the speed of sampling and training"),
    "explore": ("stylegan.cli.explore", "open a page in the browser to play with a generator"),
    "demo": ("stylegan.cli.demo", "train a small network for a few minutes"),
    "completion": ("stylegan.cli.completion", "print the completion script of a shell"),
}
"""Each command's module, imported when it is run, and one line of help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    0: done. 1: an error, reported in one line if a user can cause it, else with its traceback.
    2: wrong usage. 130: interrupted. 143: terminated.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] in (["version"], ["--version"], ["-V"]):
        sys.stdout.write(f"stylegan {stylegan.__version__}\n")
        return 0
    if arguments[:1] == ["help"] and arguments[1:]:  # `help train` is `train --help`
        arguments = [*arguments[1:], "--help"]
    if arguments[:1] in ([], ["help"], ["-h"], ["--help"]):
        sys.stdout.write(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        from stylegan.cli.command import unknown_command

        sys.stderr.write(unknown_command("stylegan", name, COMMANDS))
        return 2
    for stream in (sys.stdout, sys.stderr):  # no file name can end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _configure_logging()
    before = _on_sigterm(_terminate)
    try:
        status: int = importlib.import_module(COMMANDS[name][0]).main(rest)
        return status
    except KeyboardInterrupt:
        sys.stderr.write(f"stylegan {name}: interrupted\n")
        return 130
    except _TerminatedError:
        sys.stderr.write(f"stylegan {name}: terminated\n")
        return 143
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        return 1
    except Exception as error:
        message = _explain(error)
        if message is None:
            logger.exception("stylegan %s: unexpected error, please report it", name)
        elif _is_reported(error):
            sys.stderr.write(f"stylegan {name}: {message}\n")
        return 1
    finally:
        _on_sigterm(before)


def _is_reported(error: Exception) -> bool:
    """Return whether this process reports an error: a mistake is reported by one rank."""
    from stylegan import distributed  # imports torch, which `stylegan --help` does not need

    return not isinstance(error, StyleganError) or distributed.reports_error()


def _explain(error: Exception) -> str | None:
    """Return one line for an error that a user can cause; None for all others."""
    match error:
        case PeerError():
            return f"stopped, as another rank failed; {error.message}"
        case StyleganError():
            return " ".join(str(error).splitlines())  # spaces may be part of a name
        case OSError(filename=name) if name is not None:  # such as a folder that is not writable
            return f"{name}: {error.strerror or error}"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return str(error.strerror)
        case MemoryError():
            return "this machine has not enough memory; close other programs, or use less data"
        case RuntimeError() if "out of memory" in str(error) or "enough memory" in str(error):
            return (
                "the device has not enough memory; lower --batch, the number of channels or the "
                "resolution"
            )
    return None


class _TerminatedError(BaseException):
    """Raised on SIGTERM, so that unfinished work is cleaned up as on Ctrl-C."""


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
        "usage: stylegan COMMAND ...\n\n`stylegan COMMAND --help` explains a command:\n\n"
        + "".join(rows)
        + "\nExample:\n  stylegan train --preset stylegan2-small --data photos/ --out runs/photos\n"
    )


class _StandardError(logging.Handler):
    """Write to the present sys.stderr, which a live progress display may have replaced."""

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
