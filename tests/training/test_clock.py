import time

from stylegan.training.clock import Clock


def test_a_pause_counts_in_the_shares_and_not_in_the_speed(monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    clock = Clock()
    clock.speed(0)
    now_s = 110.0
    assert clock.speed(50) == 5
    with clock("metrics"):
        now_s = 170.0
    now_s = 172.0
    assert clock.speed(60) == 5
    assert clock.report() == (72, {"metrics": 60 / 72})


def test_other_work_counts_in_both(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    clock = Clock()
    clock.speed(0)
    with clock("snapshots"):
        now_s = 10.0
    assert clock.speed(20) == 2
    assert clock.report() == (10, {"snapshots": 1})
    now_s = 20.0
    assert clock.report() == (10, {})
