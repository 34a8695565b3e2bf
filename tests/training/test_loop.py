import dataclasses
import json
import os
import shutil
import signal
import time

import pytest
import torch
from PIL import Image

import stylegan
from stylegan import images
from stylegan.data.dataset import ImageDataset
from stylegan.data.loader import batches
from stylegan.errors import CheckpointError, ConfigError, DataError, StyleganError
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator
from stylegan.ops.precision import float32_precision, is_tf32
from stylegan.training.checkpoint import list_checkpoints
from stylegan.training.config import OutputConfig
from stylegan.training.evaluation import Evaluator
from stylegan.training.log import read_log, read_metrics
from stylegan.training.loop import train
from stylegan.training.reals import open_dataset


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_writes_its_folder(run_config, tmp_path):
    seen = []
    outcome = train(run_config, tmp_path / "run", observe=seen.append)
    run = tmp_path / "run"
    assert outcome.is_complete
    assert outcome.nimg == 160
    assert names(run) == [
        ".lock", "checkpoints", "config.json", "events", "log.jsonl", "reals.png", "samples",
        "snapshots",
    ]  # fmt: skip
    assert names(run / "samples") == ["000000000.png", "000000080.png", "000000160.png"]
    assert names(run / "snapshots") == ["000000080", "000000160"]
    assert names(run / "checkpoints") == ["000000120.pt", "000000160.pt"]
    records = read_log(run)
    assert [record["nimg"] for record in records] == [24, 48, 72, 96, 120, 144, 160]
    assert {"loss/G", "loss/D", "grad_norm/G"} <= records[0]["terms"].keys()
    assert {"data", "G", "D", "regularizers"} <= records[0]["time"]["share"].keys()
    assert 0.5 < sum(records[-1]["time"]["share"].values()) <= 1
    assert len(seen) == 20
    assert sum(progress.record is not None for progress in seen) == 7


def test_reals_are_the_first_images_of_the_run_and_written_once(growing_config, tmp_path):
    config, run = growing_config.with_overrides("output.samples=18"), tmp_path / "run"
    train(config, run, max_minutes=0)
    dataset = open_dataset(config)
    assert dataset.is_mirrored
    expected = next(batches(dataset, batch_size=18, seed=config.seed))
    sheet = images.grid(images.to_uint8(expected.images), columns=4)
    assert torch.equal(images.read(run / "reals.png"), sheet)
    (run / "reals.png").write_bytes(b"mine")
    train(config, run, max_minutes=0)
    assert (run / "reals.png").read_bytes() == b"mine"


def test_a_growing_run_logs_its_level_and_shows_sheets_of_one_size(growing_config, tmp_path):
    config = growing_config.with_overrides("output.snapshot_kimg=0.03")
    train(config, tmp_path / "run")
    records = read_log(tmp_path / "run")
    assert [record["growth"]["resolution"] for record in records] == [8, 8, 16, 16, 16, 16, 16]
    assert records[0]["growth"].keys() == {
        "lod", "resolution", "batch", "generator_lr", "discriminator_lr"
    }  # fmt: skip
    assert records[0]["growth"]["batch"] == 4
    assert records[0]["growth"]["generator_lr"] == 0.001
    paths = sorted((tmp_path / "run" / "samples").iterdir())
    sheets = [images.from_pil(Image.open(path)) for path in paths]
    assert {tuple(sheet.shape) for sheet in sheets} == {(3, 32, 32)}
    first = sheets[0].reshape(3, 8, 4, 8, 4)  # pixels of 4x4, repeated four times
    assert torch.equal(first[:, :, :1, :, :1].expand_as(first), first)
    lods = [
        stylegan.load(folder).lod for folder in sorted((tmp_path / "run" / "snapshots").iterdir())
    ]
    assert lods == pytest.approx([4 / 3, 5 / 6, 0, 0, 0, 0])


