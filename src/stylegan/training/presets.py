"""The presets: for each configuration a run, and which of its values depend on sizes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from stylegan.errors import ConfigError, did_you_mean
from stylegan.losses.objective import LossConfig
from stylegan.models.registry import configs_for
from stylegan.training.config import (
    DataConfig,
    EmaConfig,
    GrowthConfig,
    OptimConfig,
    OutputConfig,
    RunConfig,
    RuntimeConfig,
)

SMALLEST_RESOLUTION = 8
"""Resolution of the networks in a preset's options, which the images replace."""
_INTERVALS = ("output.tick_kimg", "output.snapshot_kimg", "output.checkpoint_kimg")
_ADAPTED = ("loss.gamma", *_INTERVALS)
_ADAPTED_GROWTH = ("growth.train_kimg", "growth.fade_kimg", "growth.batches", "growth.lrs")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A run, and how to start from it at other sizes.

    Attributes:
        run: the run with all its values, at the resolution where they hold. For the letters of
            the papers it is the published run.
        adapted: options that a rule adapts to other resolutions, batch sizes and lengths.
        source: where the numbers come from.
        is_published: whether somebody has published this run.
    """

    run: RunConfig
    adapted: tuple[str, ...]
    source: str
    is_published: bool = True

    @property
    def start(self) -> RunConfig:
        """The options that a new run starts from, with None for those that rules adapt."""
        smallest = {"resolution": SMALLEST_RESOLUTION}
        networks: dict[str, Any] = {
            name: replace(getattr(self.run, name), **smallest)
            for name in ("generator", "discriminator")
        }
        options = dict.fromkeys([*self.adapted, "runtime.device"])
        return replace(self.run, **networks).with_options(options)


def find_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ConfigError: if there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"preset must be one of {', '.join(PRESETS)}, got {name!r}{did_you_mean(name, PRESETS)}"
        )
    return PRESETS[name]


def _preset(
    name: str,
    base: RunConfig,
    source: str,
    *,
    resolution: int = 1024,
    adapted: Iterable[str] = _ADAPTED,
    is_published: bool = True,
) -> Preset:
    """Make the row of a preset from the run that it changes."""
    family, generator, discriminator = configs_for(name, resolution)
    run = replace(
        base, preset=name, family=family, generator=generator, discriminator=discriminator
    )
    growth = _ADAPTED_GROWTH if run.growth is not None else ()
    return Preset(run=run, adapted=(*adapted, *growth), source=source, is_published=is_published)


_LRS = {"128": 0.0015, "256": 0.002, "512": 0.003, "1024": 0.003}
_BATCHES = {"4": 512, "8": 256, "16": 128, "32": 64, "64": 32}
_NETWORKS = configs_for("progan", 1024)

# The eight-GPU schedule of the official code, which grew faster than the paper's 800 kimg.
_PROGAN = RunConfig(
    preset="progan",
    family=_NETWORKS[0],
    generator=_NETWORKS[1],
    discriminator=_NETWORKS[2],
    data=DataConfig(path=""),
    loss=LossConfig(
        adversarial="wgan-gp",
        gamma=0.0,
        r1_interval=None,
        pl_weight=0.0,
        pl_interval=None,
        mixing_prob=0.0,
    ),
    optim=OptimConfig(order="discriminator-first", generator_lr=0.001, discriminator_lr=0.001),
    ema=EmaConfig(half_life_kimg=10.0, beta=0.999),
    growth=GrowthConfig(initial_resolution=4, lrs=_LRS, batches=_BATCHES),
    output=OutputConfig(total_kimg=12000.0, tick_kimg=4.0, snapshot_kimg=200.0),
    runtime=RuntimeConfig(),
    batch=32,
    precision="fp32",
)
# Bilinear resampling, the logistic loss with R1 in each iteration, growing from 8x8, a half-life
# in images, twice the length. The decay of the EMA of w is that of the TensorFlow code.
_STYLEGAN_B = replace(
    _PROGAN,
    loss=replace(_PROGAN.loss, adversarial="logistic", gamma=10.0),
    ema=EmaConfig(half_life_kimg=10.0, w_avg_beta=0.995),
    growth=GrowthConfig(initial_resolution=8, lrs=_LRS, batches=_BATCHES),
    output=replace(_PROGAN.output, total_kimg=25000.0),
)
_STYLEGAN_F = replace(_STYLEGAN_B, loss=replace(_STYLEGAN_B.loss, mixing_prob=0.9))
_STYLEGAN2_A = replace(_STYLEGAN_F, optim=replace(_STYLEGAN_F.optim, order="generator-first"))
_STYLEGAN2_C = replace(_STYLEGAN2_A, loss=replace(_STYLEGAN2_A.loss, r1_interval=16, pl_interval=4))
_STYLEGAN2_D = replace(_STYLEGAN2_C, loss=replace(_STYLEGAN2_C.loss, pl_weight=2.0))
_STYLEGAN2_E = replace(
    _STYLEGAN2_D,
    optim=OptimConfig(generator_lr=0.002, discriminator_lr=0.002),
    loss=replace(_STYLEGAN2_D.loss, gamma=100.0),
    growth=None,
)
_STYLEGAN2_F = replace(_STYLEGAN2_E, loss=replace(_STYLEGAN2_E.loss, gamma=10.0))
# Ours: the learning rate, the ramp and the mapping depth are ADA's for small resolutions;
# widths, batch and gamma are tuned for minutes on two CPU cores (docs/configs.md).
_SMALL = replace(
    _STYLEGAN2_F,
    loss=replace(_STYLEGAN2_F.loss, gamma=1.0),
    optim=OptimConfig(generator_lr=0.0025, discriminator_lr=0.0025),
    ema=EmaConfig(half_life_kimg=2.5, rampup=0.05),
    output=OutputConfig(total_kimg=1000.0, tick_kimg=0.5, snapshot_kimg=10.0),
    batch=8,
    precision=None,
)
_PROGAN_ADAPTED = (*_ADAPTED, "ema.half_life_kimg", "ema.beta")
_1 = "Karras et al. 2019 (StyleGAN), table 1 row"
_2 = "Karras et al. 2020 (StyleGAN2), table 1 row"

PRESETS = {
    "progan": _preset(
        "progan",
        _PROGAN,
        "Karras et al. 2018 (ProGAN), appendix A; lengths, batches and learning rates of the "
        "official code on 8 GPUs",
        adapted=_PROGAN_ADAPTED,
    ),
    "stylegan-a": _preset("stylegan-a", _PROGAN, f"{_1} A: ProGAN", adapted=_PROGAN_ADAPTED),
    "stylegan-b": _preset("stylegan-b", _STYLEGAN_B, f"{_1} B and appendix C; the official code"),
    "stylegan-c": _preset("stylegan-c", _STYLEGAN_B, f"{_1} C: mapping network and styles"),
    "stylegan-d": _preset("stylegan-d", _STYLEGAN_B, f"{_1} D: learned constant"),
    "stylegan-e": _preset("stylegan-e", _STYLEGAN_B, f"{_1} E: noise inputs"),
    "stylegan-f": _preset("stylegan-f", _STYLEGAN_F, f"{_1} F: mixing regularization"),
    "stylegan2-a": _preset(
        "stylegan2-a", _STYLEGAN2_A, f"{_2} A: StyleGAN; the generator's step comes first"
    ),
    "stylegan2-b": _preset("stylegan2-b", _STYLEGAN2_A, f"{_2} B: weight demodulation"),
    "stylegan2-c": _preset(
        "stylegan2-c",
        _STYLEGAN2_C,
        f"{_2} C: lazy regularization. As in the official code the generator's Adam is corrected "
        "too, though the generator has no regularizer",
    ),
    "stylegan2-d": _preset("stylegan2-d", _STYLEGAN2_D, f"{_2} D: path-length regularization"),
    "stylegan2-e": _preset("stylegan2-e", _STYLEGAN2_E, f"{_2} E and appendix B: no growing"),
    "stylegan2-f": _preset("stylegan2-f", _STYLEGAN2_F, f"{_2} F and appendix B: large networks"),
    # Nobody has published a schedule for these networks with this loss: it is that of row E.
    "msg-stylegan2": _preset(
        "msg-stylegan2",
        _STYLEGAN2_E,
        "Karnewar and Wang 2020 (MSG-GAN) and Karras et al. 2020 (StyleGAN2), figure 7a; the "
        "training of stylegan2-e",
        is_published=False,
    ),
    "stylegan2-small": _preset(
        "stylegan2-small",
        _SMALL,
        "ours; lr, ramp-up and mapping depth from Karras et al. 2020 (ADA), appendix C",
        resolution=64,
        adapted=("ema.half_life_kimg", *_INTERVALS),
        is_published=False,
    ),
}
