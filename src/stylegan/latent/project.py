"""Projection: optimize latents and noise maps until a generator reproduces an image.

Source: Karras et al. 2020 (StyleGAN2), appendix D, and the official projector.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.errors import ConfigError, check_not_negative, check_positive
from stylegan.latent.saved import SavedLatents
from stylegan.latent.statistics import StyleStatistics
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps, synthesize
from stylegan.perceptual.detector import AbstractDistance
from stylegan.pixel_format import PixelFormat
from stylegan.rng import generator_for

Space = Literal["w", "w+"]

MIN_REGULARIZED_SIDE = 8  # pixels; the noise regularizer ignores smaller maps


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """Options of a projection.

    Attributes:
        space: "w" optimizes one w for all style inputs, "w+" one for each.
        num_steps: steps of Adam.
        learning_rate: its maximum.
        ramp_up: fraction of the steps over which the learning rate rises from 0.
        ramp_down: fraction of the steps over which it falls to 0, as a cosine.
        style_noise: initial std of the noise on w, in units of the std of w.
        style_noise_share: fraction of the steps over which this noise fades to 0.
        noise_weight: weight of the regularizer that keeps noise maps free of signal.
        optimizes_noise: optimize noise maps too, otherwise keep the stored ones.
        pixel_weight: weight of the mean squared error of pixels in [-1, 1]; 0 in the official
            algorithm.

    Raises:
        ConfigError: if a value is out of range.
    """

    space: Space = "w"
    num_steps: int = 1000
    learning_rate: float = 0.1
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    style_noise: float = 0.05
    style_noise_share: float = 0.75
    noise_weight: float = 1e5
    optimizes_noise: bool = True
    pixel_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.space not in get_args(Space):
            raise ConfigError(f"space must be w or w+, got {self.space!r}")
        check_positive("steps", self.num_steps)
        check_positive("learning_rate", self.learning_rate)
        check_positive("style_noise_share", self.style_noise_share)
        for name in ("ramp_up", "ramp_down", "style_noise", "noise_weight", "pixel_weight"):
            check_not_negative(name, getattr(self, name))


# The official algorithm. For w+ with the pixel term of Abdal et al. 2019 (Image2StyleGAN),
# section 4, because a w for each layer can reproduce features without the colors.
DEFAULTS: Mapping[Space, ProjectionConfig] = {
    "w": ProjectionConfig(),
    "w+": ProjectionConfig(space="w+", pixel_weight=1.0),
}


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The projection of one image.

    Attributes:
        ws: [1, num_ws, w_dim], float32, on the CPU.
        noise: noise of each layer by name, [r, r], on the CPU; empty if it was not optimized.
        distance: perceptual distance between the generated image and the target.
        image: the generated image, without noise on w, as a picture: uint8 [1, 3 or 4, R, R].
        psnr: peak signal-to-noise ratio of the pixels, in dB; with alpha, of premultiplied ones.
    """

    ws: Tensor
    noise: dict[str, Tensor]
    distance: float
    image: Tensor
    psnr: float


