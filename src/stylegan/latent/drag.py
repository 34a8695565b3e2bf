"""Dragging: optimize latents until points of an image have moved to their targets.

Source: Pan et al. 2023, "Drag Your GAN: Interactive Point-based Manipulation on the Generative
Image Manifold", sections 3.1 to 3.3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.errors import ConfigError, check_not_negative, check_positive
from stylegan.latent.render import device_of
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import synthesize

Point = tuple[float, float]
"""x to the right and y down, in pixels; the center of the first pixel is (0, 0)."""

PAPER_SIDE = 512  # pixels; to whose images the paper's radii belong
MIN_TRACKING_RADIUS = 3


@dataclass(frozen=True, kw_only=True)
class DragConfig:
    """Options of dragging; the defaults are the paper's, section 4, unless they say otherwise.

    Attributes:
        num_layers: style inputs that are optimized, coarsest first; the others stay.
        learning_rate: of Adam.
        motion_radius: of the patch around a handle that is moved, in pixels. None: 3 pixels in
            images of 512 pixels, and in proportion in smaller ones, but at least 1.
        tracking_radius: of the square in which a handle is searched, in pixels. None: likewise 12,
            but at least 3.
        mask_weight: weight of the loss that keeps features outside the mask.
        tolerance: a handle has arrived at this distance from its target, in pixels.

    Raises:
        ConfigError: if a value is out of range.
    """

    num_layers: int = 6
    learning_rate: float = 2e-3
    motion_radius: int | None = None
    tracking_radius: int | None = None
    mask_weight: float = 20.0
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_layers", "learning_rate", "tolerance"):
            check_positive(name, getattr(self, name))
        check_not_negative("mask_weight", self.mask_weight)
        for name in ("motion_radius", "tracking_radius"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))


class Dragger:
    """Moves handle points of one image to target points.

    Features are those of the block at half the image's resolution, enlarged to the size of the
    image; the paper takes those of the sixth block, whatever the size. The losses are sums over
    pixels, and means over channels in place of sums: a common factor, which Adam cancels.

    Args:
        generator: in eval mode, without gradients for its parameters.
        ws: latents of the image, [1, num_ws, w_dim].
        handles: at least one point.
        targets: where each handle should go.
        mask: True where the image may change, bool [H, W]; None for everywhere.
        noise: noise maps that replace stored ones, [r, r] by layer.
        config: options.

    Attributes:
        handles: the points as they are now.
        step: number of steps done.

    Raises:
        ConfigError: if the numbers of points differ or are 0, a point lies outside the image, or
            the mask has another size.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        ws: Tensor,
        *,
        handles: Sequence[Point],
        targets: Sequence[Point],
        mask: Tensor | None = None,
        noise: Mapping[str, Tensor] | None = None,
        config: DragConfig | None = None,
    ) -> None:
        self.config = config or DragConfig()
        self.handles = [(float(x), float(y)) for x, y in handles]
        self.step = 0
        self._generator = generator
        self._targets = [(float(x), float(y)) for x, y in targets]
        self._size = generator.current_size
        self._check(mask)
        device = device_of(generator)
        self._noise = {name: each.to(device) for name, each in (noise or {}).items()}
        side = max(self._size.height, self._size.width)
        self._motion_radius = self.config.motion_radius or max(1, round(3 * side / PAPER_SIDE))
        self._tracking_radius = self.config.tracking_radius or max(
            MIN_TRACKING_RADIUS, round(12 * side / PAPER_SIDE)
        )
        ws = ws.detach().to(device)
        self._moving = ws[:, : self.config.num_layers].clone().requires_grad_()
        self._fixed = ws[:, self.config.num_layers :]
        self._adam = torch.optim.Adam([self._moving], lr=self.config.learning_rate)
        self._kept = None if mask is None else (~mask).to(device)
        with torch.no_grad():
            self._first = self._features()
        self._first_at_handles = [
            self._first[:, round(y), round(x)].clone() for x, y in self.handles
        ]
        if self._kept is None:
            self._first = self._first[:, :0]  # only the mask needs all of it

    @property
    def ws(self) -> Tensor:
        """The latents as they are now, [1, num_ws, w_dim]."""
        return torch.cat([self._moving.detach(), self._fixed], dim=1)

    @property
    def distances(self) -> list[float]:
        """Distance of each handle to its target, in pixels."""
        pairs = zip(self.handles, self._targets, strict=True)
        return [torch.dist(torch.tensor(a), torch.tensor(b)).item() for a, b in pairs]

    @property
    def is_done(self) -> bool:
        """Whether every handle has arrived."""
        return max(self.distances) <= self.config.tolerance

    def advance(self) -> None:
        """Do one step: find the handles, and unless all have arrived, move them on.

        Sections 3.2 (motion supervision, equation 1) and 3.3 (point tracking, equation 2).
        """
        features = self._features()
        if self.step > 0:
            self._track(features.detach())
        if self.is_done:
            return
        loss = self._motion_loss(features)
        if self._kept is not None and self._kept.any():
            change = (features - self._first).abs().mean(dim=0)
            loss = loss + self.config.mask_weight * change[self._kept].sum()
        (self._moving.grad,) = torch.autograd.grad(loss, [self._moving])
        self._adam.step()
        self.step += 1

    def _motion_loss(self, features: Tensor) -> Tensor:
        """Compare each patch with itself one pixel nearer to the target.

        The patch as it is now is detached, so its content moves towards the target.
        """
        losses = []
        for (x, y), (target_x, target_y), distance in zip(
            self.handles, self._targets, self.distances, strict=True
        ):
            if distance <= self.config.tolerance:
                continue
            patch = self._disk(x, y)
            direction = patch.new_tensor([target_x - x, target_y - y]) / distance
            here = sample(features.detach(), patch)
            losses.append((sample(features, patch + direction) - here).abs().mean(dim=0).sum())
        return torch.stack(losses).sum()

    def _track(self, features: Tensor) -> None:
        """Move each handle to the nearby pixel with the features closest to its first ones."""
        radius = self._tracking_radius
        for index, (x, y) in enumerate(self.handles):
            left, top = max(0, round(x) - radius), max(0, round(y) - radius)
            window = features[:, top : round(y) + radius + 1, left : round(x) + radius + 1]
            first = self._first_at_handles[index][:, None, None]
            nearest = int((window - first).abs().sum(dim=0).argmin())
            row, column = divmod(nearest, window.shape[2])
            self.handles[index] = (float(left + column), float(top + row))

    def _disk(self, x: float, y: float) -> Tensor:
        """Return the pixels of a patch within the image as (x, y), [K, 2]."""
        radius = self._motion_radius
        steps = torch.arange(-radius, radius + 1, device=self._moving.device)
        dy, dx = torch.meshgrid(steps, steps, indexing="ij")
        inside = dx**2 + dy**2 <= radius**2
        points = torch.stack([round(x) + dx[inside], round(y) + dy[inside]], dim=1).float()
        limits = points.new_tensor([self._size.width - 1, self._size.height - 1])
        return points[((points >= 0) & (points <= limits)).all(dim=1)]

    def _features(self) -> Tensor:
        """Return the features of the present latents in the image's size, [C, H, W]."""
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            found.append(output)

        synthesis = self._generator.synthesis
        block = synthesis.get_submodule(f"b{max(4, synthesis.current_resolution // 2)}")
        handle = block.register_forward_hook(keep)
        try:
            ws = torch.cat([self._moving, self._fixed], dim=1)
            synthesize(self._generator, ws, noise=self._noise)
        finally:
            handle.remove()
        size = [self._size.height, self._size.width]
        resized = F.interpolate(found[0].float(), size, mode="bilinear", align_corners=True)
        return resized[0]

    def _check(self, mask: Tensor | None) -> None:
        height, width = self._size.height, self._size.width
        if not self.handles or len(self.handles) != len(self._targets):
            raise ConfigError(
                f"dragging needs a target for each handle, got {len(self.handles)} handles and "
                f"{len(self._targets)} targets"
            )
        for x, y in (*self.handles, *self._targets):
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise ConfigError(f"the point ({x:g}, {y:g}) is outside the image")
        if mask is not None and list(mask.shape) != [height, width]:
            raise ConfigError(f"the mask must be {[height, width]}, got {list(mask.shape)}")


def sample(features: Tensor, points: Tensor) -> Tensor:
    """Interpolate features [C, H, W] bilinearly at points (x, y) [K, 2] in pixels: [C, K].

    Points outside have the features of the border.
    """
    size = points.new_tensor([features.shape[2] - 1, features.shape[1] - 1])
    places = (2 * points / size - 1)[None, None]
    sampled = F.grid_sample(features[None], places, padding_mode="border", align_corners=True)
    return sampled[0, :, 0]
