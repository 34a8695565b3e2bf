"""The options of a run: frozen dataclasses, checked, written to and read from JSON.

This is the only declaration of each option. The command line, recipes and Python use the same
names: "loss.gamma", or one of `SHORT_NAMES`.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from stylegan.augmentation.policy import AugmentConfig
from stylegan.data.readers import Alpha, KeptDepth, Reading, reading_of
from stylegan.errors import (
    ConfigError,
    check_fraction,
    check_not_negative,
    check_positive,
    decided,
)
from stylegan.image_size import SMALLEST
from stylegan.losses.objective import LossConfig
from stylegan.models.base import DiscriminatorConfig, GeneratorConfig
from stylegan.models.growth import Growth
from stylegan.models.registry import FAMILIES
from stylegan.ops.normalize import stddev_group
from stylegan.training import fields

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The real images.

    Attributes:
        path: folder or zip of images, or folder or URL of shards.
        mirror: also train on each image flipped horizontally; an epoch is then twice as long.
        on_bad: what to do about images that cannot be used: "limit" leaves out up to a tenth of
            them, "skip" any number, "fail" stops at the first.
        labels: train both networks on the labels of the data set.
        holdout: fraction of the images that are not trained on. The log then has the
            discriminator's output for them, which shows overfitting.
        background: compose transparent pixels on this color: a CSS name, or #rrggbb. None: keep
            transparency if at least half of the images have it.
        range: of floats, the values that become black and white, as LOW,HIGH; others are clipped.
            None: that of a prepared set, else 0,1.
        alpha: "auto" takes the last of four channels of an array for alpha, "none" does not.
        depth: "uint8" rounds deeper pixels to 8 bits.
    """

    path: str
    mirror: bool = False
    on_bad: Literal["limit", "skip", "fail"] = "limit"
    labels: bool = False
    holdout: float = 0.0
    background: str | None = None
    range: str | None = None
    alpha: Alpha = "auto"
    depth: KeptDepth = "keep"

    def __post_init__(self) -> None:
        """Check every value."""
        check_fraction("data.holdout", self.holdout)
        self.reading  # noqa: B018  (checks its options)

    @property
    def reading(self) -> Reading:
        """How files become pixels."""
        return reading_of(
            background=self.background, range=self.range, alpha=self.alpha, depth=self.depth
        )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Adam of each network, before the correction for lazy regularization.

    Attributes:
        order: the network that takes its step first in an iteration.
        generator_lr: learning rate of the generator, where `growth.lrs` has no other.
        discriminator_lr: learning rate of the discriminator, where `growth.lrs` has no other.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the square root of the second moment.
        freeze_d: number of layers of the discriminator, from the image on, that keep their initial
            weights (Freeze-D, Mo et al. 2020), for fine-tuning on few images. In a block they are
            counted as fromrgb, conv0, conv1, skip.
        freeze_mapping: keep the initial weights of the mapping network.
    """

    order: Literal["generator-first", "discriminator-first"] = "generator-first"
    generator_lr: float = 0.002
    discriminator_lr: float = 0.002
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-8
    freeze_d: int = 0
    freeze_mapping: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("generator_lr", "discriminator_lr", "eps"):
            check_positive(f"optim.{name}", getattr(self, name))
        check_not_negative("optim.freeze_d", self.freeze_d)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"optim.{name} must be from 0 to below 1, got {getattr(self, name):g}"
                )


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving averages (EMA): of the generator's weights, and of w.

    Attributes:
        half_life_kimg: half-life of the EMA of weights, in thousands of images. None: that of the
            preset.
        rampup: upper bound of the half-life, as a fraction of the images shown so far. None: no
            bound.
        beta: decay of the EMA of weights per iteration, in place of the half-life. None: the
            half-life decides.
        w_avg_beta: decay of the EMA of w per iteration: 0.995 in the code of StyleGAN and
            StyleGAN2, 0.998 in that of StyleGAN3.
    """

    half_life_kimg: float | None = 10.0
    rampup: float | None = None
    beta: float | None = None
    w_avg_beta: float = 0.998

    def __post_init__(self) -> None:
        """Check every value."""
        if self.half_life_kimg is not None:
            check_positive("ema.half_life_kimg", self.half_life_kimg)
        if self.rampup is not None:
            check_positive("ema.rampup", self.rampup)
        if self.beta is not None:
            check_fraction("ema.beta", self.beta)
        check_fraction("ema.w_avg_beta", self.w_avg_beta)


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """Progressive growing: the resolution as a function of the images shown.

    Attributes:
        initial_resolution: nominal resolution of the first images, a power of two from 4. None:
            that which the initial weights have grown to.
        train_kimg: length of each stage at one resolution, in thousands of images. None: that of
            the preset, shortened in proportion for a shorter run.
        fade_kimg: length of each fade to the next resolution. None: as for `train_kimg`.
        batches: batch size by nominal resolution, `batch` for those that are not named. None: those
            of the preset, scaled by the batch size.
        lrs: learning rate of both networks by nominal resolution; those of `optim` for others.
            None: those of the preset.
    """

    initial_resolution: int | None = 8
    train_kimg: float | None = 600.0
    fade_kimg: float | None = 600.0
    batches: dict[str, int] | None = field(default_factory=dict)
    lrs: dict[str, float] | None = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value."""
        # a value that is not decided yet cannot be wrong
        Growth(
            initial_resolution=self.initial_resolution or SMALLEST,
            train_kimg=self.train_kimg or 0.0,
            fade_kimg=1.0 if self.fade_kimg is None else self.fade_kimg,
        )
        for name in ("batches", "lrs"):
            for key, value in (getattr(self, name) or {}).items():
                side = int(key) if key.isdecimal() else 0
                if side < SMALLEST or side & (side - 1) or key != str(side):
                    raise ConfigError(
                        f"growth.{name} must be pairs of a resolution (a power of two from "
                        f"{SMALLEST}) and a value, such as 8:...,16:..., got the key {key!r}"
                    )
                check_positive(f"growth.{name} at {key}", value)

    @property
    def schedule(self) -> Growth:
        """The level of detail as a function of the images shown."""
        return Growth(
            initial_resolution=decided(self.initial_resolution, "growth.initial_resolution"),
            train_kimg=decided(self.train_kimg, "growth.train_kimg"),
            fade_kimg=decided(self.fade_kimg, "growth.fade_kimg"),
        )


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """The length of a run and what it writes. A resumed run may change all of it.

    Attributes:
        total_kimg: length of the run, in thousands of real images shown. A run that is shorter
            than its preset compresses the schedule of progressive growing.
        tick_kimg: interval between two lines of the log. None: that of the preset, or a 200th of
            the run if that is shorter, but at least 0.08.
        snapshot_kimg: interval between two snapshots, each with a grid of samples. None: that of
            the preset, or a 20th of the run if that is shorter, but at least 0.5.
        checkpoint_kimg: interval between two checkpoints. None: that of the snapshots.
        keep_checkpoints: number of checkpoints that are kept.
        samples: number of images in the grid of samples.
    """

    total_kimg: float = 25000.0
    tick_kimg: float | None = 4.0
    snapshot_kimg: float | None = 200.0
    checkpoint_kimg: float | None = 200.0
    keep_checkpoints: int = 2
    samples: int = 64

    def __post_init__(self) -> None:
        """Check every value."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is not None:
                check_positive(f"output.{entry.name}", value)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how a run computes. A resumed run may change all of it.

    Another device draws other noise; the other options change results by rounding at most.

    Attributes:
        device: device to compute on. None: the first available of cuda, mps and cpu.
        workers: worker processes that decode images, used if the images do not fit in memory.
        cache_gb: memory for decoded images, in GB.
        batch_gpu: micro-batch size per process; gradients are accumulated over the process's
            shard of the batch. None: one micro-batch.
        activation_checkpointing: keep only the inputs of the networks' blocks for the backward
            pass and recompute the rest; this takes less memory and more time.
        compile: compile the networks' blocks with torch.compile, for passes without second
            derivatives. Compiling takes minutes at the start.
        threads: CPU threads of each process. None: one less than there are cores, or
            OMP_NUM_THREADS. A run resumed with another number may round differently.
    """

    device: str | None = "cpu"
    workers: int = 2
    cache_gb: float = 4.0
    batch_gpu: int | None = None
    activation_checkpointing: bool = False
    compile: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("batch_gpu", "threads"):
            if getattr(self, name) is not None:
                check_positive(f"runtime.{name}", getattr(self, name))
        for name in ("workers", "cache_gb"):
            check_not_negative(f"runtime.{name}", getattr(self, name))


MOVED = {
    f"output.{name}": f"runtime.{name}"
    for name in ("device", "workers", "cache_gb", "batch_gpu", "compile")
} | {"output.recompute": "runtime.activation_checkpointing"}
"""Names of options in version 0.1, and their names now."""

SHORT_NAMES = {
    "data": ("data.path",),
    "mirror": ("data.mirror",),
    "cond": ("data.labels",),
    "on_bad": ("data.on_bad",),
    "holdout": ("data.holdout",),
    "background": ("data.background",),
    "range": ("data.range",),
    "kimg": ("output.total_kimg",),
    "total_kimg": ("output.total_kimg",),
    "snapshot_kimg": ("output.snapshot_kimg",),
    "checkpoint_kimg": ("output.checkpoint_kimg",),
    "gamma": ("loss.gamma",),
    "channel_base": ("generator.channel_base", "discriminator.channel_base"),
    "channel_max": ("generator.channel_max", "discriminator.channel_max"),
    "pl_space": ("loss.pl_space",),
    "lecam": ("loss.lecam_weight",),
    "freeze_d": ("optim.freeze_d",),
    "freeze_mapping": ("optim.freeze_mapping",),
    "device": ("runtime.device",),
    "workers": ("runtime.workers",),
    "augment": ("augment.mode",),
    "augment_set": ("augment.set",),
    "augment_target": ("augment.target",),
    "augment_kimg": ("augment.kimg",),
    "batch_gpu": ("runtime.batch_gpu",),
    "threads": ("runtime.threads",),
}
"""Short names of options; some set two fields."""

BY_RULE = (
    "loss.gamma",
    "augment.kimg",
    "precision",
    "ema.half_life_kimg",
    "growth.initial_resolution",
    "growth.train_kimg",
    "growth.fade_kimg",
    "growth.batches",
    "growth.lrs",
    "output.tick_kimg",
    "output.snapshot_kimg",
    "output.checkpoint_kimg",
    "runtime.device",
)
"""Options for which None means that `training.configure.resolve` decides."""

SMALLEST_PATH_SPACE = {"lpips": 16, "efficientnet-lite0": 8}
"""Smallest side of images, in pixels, for path lengths of features."""

FROM_IMAGES = tuple(
    f"{network}.{name}"
    for network in ("generator", "discriminator")
    for name in ("resolution", "img_channels", "c_dim")
)
"""Fields of the networks that follow from the images; they are no options."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All options of one run.

    Options may be left to rules by None; `training.configure.resolve` decides them.

    Attributes:
        preset: the row of the preset table that the run started from.
        family: the model family, a key of `models.registry.FAMILIES`.
        generator: options of the generator.
        discriminator: options of the discriminator.
        data: the real images.
        loss: loss terms and their weights.
        augment: augmentation of the discriminator's images.
        optim: Adam.
        ema: moving averages.
        growth: progressive growing; None trains at the full resolution from the start.
        output: length of the run, and what it writes when.
        runtime: device, memory and processes.
        batch: images per iteration over all ranks, at the full resolution. Batch sizes of smaller
            resolutions are scaled with it.
        seed: seed of everything random.
        precision: precision of the convolutions. Weights, the sum of RGB and losses stay in
            float32. "tf32" lets CUDA round inputs of convolutions; "fp16" is float16 in the four
            highest resolutions of StyleGAN2. None: bf16 on hardware that supports it natively,
            else fp32.
        init_from: start from these weights: any source that `stylegan convert` reads, or a run.
            None: random weights.
    """

    preset: str
    family: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    data: DataConfig
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    growth: GrowthConfig | None = None
    output: OutputConfig = field(default_factory=OutputConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    batch: int = 32
    seed: int = 0
    precision: Precision | None = "fp32"
    init_from: str | None = None

    def __post_init__(self) -> None:
        """Check what concerns this level only; `check` compares the sections."""
        check_family(self.family)
        check_positive("batch", self.batch)

    def check(self) -> None:
        """Check that every option is decided, and that the sections fit each other.

        Raises:
            ConfigError: if they do not.
        """
        if names := undecided(self):
            raise ConfigError(f"{', '.join(names)} must be decided first, by `resolve`")
        if self.precision == "fp16" and self.family != "stylegan2":
            raise ConfigError(
                f"precision fp16 works for stylegan2 only, not for {self.family}; use bf16"
            )
        if self.data.labels != (self.generator.c_dim > 0):
            raise ConfigError(
                f"data.labels is {self.data.labels} with a c_dim of {self.generator.c_dim}; --cond "
                "sets both"
            )
        for name in ("resolution", "img_channels", "c_dim"):
            values = [getattr(network, name) for network in (self.generator, self.discriminator)]
            if values[0] != values[1]:
                raise ConfigError(
                    f"generator.{name} and discriminator.{name} must be equal, got {values[0]} "
                    f"and {values[1]}"
                )
        batches = {"batch": self.batch}
        if self.growth is not None:
            _check_growth(self, self.growth)
            batches |= {
                f"growth.batches {key}": n for key, n in (self.growth.batches or {}).items()
            }
        for name, batch in batches.items():
            _check_batch(name, batch, self)
        group = max(group_of(self, batch) for batch in batches.values())
        if self.runtime.batch_gpu is not None and self.runtime.batch_gpu < group:
            raise ConfigError(
                f"batch_gpu must be at least {group}, the group size of minibatch std "
                f"(discriminator.mbstd_group_size), got {self.runtime.batch_gpu}"
            )
        _check_styles(self)
        architectures = [_architecture(self.generator), _architecture(self.discriminator)]
        if architectures[0] == "mipmap" != architectures[1]:
            raise ConfigError(
                "generator.architecture mipmap needs discriminator.architecture mipmap, got "
                f"{architectures[1]}: no other discriminator takes an image pyramid"
            )
        if self.loss.adversarial == "wgan-gp" and architectures[0] == "mipmap":
            raise ConfigError("loss.adversarial wgan-gp does not support architecture mipmap")
        if self.loss.pl_space != "pixels" and self.loss.pl_weight > 0:
            _check_path_space(self)
        if self.init_from is None and (self.optim.freeze_d or self.optim.freeze_mapping):
            raise ConfigError(
                "--freeze-d and --freeze-mapping need --init-from, as random weights would stay "
                "random"
            )
        mode = self.augment.mode
        if mode != "none" and architectures[0] == "mipmap":
            raise ConfigError(
                f"augment.mode {mode} does not support architecture mipmap, whose discriminator "
                "sees an image pyramid"
            )
        if self.augment.is_adaptive and self.loss.adversarial == "wgan-gp":
            raise ConfigError(
                f"augment.mode {mode} needs loss.adversarial logistic, as the sign of a critic's "
                "output does not show overfitting; fixed and diffaugment work with wgan-gp"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, from which `from_json` makes an equal config."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Make a config from what `to_json` returned, also in version 0.1.

        Raises:
            ConfigError: if a field is unknown, missing or of another type, or the sections do not
                fit each other.
        """
        config = cls._built(_migrated(data))
        config.check()
        return config

    @classmethod
    def _built(cls, data: dict[str, Any]) -> Self:
        family = data.get("family") if isinstance(data, dict) else None
        if family is not None:
            check_family(family)
        return typing.cast(Self, fields.build(cls, data, types_of=_types_of(family)))

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return a config with options replaced. Whether its sections fit is checked by `check`.

        An option of `growth` switches growing on, with the defaults of the others; None or "none"
        for `growth` switches it off.

        Args:
            options: values by name, as `canonical` takes them. A value may be given as text.

        Raises:
            ConfigError: if an option does not exist, or its value is not of its type.
        """
        types_of, data = _types_of(self.family), self.to_json()
        known = fields.leaves(type(self), types_of)
        for name, value in canonical(options, self.family).items():
            kind = known.get(name, GrowthConfig | None)
            of_kind = fields.parse if isinstance(value, str) else fields.checked
            section, key = data, name
            if "." in name:
                first, key = name.split(".")
                section = data[first] = data[first] or {}
            section[key] = of_kind(value, kind, name)
        return self._built(data)

    def with_overrides(self, *overrides: str) -> Self:
        """Return a config with options replaced, as by `with_overrides("optim.beta2=0.999")`.

        Raises:
            ConfigError: if an option does not exist, the text is not of its type, or the sections
                do not fit each other.
        """
        config = self.with_options(split_overrides(overrides))
        config.check()
        return config


def undecided(config: RunConfig) -> list[str]:
    """Return the names of the options that a rule has to decide still."""
    values = fields.flat(config.to_json())
    return [
        name
        for name in BY_RULE
        if name in values
        and values[name] is None
        and not (name == "augment.kimg" and not config.augment.is_adaptive)
    ]


def canonical(options: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Return options by their full names, such as "loss.gamma".

    Args:
        options: values by name: a full name; one of `SHORT_NAMES`; a section with a mapping or a
            dataclass of its options; a name of version 0.1. Dashes count as underscores.
        family: the model family, which decides the options of the networks.

    Raises:
        ConfigError: if an option does not exist, or follows from the images.
    """
    known = fields.leaves(RunConfig, _types_of(family)).keys() - {"family", "preset", *FROM_IMAGES}
    sections = {name.partition(".")[0] for name in known if "." in name}
    result: dict[str, Any] = {}
    for given, value in options.items():
        name = given.replace("-", "_")
        name = MOVED.get(name, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
            value = {key: item for key, item in value.items() if f"{name}.{key}" in known}
        if name in sections and isinstance(value, Mapping):
            inner = {f"{name}.{key}": item for key, item in value.items()}
            result |= canonical(inner, family)
        elif name in SHORT_NAMES:
            result |= dict.fromkeys(SHORT_NAMES[name], value)
        elif name in known or name == "growth":
            result[name] = value
        elif name in FROM_IMAGES:
            raise ConfigError(f"option {name} follows from the images; see --resolution and --cond")
        else:
            raise fields.unknown(given, [*SHORT_NAMES, *sorted(known)], what="option")
    return result


def option_types(family: str) -> dict[str, Any]:
    """Return the types of all options of a family, by full name."""
    types = fields.leaves(RunConfig, _types_of(family))
    return {
        name: kind for name, kind in types.items() if name not in ("family", "preset", *FROM_IMAGES)
    }


def split_overrides(overrides: typing.Iterable[str]) -> dict[str, str]:
    """Return options from texts such as "optim.beta2=0.999".

    Raises:
        ConfigError: if a text has another form.
    """
    result = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"an option must be given as NAME=VALUE, got {text!r}")
        result[name.strip()] = value.strip()
    return result


