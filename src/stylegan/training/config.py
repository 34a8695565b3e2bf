"""The options of a run: frozen, checked, written to and read from JSON."""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from stylegan.errors import ConfigError, check_not_negative, check_positive, check_share
from stylegan.losses.objective import LossConfig
from stylegan.models.base import DiscriminatorConfig, GeneratorConfig
from stylegan.models.registry import FAMILIES

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The real images.

    Attributes:
        path: folder or zip.
        mirror: show each image flipped as well.
        on_bad: what to do with images that cannot be used: leave them out, or fail.
    """

    path: str
    mirror: bool = False
    on_bad: Literal["skip", "fail"] = "skip"


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Adam, for each network. Lazy regularization corrects lr and betas on top of these.

    Attributes:
        generator_lr: learning rate of the generator.
        discriminator_lr: learning rate of the discriminator.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
    """

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
        w_avg_beta: share of the old mean of w that stays in each iteration.
    """

    half_life_kimg: float = 10.0
    rampup: float | None = None
    w_avg_beta: float = 0.998

    def __post_init__(self) -> None:
        """Check every value."""
        check_positive("ema.half_life_kimg", self.half_life_kimg)
        if self.rampup is not None:
            check_positive("ema.rampup", self.rampup)
        check_share("ema.w_avg_beta", self.w_avg_beta)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """How long to train, where, and what to write when: all that a resumed run may change.

    On another device the noise maps are others; the rest changes nothing of what is computed.

    Attributes:
        total_kimg: length of the run, in thousands of real images shown.
        tick_kimg: distance of two lines of the log.
        snapshot_kimg: distance of two snapshots, each with a sheet of samples.
        checkpoint_kimg: distance of two checkpoints.
        keep_checkpoints: number of checkpoints that stay.
        samples: number of images on the sheet of samples.
        device: "cpu", "cuda", "mps".
        workers: processes that decode images where they do not fit in memory.
        cache_gb: memory for decoded images, in GB.
    """

    total_kimg: float = 25000.0
    tick_kimg: float = 4.0
    snapshot_kimg: float = 200.0
    checkpoint_kimg: float = 200.0
    keep_checkpoints: int = 2
    samples: int = 64
    device: str = "cpu"
    workers: int = 2
    cache_gb: float = 4.0

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("total_kimg", "tick_kimg", "snapshot_kimg", "checkpoint_kimg"):
            check_positive(f"output.{name}", getattr(self, name))
        for name in ("keep_checkpoints", "samples"):
            check_positive(f"output.{name}", getattr(self, name))
        for name in ("workers", "cache_gb"):
            check_not_negative(f"output.{name}", getattr(self, name))


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
        output: length, cadence, device.
        batch: images in an iteration.
        seed: of everything random.
        precision: of the convolutions; weights and sums of RGB stay float32.
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
    output: OutputConfig = field(default_factory=OutputConfig)
    batch: int = 32
    seed: int = 0
    precision: Precision = "fp32"
    init_from: str | None = None

    def __post_init__(self) -> None:
        """Check what concerns more than one part."""
        check_positive("batch", self.batch)
        if self.generator.c_dim or self.discriminator.c_dim:
            raise ConfigError(
                f"c_dim {max(self.generator.c_dim, self.discriminator.c_dim)}",
                expected="0: training does not use labels yet",
                fix="leave it out",
            )
        if self.family not in FAMILIES:
            raise ConfigError(
                f"family {self.family!r}",
                expected="one of " + ", ".join(FAMILIES),
                fix="choose one of these",
            )
        for name in ("resolution", "img_channels"):
            if getattr(self.generator, name) != getattr(self.discriminator, name):
                raise ConfigError(
                    f"generator.{name} {getattr(self.generator, name)} and "
                    f"discriminator.{name} {getattr(self.discriminator, name)}",
                    expected="the same value",
                    fix="set both",
                )
        group = min(self.discriminator.mbstd_group_size, self.batch)
        if self.batch % group:
            raise ConfigError(
                f"batch {self.batch}",
                expected=f"a multiple of discriminator.mbstd_group_size {group}",
                fix="change one of the two",
            )
        if self.batch % self.loss.pl_batch_shrink:
            raise ConfigError(
                f"batch {self.batch}",
                expected=f"a multiple of loss.pl_batch_shrink {self.loss.pl_batch_shrink}",
                fix="change one of the two",
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, from which `from_json` makes an equal config."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Make a config from what `to_json` returned.

        Raises:
            ConfigError: if a field is unknown, missing or of another type.
        """
        return typing.cast(Self, _build(cls, data, path=""))

    def with_overrides(self, *overrides: str) -> Self:
        """Return a config with fields replaced, as by `with_overrides("optim.beta2=0.999")`.

        Raises:
            ConfigError: if a field is unknown or the text is not of its type.
        """
        data = self.to_json()
        for override in overrides:
            key, found, text = override.partition("=")
            *parents, name = key.strip().split(".")
            kind: Any = type(self)
            target = data
            for parent in parents:
                known = _field_types(kind, data) if dataclasses.is_dataclass(kind) else {}
                kind = known.get(parent)
                target = target.get(parent, {}) if isinstance(target, dict) else {}
            types_here = _field_types(kind, data) if dataclasses.is_dataclass(kind) else {}
            if not found or name not in types_here or dataclasses.is_dataclass(types_here[name]):
                raise ConfigError(
                    f"--set {override}",
                    expected=f"FIELD=VALUE, with a field such as {_similar(key, type(self), data)}",
                    fix="check the spelling; --dry-run shows every field",
                )
            target[name] = _parse(text.strip(), types_here[name], key)
        return type(self).from_json(data)


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """List the fields that differ and would change what is computed, as "field: old -> new".

    Where the images lie and how bad ones are met is none of them: the fingerprint is compared.
    """
    before, after = _flat(old.to_json()), _flat(new.to_json())
    harmless = ("output.", "preset", "data.path", "data.on_bad")
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(harmless)
    ]


