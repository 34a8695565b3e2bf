"""What each rank of a test on metrics runs: evaluations while training, made up or real."""

import os
import signal
import threading
import time

import torch

from stylegan import distributed
from stylegan.data.dataset import ImageDataset
from stylegan.models import io
from stylegan.models.base import Networks
from stylegan.models.stylegan2 import Generator, GeneratorConfig
from stylegan.training.evaluation import Evaluation, Evaluator, assist
from stylegan.training.log import RunLog
from stylegan.training.signals import SignalWatch
from stylegan.workflows.training_metrics import evaluator_for

NUM_EXCHANGES = 5


def happen(case, name, step):
    """Do to one process what the case is about, before an exchange."""
    if name != "second" or step != 2:
        return
    what, number = case.split("-")
    if what in ("signal_while_waiting", "signal_and_failure"):
        if distributed.rank() != int(number):
            time.sleep(0.8)
            if what == "signal_and_failure":
                raise RuntimeError("out of memory")
        else:
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    elif what == "failure_and_signal" and distributed.rank() != int(number):
        os.kill(os.getpid(), signal.SIGTERM)
    elif distributed.rank() == int(number):
        if what in ("failure", "failure_and_signal"):
            raise RuntimeError("out of memory")
        if what == "signal":
            os.kill(os.getpid(), signal.SIGTERM)


def made_up(case):
    def measure(generator, nimg, names):
        for name in names:
            for step in range(NUM_EXCHANGES):
                happen(case, name, step)
                parts = distributed.gather(torch.tensor([distributed.rank() + 1.0]))
            if (
                case == "failure_of_leaders_own-0"
                and name == "second"
                and distributed.is_main_process()
            ):
                raise RuntimeError("singular matrix")
            record = {"metric": name, "lower_is_better": True, "seconds": 1.0}
            yield record | {"value": float(sum(parts))} if parts else None

    return Evaluator(names=["first", "second", "third"], measure=measure)


def evaluate_as_rank(run_dir, data, case):
    """Evaluate: results go into RUN_DIR/metrics.jsonl, what each rank saw into RUN_DIR/RANK."""
    with distributed.process_group():
        evaluate(run_dir, data, case)
    return 0


def evaluate(run_dir, data, case):
    torch.manual_seed(0)
    sizes = {"resolution": 16, "channel_base": 64, "channel_max": 8}
    generator = Generator(GeneratorConfig(z_dim=8, w_dim=8, mapping_layers=2, **sizes))
    generator.eval().requires_grad_(False)
    if case == "real":
        dataset = ImageDataset(data, resolution=16)
        device = torch.device("cpu")
        evaluator = evaluator_for("swd24", dataset, seed=0, device=device, mirror=False)
    else:
        evaluator = made_up(case)
    with SignalWatch() as signals:
        if distributed.is_main_process():
            snapshot = run_dir / "snapshots" / "000000100"
            io.save(Networks(generator_ema=generator), snapshot)
            log = RunLog(run_dir, nimg=100)
            evaluation = Evaluation(evaluator, fraction=1.0, run_dir=run_dir, log=log)
            evaluation.run(
                generator,
                100,
                evaluator.names,
                snapshot=snapshot,
                interruptible=signals.stopping_evaluations,
            )
            log.close()
        else:
            assist(
                evaluator,
                generator,
                100,
                evaluator.names,
                interruptible=signals.stopping_evaluations,
            )
        met = distributed.all_reduce_max(distributed.rank())  # all come here, in step
        summary = f"met {met}, received {signals.received and signals.received.name}"
        (run_dir / str(distributed.rank())).write_text(summary)
