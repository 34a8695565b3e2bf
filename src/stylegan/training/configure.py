"""From a preset and a user's choices to the options of a run: the rules."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from stylegan.errors import ConfigError, check_positive
from stylegan.models.base import DiscriminatorConfig, GeneratorConfig
from stylegan.models.registry import FAMILIES, configs_for
from stylegan.ops.normalize import stddev_group
from stylegan.training.config import (
    DataConfig,
    EmaConfig,
    GrowthConfig,
    OptimConfig,
    OutputConfig,
    Precision,
    RunConfig,
    RuntimeConfig,
)
from stylegan.training.presets import PRESETS, Preset

OPTIONS = {
    "preset": "--preset",
    "data.path": "--data",
    "data.mirror": "--mirror",
    "data.on_bad": "--on-bad",
    "data.labels": "--cond",
    "generator.c_dim": "--cond",
    "discriminator.c_dim": "--cond",
    "generator.resolution": "--resolution",
    "discriminator.resolution": "--resolution",
    "batch": "--batch",
    "seed": "--seed",
    "precision": "--precision",
    "init_from": "--init-from",
    "loss.gamma": "--gamma",
    "output.total_kimg": "--total-kimg",
    "output.snapshot_kimg": "--snapshot-kimg",
    "output.checkpoint_kimg": "--checkpoint-kimg",
    "runtime.device": "--device",
    "runtime.workers": "--workers",
    "runtime.batch_gpu": "--batch-gpu",
}
"""Fields of the config that `stylegan train` has an option for."""

MIN_TICKS = 200
"""A run has at least so many lines in its log ..."""
MIN_SNAPSHOTS = 20
"""... and at least so many snapshots and checkpoints."""
GAMMA_RULE = "0.0002 * resolution^2 / batch (Karras et al. 2020, ADA, appendix C)"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chose on top of a preset; None takes the preset's value.

    Attributes:
        resolution: side of the images, in pixels.
        img_channels: 1 for grey images, 3 for RGB.
        batch: images in an iteration, at the full resolution; those of smaller ones follow.
        batch_gpu: images that a process computes with at once; None for its share of the batch.
        total_kimg: length of the run; a shorter one grows faster, and reports more often.
        gamma: weight of R1.
        channel_base: channels of a block times its resolution.
        channel_max: most channels of a block.
        mirror: show each image flipped as well.
        on_bad: what to do with images that cannot be used.
        label_dim: width of the set's labels, which the networks then learn; 0 for none.
        checkpoint_kimg: distance of two checkpoints.
        snapshot_kimg: distance of two snapshots.
        seed: of everything random.
        device: "cpu", "cuda" or "mps".
        workers: processes that decode images.
        precision: None takes bfloat16 where the device computes fast in it.
        init_from: where the initial weights come from.
        overrides: fields of RunConfig as "optim.beta2=0.999", applied last.
    """

    resolution: int
    img_channels: int = 3
    batch: int | None = None
    batch_gpu: int | None = None
    total_kimg: float | None = None
    gamma: float | None = None
    channel_base: int | None = None
    channel_max: int | None = None
    mirror: bool = False
    on_bad: Literal["skip", "fail"] = "skip"
    label_dim: int = 0
    checkpoint_kimg: float | None = None
    snapshot_kimg: float | None = None
    seed: int = 0
    device: str = "cpu"
    workers: int = 2
    precision: Precision | None = None
    init_from: str | None = None
    overrides: Sequence[str] = ()


