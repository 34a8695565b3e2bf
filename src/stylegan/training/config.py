"""The options of a run: frozen, checked, written to and read from JSON."""

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from stylegan.errors import ConfigError, check_fraction, check_not_negative, check_positive
from stylegan.losses.objective import LossConfig
from stylegan.models.base import DiscriminatorConfig, GeneratorConfig
from stylegan.models.growth import SMALLEST, Growth
from stylegan.models.registry import FAMILIES
from stylegan.ops.normalize import stddev_group
from stylegan.training import fields

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The real images.

    Attributes:
        path: folder or zip.
        mirror: show each image flipped as well.
        on_bad: what to do with images that cannot be used: leave them out, or fail.
        labels: whether the networks learn the set's labels.
    """

    path: str
    mirror: bool = False
    on_bad: Literal["skip", "fail"] = "skip"
    labels: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Adam, for each network. Lazy regularization corrects lr and betas on top of these.

    Attributes:
        order: which network takes its step first in an iteration.
        generator_lr: learning rate of the generator.
        discriminator_lr: learning rate of the discriminator.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
    """

    order: Literal["generator-first", "discriminator-first"] = "generator-first"
    generator_lr: float = 0.002
    discriminator_lr: float = 0.002
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("generator_lr", "discriminator_lr", "eps"):
            check_positive(f"optim.{name}", getattr(self, name))
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"optim.{name} {getattr(self, name)}",
                    expected="from 0 to below 1",
                    fix="choose another decay",
                )


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Running means that do not take part in training.

    Attributes:
        half_life_kimg: of the generator's weights, in thousands of images.
        rampup: the half-life is at most this share of the images shown; None for no ramp.
        beta: share of the old weights that stays in each iteration, whatever its batch, in place
            of the half-life; None for the half-life.
        w_avg_beta: share of the old mean of w that stays in each iteration.
    """

    half_life_kimg: float = 10.0
    rampup: float | None = None
    beta: float | None = None
    w_avg_beta: float = 0.998

    def __post_init__(self) -> None:
        """Check every value."""
        check_positive("ema.half_life_kimg", self.half_life_kimg)
        if self.rampup is not None:
            check_positive("ema.rampup", self.rampup)
        if self.beta is not None:
            check_fraction("ema.beta", self.beta)
        check_fraction("ema.w_avg_beta", self.w_avg_beta)


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """Progressive growing: how the resolution follows from the images shown.

    Attributes:
        initial_resolution: side of the first images, a power of two from 4.
        train_kimg: length of each stage at one resolution, in thousands of images.
        fade_kimg: length of each fade to the next one.
        batches: images in an iteration, by resolution; `RunConfig.batch` where none is named.
        lrs: learning rate of both networks, by resolution; those of `optim` where none is named.
    """

    initial_resolution: int = 8
    train_kimg: float = 600.0
    fade_kimg: float = 600.0
    batches: dict[str, int] = field(default_factory=dict)
    lrs: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value."""
        _ = self.schedule
        for name in ("batches", "lrs"):
            for key, value in getattr(self, name).items():
                side = int(key) if key.isdecimal() else 0
                if side < SMALLEST or side & (side - 1) or key != str(side):
                    raise ConfigError(
                        f"growth.{name} with a key {key!r}",
                        expected=f"resolutions, powers of two from {SMALLEST}",
                        fix=f"write growth.{name}=8:...,16:...",
                    )
                check_positive(f"growth.{name} at {key}", value)

    @property
    def schedule(self) -> Growth:
        """The arithmetic of it."""
        return Growth(
            initial_resolution=self.initial_resolution,
            train_kimg=self.train_kimg,
            fade_kimg=self.fade_kimg,
        )


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """The length of a run and what it writes. A resumed run may change all of it.

    Attributes:
        total_kimg: length of the run, in thousands of real images shown.
        tick_kimg: interval between two lines of the log.
        snapshot_kimg: interval between two snapshots, each with a grid of samples.
        checkpoint_kimg: interval between two checkpoints.
        keep_checkpoints: number of checkpoints that are kept.
        samples: number of images in the grid of samples.
    """

    total_kimg: float = 25000.0
    tick_kimg: float = 4.0
    snapshot_kimg: float = 200.0
    checkpoint_kimg: float = 200.0
    keep_checkpoints: int = 2
    samples: int = 64

    def __post_init__(self) -> None:
        """Check every value."""
        for entry in dataclasses.fields(self):
            check_positive(f"output.{entry.name}", getattr(self, entry.name))


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how a run computes. A resumed run may change all of it.

    Another device draws other noise; the other options change results by rounding at most.

    Attributes:
        device: "cpu", "cuda" or "mps".
        workers: worker processes that decode images, used if the images do not fit in memory.
        cache_gb: memory for decoded images, in GB.
        batch_gpu: micro-batch size per process; gradients are accumulated over the process's
            shard of the batch. None: one micro-batch.
        activation_checkpointing: keep only the inputs of the networks' blocks for the backward
            pass and recompute the rest; this takes less memory and more time.
        compile: compile the networks' blocks with torch.compile, for passes without second
            derivatives. Compiling takes minutes at the start.
    """

    device: str = "cpu"
    workers: int = 2
    cache_gb: float = 4.0
    batch_gpu: int | None = None
    activation_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        if self.batch_gpu is not None:
            check_positive("runtime.batch_gpu", self.batch_gpu)
        for name in ("workers", "cache_gb"):
            check_not_negative(f"runtime.{name}", getattr(self, name))


MOVED = {
    f"output.{name}": f"runtime.{name}"
    for name in ("device", "workers", "cache_gb", "batch_gpu", "compile")
} | {"output.recompute": "runtime.activation_checkpointing"}
"""Names of fields in version 0.1, and their names now."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All options of one run.

    Attributes:
        preset: the row of the preset table that the run started from.
        family: the model family, a key of `models.registry.FAMILIES`.
        generator: options of the generator.
        discriminator: options of the discriminator.
        data: the real images.
        loss: loss terms and their weights.
        optim: Adam.
        ema: running means.
        growth: progressive growing; None trains at the full resolution from the start.
        output: length of the run, and what it writes when.
        runtime: device, memory and processes.
        batch: images in an iteration, at the full resolution.
        seed: of everything random.
        precision: of the convolutions; weights and sums of RGB stay float32. "tf32" lets CUDA
            round their inputs; "fp16" is float16 in the four highest resolutions of StyleGAN2.
        init_from: where the initial weights came from; None for random ones.
    """

    preset: str
    family: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    data: DataConfig
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    growth: GrowthConfig | None = None
    output: OutputConfig = field(default_factory=OutputConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    batch: int = 32
    seed: int = 0
    precision: Precision = "fp32"
    init_from: str | None = None

    def __post_init__(self) -> None:
        """Check what concerns more than one part."""
        check_family(self.family)
        check_positive("batch", self.batch)
        if self.precision == "fp16" and self.family != "stylegan2":
            raise ConfigError(
                f"precision fp16 for {self.family}",
                expected="stylegan2, whose layers keep within its range",
                fix="add --precision bf16",
            )
        if self.data.labels != (self.generator.c_dim > 0):
            raise ConfigError(
                f"c_dim {self.generator.c_dim} with data.labels {self.data.labels}",
                expected="labels for a network that has some, and the reverse",
                fix="add --cond, which sets both, or leave both out",
            )
        for name in ("resolution", "img_channels", "c_dim"):
            if getattr(self.generator, name) != getattr(self.discriminator, name):
                raise ConfigError(
                    f"generator.{name} {getattr(self.generator, name)} and "
                    f"discriminator.{name} {getattr(self.discriminator, name)}",
                    expected="the same value",
                    fix="set both",
                )
        batches = {"batch": self.batch}
        if self.growth is not None:
            _check_growth(self, self.growth)
            batches |= {f"growth.batches {key}": n for key, n in self.growth.batches.items()}
        for name, batch in batches.items():
            _check_batch(name, batch, self)
        group = max(group_of(self, batch) for batch in batches.values())
        if self.runtime.batch_gpu is not None and self.runtime.batch_gpu < group:
            raise ConfigError(
                f"--batch-gpu {self.runtime.batch_gpu}",
                expected=f"at least {group} images, which D compares with one another "
                "(discriminator.mbstd_group_size)",
                fix="raise it",
            )
        _check_styles(self)
        architectures = [_architecture(self.generator), _architecture(self.discriminator)]
        if architectures[0] == "mipmap" != architectures[1]:
            raise ConfigError(
                f"generator.architecture mipmap with discriminator.architecture {architectures[1]}",
                expected="mipmap for both: no other discriminator takes images of several sizes",
                fix="add --set discriminator.architecture=mipmap",
            )
        if self.loss.adversarial == "wgan-gp" and architectures[0] == "mipmap":
            raise ConfigError(
                "loss.adversarial wgan-gp with images at each resolution",
                expected="logistic",
                fix="take another loss, or networks of another preset",
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, from which `from_json` makes an equal config."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Make a config from what `to_json` returned, also in version 0.1.

        Raises:
            ConfigError: if a field is unknown, missing or of another type.
        """
        data = _migrated(data)
        family = data.get("family") if isinstance(data, dict) else None
        if family is not None:
            check_family(family)
        return typing.cast(Self, fields.build(cls, data, types_of=_types_of(family)))

    def with_overrides(self, *overrides: str) -> Self:
        """Return a config with fields replaced, as by `with_overrides("optim.beta2=0.999")`.

        A field of `growth` also switches growing on, with the defaults of the other fields.

        Raises:
            ConfigError: if a field is unknown or the text is not of its type.
        """
        data = self.to_json()
        for override in overrides:
            key, equals, value = override.partition("=")
            text = MOVED.get(key.strip(), key) + equals + value
            fields.override(type(self), data, text, types_of=_types_of(self.family))
        return type(self).from_json(data)