def _similar(key: str, kind: type, data: dict[str, Any]) -> str:
    fields = _leaves(kind, data)
    return ", ".join(difflib.get_close_matches(key.strip(), fields, n=3, cutoff=0) or fields[:3])


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _field_types(kind: Any, data: Any) -> dict[str, Any]:
    """Return the type of each field; those of a run's networks follow from its family."""
    types_here = typing.get_type_hints(kind)
    if kind is RunConfig and isinstance(data, dict) and data.get("family") in FAMILIES:
        family = FAMILIES[data["family"]]
        types_here["generator"] = family.generator_config
        types_here["discriminator"] = family.discriminator_config
    return types_here


def _leaves(kind: type, data: Any, prefix: str = "") -> list[str]:
    leaves = []
    for name, inner in _field_types(kind, data).items():
        if dataclasses.is_dataclass(inner):
            leaves += _leaves(typing.cast(type, inner), None, f"{prefix}{name}.")
        else:
            leaves.append(prefix + name)
    return leaves


def _build(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        types_here = _field_types(kind, value)
        required = {
            entry.name
            for entry in dataclasses.fields(kind)
            if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        }
        if (
            not isinstance(value, dict)
            or value.keys() - types_here.keys()
            or required - value.keys()
        ):
            found = sorted(value) if isinstance(value, dict) else value
            raise ConfigError(
                f"{path or 'config'} with {found}",
                expected=f"the fields {', '.join(types_here)}",
                fix="use a config that this version wrote",
            )
        build: Any = kind
        return build(
            **{key: _build(types_here[key], item, f"{path}{key}.") for key, item in value.items()}
        )
    if not _matches(value, kind):
        raise ConfigError(
            f"{path.rstrip('.')} = {value!r}", expected=_describe(kind), fix="correct the value"
        )
    return float(value) if kind is float else value


def _matches(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return value in typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, option) for option in typing.get_args(kind))
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _parse(text: str, kind: Any, key: str) -> Any:
    options = typing.get_args(kind) if typing.get_origin(kind) is types.UnionType else (kind,)
    for option in options:
        if option is types.NoneType and text.lower() == "none":
            return None
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if typing.get_origin(option) is Literal and text in typing.get_args(option):
            return text
        if option is str:
            return text
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
    raise ConfigError(
        f"--set {key}={text}", expected=_describe(kind), fix="give a value of that type"
    )


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) is types.UnionType:
        return " or ".join(_describe(option) for option in typing.get_args(kind))
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    return names.get(kind, "none" if kind is types.NoneType else str(kind))
