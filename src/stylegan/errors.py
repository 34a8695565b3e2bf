"""Errors that a user can cause, each reported in one line."""

from functools import partial
from typing import TypeVar

T = TypeVar("T")


class StyleganError(Exception):
    """A failure reported to the user in one line.

    Args:
        found: what is wrong, with the name of the file or option.
        expected: what is allowed, unless `found` says it.
        fix: what the user can do, as an imperative; only where it is not obvious.
    """

    def __init__(self, found: str, *, expected: str | None = None, fix: str | None = None) -> None:
        wanted = None if expected is None else f"expected {expected}"
        super().__init__("; ".join(part for part in (found, wanted, fix) if part))
        self.found = found
        self.expected = expected
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling, which worker processes of a data loader need."""
        return partial(type(self), expected=self.expected, fix=self.fix), (self.found,)


class ConfigError(StyleganError):
    """An option has a value that cannot work, or a changed option would change a running run."""


class DataError(StyleganError):
    """Images or labels cannot be used as they are."""


class CheckpointError(StyleganError):
    """A run folder or checkpoint cannot be continued."""


class WeightsError(StyleganError):
    """A weight file cannot be read, or does not hold what it should."""


class PeerError(StyleganError):
    """This process stopped because another one did, which has told why."""


class Stopped(BaseException):
    """Raised in the midst of work that a signal ends.

    No Exception, as KeyboardInterrupt is none: what handles errors is not to take it for one.
    """


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
    """Return the value of an option that may be left to a rule by None.

    Raises:
        ConfigError: if it is None, that is, no rule has decided it yet.
    """
    if value is None:
        raise ConfigError(f"{name} must be decided first, by `training.configure.resolve`")
    return value
