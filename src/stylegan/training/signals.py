"""SIGINT and SIGTERM: noted, so that a run ends after its iteration with all of it saved."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM, Signals
from signal import signal as set_handler
from types import FrameType
from typing import Any

from stylegan import dist
from stylegan.errors import Stopped

logger = logging.getLogger(__name__)


class SignalWatch:
    """While open, SIGINT and SIGTERM are noted, and end the run after the current iteration."""

    def __init__(self) -> None:
        self.received: Signals | None = None
        self._is_evaluating = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():
            for number in (SIGINT, SIGTERM):
                self._old[number] = set_handler(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:  # a second one: the user does not want to wait
            raise KeyboardInterrupt
        self.received = Signals(number)
        logger.warning(
            "%s: saving a checkpoint after this iteration; another one ends the run at once",
            self.received.name,
        )
        if self._is_evaluating:
            dist.raise_between_exchanges(Stopped())

    @contextmanager
    def stopping_evaluations(self) -> Iterator[None]:
        """While open, a signal raises Stopped as well: an evaluation may take minutes."""
        self._is_evaluating = True
        try:
            if self.received is not None:  # just before
                raise Stopped
            yield
        finally:
            self._is_evaluating = False

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            set_handler(number, handler)