def test_the_newest_snapshot_is_what_load_gives(finished_run):
    loaded = stylegan.load(finished_run)
    checkpoint = torch.load(list_checkpoints(finished_run)[-1], weights_only=True)
    average = checkpoint["state"]["generator_ema"]
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, average[key]), key
    networks = stylegan.load_networks(finished_run)
    assert {name for name, _ in networks.items()} == {
        "generator", "generator_ema", "discriminator"
    }  # fmt: skip


def test_a_complete_run_started_again_does_nothing(run_config, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    seen = []
    assert train(run_config, tmp_path / "run", observe=seen.append).is_complete
    assert seen == []
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("tf32", True)])
def test_a_run_rounds_to_tf32_only_on_request(run_config, tmp_path, precision, expected):
    kimg = run_config.batch / 1000
    config = run_config.with_overrides(f"precision={precision}", f"output.total_kimg={kimg}")
    seen = []
    with float32_precision(tf32=not expected):  # what PyTorch was set to before
        train(config, tmp_path / "run", observe=lambda _: seen.append(is_tf32()))
        assert is_tf32() is not expected
    assert seen == [expected]


@pytest.fixture
def paced(run_config, tmp_path, monkeypatch):
    """Train for one iteration of each duration, in a clock of our own; return its progress."""

    def paced(durations_s, *overrides):
        now_s, pending = 0.0, list(durations_s)

        def step(state, reals, *, timer, **_):
            nonlocal now_s
            with timer("G"):
                now_s += pending.pop(0)
            state.advance(len(reals))

        monkeypatch.setattr(time, "perf_counter", lambda: now_s)
        monkeypatch.setattr("stylegan.training.loop.train_step", step)
        kimg = len(durations_s) * run_config.batch / 1000
        config = run_config.with_overrides(
            f"output.total_kimg={kimg}", f"output.tick_kimg={run_config.batch / 1000}", *overrides
        )
        progress = []
        train(config, tmp_path / "run", observe=progress.append)
        return progress

    return paced


def test_the_time_left_does_not_count_the_first_iteration(paced):
    progress = paced([1000, 10, 10, 20])  # the first one may compile
    assert [each.seconds_left for each in progress] == [float("inf"), 20, 10, 0]


def test_a_slowdown_is_warned_of_once_with_the_remedy(paced, monkeypatch, caplog):
    monkeypatch.setattr("stylegan.training.clock.MIN_ITERATIONS", 1)
    paced([40, 40, 40, 79, 100, 100, 40], "runtime.threads=1")
    warnings = [record.getMessage() for record in caplog.records if "training runs" in record.msg]
    assert len(warnings) == 1
    assert "training runs at 0.08 images per second, after 0.2 before" in warnings[0]
    assert "another process may be using the processor or the device: stop it" in warnings[0]
    assert "--threads" not in warnings[0]  # with one thread already
    assert torch.get_num_threads() == 1


def test_the_remedy_for_a_slowdown_names_the_threads(paced, monkeypatch, caplog):
    monkeypatch.setattr("stylegan.training.clock.MIN_ITERATIONS", 1)
    paced([40, 40, 100], "runtime.threads=3")
    assert "continue the run with fewer threads than 3 by --threads" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_the_run_goes_on(run_config, tmp_path, number):
    def interrupt(progress):
        if progress.nimg == 56:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    outcome = train(run_config, tmp_path / "run", observe=interrupt)
    assert (outcome.nimg, outcome.is_complete, outcome.signal) == (56, False, number)
    assert names(tmp_path / "run" / "checkpoints")[-1] == "000000056.pt"
    assert names(tmp_path / "run" / "snapshots") == ["000000056"]
    assert signal.getsignal(number) is before
    assert train(run_config, tmp_path / "run").is_complete


def test_max_minutes_saves_and_returns(run_config, tmp_path):
    outcome = train(run_config, tmp_path / "run", max_minutes=0)
    assert (outcome.nimg, outcome.is_complete, outcome.signal) == (8, False, None)
    assert names(tmp_path / "run" / "checkpoints") == ["000000008.pt"]


