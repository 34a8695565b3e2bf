"""SIGINT, SIGTERM and SIGHUP end a run after the current iteration, with everything saved."""

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
"""Within this time a second signal counts as the same one: a signal to a whole process tree reaches
a process directly, and again through its launcher."""


def stop_signals() -> list[signal.Signals]:
    """Return the signals that end a run, as far as the system has them and does not ignore them."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


class SignalWatch:
    """Records these signals while it is open, so that the run can end after the iteration.

    SIGHUP, which a terminal sends when it closes, is left alone if it is ignored, as with `nohup`.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_s = 0.0
        self._is_evaluating = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._old[number] = signal.signal(number, self._record)
        return self

    def _record(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.received is not None:
            if now_s - self._received_s < ECHO_S:
                return
            raise KeyboardInterrupt  # the user does not want to wait
        self.received, self._received_s = signal.Signals(number), now_s
        logger.warning(
            "%s: saving a checkpoint after this iteration; a second signal after %.0f s ends the "
            "run at once",
            self.received.name,
            ECHO_S,
        )
        if self._is_evaluating:
            distributed.stop()

    @contextmanager
    def stopping_evaluations(self) -> Iterator[None]:
        """Let a signal also raise Stopped in the block, as an evaluation may take minutes."""
        self._is_evaluating = True
        try:
            if self.received is not None:  # since the evaluation was decided
                raise Stopped
            yield
        finally:
            self._is_evaluating = False

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