class Projector:
    """Projects a batch of images, independently of each other.

    Random numbers depend on an image's content, not on the other images. Only rounding differs
    from a batch of one, which a thousand steps make visible.

    Args:
        generator: in eval mode, without gradients for its parameters; computes in its dtype.
        targets: [N, C, R, R], in the size and the format of the generator's images.
        distance: on the generator's device.
        statistics: of w, for the label of the images.
        config: options.
        seed: of the noise on w and the initial noise maps.
        initial: latents to start from, ws [N, num_ws, w_dim] or [1, num_ws, w_dim] for all images,
            with noise maps or else the stored ones. `result` is then never worse than they are.
            None: the mean of w and random noise maps.

    Attributes:
        step: number of steps done.
        distances: the perceptual distances of the last step [N], with noise on w; NaN before.

    Raises:
        ConfigError: if the space is w+ and the generator has a single style input, or if the space
            is w and `initial` has different rows for an image.
        ValueError: if the targets have another shape than the generator's images.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        targets: Tensor,
        *,
        distance: AbstractDistance,
        statistics: StyleStatistics,
        config: ProjectionConfig = DEFAULTS["w"],
        seed: int = 0,
        initial: SavedLatents | None = None,
    ) -> None:
        if config.space == "w+" and generator.num_ws == 1:
            raise ConfigError("space w+ needs more than one style input, which this network has")
        self.generator = generator
        self.distance = distance
        self.config = config
        self.step = 0
        self._w_std = statistics.std
        self._seed = seed
        self._targets = targets
        self._size = generator.current_size
        self._check_targets()
        device = statistics.mean.device
        self._target_images = generator.pixels.to_float(targets.to(device))
        self._keys = [_key(target) for target in targets]
        with torch.no_grad():
            seen = distance.view(self._target_images, generator.pixels)
            self._layers = list(distance.layers(resized_for(seen, distance)))
        num_ws = generator.num_ws if config.space == "w+" else 1
        w = statistics.mean if initial is None else _initial_w(initial.ws, num_ws).to(device)
        self._w = w.expand(len(targets), num_ws, -1).clone().requires_grad_()
        self._noise = {
            layer: self._initial_noise(layer, stored, initial).requires_grad_()
            for layer, stored in noise_maps(generator).items()
            # a growing generator does not use the larger maps yet
            if config.optimizes_noise and stored.shape[-1] <= self._size.width
        }
        self._adam = torch.optim.Adam([self._w, *self._noise.values()], lr=config.learning_rate)
        self.distances = torch.full([len(targets)], math.nan)
        self._at_start = None if initial is None else self._current()

    def advance(self) -> None:
        """Do one step."""
        config, fraction = self.config, self.step / self.config.num_steps
        self._adam.param_groups[0]["lr"] = config.learning_rate * _ramp(fraction, config)
        fade = max(0.0, 1 - fraction / config.style_noise_share) ** 2
        std = self._w_std * config.style_noise * fade
        w = self._w + std * self._style_noise() if std > 0 else self._w
        images = self._synthesize(w)
        distances = self._distances(images)
        loss = distances
        if self._noise:
            loss = loss + config.noise_weight * noise_regularizer(self._noise)
        if config.pixel_weight > 0:
            loss = loss + config.pixel_weight * self._pixel_errors(images)
        variables = list(self._variables().values())
        gradients = torch.autograd.grad(loss.sum(), variables)
        for value, gradient in zip(variables, gradients, strict=True):
            value.grad = gradient
        self._adam.step()
        _normalize(self._noise)
        self.distances = distances.detach().cpu()
        self.step += 1

    def images(self) -> Tensor:
        """Return the current images without noise on w as pictures: uint8 [N, C, H, W].

        They are on the CPU; C is 1, 3 or 4 (RGBA). They are computed one at a time, so that
        `stylegan generate images` reproduces them from the saved latents.
        """
        return self.generator.pixels.shown(self._images())

    def _images(self) -> Tensor:
        """Return the current images without noise on w: float [N, C, R, R], on the CPU."""
        with torch.no_grad():
            rows = [
                self._synthesize(self._w, slice(row, row + 1)).cpu()
                for row in range(len(self._targets))
            ]
        return torch.cat(rows)

    def result(self) -> list[Projection]:
        """Return the current projections, in the order of the targets.

        Of an image that is farther from its target than the initial latents, these are returned.
        """
        current = self._current()
        if self._at_start is None:
            return [projection for projection, _ in current]
        return [
            now if now.distance <= before.distance and loss <= loss_before else before
            for (now, loss), (before, loss_before) in zip(current, self._at_start, strict=True)
        ]

    def _current(self) -> list[tuple[Projection, float]]:
        """Return the current projections and their losses, without the noise regularizer."""
        images = self._images()
        pixels = self.generator.pixels
        stored, pictures = pixels.to_stored(images), pixels.shown(images)
        with torch.no_grad():
            synthesized = self._synthesize(self._w)
            distances = self._distances(synthesized)
            losses = distances + self.config.pixel_weight * self._pixel_errors(synthesized)
        ws = self._w.detach().expand(-1, self.generator.num_ws, -1).cpu()
        return [
            (
                Projection(
                    ws=ws[row : row + 1].clone(),
                    noise={name: maps[row, 0].detach().cpu() for name, maps in self._noise.items()},
                    distance=float(distances[row]),
                    image=pictures[row],
                    psnr=psnr(stored[row], self._targets[row], pixels),
                ),
                float(losses[row]),
            )
            for row in range(len(images))
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that a step changes, from which another projector can continue."""
        state = {"step": torch.tensor(self.step), "distances": self.distances}
        for name, value in self._variables().items():
            state[name] = value.detach().cpu()
            for key, moment in self._adam.state.get(value, {}).items():
                state[f"{name}/{key}"] = moment.detach().cpu()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of `state_dict` of the same images and options.

        Raises:
            ValueError: if the state is of other images or options.
        """
        variables = self._variables()
        shapes = {name: state[name].shape for name in variables if name in state}
        if shapes != {name: value.shape for name, value in variables.items()}:
            raise ValueError("the state belongs to another network or to other options")
        with torch.no_grad():
            for name, value in variables.items():
                value.copy_(state[name])
                moments = {
                    key.removeprefix(f"{name}/"): moment.clone()
                    for key, moment in state.items()
                    if key.startswith(f"{name}/")
                }
                # Adam keeps its step on the CPU, and moments on the device of the tensor
                self._adam.state[value] = {
                    key: moment if key == "step" else moment.to(value.device)
                    for key, moment in moments.items()
                }
        self.step = int(state["step"])
        self.distances = state["distances"].clone()

    def _variables(self) -> dict[str, Tensor]:
        noise = {f"noise.{layer}": noise for layer, noise in self._noise.items()}
        return {"w": self._w, **noise}

    def _synthesize(self, w: Tensor, rows: slice = slice(None)) -> Tensor:
        ws = w[rows].expand(-1, self.generator.num_ws, -1)
        noise = {layer: noise[rows] for layer, noise in self._noise.items()}
        return synthesize(self.generator, ws, noise=noise)

    def _distances(self, images: Tensor) -> Tensor:
        seen = self.distance.view(images, self.generator.pixels)
        layers = zip(
            self.distance.layers(resized_for(seen, self.distance)), self._layers, strict=True
        )
        terms = [(image - target).square().flatten(1).sum(dim=1) for image, target in layers]
        return torch.stack(terms).sum(dim=0)

    def _style_noise(self) -> Tensor:
        """Return standard normal noise of this step for each image's w."""
        rows = [
            torch.randn(
                self._w.shape[1:],
                generator=generator_for(f"projection/{key}", seed=self._seed, nimg=self.step),
            )
            for key in self._keys
        ]
        return torch.stack(rows).to(self._w.device)

    def _pixel_errors(self, images: Tensor) -> Tensor:
        """Return the mean squared error of each image [N]."""
        return (images - self._target_images).square().mean(dim=(1, 2, 3))

    def _initial_noise(self, layer: str, stored: Tensor, initial: SavedLatents | None) -> Tensor:
        """Return the initial noise of a layer, [N, 1, h, w]."""
        if initial is not None:
            given = initial.noise.get(layer, stored).detach().to(stored.device)
            return given.expand(len(self._keys), 1, -1, -1).clone()
        rows = [
            torch.randn(
                1,
                *stored.shape,
                generator=generator_for(f"projection/{key}/{layer}", seed=self._seed),
            )
            for key in self._keys
        ]
        return torch.stack(rows).to(stored.device)

    def _check_targets(self) -> None:
        expected = [self.generator.img_channels, self._size.height, self._size.width]
        if self._targets.ndim != 4 or list(self._targets.shape[1:]) != expected:
            raise ValueError(f"targets must be {['N', *expected]}, got {list(self._targets.shape)}")


