import time

from stylegan.training.clock import Clock, SlowdownMonitor


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


def test_the_speed_forgets_a_slow_start_and_spans_lazy_iterations(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    clock = Clock()
    for iteration in range(1, 200):
        now_s += 100.0 if iteration <= 3 else 2.0 if iteration % 2 else 1.0
        speed = clock.speed(8 * iteration)
        if iteration == 3:
            assert speed == 8 / 100
    assert speed == 8 / 1.5  # the mean over both kinds of iterations


def add(monitor, seconds, *, num=50, stage=0):
    return monitor.add(seconds=seconds, images=8 * num, iterations=num, stage=stage)


def test_a_slowdown_below_half_is_reported_once():
    monitor = SlowdownMonitor()
    assert add(monitor, 40) is None
    for seconds in (40, 50, 79):
        assert add(monitor, seconds) is None
    assert add(monitor, 100) == (4, 10)
    assert add(monitor, 100) is None


def test_neither_a_new_stage_nor_a_short_period_is_a_slowdown():
    monitor = SlowdownMonitor()
    for stage, seconds in ((0, 40), (0, 40), (1, 400), (1, 400), (1, 400)):
        assert add(monitor, seconds, stage=stage) is None
    assert add(monitor, 390, num=10, stage=1) is None  # too few iterations