def test_divergence_keeps_the_last_good_checkpoint(run_config, tmp_path, monkeypatch):
    config = run_config.with_overrides("output.checkpoint_kimg=0.016", "output.total_kimg=1")

    def spoil(progress):
        if progress.nimg == 40:
            monkeypatch.setattr(
                "stylegan.losses.objective.generator_logistic", lambda logits: logits * torch.nan
            )

    with pytest.raises(StyleganError, match="non-finite gradients in 20 steps of phase G in a row"):
        train(config, tmp_path / "run", observe=spoil)
    assert names(tmp_path / "run" / "checkpoints") == ["000000016.pt", "000000032.pt"]


def test_a_stop_after_a_bad_step_saves_all_the_same(run_config, tmp_path, monkeypatch):
    def spoil_and_interrupt(progress):
        if progress.nimg == 24:
            monkeypatch.setattr(
                "stylegan.losses.objective.generator_logistic", lambda logits: logits * torch.nan
            )
        if progress.nimg == 32:
            os.kill(os.getpid(), signal.SIGINT)

    outcome = train(run_config, tmp_path / "run", observe=spoil_and_interrupt)
    assert (outcome.nimg, outcome.signal) == (32, signal.SIGINT)
    assert names(tmp_path / "run" / "checkpoints") == ["000000032.pt"]


def test_two_processes_do_not_train_in_one_folder(run_config, tmp_path):
    def second(progress):
        with pytest.raises(CheckpointError, match="another process is training"):
            train(run_config, tmp_path / "run")

    config = run_config.with_overrides("output.total_kimg=0.008")
    assert train(config, tmp_path / "run", observe=second).is_complete


def test_a_config_that_differs_from_the_open_images_is_refused(run_config, tmp_path):
    dataset = ImageDataset(run_config.data.path)  # not mirrored
    with pytest.raises(ConfigError, match="the dataset was opened with"):
        train(run_config, tmp_path / "run", dataset=dataset)


@pytest.mark.slow
def test_a_run_from_weights_does_not_need_their_source_again(run_config, tmp_path):
    initial = Networks(generator=Generator(run_config.generator))
    train(run_config, tmp_path / "whole", initial=initial)

    def die(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run_config, tmp_path / "run", initial=initial, observe=die)
    train(run_config, tmp_path / "run")
    states = [
        torch.load(list_checkpoints(tmp_path / run)[-1], weights_only=True)["state"]["generator"]
        for run in ("whole", "run")
    ]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_grey_images_need_grey_networks(run_config, tmp_path, image_folder):
    for path in image_folder.glob("*.png"):
        Image.open(path).convert("L").save(tmp_path / path.name)
    dataset = ImageDataset(tmp_path, mirror=True)
    with pytest.raises(DataError, match="images with 1 channels, but the networks have 3"):
        train(run_config, tmp_path / "run", dataset=dataset)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_and_workers_change_nothing(run_config, tmp_path, workers):
    output = dataclasses.replace(run_config.output, total_kimg=0.04)
    runtime = dataclasses.replace(run_config.runtime, cache_gb=0.0, workers=workers)
    train(dataclasses.replace(run_config, output=output, runtime=runtime), tmp_path / "run")
    (tmp_path / "reference").mkdir()
    train(dataclasses.replace(run_config, output=output), tmp_path / "reference")
    snapshots = [
        (tmp_path / name / "snapshots" / "000000040" / "model.safetensors").read_bytes()
        for name in ("run", "reference")
    ]
    assert snapshots[0] == snapshots[1]


def test_tensorboard_gets_the_numbers_of_the_log(finished_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run / "events")).Reload()
    logged = [record["terms"]["loss/G"] for record in read_log(finished_run)]
    assert [event.value for event in events.Scalars("loss/G")] == pytest.approx(logged)


