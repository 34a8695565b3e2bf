"""Errors that a user can cause, each reported in one line."""

import difflib
import shlex
from collections.abc import Iterable
from functools import partial
from typing import Self, TypeVar

T = TypeVar("T")


class StyleganError(Exception):
    """A failure that is reported to the user in one line.

    Args:
        message: what is wrong, with the name of the file or option and the value found.
        expected: what is allowed, unless `message` says it.
        fix: what the user can do, as an imperative; only where it is not obvious.
    """

    def __init__(
        self, message: str, *, expected: str | None = None, fix: str | None = None
    ) -> None:
        expectation = None if expected is None else f"expected {expected}"
        super().__init__("; ".join(part for part in (message, expectation, fix) if part))
        self.message = message
        self.expected = expected
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, which worker processes of a data loader need."""
        return partial(type(self), expected=self.expected, fix=self.fix), (self.message,)

    def at(self, place: str) -> Self:
        """Return the same error, with the file or object that it is about in front."""
        return type(self)(f"{place}: {self.message}", expected=self.expected, fix=self.fix)


class ConfigError(StyleganError):
    """An option has a value that is not allowed, or differs from that of the run to continue."""


class DataError(StyleganError):
    """Images or labels cannot be used."""


class CheckpointError(StyleganError):
    """A run folder or checkpoint cannot be continued."""


class WeightsError(StyleganError):
    """A weight file cannot be read, or does not have the expected content."""


class PeerError(StyleganError):
    """This rank stopped because another one failed, which reports the reason."""


class Stopped(BaseException):
    """Raised by a signal to end work early.

    It is not an Exception, like KeyboardInterrupt, so that handlers of errors do not catch it.
    """


def command_line(*words: object) -> str:
    """Return a command line of this program to paste, in backquotes: paths are quoted."""
    return f"`{shlex.join(['stylegan', *map(str, words)])}`"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: "; did you mean X?", or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def check_positive(name: str, value: float) -> None:
    """Raise ConfigError unless an option is above 0."""
    if not value > 0:
        raise ConfigError(f"{name} must be more than 0, got {value:g}")


def check_not_negative(name: str, value: float) -> None:
    """Raise ConfigError unless an option is 0 or above."""
    if not value >= 0:
        raise ConfigError(f"{name} must be 0 or more, got {value:g}")


def check_fraction(name: str, value: float) -> None:
    """Raise ConfigError unless an option lies from 0 to 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} must be from 0 to 1, got {value:g}")


def decided(value: T | None, name: str) -> T:
    """Return the value of an option for which None means "decided by a rule".

    Raises:
        ConfigError: if it is still None.
    """
    if value is None:
        raise ConfigError(f"{name} must be decided first, by `training.configure.resolve`")
    return value