def configure(
    name: str,
    data_path: str,
    choices: Choices,
    *,
    initial: Sequence[GeneratorConfig | DiscriminatorConfig] | None = None,
    grown_to: int | None = None,
) -> tuple[RunConfig, dict[str, str]]:
    """Resolve a preset and a user's choices to the options of a run.

    Args:
        name: a key of `PRESETS`.
        data_path: the real images.
        choices: what the user chose.
        initial: architectures of the networks to start from. They replace the preset's, but
            for the resolution and what `choices` names.
        grown_to: the side that the initial weights have grown to, from which a growing run goes
            on; None for this run's resolution.

    Returns:
        The config, and for each value that a rule chose, its reason.

    Raises:
        ConfigError: if a name is unknown or a value cannot work.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"preset {name!r}", expected="one of " + ", ".join(PRESETS), fix="choose one of these"
        )
    preset = PRESETS[name]
    widths = {"channel_base": choices.channel_base, "channel_max": choices.channel_max}
    chosen = {key: value for key, value in widths.items() if value is not None}
    chosen |= {"img_channels": choices.img_channels, "c_dim": choices.label_dim}
    family, generator, discriminator = configs_for(
        preset.configuration, choices.resolution, **chosen
    )
    reasons: dict[str, str] = {}
    if initial is not None:
        _check_same_family(initial, family, name)
        own = {"generator": generator, "discriminator": discriminator}
        generator, discriminator = _adopted(initial, generator, discriminator, chosen)
        found = {"generator": generator, "discriminator": discriminator}
        reasons = dict.fromkeys(_changed(own, found), "that of the initial weights")
    _refuse_flags(choices.overrides)
    batch = preset.batch if choices.batch is None else choices.batch
    if batch < 1:
        raise ConfigError(f"--batch {batch}", expected="1 or more", fix="raise it")
    total_kimg = _first(choices.total_kimg, preset.kimg)
    check_positive("output.total_kimg", total_kimg)
    group = stddev_group(discriminator.mbstd_group_size, batch)
    gamma, gamma_reason = _gamma(preset, choices, batch)
    precision, precision_reason = _precision(choices)
    growth = _growth(preset, choices.resolution, batch, group=group, total_kimg=total_kimg)
    half_life = preset.half_life_kimg
    snapshot_kimg = _first(
        choices.snapshot_kimg, min(preset.snapshot_kimg, total_kimg / MIN_SNAPSHOTS)
    )
    config = RunConfig(
        preset=name,
        family=family,
        generator=generator,
        discriminator=discriminator,
        data=DataConfig(
            path=data_path,
            mirror=choices.mirror,
            on_bad=choices.on_bad,
            labels=choices.label_dim > 0,
        ),
        loss=replace(preset.loss, gamma=gamma),
        optim=OptimConfig(order=preset.order, generator_lr=preset.lr, discriminator_lr=preset.lr),
        ema=EmaConfig(
            half_life_kimg=batch * 10 / 32 if half_life is None else half_life,
            # a source brings its own average, which a ramp would throw away
            rampup=preset.rampup if initial is None else None,
            # a share for each iteration: the same half-life in images at any batch
            beta=None if preset.ema_beta is None else preset.ema_beta ** (batch / preset.batch),
        ),
        growth=growth,
        output=OutputConfig(
            total_kimg=total_kimg,
            tick_kimg=min(preset.tick_kimg, total_kimg / MIN_TICKS),
            snapshot_kimg=snapshot_kimg,
            checkpoint_kimg=_first(choices.checkpoint_kimg, snapshot_kimg),
        ),
        runtime=RuntimeConfig(
            device=choices.device, workers=choices.workers, batch_gpu=choices.batch_gpu
        ),
        batch=batch,
        seed=choices.seed,
        precision=precision,
        init_from=choices.init_from,
    )
    reasons |= {"loss.gamma": gamma_reason, "precision": precision_reason}
    if initial is not None and config.growth is not None:
        first = min(grown_to or choices.resolution, choices.resolution)
        config = replace(config, growth=replace(config.growth, initial_resolution=first))
        reasons["growth.initial_resolution"] = "so far the initial weights have grown"
    return config.with_overrides(*choices.overrides), reasons


def _growth(
    preset: Preset, resolution: int, batch: int, *, group: int, total_kimg: float
) -> GrowthConfig | None:
    """Fit the preset's growth to a run: to its resolution, its batch and its length."""
    growth = preset.growth
    if growth is None:
        return None
    # A longer run goes on at the full resolution, as the published ones on LSUN do.
    pace = min(total_kimg / preset.kimg, 1.0)
    scale = batch / preset.batch
    return replace(
        growth,
        train_kimg=growth.train_kimg * pace,
        fade_kimg=growth.fade_kimg * pace,
        batches={
            side: max(round(num * scale / group), 1) * group
            for side, num in growth.batches.items()
            if growth.initial_resolution <= int(side) < resolution
        },
        lrs={side: lr for side, lr in growth.lrs.items() if int(side) <= resolution},
    )


def _first(chosen: float | None, default: float) -> float:
    return default if chosen is None else chosen


def _refuse_flags(overrides: Sequence[str]) -> None:
    """Refuse fields with an option of their own: images and rules are chosen by the option."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in OPTIONS:
            raise ConfigError(
                f"--set {override}", expected=f"the option {OPTIONS[key]}", fix="use it instead"
            )


def _check_same_family(
    initial: Sequence[GeneratorConfig | DiscriminatorConfig], family: str, preset: str
) -> None:
    known = FAMILIES[family]
    for source in initial:
        if type(source) not in (known.generator_config, known.discriminator_config):
            raise ConfigError(
                f"--init-from networks of another family than {preset}'s, {family}",
                expected="those of one family",
                fix="take a preset of the networks' family",
            )


def _adopted(
    initial: Sequence[GeneratorConfig | DiscriminatorConfig],
    generator: Any,
    discriminator: Any,
    chosen: dict[str, int],
) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    own: dict[str, Any] = {**chosen, "resolution": generator.resolution}
    source: Any
    for source in initial:
        if source.c_dim != chosen["c_dim"]:
            raise ConfigError(
                f"--init-from a network with labels of {source.c_dim} numbers (c_dim)",
                expected=f"{chosen['c_dim']} as in this run; 0 is no labels",
                fix="choose another network, or change --cond or the set's labels",
            )
        if hasattr(source, "z_dim"):
            generator = replace(source, **own)
        else:
            discriminator = replace(source, **own)
    return generator, discriminator


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the fields in which two sets of networks' options differ."""
    return [
        f"{network}.{field.name}"
        for network, config in new.items()
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(old[network], field.name)
    ]


def _gamma(preset: Preset, choices: Choices, batch: int) -> tuple[float, str]:
    if choices.gamma is not None:
        return choices.gamma, "chosen with --gamma"
    side = choices.resolution
    if preset.gamma is None:
        return 0.0, "WGAN-GP has a gradient penalty of its own"
    if preset.gamma_resolution is None:
        return preset.gamma, "the preset's, for short runs on some thousand images"
    if (side, batch) == (preset.gamma_resolution, preset.batch):
        return preset.gamma, f"published for {side}x{side} and a batch of {batch}"
    return 0.0002 * side**2 / batch, GAMMA_RULE


def _precision(choices: Choices) -> tuple[Precision, str]:
    if choices.precision is not None:
        return choices.precision, "chosen with --precision"
    if choices.device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "this GPU computes in bfloat16"
    # get_capabilities came after the oldest torch that we support
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    for name, told in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512")):
        if choices.device == "cpu" and capabilities.get(name, False):
            return "bf16", f"this CPU multiplies matrices in bfloat16 ({told})"
    return "fp32", "this device is not known to be faster in bfloat16"
