"""The networks of each named configuration, in one table."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stylegan.errors import ConfigError, did_you_mean
from stylegan.image_size import Resolution
from stylegan.models import progan, stylegan, stylegan2
from stylegan.models.base import (
    AbstractDiscriminator,
    AbstractGenerator,
    DiscriminatorConfig,
    GeneratorConfig,
    Networks,
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """The classes of one model family."""

    generator: Callable[[Any], AbstractGenerator]
    generator_config: type[Any]
    discriminator: type[AbstractDiscriminator]
    discriminator_config: type[Any]


FAMILIES = {
    "progan": Family(
        generator=progan.Generator,
        generator_config=progan.GeneratorConfig,
        discriminator=progan.Discriminator,
        discriminator_config=progan.DiscriminatorConfig,
    ),
    "stylegan": Family(
        generator=stylegan.Generator,
        generator_config=stylegan.GeneratorConfig,
        discriminator=stylegan.Discriminator,
        discriminator_config=stylegan.DiscriminatorConfig,
    ),
    "stylegan2": Family(
        generator=stylegan2.Generator,
        generator_config=stylegan2.GeneratorConfig,
        discriminator=stylegan2.Discriminator,
        discriminator_config=stylegan2.DiscriminatorConfig,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A named configuration: a family, and the options that differ from its defaults."""

    family: str
    generator: Mapping[str, Any]
    discriminator: Mapping[str, Any]


_PROGAN = Configuration(family="progan", generator={}, discriminator={})
_STYLEGAN_F = Configuration(family="stylegan", generator={}, discriminator={})
_STYLEGAN2_B = Configuration(
    family="stylegan2",
    generator={"architecture": "growing", "channel_base": 16384},
    discriminator={"architecture": "growing", "channel_base": 16384},
)
_STYLEGAN2_E = Configuration(
    family="stylegan2",
    generator={"channel_base": 16384},
    discriminator={"channel_base": 16384},
)

CONFIGURATIONS = {
    # Karras et al. 2018 (ProGAN), table 2.
    "progan": _PROGAN,
    # Karras et al. 2019 (StyleGAN), table 1. Row A: the baseline.
    "stylegan-a": _PROGAN,
    # Row B: blurred resampling.
    "stylegan-b": Configuration(
        family="stylegan",
        generator={
            "mapping_layers": 0,
            "styles": False,
            "constant_input": False,
            "noise": False,
        },
        discriminator={},
    ),
    # Row C: the mapping network and styles.
    "stylegan-c": Configuration(
        family="stylegan",
        generator={"constant_input": False, "noise": False},
        discriminator={},
    ),
    # Row D: the learned constant.
    "stylegan-d": Configuration(family="stylegan", generator={"noise": False}, discriminator={}),
    # Row E: noise.
    "stylegan-e": _STYLEGAN_F,
    "stylegan-f": _STYLEGAN_F,  # F changes the training only
    # Karras et al. 2020 (StyleGAN2), table 1. Row A: the baseline, StyleGAN.
    "stylegan2-a": _STYLEGAN_F,
    # Row B: demodulated weights, still growing.
    "stylegan2-b": _STYLEGAN2_B,
    "stylegan2-c": _STYLEGAN2_B,  # C and D change the training only
    "stylegan2-d": _STYLEGAN2_B,
    # Row E: no growing, G skip, D resnet. Table 2 exchanges the two architectures.
    "stylegan2-e": _STYLEGAN2_E,
    # Row F: twice the feature maps from 64x64 up.
    "stylegan2-f": Configuration(family="stylegan2", generator={}, discriminator={}),
    # Figure 7a, after Karnewar and Wang 2020 (MSG-GAN): an image at each resolution.
    "msg-stylegan2": Configuration(
        family="stylegan2",
        generator={**_STYLEGAN2_E.generator, "architecture": "mipmap"},
        discriminator={**_STYLEGAN2_E.discriminator, "architecture": "mipmap"},
    ),
    # Not published: for a CPU or a small GPU at up to 128x128. The mapping depth of 2 is ADA's
    # for small data (Karras et al. 2020, "Training GANs with limited data", appendix C).
    "stylegan2-small": Configuration(
        family="stylegan2",
        generator={
            "channel_base": 2048,
            "channel_max": 64,
            "z_dim": 128,
            "w_dim": 128,
            "mapping_layers": 2,
        },
        discriminator={"channel_base": 2048, "channel_max": 64},
    ),
}


def configs_for(
    name: str, resolution: Resolution, **options: int | str
) -> tuple[str, GeneratorConfig, DiscriminatorConfig]:
    """Return family, generator options and discriminator options of a named configuration.

    Args:
        name: a key of `CONFIGURATIONS`.
        resolution: side of the images in pixels, or "HEIGHTxWIDTH".
        options: fields that replace those of the configuration, in each network that has them.

    Raises:
        ConfigError: if the name or an option is unknown, or a value cannot work.
    """
    if name not in CONFIGURATIONS:
        raise ConfigError(
            f"configuration must be one of {', '.join(CONFIGURATIONS)}, got {name!r}"
            f"{did_you_mean(name, CONFIGURATIONS)}"
        )
    row = CONFIGURATIONS[name]
    family = FAMILIES[row.family]
    known = {
        config: {field.name for field in dataclasses.fields(config)}
        for config in (family.generator_config, family.discriminator_config)
    }
    for option in options:
        if not any(option in names for names in known.values()):
            raise ConfigError(
                f"network option must be one of {', '.join(sorted(set.union(*known.values())))}, "
                f"got {option!r}"
            )

    def values(config: Any, base: Mapping[str, Any]) -> dict[str, Any]:
        chosen = {key: value for key, value in options.items() if key in known[config]}
        if base.get("mapping_layers") == 0 and chosen.get("c_dim"):  # w is z and the embedded label
            chosen = {"w_dim": 2 * chosen.get("z_dim", config.z_dim), **chosen}
        return {**base, **chosen, "resolution": resolution}

    return (
        row.family,
        family.generator_config(**values(family.generator_config, row.generator)),
        family.discriminator_config(**values(family.discriminator_config, row.discriminator)),
    )


def create(name: str, resolution: Resolution, **options: int | str) -> Networks:
    """Make the networks of a named configuration with new random weights.

    Args:
        name: a key of `CONFIGURATIONS`, such as "stylegan2-f".
        resolution: side of the images in pixels, or "HEIGHTxWIDTH", such as 64 or "96x160".
        options: fields of the networks' configs, such as `channel_base`.

    Returns:
        Networks whose `generator_ema` equals the generator.

    Raises:
        ConfigError: if the name or an option is unknown, or a value cannot work.
    """
    family, generator_config, discriminator_config = configs_for(name, resolution, **options)
    generator = build_generator(family, generator_config)
    return Networks(
        generator=generator,
        generator_ema=copy.deepcopy(generator).eval().requires_grad_(False),
        discriminator=build_discriminator(family, discriminator_config),
    )


def build_generator(family: str, config: GeneratorConfig) -> AbstractGenerator:
    """Make a generator of a family from its options."""
    return FAMILIES[family].generator(config)


def build_discriminator(family: str, config: DiscriminatorConfig) -> AbstractDiscriminator:
    """Make a discriminator of a family from its options."""
    return FAMILIES[family].discriminator(config)


def family_of(network: AbstractGenerator | AbstractDiscriminator) -> str:
    """Return the name of a network's family."""
    for name, family in FAMILIES.items():
        if type(network) in (family.generator, family.discriminator):
            return name
    raise ValueError(f"{type(network).__name__} belongs to no family")
