"""SIGINT, SIGTERM, SIGHUP: noted, so that a run ends after its iteration with all of it saved."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from stylegan import distributed
from stylegan.errors import Stopped

logger = logging.getLogger(__name__)

ECHO_S = 3.0
"""For so many seconds a second signal counts as the same one: what stops a whole tree of processes
reaches a process directly, and again through the one that started it."""


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask a run to stop, as far as the system has them."""
    found = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


class SignalWatch:
    """While open, these signals are noted, and end the run after the current iteration.

    SIGHUP, of a terminal that closes, is none of them where it is ignored, as by `nohup`.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_s = 0.0
        self._is_evaluating = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.received is not None:
            if now_s - self._received_s < ECHO_S:
                return
            raise KeyboardInterrupt  # the user does not want to wait
        self.received, self._received_s = signal.Signals(number), now_s
        logger.warning(
            "%s: saving a checkpoint after this iteration; another one after %.0f s ends the run "
            "at once",
            self.received.name,
            ECHO_S,
        )
        if self._is_evaluating:
            distributed.raise_outside_collectives(Stopped())

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
            signal.signal(number, handler)
