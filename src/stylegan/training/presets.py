"""The training half of each preset: a row each, with its source."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from stylegan.errors import ConfigError
from stylegan.losses.objective import LossConfig
from stylegan.models.base import DiscriminatorConfig, GeneratorConfig
from stylegan.models.registry import CONFIGURATIONS, configs_for
from stylegan.training.config import (
    DataConfig,
    EmaConfig,
    OptimConfig,
    OutputConfig,
    Precision,
    RunConfig,
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a configuration of `models.registry` is trained.

    Attributes:
        configuration: name of the network half.
        batch: images in an iteration.
        lr: of both networks.
        kimg: length of the run.
        gamma: weight of R1 at `gamma_resolution` and this batch; elsewhere the rule decides.
        gamma_resolution: where gamma was published; None if it was chosen for any.
        half_life_kimg: of the running average; None scales it with the batch, 10 kimg for 32.
        rampup: of the running average, as a share of the images shown.
        tick_kimg: distance of two lines of the log.
        snapshot_kimg: distance of two snapshots and of two checkpoints.
        source: where the numbers come from.
    """

    configuration: str
    batch: int
    lr: float
    kimg: float
    gamma: float
    gamma_resolution: int | None
    half_life_kimg: float | None
    rampup: float | None
    tick_kimg: float
    snapshot_kimg: float
    source: str


_F = Preset(
    configuration="stylegan2-f",
    batch=32,
    lr=0.002,
    kimg=25000,
    gamma=10,
    gamma_resolution=1024,
    half_life_kimg=10,
    rampup=None,
    tick_kimg=4,
    snapshot_kimg=200,
    source="Karras et al. 2020 (StyleGAN2), table 1 row F and appendix B",
)

PRESETS = {
    "stylegan2-f": _F,
    "stylegan2-e": replace(
        _F,
        configuration="stylegan2-e",
        gamma=100,
        source="Karras et al. 2020 (StyleGAN2), table 1 row E and appendix B",
    ),
    # Ours: the learning rate, the ramp and the mapping depth are ADA's for small resolutions;
    # widths, batch and gamma are tuned for minutes on two CPU cores (docs/configs.md).
    "stylegan2-small": replace(
        _F,
        configuration="stylegan2-small",
        batch=8,
        lr=0.0025,
        kimg=1000,
        gamma=1,
        gamma_resolution=None,
        half_life_kimg=None,
        rampup=0.05,
        tick_kimg=0.5,
        snapshot_kimg=10,
        source="ours; lr, ramp-up and mapping depth from Karras et al. 2020 (ADA), appendix C",
    ),
}

OPTIONS = {
    "preset": "--preset",
    "data.path": "--data",
    "data.mirror": "--mirror",
    "data.on_bad": "--on-bad",
    "generator.resolution": "--resolution",
    "discriminator.resolution": "--resolution",
    "batch": "--batch",
    "seed": "--seed",
    "precision": "--precision",
    "init_from": "--init-from",
    "loss.gamma": "--gamma",
    "output.total_kimg": "--kimg",
    "output.snapshot_kimg": "--snapshot-kimg",
    "output.checkpoint_kimg": "--checkpoint-kimg",
    "output.device": "--device",
    "output.workers": "--workers",
}
"""Fields of the config that `stylegan train` has an option for."""

GAMMA_RULE = "0.0002 * resolution^2 / batch (Karras et al. 2020, ADA, appendix C)"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chose on top of a preset; None takes the preset's value.

    Attributes:
        resolution: side of the images, in pixels.
        img_channels: 1 for grey images, 3 for RGB.
        batch: images in an iteration.
        kimg: length of the run.
        gamma: weight of R1.
        channel_base: channels of a block times its resolution.
        channel_max: most channels of a block.
        mirror: show each image flipped as well.
        on_bad: what to do with images that cannot be used.
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
    kimg: float | None = None
    gamma: float | None = None
    channel_base: int | None = None
    channel_max: int | None = None
    mirror: bool = False
    on_bad: Literal["skip", "fail"] = "skip"
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
) -> tuple[RunConfig, dict[str, str]]:
    """Resolve a preset and a user's choices to the options of a run.

    Args:
        name: a key of `PRESETS`.
        data_path: the real images.
        choices: what the user chose.
        initial: architectures of the networks to start from. They replace the preset's, but
            for the resolution and what `choices` names.

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
    assert preset.configuration in CONFIGURATIONS
    widths = {"channel_base": choices.channel_base, "channel_max": choices.channel_max}
    chosen = {key: value for key, value in widths.items() if value is not None}
    chosen |= {"img_channels": choices.img_channels}
    family, generator, discriminator = configs_for(
        preset.configuration, choices.resolution, **chosen
    )
    if initial is not None:
        generator, discriminator = _adopted(initial, generator, discriminator, chosen)
    _refuse_flags(choices.overrides)
    batch = preset.batch if choices.batch is None else choices.batch
    if batch < 1:
        raise ConfigError(f"--batch {batch}", expected="1 or more", fix="raise it")
    gamma, gamma_reason = _gamma(preset, choices, batch)
    precision, precision_reason = _precision(choices)
    half_life = preset.half_life_kimg
    snapshot_kimg = _first(choices.snapshot_kimg, preset.snapshot_kimg)
    config = RunConfig(
        preset=name,
        family=family,
        generator=generator,
        discriminator=discriminator,
        data=DataConfig(path=data_path, mirror=choices.mirror, on_bad=choices.on_bad),
        loss=LossConfig(gamma=gamma),
        optim=OptimConfig(generator_lr=preset.lr, discriminator_lr=preset.lr),
        ema=EmaConfig(
            half_life_kimg=batch * 10 / 32 if half_life is None else half_life,
            # a source brings its own average, which a ramp would throw away
            rampup=preset.rampup if initial is None else None,
        ),
        output=OutputConfig(
            total_kimg=_first(choices.kimg, preset.kimg),
            tick_kimg=preset.tick_kimg,
            snapshot_kimg=snapshot_kimg,
            checkpoint_kimg=_first(choices.checkpoint_kimg, snapshot_kimg),
            device=choices.device,
            workers=choices.workers,
        ),
        batch=batch,
        seed=choices.seed,
        precision=precision,
        init_from=choices.init_from,
    )
    reasons = {"loss.gamma": gamma_reason, "precision": precision_reason}
    return config.with_overrides(*choices.overrides), reasons


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


def _adopted(
    initial: Sequence[GeneratorConfig | DiscriminatorConfig],
    generator: Any,
    discriminator: Any,
    chosen: dict[str, int],
) -> tuple[GeneratorConfig, DiscriminatorConfig]:
    own: dict[str, Any] = {**chosen, "resolution": generator.resolution}
    source: Any
    for source in initial:
        if source.c_dim > 0:
            raise ConfigError(
                "--init-from a network with labels",
                expected="one without: training does not use labels yet",
                fix="choose another network",
            )
        if hasattr(source, "z_dim"):
            generator = replace(source, **own)
        else:
            discriminator = replace(source, **own)
    return generator, discriminator


def _gamma(preset: Preset, choices: Choices, batch: int) -> tuple[float, str]:
    if choices.gamma is not None:
        return choices.gamma, "chosen with --gamma"
    side = choices.resolution
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
    if choices.device == "cpu" and capabilities.get("amx_bf16", False):
        return "bf16", "this CPU multiplies matrices in bfloat16 (AMX)"
    return "fp32", "this device is not known to be faster in bfloat16"