def resized_for(images: Tensor, distance: AbstractDistance) -> Tensor:
    """Resize images [N, C, H, W] to a size that a distance supports, by their shorter side.

    Larger ones are average-pooled, smaller ones enlarged by a whole number.
    """
    side = min(images.shape[2:])
    if side > distance.largest:
        return F.avg_pool2d(images, side // distance.largest)
    if side < distance.smallest:
        return F.interpolate(images, scale_factor=math.ceil(distance.smallest / side))
    return images


def split_state(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split the state of a batch into the states of its images."""
    num = len(state["w"])
    return [
        {key: value[row : row + 1] if value.ndim > 0 else value for key, value in state.items()}
        for row in range(num)
    ]


def join_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the states of images that are at the same step."""
    return {
        key: torch.cat([state[key] for state in states]) if value.ndim > 0 else value
        for key, value in states[0].items()
    }


def noise_regularizer(noise: Mapping[str, Tensor]) -> Tensor:
    """Measure signal in noise maps: the autocorrelation at distances of 1, 2, 4... pixels.

    Source: Karras et al. 2020 (StyleGAN2), appendix D, equation 15. Like the official code, and
    unlike the paper, we do not multiply the average of 2x2 pixels by 2.

    Args:
        noise: noise of each layer, [N, 1, h, w].

    Returns:
        [N].
    """
    terms: list[Tensor] = []
    for each in noise.values():
        level = each
        while True:
            for axis in (3, 2):
                correlation = (level * level.roll(1, axis)).mean(dim=(1, 2, 3))
                terms.append(correlation.square())
            if min(level.shape[2:]) <= MIN_REGULARIZED_SIDE:
                break
            level = F.avg_pool2d(level, 2)
    return torch.stack(terms).sum(dim=0)


def psnr(image: Tensor, target: Tensor, pixels: PixelFormat) -> float:
    """Return the peak signal-to-noise ratio of two stored images, in dB; infinite if equal.

    With alpha it is that of premultiplied pixels, as the color of transparent ones is arbitrary.
    """
    if pixels.is_plain:
        error = (image.double() - target.double()).square().mean().item() / 255**2
    else:
        difference = pixels.to_float(image) - pixels.to_float(target)
        error = difference.double().square().mean().item() / 4
    return math.inf if error == 0 else -10 * math.log10(error)


def _initial_w(ws: Tensor, num_ws: int) -> Tensor:
    """Return the first rows of ws that are optimized, [N, num_ws, w_dim]."""
    if num_ws == 1 and not torch.equal(ws, ws[:, :1].expand_as(ws)):
        raise ConfigError(
            "the initial latents have another w for each layer, which space w cannot keep",
            fix="choose space w+",
        )
    return ws[:, :num_ws]


def _ramp(fraction: float, config: ProjectionConfig) -> float:
    """Return the factor on the learning rate after this fraction of the steps."""
    down = min(1.0, (1 - fraction) / config.ramp_down) if config.ramp_down > 0 else 1.0
    up = min(1.0, fraction / config.ramp_up) if config.ramp_up > 0 else 1.0
    return (0.5 - 0.5 * math.cos(math.pi * down)) * up


def _normalize(noise: Mapping[str, Tensor]) -> None:
    """Give each map zero mean and unit variance, in place."""
    with torch.no_grad():
        for each in noise.values():
            each -= each.mean(dim=(2, 3), keepdim=True)
            each *= each.square().mean(dim=(2, 3), keepdim=True).rsqrt()


def _key(target: Tensor) -> str:
    """Return a key of an image's content."""
    content = target.cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
