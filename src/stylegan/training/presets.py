"""The training half of each preset: a row each, with its source."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from stylegan.errors import ConfigError, check_positive
from stylegan.losses.objective import LossConfig
from stylegan.models.base import DiscriminatorConfig, GeneratorConfig
from stylegan.models.registry import CONFIGURATIONS, FAMILIES, configs_for
from stylegan.training.config import (
    DataConfig,
    EmaConfig,
    GrowthConfig,
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
        batch: images in an iteration, at the full resolution.
        lr: of both networks, where `growth` names no other.
        kimg: length of the run.
        gamma: weight of R1 at `gamma_resolution` and this batch; elsewhere the rule decides.
            None where the loss has no R1.
        gamma_resolution: where gamma was published; None if it was chosen for any.
        loss: the loss but for gamma.
        order: which network takes its step first.
        growth: progressive growing; None for none.
        half_life_kimg: of the running average; None scales it with the batch, 10 kimg for 32.
        rampup: of the running average, as a share of the images shown.
        ema_beta: of the running average, in place of the half-life; None for the half-life.
        tick_kimg: distance of two lines of the log.
        snapshot_kimg: distance of two snapshots and of two checkpoints.
        source: where the numbers come from.
    """

    configuration: str
    batch: int
    lr: float
    kimg: float
    gamma: float | None
    gamma_resolution: int | None
    loss: LossConfig
    order: Literal["generator-first", "discriminator-first"]
    growth: GrowthConfig | None
    half_life_kimg: float | None
    rampup: float | None
    ema_beta: float | None
    tick_kimg: float
    snapshot_kimg: float
    source: str


_LRS = {"128": 0.0015, "256": 0.002, "512": 0.003, "1024": 0.003}
_BATCHES = {"4": 512, "8": 256, "16": 128, "32": 64, "64": 32}

# The eight-GPU schedule of the official code, which grew faster than the paper's 800 kimg.
_PROGAN = Preset(
    configuration="progan",
    batch=32,
    lr=0.001,
    kimg=12000,
    gamma=None,
    gamma_resolution=None,
    loss=LossConfig(
        adversarial="wgan-gp",
        gamma=0,
        r1_interval=None,
        pl_weight=0,
        pl_interval=None,
        mixing_prob=0,
    ),
    order="discriminator-first",
    growth=GrowthConfig(initial_resolution=4, lrs=_LRS, batches=_BATCHES),
    half_life_kimg=10,
    rampup=None,
    ema_beta=0.999,
    tick_kimg=4,
    snapshot_kimg=200,
    source="Karras et al. 2018 (ProGAN), appendix A; lengths, batches and learning rates of the "
    "official code on 8 GPUs",
)
# Bilinear resampling, the logistic loss with R1 in each iteration, growing from 8x8, a half-life
# in images, twice the length.
_STYLEGAN_B = replace(
    _PROGAN,
    configuration="stylegan-b",
    kimg=25000,
    gamma=10,
    gamma_resolution=1024,
    loss=replace(_PROGAN.loss, adversarial="logistic"),
    growth=GrowthConfig(initial_resolution=8, lrs=_LRS, batches=_BATCHES),
    ema_beta=None,
    source="Karras et al. 2019 (StyleGAN), table 1 row B and appendix C; the official code",
)
_STYLEGAN_F = replace(
    _STYLEGAN_B,
    configuration="stylegan-f",
    loss=replace(_STYLEGAN_B.loss, mixing_prob=0.9),
    source="Karras et al. 2019 (StyleGAN), table 1 row F: mixing regularization",
)
_STYLEGAN2_A = replace(
    _STYLEGAN_F,
    configuration="stylegan2-a",
    order="generator-first",
    source="Karras et al. 2020 (StyleGAN2), table 1 row A: StyleGAN; G's step comes first",
)
_STYLEGAN2_C = replace(
    _STYLEGAN2_A,
    configuration="stylegan2-c",
    loss=replace(_STYLEGAN2_A.loss, r1_interval=16, pl_interval=4),
    source="Karras et al. 2020 (StyleGAN2), table 1 row C: lazy regularization. As in the official "
    "code G's Adam is corrected too, though nothing of it is regularized",
)
_STYLEGAN2_D = replace(
    _STYLEGAN2_C,
    configuration="stylegan2-d",
    loss=replace(_STYLEGAN2_C.loss, pl_weight=2),
    source="Karras et al. 2020 (StyleGAN2), table 1 row D: path-length regularization",
)
_STYLEGAN2_E = replace(
    _STYLEGAN2_D,
    configuration="stylegan2-e",
    lr=0.002,
    gamma=100,
    growth=None,
    source="Karras et al. 2020 (StyleGAN2), table 1 row E and appendix B: no growing",
)
_STYLEGAN2_F = replace(
    _STYLEGAN2_E,
    configuration="stylegan2-f",
    gamma=10,
    source="Karras et al. 2020 (StyleGAN2), table 1 row F and appendix B: large networks",
)

