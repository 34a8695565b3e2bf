"""The mapping network f: z to w."""

import torch
from torch import Tensor, nn

from stylegan.latents import broadcast, truncate
from stylegan.nn.equalized import EqualizedLinear
from stylegan.ops.normalize import pixel_norm


class MappingNetwork(nn.Module):
    """Map latents z, and labels c if there are any, to styles ws.

    `w_avg` is the running mean of w, the centre of truncation; only `update_w_avg` moves it.

    Source: Karras et al. 2019 (StyleGAN), section 2; the labels' own embedding and
    normalization follow StyleGAN2-ADA.

    Args:
        z_dim: width of z; 0 for a network of labels alone, as in a conditional discriminator.
        w_dim: width of w and of all layers between.
        c_dim: width of the labels; 0 for none.
        num_layers: number of fully connected layers.
        num_ws: style inputs to repeat w for; None returns w itself and keeps no mean.
        lr_multiplier: factor on the learning rate of the layers.
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        w_dim: int,
        c_dim: int = 0,
        num_layers: int = 8,
        num_ws: int | None = None,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.c_dim = c_dim
        self.num_layers = num_layers
        self.num_ws = num_ws
        if c_dim > 0:
            self.embed = EqualizedLinear(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim > 0 else 0)
        for index in range(num_layers):
            layer = EqualizedLinear(width, w_dim, act="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{index}", layer)
            width = w_dim
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map z [N, z_dim] and c [N, c_dim] to ws [N, num_ws, w_dim], or w where num_ws is None.

        `truncation_psi` pulls the first `truncation_cutoff` styles (None: all) towards `w_avg`.

        Raises:
            ValueError: if z or c is missing or has another width.
        """
        inputs = []
        if self.z_dim > 0:
            inputs.append(pixel_norm(_checked(z, self.z_dim, "z")))
        if self.c_dim > 0:
            inputs.append(pixel_norm(self.embed(_checked(c, self.c_dim, "c"))))
        w = torch.cat(inputs, dim=1)
        for index in range(self.num_layers):
            w = self.get_submodule(f"fc{index}")(w)
        if self.num_ws is None:
            return w
        return truncate(broadcast(w, self.num_ws), self.w_avg, truncation_psi, truncation_cutoff)

    @torch.no_grad()
    def update_w_avg(self, ws: Tensor, beta: float) -> None:
        """Move `w_avg` towards the batch mean of un-mixed ws: `lerp(mean, w_avg, beta)`."""
        self.w_avg.copy_(ws[:, 0].mean(dim=0).lerp(self.w_avg, beta))


def _checked(x: Tensor | None, width: int, name: str) -> Tensor:
    if x is None or x.ndim != 2 or x.shape[1] != width:
        found = "None" if x is None else list(x.shape)
        raise ValueError(f"{name} must be [N, {width}], got {found}")
    return x.to(torch.promote_types(x.dtype, torch.float32))
