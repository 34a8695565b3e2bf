"""Training of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from stylegan import distributed, images
from stylegan.data.dataset import ImageDataset
from stylegan.data.shards import ShardSet
from stylegan.devices import resolve_device
from stylegan.errors import ConfigError, check_fraction, check_not_negative, command_line, decided
from stylegan.image_size import Resolution, require_usable
from stylegan.interop.load import complete_snapshots
from stylegan.notebook import TextResult, picture_html
from stylegan.profiling.estimate import Estimate, estimate
from stylegan.progress import Counter, Progress, counter
from stylegan.training import loop
from stylegan.training.checkpoint import (
    RunRecord,
    check_folder_is_free,
    read_config,
    read_run_record,
)
from stylegan.training.config import (
    SMALLEST_PATH_SPACE,
    RunConfig,
    canonical,
    check_processes,
)
from stylegan.training.configure import Reasons, configure, deviations, published_run
from stylegan.training.evaluation import Evaluator
from stylegan.training.log import read_log, read_metrics
from stylegan.training.loop import Outcome
from stylegan.training.presets import PRESETS, find_preset
from stylegan.training.threads import available_threads
from stylegan.training.transfer import Transfer, read_transfer
from stylegan.workflows.initial import find_initial
from stylegan.workflows.recipe import Recipe, load_recipe
from stylegan.workflows.training_metrics import evaluator_for, training_protocols
from stylegan.workflows.training_set import open_training_set

METRICS_FRACTION = 0.05
METRICS_ARGUMENTS = ("metrics", "metrics_fraction", "weights_dir")


@dataclass(frozen=True, kw_only=True)
class TrainPlan(TextResult):
    """A run before it starts.

    Attributes:
        config: options of the run.
        reasons: for each option that a rule decided, why.
        deviations: how the run differs from the published one; empty if nobody published it.
        sizes: parameters, and memory per rank.
    """

    config: RunConfig
    reasons: Reasons
    deviations: tuple[str, ...]
    sizes: Estimate

    def __str__(self) -> str:
        """Return the sizes of the run, and the reasons for its values."""
        config, sizes = self.config, self.sizes
        per_rank = " of each process" if distributed.world_size() > 1 else ""
        lines = [
            f"{config.preset} at {config.generator.size}, batch {config.batch}, on "
            f"{config.runtime.device}: G {sizes.generator_parameters:,} and "
            f"D {sizes.discriminator_parameters:,} parameters",
            f"memory{per_rank}: about {sizes.total_bytes / 1e9:.1f} GB "
            f"({sizes.state_bytes / 1e9:.2f} weights and optimizers, "
            f"{sizes.activation_bytes / 1e9:.2f} activations)",
        ]
        for name, reason in self.reasons.items():
            value: Any = config
            for part in name.split("."):
                value = getattr(value, part)
            is_number = isinstance(value, float | int) and not isinstance(value, bool)
            lines.append(f"{name} = {f'{value:g}' if is_number else value}: {reason}")
        if self.deviations:
            lines.append(f"differs from the published run: {', '.join(self.deviations)}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class TrainResult(TextResult):
    """A run after `train`.

    Attributes:
        plan: options and sizes of the run.
        out: folder of the run.
        outcome: images shown, and why training ended; None after a dry run.
    """

    plan: TrainPlan
    out: Path
    outcome: Outcome | None

    @property
    def snapshot(self) -> Path | None:
        """Folder of the last snapshot, a source for `stylegan.load`; None if there is none."""
        return next(reversed(complete_snapshots(self.out)), None)

    @property
    def samples(self) -> Path | None:
        """PNG file with the last grid of samples; None if there is none."""
        return max((self.out / "samples").glob("[0-9]*.png"), default=None)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of the metrics that were computed at snapshots, oldest first."""
        return read_metrics(self.out)

    @property
    def transfer(self) -> Transfer | None:
        """What the networks have from the initial weights; None if they were random."""
        return read_transfer(self.out)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The records of the log, oldest first."""
        return read_log(self.out)

    def __str__(self) -> str:
        """Return how the run ended, or the plan after a dry run."""
        if self.outcome is None:
            return str(self.plan)
        ending = _ending(self.outcome)
        if not self.outcome.is_complete:
            ending += f"; {command_line('train', '--out', self.out)} continues it"
        return f"{self.out}: {self.outcome.nimg / 1000:.1f} kimg, {ending}"

    def _repr_html_(self) -> str:
        samples = self.samples if self.outcome is not None else None
        picture = "" if samples is None else picture_html(images.read(samples))
        return super()._repr_html_() + picture


def train(
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    preset: str | None = None,
    recipe: str | Path | None = None,
    config: RunConfig | None = None,
    resolution: Resolution | None = None,
    metrics: str | None = None,
    metrics_fraction: float | None = None,
    weights_dir: str | Path | None = None,
    max_minutes: float | None = None,
    dry_run: bool = False,
    on_plan: Callable[[TrainPlan], None] | None = None,
    observe: Callable[[loop.Progress], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> TrainResult:
    """Train a generator and a discriminator on images.

    The same call resumes the run in `out`: after a crash, a signal or a time limit. On the CPU the
    result is bit for bit that of a run that nothing interrupted. `out` alone is enough to resume
    it: the folder holds the options of the run.

    Args:
        data: folder (searched recursively) or zip of images, or folder or URL of shards. Not needed
            to resume the run in `out`.
        out: folder of the run.
        preset: a row of the preset table, such as stylegan2-f, stylegan-f, progan or
            stylegan2-small. Not needed to resume the run in `out`.
        recipe: a TOML file with options; options that are given here replace those of the file.
        config: options of the run, in place of a preset. `training.configure.resolve` decides
            those that are None.
        resolution: side of the images in pixels, or HEIGHTxWIDTH, such as 64 or 96x160: a base of
            at most 256 pixels, such as 4x4 or 3x5, doubled any number of times. Larger images are
            reduced. Default: the size of the images, or if they have different sizes, the largest
            power of two up to the median of their shorter sides.
        metrics: metrics of the snapshots, separated by commas, as `stylegan evaluate` takes them;
            "auto" for one that takes little time, "none" for none. Default: auto.
        metrics_fraction: maximum fraction of the time that metrics may take. The first and the
            last snapshot are always measured. Default: 0.05.
        weights_dir: folder with manually downloaded weights of feature networks.
        max_minutes: save a checkpoint and stop after this number of minutes.
        dry_run: only compute the configuration, the sizes and the memory.
        on_plan: called with the configuration and sizes before training starts.
        observe: called with the state of the run after each iteration.
        progress: called while images are read, and after each iteration.
        **options: options of the run, under the names of the command line: a short name such as
            `gamma=1` or `batch=16`, a section such as `loss={"gamma": 1}`, or a full name, as in
            `**{"loss.gamma": 1}`.

    Returns:
        The outcome, and where the snapshots are.

    Raises:
        StyleganError: if options, images or the folder cannot be used, or training diverges.
    """
    recipe_ = Recipe() if recipe is None else load_recipe(recipe, preset=preset)
    call: dict[str, Any] = {
        "preset": preset,
        "out": out,
        "resolution": resolution,
        "metrics": metrics,
        "metrics_fraction": metrics_fraction,
        "weights_dir": _text(weights_dir),
        "max_minutes": max_minutes,
    }
    call = {**dict.fromkeys(call), **recipe_.arguments, **_given(call)}
    run_dir = Path(_required(call["out"], "out"))
    record = None if config is not None else run_to_continue(call["preset"], run_dir)
    if record is not None:
        start = _on_this_machine(record.config)
        call |= {"resolution": start.generator.resolution, **record.metrics} | _given(call)
    else:
        start = config or find_preset(_required(call["preset"], "preset")).start
    options = recipe_.options | canonical(_given({"data": _text(data)}) | options, start.family)
    fraction = METRICS_FRACTION if call["metrics_fraction"] is None else call["metrics_fraction"]
    check_fraction("metrics_fraction", fraction)
    if call["max_minutes"] is not None:
        check_not_negative("max_minutes", call["max_minutes"])

    kept = _kept_options(run_dir, start, options)
    given = start.with_options(kept | options)
    is_dry = dry_run or bool(call.get("dry_run"))
    side = call["resolution"]
    if config is not None and side is None:
        side = config.generator.resolution
    _required(given.data.path or None, "data")
    is_missing = is_dry and side is not None and not Path(given.data.path).exists()
    _check_before_reading(given, resolution=side, metrics=call["metrics"] or "auto")
    if not is_dry and read_run_record(run_dir) is None:
        check_folder_is_free(run_dir)
    initial = find_initial(given.init_from, run_dir)
    dataset = None
    if not is_missing:
        with distributed.keep_others_waiting():
            dataset = open_training_set(
                given.data,
                resolution=side,
                run_dir=run_dir,
                keeps_file=not is_dry,
                progress=progress,
            )
        if not is_dry and isinstance(dataset, ImageDataset):
            path = Path(dataset.path)
            if path != Path(given.data.path):  # the images had to be prepared
                options = options | {"data.path": str(path)}
    decided_config, reasons = configure(
        start,
        kept | options,
        **_sizes(dataset, given, side),
        initial=initial.architectures,
        grown_to=initial.grown_to,
    )
    check_processes(decided_config, distributed.world_size())
    unchanged = [] if record is None else [name for name in reasons if name not in options]
    reasons |= dict.fromkeys([*unchanged, *kept], "as the run was started")
    plan = TrainPlan(
        config=decided_config,
        reasons=reasons,
        deviations=_deviations(decided_config, recipe_),
        sizes=estimate(decided_config),
    )
    if on_plan is not None:
        on_plan(plan)
    if is_dry or dataset is None:
        return TrainResult(plan=plan, out=run_dir, outcome=None)
    with distributed.keep_others_waiting():
        evaluate = _evaluator(
            call["metrics"] or "auto", decided_config, dataset, weights_dir=call["weights_dir"]
        )
    outcome = loop.train(
        decided_config,
        run_dir,
        dataset=dataset,
        initial=initial.networks,
        history=initial.history,
        observe=observe or _reporting(counter(progress, "training, kimg", scale=1e-3)),
        max_minutes=call["max_minutes"],
        evaluate=evaluate,
        evaluate_fraction=fraction,
        metrics=_given({name: call[name] for name in METRICS_ARGUMENTS}),
        weights_dir=call["weights_dir"],
    )
    return TrainResult(plan=plan, out=run_dir, outcome=outcome)


def run_to_continue(preset: str | None, out: str | Path | None) -> RunRecord | None:
    """Return the run in a folder if a call continues it without naming a preset.

    Args:
        preset: of the call; None if it names none.
        out: folder of the run; None if the call names none.

    Returns:
        The run in `out`; None if it holds none, or the call names a preset.

    Raises:
        CheckpointError: if the options of the run cannot be read.
    """
    return None if preset is not None or out is None else read_run_record(Path(out))


def _check_before_reading(given: RunConfig, *, resolution: Resolution | None, metrics: str) -> None:
    """Report mistakes that do not depend on the images, before these are read.

    Raises:
        ConfigError: if the resolution, a metric, or another option cannot work.
    """
    if resolution is not None:
        require_usable(resolution, doublings=1)
    if metrics not in ("auto", "none"):
        training_protocols(metrics)
    if given.init_from is None and given.growth is None:  # these depend on the images
        # unknown yet: a size that no option excludes
        configure(given, resolution=resolution or max(SMALLEST_PATH_SPACE.values()))


def _on_this_machine(config: RunConfig) -> RunConfig:
    """Reset the device and the number of threads of a run if this machine does not have them."""
    runtime = config.runtime
    if runtime.threads is not None and runtime.threads > available_threads():
        runtime = replace(runtime, threads=None)
    try:
        resolve_device(runtime.device or "auto")
    except ConfigError:
        runtime = replace(runtime, device=None)
    return replace(config, runtime=runtime)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _required(value: Any, name: str) -> Any:
    if value is None:
        raise ConfigError(f"{name} is missing")
    return value


def _kept_options(run_dir: Path, start: RunConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that a run keeps, although the call that resumes it does not give them.

    Their defaults depend on the machine or on the length of the run, or were others in version 0.1.
    """
    recorded = read_config(run_dir)
    if recorded is None or recorded.preset != start.preset:
        return {}
    kept: dict[str, Any] = {
        "precision": recorded.precision,
        "ema.w_avg_beta": recorded.ema.w_avg_beta,
    }
    defaults: dict[str, Any] = {
        "precision": start.precision,
        "ema.w_avg_beta": start.ema.w_avg_beta,
    }
    for name in ("background", "depth"):  # before version 0.3, other defaults
        kept[f"data.{name}"] = getattr(recorded.data, name)
        defaults[f"data.{name}"] = getattr(start.data, name)
    given = start.with_options(options)
    if recorded.growth is not None and given.growth is not None:
        for name in ("train_kimg", "fade_kimg"):
            if getattr(given.growth, name) is None:
                kept[f"growth.{name}"] = getattr(recorded.growth, name)
    threads = recorded.runtime.threads
    if threads is not None and threads <= available_threads():
        kept["runtime.threads"], defaults["runtime.threads"] = threads, None
    return {
        name: value
        for name, value in kept.items()
        if name not in options and value != defaults.get(name)
    }


