"""A run of `stylegan train` on two ranks, and what may happen to them."""

import contextlib
import os
import signal
import time

import processes
from distributed.runs import check_same, has_ticked, train_line, weights
from stylegan import distributed
from stylegan.cli.main import main
from stylegan.training import loop


def test_a_run_with_a_killed_rank_continues(data, undisturbed, tmp_path):
    out = tmp_path / "run"
    words = train_line(data, out, kimg=0.16)
    group = processes.start(processes.command, words, folder=tmp_path, num=2)
    group.wait_for(lambda: list(out.glob("checkpoints/*.pt")))
    group.kill(1, signal.SIGKILL)
    assert group.join() == [1, -signal.SIGKILL]
    assert "rank 0 lost the other ranks" in group.output
    processes.run(processes.command, words, folder=tmp_path, num=2)
    check_same(out, undisturbed)


def test_a_signal_to_one_rank_stops_all_and_one_process_continues(data, undisturbed, tmp_path):
    out = tmp_path / "run"
    words = train_line(data, out, kimg=0.16, checkpoint_kimg=0.16)
    group = processes.start(processes.command, words, folder=tmp_path, num=2)
    group.wait_for(lambda: has_ticked(out))
    group.kill(1, signal.SIGINT)
    assert group.join() == [130, 130], group.output
    assert "SIGINT and saved; `stylegan train --out" in group.output
    assert len(list(out.glob("checkpoints/*.pt"))) == 1
    output = processes.run(processes.command, words, folder=tmp_path)
    assert "resumed at" in output
    assert weights(out)[0] == weights(undisturbed)[0]


def test_a_signal_to_the_whole_tree_saves(data, tmp_path):
    out = tmp_path / "run"
    words = train_line(data, out, kimg=1000, checkpoint_kimg=1000)
    group = processes.start(processes.command, words, folder=tmp_path, num=2)
    group.wait_for(lambda: has_ticked(out))
    for _ in range(2):  # to each process, and again from their launcher, as SLURM and systemd do
        for rank in (1, 0):
            with contextlib.suppress(ProcessLookupError):  # it may have saved and ended already
                group.kill(rank, signal.SIGTERM)
        time.sleep(0.05)  # two signals at the same time would be one
    assert group.join() == [143, 143], group.output
    assert "SIGTERM and saved; `stylegan train --out" in group.output
    assert "KeyboardInterrupt" not in group.output
    assert len(list(out.glob("checkpoints/*.pt"))) == 1


def elsewhere(words):
    """Run the command; rank 1 in another folder than rank 0."""
    if os.environ["RANK"] == "1":
        os.makedirs("elsewhere")
        os.chdir("elsewhere")
    return main(words)


def test_only_rank_0_needs_the_initial_weights(data, undisturbed, tmp_path):
    (tmp_path / "source").symlink_to(sorted((undisturbed / "snapshots").iterdir())[-1])
    words = [*train_line(data, "run", kimg=0.08), "--init-from", "source"]
    processes.run(elsewhere, words, folder=tmp_path, num=2, cwd=tmp_path)
    assert weights(tmp_path / "run")[0] == "000000080"
    assert not (tmp_path / "elsewhere" / "run").exists()


def failing(words):
    """Run the command, in which rank 1 fails at an iteration."""
    step = loop.train_step

    def train_step(state, *args, **options):
        if distributed.rank() == 1 and state.iteration == 3:
            raise ZeroDivisionError("the planted one")
        return step(state, *args, **options)

    loop.train_step = train_step
    return main(words)


def test_a_rank_that_fails_ends_the_others_with_its_traceback(data, tmp_path):
    words = train_line(data, tmp_path / "run", kimg=100)
    group = processes.start(failing, words, folder=tmp_path, num=2)
    assert group.join() == [1, 1]
    before, _, after = group.output.partition("ZeroDivisionError: the planted one")
    assert "Traceback" in before
    assert "stopped, as another rank failed; rank 0 lost the other ranks" in before + after
    assert "Traceback" not in after


def with_short_timeout(words):
    """Run the command; a rank that hangs is noticed after two seconds."""
    distributed.TIMEOUT_S = 2.0
    return main(words)


def test_a_rank_that_hangs_ends_the_others(data, tmp_path):
    out = tmp_path / "run"
    words = train_line(data, out, kimg=100)
    group = processes.start(with_short_timeout, words, folder=tmp_path, num=2)
    group.wait_for(lambda: has_ticked(out))
    group.kill(1, signal.SIGSTOP)
    stopped_s = time.monotonic()
    group.processes[0].join(30)
    assert time.monotonic() - stopped_s < 15
    assert group.processes[0].exitcode == 1
    group.kill(1, signal.SIGKILL)
    group.join()
    assert "rank 0 lost the other ranks: one of them failed, or hangs for more than" in group.output


def failing_alone(words):
    """Run the command, in which rank 1 has a mistake of its own."""
    if distributed.reports_to_user():
        return main(words)
    return main([*words, "--data", "nowhere"])


def test_a_mistake_of_one_rank_is_reported_by_it(data, tmp_path):
    words = train_line(data, tmp_path / "run", kimg=0.08)
    group = processes.start(failing_alone, words, folder=tmp_path, num=2)
    assert group.join() == [1, 1]
    assert group.output.count("nowhere does not exist") == 1


def test_a_mistake_is_reported_once_and_without_a_traceback(data, tmp_path):
    words = train_line(data, tmp_path / "run", kimg=0.08)
    words[words.index("--batch") + 1] = "4"
    group = processes.start(processes.command, words, folder=tmp_path, num=2)
    assert group.join() == [1, 1]
    message = "batch 4 in groups of 4 (discriminator.mbstd_group_size) cannot be split"
    assert group.output.count(message) == 1
    assert "Traceback" not in group.output
    assert not (tmp_path / "run").exists()