@pytest.mark.slow
def test_tensorboard_has_each_point_once_after_a_resume(run_config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def interrupt(progress):
        if progress.nimg in (72, 88):  # on the log's cadence, and off it
            os.kill(os.getpid(), signal.SIGINT)

    while not train(run_config, tmp_path / "run", observe=interrupt).is_complete:
        pass
    events = EventAccumulator(str(tmp_path / "run" / "events")).Reload()
    steps = [event.step for event in events.Scalars("loss/G")]
    assert steps == [record["nimg"] for record in read_log(tmp_path / "run")]


def test_config_json_holds_the_options_and_the_images(run_config, tmp_path):
    train(dataclasses.replace(run_config, output=OutputConfig(total_kimg=0.008)), tmp_path / "run")
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["config"]["loss"]["gamma"] == 1.0
    assert len(written["fingerprint"]) == 64


def test_a_start_that_fails_leaves_no_run_behind(run_config, tmp_path, monkeypatch):
    def fail(self, budget_bytes):
        raise DataError("a.png: bad", expected="an image", fix="remove it")

    monkeypatch.setattr(ImageDataset, "preload", fail)
    with pytest.raises(DataError, match=r"a\.png: bad"):
        train(run_config, tmp_path / "run")
    monkeypatch.undo()
    # other options may follow, as nothing has been started
    assert train(run_config.with_overrides("seed=5"), tmp_path / "run").is_complete


def metric(evaluate, name="power:test"):
    """Make a function of generator and images shown the one metric of a run."""
    return Evaluator(names=[name], measure=lambda generator, nimg, names: evaluate(generator, nimg))


def by_weights(generator, nimg):
    """A metric that the weights decide, and that leaves traces wherever it can."""
    torch.manual_seed(nimg)
    images = generator(torch.randn(4, generator.z_dim), noise_mode="random")
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(1)
    generator.train().requires_grad_(True)
    value = images.square().mean().item()
    return [{"metric": "power:test", "value": value, "lower_is_better": True, "seconds": 0.1}]


@pytest.fixture(scope="module")
def evaluated_run(run_config, tmp_path_factory):
    """A finished run whose snapshots are evaluated by `by_weights`. Read only."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    train(run_config, run, evaluate=metric(by_weights), evaluate_fraction=1)
    return run


def test_evaluation_changes_nothing_that_training_computes(run_config, finished_run, tmp_path):
    before = torch.get_rng_state()
    train(run_config, tmp_path / "with", evaluate=metric(by_weights), evaluate_fraction=1.0)
    assert torch.equal(torch.get_rng_state(), before)
    for pattern in ("checkpoints/*.pt", "snapshots/*/*", "samples/*.png"):
        paths = sorted(finished_run.glob(pattern))
        assert len(paths) >= 2
        for path in paths:
            twin = tmp_path / "with" / path.relative_to(finished_run)
            if path.suffix == ".pt":
                assert_same_state(*(torch.load(each, weights_only=True) for each in (path, twin)))
            else:
                assert path.read_bytes() == twin.read_bytes(), path
    logs = [
        [
            {key: value for key, value in record.items() if key != "time"}
            for record in read_log(run)
            if record["kind"] == "tick"
        ]
        for run in (finished_run, tmp_path / "with")
    ]
    assert logs[0] == logs[1]


def assert_same_state(a, b):
    """Compare nested state exactly."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_state(a[key], b[key])
    elif isinstance(a, list | tuple):
        for pair in zip(a, b, strict=True):
            assert_same_state(*pair)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def test_each_snapshot_is_evaluated_and_the_best_is_kept(run_config, tmp_path):
    config = run_config.with_overrides("output.snapshot_kimg=0.04")
    given = []

    def evaluate(generator, nimg):
        assert not generator.training
        assert not any(parameter.requires_grad for parameter in generator.parameters())
        given.append({key: value.clone() for key, value in generator.state_dict().items()})
        value = abs(nimg - 80) / 10
        return [{"metric": "a:b", "value": value, "lower_is_better": True, "seconds": 0.5}]

    run = tmp_path / "run"
    train(config, run, evaluate=metric(evaluate, "a:b"), evaluate_fraction=1.0)
    assert len(given) == 4
    for state, folder in zip(given, sorted((run / "snapshots").iterdir()), strict=True):
        for key, value in stylegan.load(folder).state_dict().items():
            assert torch.equal(value, state[key]), key
    records = [record for record in read_log(run) if record["kind"] == "metrics"]
    assert [record["nimg"] for record in records] == [40, 80, 120, 160]
    assert [record["metrics"]["a:b"] for record in records] == [4, 0, 4, 8]
    snapshots = [f"snapshots/{name}" for name in names(run / "snapshots")]
    assert [record["snapshot"] for record in read_metrics(run)] == snapshots
    assert json.loads((run / "best" / "a-b" / "best.json").read_text())["nimg"] == 80
    best, snapshot = run / "best" / "a-b", run / "snapshots" / "000000080"
    for name in names(snapshot):
        assert (best / name).read_bytes() == (snapshot / name).read_bytes()


@pytest.mark.slow
def test_the_log_has_the_time_of_evaluation(run_config, tmp_path):
    def evaluate(generator, nimg):
        until_s = time.monotonic() + 0.2
        while time.monotonic() < until_s:
            pass
        return []

    train(run_config, tmp_path / "run", evaluate=metric(evaluate))
    times = [record["time"] for record in read_log(tmp_path / "run")]
    shares = [time["share"] for time in times]
    # the snapshot at 80 comes after the line at 72; the last one after all lines
    assert ["metrics" in share for share in shares] == [False] * 3 + [True] + [False] * 3
    assert shares[3]["metrics"] * times[3]["seconds"] >= 0.2  # however slow the rest is


@pytest.mark.slow
def test_the_last_snapshot_is_evaluated_whatever_it_takes(run_config, tmp_path, caplog):
    config = run_config.with_overrides("output.snapshot_kimg=0.04")
    train(config, tmp_path / "run", evaluate=metric(by_weights), evaluate_fraction=0)
    assert [record["nimg"] for record in read_metrics(tmp_path / "run")] == [40, 160]
    assert "metrics took" in caplog.text


def test_a_growing_run_is_evaluated_at_its_full_resolution(growing_config, tmp_path, caplog):
    caplog.set_level("INFO", logger="stylegan")
    config = growing_config.with_overrides("output.snapshot_kimg=0.03")
    train(config, tmp_path / "run", evaluate=metric(by_weights), evaluate_fraction=1)
    records = [record for record in read_log(tmp_path / "run") if record["kind"] == "tick"]
    assert records[1]["growth"]["resolution"] == 8
    first = read_metrics(tmp_path / "run")[0]["nimg"]
    snapshots = [int(name) for name in names(tmp_path / "run" / "snapshots")]
    assert first == snapshots[1]  # where 16x16 is being faded in
    assert len(read_metrics(tmp_path / "run")) == len(snapshots) - 1
    assert caplog.text.count("no metrics before images have their full resolution, 16") == 1


def test_a_run_goes_on_where_evaluation_fails(run_config, tmp_path, caplog):
    def evaluate(generator, nimg):
        raise DataError("the set is gone", expected="it", fix="restore it")

    assert train(
        run_config, tmp_path / "run", evaluate=metric(evaluate), evaluate_fraction=1
    ).is_complete
    assert caplog.text.count("failed (the set is gone; expected it; restore it)") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_an_evaluation_up_and_the_run_goes_on(
    run_config, evaluated_run, tmp_path, number, caplog
):
    reached_the_end = False

    def evaluate(generator, nimg):
        nonlocal reached_the_end
        assert names(tmp_path / "run" / "checkpoints")[-1] == "000000080.pt"
        generator.train()
        os.kill(os.getpid(), number)
        for _ in range(10_000_000):  # somewhere here the handler runs
            pass
        reached_the_end = True
        return []

    outcome = train(run_config, tmp_path / "run", evaluate=metric(evaluate))
    assert (outcome.nimg, outcome.is_complete, outcome.signal) == (80, False, number)
    assert not reached_the_end
    assert "interrupted by the signal" in caplog.text
    assert train(
        run_config, tmp_path / "run", evaluate=metric(by_weights), evaluate_fraction=1
    ).is_complete
    states = [
        torch.load(run / "checkpoints" / "000000160.pt", weights_only=True)
        for run in (evaluated_run, tmp_path / "run")
    ]
    assert_same_state(*states)
    assert read_metrics(tmp_path / "run") == read_metrics(evaluated_run)[1:]


def test_a_second_signal_ends_the_run_at_once(run_config, tmp_path, monkeypatch):
    monkeypatch.setattr("stylegan.training.signals.ECHO_S", 0.0)

    def evaluate(generator, nimg):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10_000_000):
                pass
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10_000_000):
                pass
        return []

    with pytest.raises(KeyboardInterrupt):
        train(run_config, tmp_path / "run", evaluate=metric(evaluate))


