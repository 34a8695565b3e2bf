import os
import signal
import time

import pytest

from stylegan.training import signals
from stylegan.training.signals import SignalWatch

needs_hup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # the handler runs


def test_a_second_signal_soon_after_is_an_echo_of_the_first(monkeypatch):
    with SignalWatch() as watch:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert watch.received is signal.SIGTERM
        monkeypatch.setattr(signals, "ECHO_S", 0.001)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@needs_hup
def test_a_terminal_that_closes_stops_a_run_unless_that_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with SignalWatch() as watch:
            send(signal.SIGHUP)
            assert watch.received is signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
        with SignalWatch() as watch:
            send(signal.SIGHUP)
            assert watch.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