PRESETS = {
    "progan": _PROGAN,
    "stylegan-a": replace(
        _PROGAN,
        configuration="stylegan-a",
        source="Karras et al. 2019 (StyleGAN), table 1 row A: ProGAN",
    ),
    "stylegan-b": _STYLEGAN_B,
    "stylegan-c": replace(
        _STYLEGAN_B,
        configuration="stylegan-c",
        source="Karras et al. 2019 (StyleGAN), table 1 row C: mapping network and styles",
    ),
    "stylegan-d": replace(
        _STYLEGAN_B,
        configuration="stylegan-d",
        source="Karras et al. 2019 (StyleGAN), table 1 row D: learned constant",
    ),
    "stylegan-e": replace(
        _STYLEGAN_B,
        configuration="stylegan-e",
        source="Karras et al. 2019 (StyleGAN), table 1 row E: noise inputs",
    ),
    "stylegan-f": _STYLEGAN_F,
    "stylegan2-a": _STYLEGAN2_A,
    "stylegan2-b": replace(
        _STYLEGAN2_A,
        configuration="stylegan2-b",
        source="Karras et al. 2020 (StyleGAN2), table 1 row B: weight demodulation",
    ),
    "stylegan2-c": _STYLEGAN2_C,
    "stylegan2-d": _STYLEGAN2_D,
    "stylegan2-e": _STYLEGAN2_E,
    "stylegan2-f": _STYLEGAN2_F,
    # Nobody published a schedule for these networks with this loss: it is that of row E.
    "msg-stylegan2": replace(
        _STYLEGAN2_E,
        configuration="msg-stylegan2",
        source="Karnewar and Wang 2020 (MSG-GAN) and Karras et al. 2020 (StyleGAN2), figure 7a; "
        "the training of stylegan2-e",
    ),
    # Ours: the learning rate, the ramp and the mapping depth are ADA's for small resolutions;
    # widths, batch and gamma are tuned for minutes on two CPU cores (docs/configs.md).
    "stylegan2-small": replace(
        _STYLEGAN2_F,
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
    "output.device": "--device",
    "output.workers": "--workers",
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
) -> tuple[RunConfig, dict[str, str]]:
    """Resolve a preset and a user's choices to the options of a run.

    Args:
        name: a key of `PRESETS`.
        data_path: the real images.
        choices: what the user chose.
        initial: architectures of the networks to start from. They replace the preset's, but
            for the resolution and what `choices` names. Such a run does not grow again.

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
    chosen |= {"img_channels": choices.img_channels, "c_dim": choices.label_dim}
    family, generator, discriminator = configs_for(
        preset.configuration, choices.resolution, **chosen
    )
    if initial is not None:
        _check_same_family(initial, family, name)
        generator, discriminator = _adopted(initial, generator, discriminator, chosen)
    _refuse_flags(choices.overrides)
    batch = preset.batch if choices.batch is None else choices.batch
    if batch < 1:
        raise ConfigError(f"--batch {batch}", expected="1 or more", fix="raise it")
    total_kimg = _first(choices.total_kimg, preset.kimg)
    check_positive("output.total_kimg", total_kimg)
    group = min(discriminator.mbstd_group_size, batch)
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
            beta=preset.ema_beta,
        ),
        growth=growth,
        output=OutputConfig(
            total_kimg=total_kimg,
            tick_kimg=min(preset.tick_kimg, total_kimg / MIN_TICKS),
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
    if initial is not None and config.growth is not None:
        grown = replace(config.growth, initial_resolution=choices.resolution)
        config = replace(config, growth=grown)
        reasons["growth.initial_resolution"] = "the initial weights have grown already"
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
            if growth.initial_resolution <= int(side) <= resolution
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
    if choices.device == "cpu" and capabilities.get("amx_bf16", False):
        return "bf16", "this CPU multiplies matrices in bfloat16 (AMX)"
    return "fp32", "this device is not known to be faster in bfloat16"