def test_no_evaluation_begins_after_a_signal(run_config, tmp_path):
    def interrupt(progress):
        if progress.nimg == 72:
            os.kill(os.getpid(), signal.SIGINT)

    seen = []

    def evaluate(generator, nimg):
        seen.append(nimg)
        return []

    outcome = train(run_config, tmp_path / "run", observe=interrupt, evaluate=metric(evaluate))
    assert outcome.nimg == 72
    assert seen == []


@pytest.mark.slow
def test_resumed_runs_have_the_metrics_of_whole_ones(run_config, evaluated_run, tmp_path):
    def die(progress):
        if progress.nimg == 112:  # the snapshot at 80 is evaluated, the newest checkpoint is of 80
            raise KeyError

    with pytest.raises(KeyError):
        train(
            run_config,
            tmp_path / "run",
            observe=die,
            evaluate=metric(by_weights),
            evaluate_fraction=1,
        )
    beyond = read_metrics(tmp_path / "run")[0] | {"nimg": 160}
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(beyond) + "\n")  # as of a run that got there and lost its checkpoint
    train(run_config, tmp_path / "run", evaluate=metric(by_weights), evaluate_fraction=1)
    assert read_metrics(tmp_path / "run") == read_metrics(evaluated_run)
    kept = [
        {key: value for key, value in record.items() if key != "time"}
        for record in read_log(tmp_path / "run")
    ]
    assert kept == [
        {key: value for key, value in record.items() if key != "time"}
        for record in read_log(evaluated_run)
    ]


def test_a_complete_run_is_evaluated_once(run_config, finished_run, tmp_path, caplog):
    caplog.set_level("INFO", logger="stylegan")
    shutil.copytree(finished_run, tmp_path / "run")
    seen = []

    def evaluate(generator, nimg):
        seen.append(nimg)
        return by_weights(generator, nimg)

    for _ in range(2):
        assert train(run_config, tmp_path / "run", evaluate=metric(evaluate)).is_complete
    assert seen == [160]
    assert caplog.text.count("metrics at 160 images ...") == 1


def test_a_run_whose_time_is_over_is_not_evaluated(run_config, tmp_path):
    seen = []
    config = run_config.with_overrides("output.snapshot_kimg=0.008")
    outcome = train(
        config,
        tmp_path / "run",
        max_minutes=0,
        evaluate=metric(lambda *given: seen.append(given) or []),
    )
    assert outcome.nimg == 8
    assert seen == []


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_an_impossible_share_is_refused_at_the_start(run_config, tmp_path, share):
    with pytest.raises(ConfigError, match="evaluate_fraction"):
        train(run_config, tmp_path / "run", evaluate=metric(by_weights), evaluate_fraction=share)
    assert not (tmp_path / "run").exists()
