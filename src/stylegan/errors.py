"""The errors that a user can cause, each told in one line."""

from functools import partial


class StyleganError(Exception):
    """A failure that we report in one line: what was found, what was expected, what to do.

    Args:
        found: what was found, with the file or option it was found in.
        expected: what should have been there.
        fix: what the user can do about it, as an imperative.
    """

    def __init__(self, found: str, *, expected: str, fix: str) -> None:
        super().__init__(f"{found}; expected {expected}; {fix}")
        self.found = found
        self.expected = expected
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from all three parts, so that an error survives the way between processes."""
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
        raise ConfigError(f"{name} {value:g}", expected="more than 0", fix="raise it")


def check_not_negative(name: str, value: float) -> None:
    """Raise ConfigError unless an option is 0 or above."""
    if not value >= 0:
        raise ConfigError(f"{name} {value:g}", expected="0 or more", fix="use 0 for none of it")


def check_share(name: str, value: float) -> None:
    """Raise ConfigError unless an option lies from 0 to 1."""
    if not 0 <= value <= 1:
        raise ConfigError(
            f"{name} {value:g}", expected="a number from 0 to 1", fix="choose a share"
        )