def _migrated(data: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON data of a config under the names of this version."""
    output = data.get("output") if isinstance(data, dict) else None
    if not isinstance(output, dict) or "runtime" in data:
        return data
    runtime = {
        new.removeprefix("runtime."): output[name]
        for name, new in ((old.removeprefix("output."), new) for old, new in MOVED.items())
        if name in output
    }
    kept = {name: value for name, value in output.items() if f"output.{name}" not in MOVED}
    return {**data, "output": kept, "runtime": runtime}


def _types_of(family: object) -> fields.TypesOf:
    """Return what gives a part its fields' types; those of the networks depend on the family."""

    def types_of(kind: Any) -> dict[str, Any]:
        hints = typing.get_type_hints(kind)
        if kind is RunConfig and isinstance(family, str) and family in FAMILIES:
            networks = FAMILIES[family]
            hints["generator"] = networks.generator_config
            hints["discriminator"] = networks.discriminator_config
        return hints

    return types_of


def _architecture(network: GeneratorConfig | DiscriminatorConfig) -> str:
    # ProGAN and StyleGAN have one architecture, which grows
    return str(getattr(network, "architecture", "growing"))


def _check_styles(config: RunConfig) -> None:
    """Refuse losses on styles where nothing maps z to them."""
    for name in ("pl_weight", "mixing_prob"):
        weight = getattr(config.loss, name)
        if weight > 0 and getattr(config.generator, "mapping_layers", 0) == 0:
            raise ConfigError(
                f"loss.{name} {weight:g} with a generator that has no mapping network",
                expected="0",
                fix=f"leave loss.{name} out, or take a preset with styles, from stylegan-c on",
            )


def _check_growth(config: RunConfig, growth: GrowthConfig) -> None:
    for name in ("generator", "discriminator"):
        if (found := _architecture(getattr(config, name))) != "growing":
            raise ConfigError(
                f"growth with {name}.architecture {found}",
                expected="networks that grow",
                fix="set growth=none, or take a preset that grows",
            )
    if growth.initial_resolution > config.generator.resolution:
        raise ConfigError(
            f"growth.initial_resolution {growth.initial_resolution}",
            expected=f"at most the resolution, {config.generator.resolution}",
            fix="lower it",
        )


def _check_batch(name: str, batch: int, config: RunConfig) -> None:
    divisors = {
        "discriminator.mbstd_group_size": stddev_group(
            config.discriminator.mbstd_group_size, batch
        ),
        "loss.pl_batch_shrink": config.loss.pl_batch_shrink if config.loss.pl_weight > 0 else 1,
    }
    for part, divisor in divisors.items():
        if batch % divisor:
            raise ConfigError(
                f"{name} {batch}",
                expected=f"a multiple of {part} {divisor}",
                fix="change one of the two",
            )


def group_of(config: RunConfig, batch: int, *, shrink: int = 1) -> int:
    """Return how many rows of a batch must not be torn: those that D compares with one another.

    Args:
        config: the run's options.
        batch: rows of the main phases.
        shrink: by how much that of the phase in question is smaller, as are its groups.
    """
    group = stddev_group(config.discriminator.mbstd_group_size, batch)
    return group // shrink if group % shrink == 0 else 1


def check_processes(config: RunConfig, num: int) -> None:
    """Check that each of `num` processes gets a share of every batch.

    Raises:
        ConfigError: if one would have nothing to do.
    """
    batches = (
        [config.batch] if config.growth is None else [config.batch, *config.growth.batches.values()]
    )
    for batch in batches:
        group = group_of(config, batch)
        if batch // group < num:
            raise ConfigError(
                f"batch {batch} in groups of {group} (discriminator.mbstd_group_size) for {num} "
                "processes",
                expected=f"at least {num * group} images, a group for each process",
                fix="raise --batch or the batches of growth, or start fewer processes",
            )
        shrink = config.loss.pl_batch_shrink
        group = group_of(config, batch, shrink=shrink)
        if config.loss.pl_weight > 0 and batch // shrink // group < num:
            raise ConfigError(
                f"path lengths of {batch // shrink} images in groups of {group} for {num} "
                "processes",
                expected=f"at least {num * group} images, a group for each process",
                fix="raise --batch, lower loss.pl_batch_shrink, or start fewer processes",
            )


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """List the fields that differ and would change what is computed, as "field: old -> new".

    Where the images lie and how bad ones are met is none of them: the fingerprint is compared.
    """
    before, after = fields.flat(old.to_json()), fields.flat(new.to_json())
    harmless = ("output.", "runtime.", "preset", "data.path", "data.on_bad")
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(harmless)
    ]


def check_family(family: str) -> None:
    """Raise ConfigError unless there is such a family."""
    if family not in list(FAMILIES):
        raise ConfigError(
            f"family {family!r}",
            expected="one of " + ", ".join(FAMILIES),
            fix="choose one of these",
        )