def _migrated(data: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON data of a config under the names of this version."""
    if isinstance(data, dict) and isinstance(data.get("data"), dict):
        # before version 0.3 all images were flat and of 8 bits
        data = {**data, "data": {"background": "white", "depth": "uint8"} | data["data"]}
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
    """Refuse losses on styles where the generator has no mapping network."""
    for name in ("pl_weight", "mixing_prob"):
        weight = getattr(config.loss, name)
        if weight > 0 and getattr(config.generator, "mapping_layers", 0) == 0:
            raise ConfigError(
                f"loss.{name} must be 0 for a generator without a mapping network, got {weight:g}"
            )


def _check_growth(config: RunConfig, growth: GrowthConfig) -> None:
    for name in ("generator", "discriminator"):
        if (architecture := _architecture(getattr(config, name))) != "growing":
            raise ConfigError(
                f"growth needs networks that grow, got {name}.architecture {architecture}; set "
                "growth to none"
            )
    first = growth.schedule.initial_resolution
    largest = config.generator.size.nominal
    if first > largest:
        raise ConfigError(
            f"growth.initial_resolution must be at most the resolution, {largest}, got {first}"
        )


def _check_path_space(config: RunConfig) -> None:
    space, size = config.loss.pl_space, config.generator.size
    side = min(size.height, size.width)
    if config.growth is not None:
        raise ConfigError(
            f"loss.pl_space {space} needs images of one size; growing runs need pl_space pixels"
        )
    if side < SMALLEST_PATH_SPACE[space]:
        raise ConfigError(
            f"loss.pl_space {space} needs images of {SMALLEST_PATH_SPACE[space]} pixels or more, "
            f"got {side}"
        )


def _check_batch(name: str, batch: int, config: RunConfig) -> None:
    divisors = {
        "discriminator.mbstd_group_size": stddev_group(
            config.discriminator.mbstd_group_size, batch
        ),
        "loss.pl_batch_shrink": config.loss.pl_batch_shrink if config.loss.pl_weight > 0 else 1,
    }
    for option, divisor in divisors.items():
        if batch % divisor:
            raise ConfigError(f"{name} must be a multiple of {option} {divisor}, got {batch}")


def group_of(config: RunConfig, batch: int, *, shrink: int = 1) -> int:
    """Return the size of a group of minibatch std, which is never split.

    Groups are never split across ranks or micro-batches.

    Args:
        config: options of the run.
        batch: batch size of the main phases.
        shrink: divisor of the batch size in the phase in question; it divides the groups too.
    """
    group = stddev_group(config.discriminator.mbstd_group_size, batch)
    return group // shrink if group % shrink == 0 else 1


def check_processes(config: RunConfig, num: int) -> None:
    """Check a config before training with `num` ranks: each needs a shard of every batch.

    Raises:
        ConfigError: if a rank would have nothing to do, or the config cannot work at all.
    """
    config.check()
    batches = [config.batch]
    if config.growth is not None:
        batches += decided(config.growth.batches, "growth.batches").values()
    for batch in batches:
        group = group_of(config, batch)
        if batch // group < num:
            raise ConfigError(
                f"batch {batch} in groups of {group} (discriminator.mbstd_group_size) cannot be "
                f"split over {num} ranks; it must be at least {num * group}"
            )
        shrink = config.loss.pl_batch_shrink
        group = group_of(config, batch, shrink=shrink)
        if config.loss.pl_weight > 0 and batch // shrink // group < num:
            raise ConfigError(
                f"path lengths of {batch // shrink} images in groups of {group} cannot be split "
                f"over {num} ranks; raise --batch or lower loss.pl_batch_shrink"
            )


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """List the fields that differ and would change what is computed, as "field: old -> new".

    The path of the images and the handling of bad ones are not compared, as the fingerprint of
    the images is.
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
        raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