def _sizes(
    dataset: ImageDataset | ShardSet | None, config: RunConfig, resolution: Resolution | None
) -> dict[str, Any]:
    """Return the sizes of the images, or of RGB images if there are none yet.

    Raises:
        ConfigError: if the run is to learn labels and there are none.
    """
    if config.data.labels and (dataset is None or dataset.label_table is None):
        raise ConfigError(
            f"--cond needs a label for each image in dataset.json, which {config.data.path} does "
            "not have; `stylegan data prepare --labels-from folders` can make them"
        )
    if dataset is None:
        return {"resolution": resolution}
    return {
        "resolution": dataset.resolution,
        "img_channels": dataset.num_channels,
        "label_dim": dataset.label_dim if config.data.labels else 0,
        "num_images": len(dataset) // (2 if config.data.mirror else 1),
    }


def _deviations(config: RunConfig, recipe: Recipe) -> tuple[str, ...]:
    """Compare a run with the published run of its recipe or preset."""
    published = published_run(config.preset) if config.preset in PRESETS else None
    if published is None:
        return ()
    if recipe.source is not None:
        resolution = recipe.arguments.get("resolution", published.generator.resolution)
        device = {"device": config.runtime.device}
        published, _ = configure(config.preset, recipe.options | device, resolution=resolution)
    return tuple(deviations(config, published))


def _evaluator(
    metrics: str,
    config: RunConfig,
    dataset: ImageDataset | ShardSet,
    *,
    weights_dir: str | Path | None,
) -> Evaluator | None:
    """Load the metrics of the snapshots, so that errors appear before training starts."""
    if isinstance(dataset, ShardSet):
        if metrics in ("auto", "none"):
            return None
        raise ConfigError(
            f"metrics {metrics} cannot be computed with a data set in shards; measure snapshots "
            "by `stylegan evaluate --data` with a zip"
        )
    return evaluator_for(
        metrics,
        dataset,
        seed=config.seed,
        device=torch.device(decided(config.runtime.device, "runtime.device")),
        mirror=config.data.mirror,
        weights_dir=None if weights_dir is None else Path(weights_dir),
    )


def _reporting(count: Counter | None) -> Callable[[loop.Progress], None] | None:
    if count is None:
        return None
    return lambda state: count(state.nimg, state.total_nimg)


def _ending(outcome: Outcome) -> str:
    if outcome.is_complete:
        return "complete"
    if outcome.signal is not None:
        name = Signals(outcome.signal).name
        return f"stopped by {name} and saved"
    return "the time limit is reached, saved"
