"""From a preset and a user's options to the options of a run: the rules."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from stylegan.devices import resolve_device
from stylegan.errors import ConfigError, decided
from stylegan.image_size import Resolution
from stylegan.models.base import DiscriminatorConfig, GeneratorConfig
from stylegan.models.registry import FAMILIES
from stylegan.ops.normalize import stddev_group
from stylegan.training import fields
from stylegan.training.config import (
    BY_RULE,
    FROM_IMAGES,
    EmaConfig,
    GrowthConfig,
    OutputConfig,
    Precision,
    RunConfig,
)
from stylegan.training.presets import PRESETS, find_preset
from stylegan.training.threads import default_threads

NUM_TICKS, MIN_TICK_KIMG = 200, 0.08
"""Number of log lines of a run that is shorter than its preset, and their minimum interval."""
NUM_SNAPSHOTS, MIN_SNAPSHOT_KIMG = 20, 0.5
"""The same for snapshots and checkpoints."""
AUGMENT_KIMG, AUGMENT_KIMG_FROM_WEIGHTS, AUGMENT_VIEWS = 500.0, 100.0, 150
"""The published speeds of ADA; the number of views is ours, so that small sets adapt sooner."""
GAMMA_RULE = "0.0002 * height * width / batch (Karras et al. 2020, ADA, appendix C)"
CHOSEN = "chosen"
OF_PRESET = "the preset's"
Reasons = dict[str, str]
"""For each option that a rule decided, why."""


def configure(
    preset: str | RunConfig,
    options: Mapping[str, Any] | None = None,
    *,
    resolution: Resolution,
    img_channels: int = 3,
    label_dim: int = 0,
    num_images: int | None = None,
    initial: Sequence[GeneratorConfig | DiscriminatorConfig] | None = None,
    grown_to: int | None = None,
) -> tuple[RunConfig, Reasons]:
    """Return the options of a run from a preset, initial weights and a user's options.

    Args:
        preset: a key of `PRESETS`, or the config to start from.
        options: what the user gave, as `RunConfig.with_options` takes it. It replaces the preset's
            options and those of the initial networks.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH".
        img_channels: channels of the images.
        label_dim: width of the labels that the networks learn, 0 for none.
        num_images: images of the set, without mirrored ones; None if that is not known.
        initial: options of the networks to start from. They replace the preset's, except for the
            fields that follow from the images.
        grown_to: nominal resolution that the initial weights have grown to, from which a growing
            run goes on. None: the resolution of this run.

    Returns:
        The config, and the reason for each value that a rule decided, in order.

    Raises:
        ConfigError: if a name is unknown or a value cannot work.
    """
    start = preset if isinstance(preset, RunConfig) else find_preset(preset).start
    reasons: Reasons = {}
    if initial is not None:
        start, reasons = _adopted(start, initial)
    config = start.with_options(options or {})
    reasons = {
        name: reason
        for name, reason in reasons.items()
        if _value(config, name) == _value(start, name)
    }
    config, more = resolve(
        config,
        resolution=resolution,
        img_channels=img_channels,
        label_dim=label_dim,
        num_images=num_images,
        grown_to=grown_to,
    )
    return config, reasons | more


def resolve(
    config: RunConfig,
    *,
    resolution: Resolution,
    img_channels: int = 3,
    label_dim: int = 0,
    num_images: int | None = None,
    grown_to: int | None = None,
) -> tuple[RunConfig, Reasons]:
    """Return a config in which every option is decided.

    Args:
        config: options of a run; None, in the options of `config.BY_RULE`, is replaced.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH".
        img_channels: channels of the images.
        label_dim: width of the labels that the networks learn, 0 for none.
        num_images: images of the set, without mirrored ones; None if that is not known.
        grown_to: nominal resolution that the initial weights have grown to. None: that of the run.

    Returns:
        The config, and the reason for each value that a rule decided, in order. Gamma and precision
        always have one.

    Raises:
        ConfigError: if a value cannot work.
    """
    # in a config of no preset, None takes the values of StyleGAN2
    row = PRESETS.get(config.preset, PRESETS["stylegan2-f"])
    config = _fitted_to_images(config, resolution, img_channels, label_dim)
    device = resolve_device(config.runtime.device or "auto").type
    gamma, gamma_reason = _gamma(config, row.run)
    precision, precision_reason = _precision(config, row.run, device)
    reasons = {"loss.gamma": gamma_reason, "precision": precision_reason}
    threads = config.runtime.threads
    if threads is None:
        threads, reasons["runtime.threads"] = default_threads()
    if config.growth is not None:
        if config.growth.initial_resolution is None:
            reasons["growth.initial_resolution"] = "so far the initial weights have grown"
        config = replace(
            config,
            growth=_growth(
                config,
                config.growth,
                row.run,
                grown_to=grown_to or config.generator.size.nominal,
            ),
        )
    if config.augment.is_adaptive and config.augment.kimg is None:
        kimg, reasons["augment.kimg"] = _augment_kimg(config, num_images)
        config = replace(config, augment=replace(config.augment, kimg=kimg))
    config = replace(
        config,
        loss=replace(config.loss, gamma=gamma),
        precision=precision,
        ema=_ema(config, row.run),
        output=_output(config, row.run),
        runtime=replace(config.runtime, device=device, threads=threads),
    )
    config.check()
    return config, reasons


def published_run(preset: str) -> RunConfig | None:
    """Return the published run of a preset; None if nobody has published one."""
    row = find_preset(preset)
    return row.run if row.is_published else None


_NOT_COMPARED = (
    *("preset", "data.", "seed", "output.", "runtime."),
    *("generator.img_channels", "generator.c_dim"),
    *(name for name in FROM_IMAGES if name.startswith("discriminator.")),
)
"""Options that do not make a run differ from the published one; some are prefixes."""


def deviations(config: RunConfig, published: RunConfig) -> list[str]:
    """List how a run differs from a published one, as "precision = bf16 (published: fp32)".

    Images, labels, seed, device and intervals are not compared.

    Args:
        config: options of the run, decided.
        published: options of the published run.
    """
    before, after = fields.flat(published.to_json()), fields.flat(config.to_json())
    names = [name for name in after if not name.startswith(_NOT_COMPARED)]
    return [
        f"{name} = {_text(after[name])} (published: {_text(before[name])})"
        for name in (*names, "output.total_kimg")
        if name in before and after[name] != before[name]
    ]


def chosen_options(
    config: RunConfig,
    *,
    num_images: int | None = None,
    initial: Sequence[GeneratorConfig | DiscriminatorConfig] | None = None,
    grown_to: int | None = None,
) -> dict[str, Any]:
    """Return the options by which a run differs from its preset: `configure` gives it with them.

    Data, initial weights and runtime are left out, and the intervals of what is written.

    Args:
        config: options of the run, decided; of a preset of `PRESETS`.
        num_images: images of the set, as of `configure`.
        initial: options of the networks that it started from.
        grown_to: as of `configure`.

    Raises:
        ConfigError: if the preset is unknown, or this version refuses an option.
    """
    wanted = _comparable(config)
    options: dict[str, Any] = {"data.path": config.data.path, "init_from": config.init_from}
    while True:
        found, _ = configure(
            config.preset,
            options,
            resolution=config.generator.resolution,
            img_channels=config.generator.img_channels,
            label_dim=config.generator.c_dim,
            num_images=num_images,
            initial=initial,
            grown_to=grown_to,
        )
        values = _comparable(found)
        missing = {
            name: value
            for name, value in wanted.items()
            if name not in options and (name not in values or values[name] != value)
        }
        if not missing:
            return {name: value for name, value in options.items() if name in wanted}
        # Rules follow from the batch and the length; what a rule then decides is not an option.
        first = (
            [name for name in missing if name in ("batch", "output.total_kimg")]
            or [name for name in missing if name not in BY_RULE]
            or [next(iter(missing))]
        )
        options |= {name: missing[name] for name in first}


_NOT_CHOSEN = ("preset", "family", "runtime.", "data.path", "data.labels", "init_from")


def _comparable(config: RunConfig) -> dict[str, Any]:
    """Return the values of a config by full name that `chosen_options` compares."""
    values: dict[str, Any] = {}
    for section, content in config.to_json().items():
        if isinstance(content, dict):
            values |= {f"{section}.{name}": value for name, value in content.items()}
        else:
            values[section] = content
    return {
        name: value
        for name, value in values.items()
        if not name.startswith(_NOT_CHOSEN)
        and name not in FROM_IMAGES
        and (not name.startswith("output.") or name == "output.total_kimg")
    }


def _adopted(
    start: RunConfig, initial: Sequence[GeneratorConfig | DiscriminatorConfig]
) -> tuple[RunConfig, Reasons]:
    """Replace the networks of a preset by those of the initial weights."""
    family = FAMILIES[start.family]
    networks: dict[str, Any] = {}
    source: Any
    for source in initial:
        if type(source) not in (family.generator_config, family.discriminator_config):
            others = [
                name
                for name, other in FAMILIES.items()
                if type(source) in (other.generator_config, other.discriminator_config)
            ]
            raise ConfigError(
                f"--init-from has networks of family {others[0]}, but preset {start.preset} is of "
                f"family {start.family}",
                fix=f"choose a preset of family {others[0]}",
            )
        name = "generator" if hasattr(source, "z_dim") else "discriminator"
        networks[name] = source
    reasons = {
        f"{name}.{entry.name}": "that of the initial weights"
        for name, network in networks.items()
        for entry in dataclasses.fields(network)
        if getattr(network, entry.name) != getattr(getattr(start, name), entry.name)
        and f"{name}.{entry.name}" not in FROM_IMAGES
    }
    # the initial weights bring their own average, which a ramp would discard
    start = replace(start, **networks, ema=replace(start.ema, rampup=None))
    if start.growth is not None:
        start = replace(start, growth=replace(start.growth, initial_resolution=None))
    return start, reasons


def _fitted_to_images(
    config: RunConfig, resolution: Resolution, img_channels: int, label_dim: int
) -> RunConfig:
    sizes = {"resolution": resolution, "img_channels": img_channels, "c_dim": label_dim}
    generator: Any = config.generator
    widths = {}
    if getattr(generator, "mapping_layers", None) == 0:  # w is z, followed by as many for labels
        widths = {"w_dim": generator.z_dim * (2 if label_dim else 1)}
    discriminator: Any = config.discriminator
    return replace(
        config,
        generator=replace(generator, **sizes, **widths),
        discriminator=replace(discriminator, **sizes),
        data=replace(config.data, labels=label_dim > 0),
    )


def _gamma(config: RunConfig, of_preset: RunConfig) -> tuple[float, str]:
    gamma, size = config.loss.gamma, config.generator.size
    if gamma is not None:
        return gamma, OF_PRESET if gamma == of_preset.loss.gamma else CHOSEN
    if config.loss.adversarial == "wgan-gp":
        return 0.0, "WGAN-GP has a gradient penalty of its own"
    if (size, config.batch) == (of_preset.generator.size, of_preset.batch):
        published = decided(of_preset.loss.gamma, "loss.gamma")
        return published, f"published for {size} and a batch of {config.batch}"
    return 0.0002 * size.num_pixels / config.batch, GAMMA_RULE


def _augment_kimg(config: RunConfig, num_images: int | None) -> tuple[float, str]:
    """Return in how many thousand images p can move by 1, and why.

    Small sets overfit after fewer images than large ones, and p has to adapt within the run.
    """
    published = AUGMENT_KIMG if config.init_from is None else AUGMENT_KIMG_FROM_WEIGHTS
    source = "published" if config.init_from is None else "published for runs from weights"
    choices = {published: f"{source} (Karras et al. 2020, ADA)"}
    if num_images is not None:
        kimg = num_images * AUGMENT_VIEWS / 1000
        choices[kimg] = f"{AUGMENT_VIEWS} views of each of {num_images:,} images"
    fraction = config.output.total_kimg / 5
    choices[fraction] = "a fifth of the run"
    kimg = min(choices)
    return kimg, choices[kimg]


def _precision(config: RunConfig, of_preset: RunConfig, device: str) -> tuple[Precision, str]:
    if config.precision is not None:
        is_of_preset = config.precision == of_preset.precision
        return config.precision, OF_PRESET if is_of_preset else CHOSEN
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "this GPU computes in bfloat16"
    # get_capabilities came after the oldest torch that we support
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    for name, extension in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512")):
        if device == "cpu" and capabilities.get(name, False):
            return "bf16", f"this CPU multiplies matrices in bfloat16 ({extension})"
    return "fp32", "this device is not known to be faster in bfloat16"


def _ema(config: RunConfig, of_preset: RunConfig) -> EmaConfig:
    """Scale the EMA of the preset to the batch size."""
    ema, scale = config.ema, config.batch / of_preset.batch
    if ema.half_life_kimg is not None:
        return ema
    half_life = decided(of_preset.ema.half_life_kimg, "ema.half_life_kimg")
    if of_preset.ema.beta is not None:
        # a decay per iteration: the same half-life in images at any batch size
        beta = of_preset.ema.beta**scale if ema.beta is None else ema.beta
        return replace(ema, half_life_kimg=half_life, beta=beta)
    return replace(ema, half_life_kimg=half_life * scale)


def _growth(
    config: RunConfig, growth: GrowthConfig, of_preset: RunConfig, *, grown_to: int
) -> GrowthConfig:
    """Fit the growth of the preset to the resolution, the batch size and the length of a run."""
    model = of_preset.growth or GrowthConfig()
    resolution, batch = config.generator.size.nominal, config.batch
    # A longer run continues at the full resolution, as the published ones on LSUN do.
    pace = min(config.output.total_kimg / of_preset.output.total_kimg, 1.0)
    group = stddev_group(config.discriminator.mbstd_group_size, batch)
    scale = batch / of_preset.batch
    first = decided(model.initial_resolution, "growth.initial_resolution")
    fitted = GrowthConfig(
        initial_resolution=min(grown_to, resolution),
        train_kimg=decided(model.train_kimg, "growth.train_kimg") * pace,
        fade_kimg=decided(model.fade_kimg, "growth.fade_kimg") * pace,
        batches={
            side: max(round(num * scale / group), 1) * group
            for side, num in decided(model.batches, "growth.batches").items()
            if first <= int(side) < resolution
        },
        lrs={
            side: lr
            for side, lr in decided(model.lrs, "growth.lrs").items()
            if int(side) <= resolution
        },
    )
    return _filled(growth, fitted)


def _output(config: RunConfig, of_preset: RunConfig) -> OutputConfig:
    """Report more often in a run that is shorter than the preset's."""
    total, model = config.output.total_kimg, of_preset.output
    snapshot = config.output.snapshot_kimg
    if snapshot is None:
        of_model = decided(model.snapshot_kimg, "output.snapshot_kimg")
        snapshot = min(of_model, max(total / NUM_SNAPSHOTS, MIN_SNAPSHOT_KIMG))
    of_model = decided(model.tick_kimg, "output.tick_kimg")
    tick = min(of_model, max(total / NUM_TICKS, MIN_TICK_KIMG))
    fitted = replace(model, tick_kimg=tick, snapshot_kimg=snapshot, checkpoint_kimg=snapshot)
    return _filled(config.output, fitted)


Section = TypeVar("Section", GrowthConfig, OutputConfig)


def _filled(section: Section, values: Section) -> Section:
    """Replace what is None in a section."""
    missing = {
        entry.name: getattr(values, entry.name)
        for entry in dataclasses.fields(section)
        if getattr(section, entry.name) is None
    }
    return replace(section, **missing)


def _value(config: RunConfig, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
