"""The training half of each preset: a row each, with its source."""

from dataclasses import dataclass, replace
from typing import Literal

from stylegan.losses.objective import LossConfig
from stylegan.training.config import GrowthConfig


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
