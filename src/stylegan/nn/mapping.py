"""The mapping network f: z to w."""

from typing import Literal

import torch
from torch import Tensor, nn

from stylegan.latents import broadcast, truncate
from stylegan.nn.equalized import EqualizedLinear
from stylegan.ops.normalize import pixel_norm
from stylegan.ops.precision import exact_float32

LabelNorm = Literal["separate", "joint"]

LR_MULTIPLIER = 0.01
"""Learning-rate multiplier of the layers (Karras et al. 2019, section 4.1)."""


class MappingNetwork(nn.Module):
    """Map latents z, and labels c if there are any, to styles ws.

    `w_avg` is the running mean of w, the center of truncation; only `update_w_avg` changes it.

    Source: Karras et al. 2019 (StyleGAN), section 2. "separate" labels follow StyleGAN2-ADA,
    "joint" ones the official code of StyleGAN and StyleGAN2.

    Args:
        z_dim: width of z; 0 for a network of labels alone, as in a conditional discriminator.
        w_dim: width of w.
        c_dim: width of the labels; 0 for none.
        num_layers: number of fully connected layers; with 0, w is the normalized z.
        num_ws: number of style inputs to repeat w for; None returns w itself and keeps no mean.
        hidden_dim: width of all layers but the last; None for `w_dim`.
        lr_multiplier: factor on the learning rate of the layers.
        weight_gain: gain of each layer's weight alone; None for that of StyleGAN2.
        label_norm: "separate" embeds labels in w_dim numbers by an equalized layer and normalizes
            them separately from z; "joint" embeds them in z_dim numbers, without equalization or
            bias, and normalizes both as one vector.

    Raises:
        ValueError: if there is no layer and w would not have w_dim numbers.
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
        hidden_dim: int | None = None,
        lr_multiplier: float = LR_MULTIPLIER,
        weight_gain: float | None = None,
        label_norm: LabelNorm = "separate",
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.c_dim = c_dim
        self.num_layers = num_layers
        self.num_ws = num_ws
        self.label_norm = label_norm
        width = z_dim
        if c_dim > 0 and label_norm == "joint":
            self.embed: nn.Module = nn.Linear(c_dim, z_dim, bias=False)
            nn.init.normal_(self.embed.weight)
            width += z_dim
        elif c_dim > 0:
            self.embed = EqualizedLinear(c_dim, w_dim)
            width += w_dim
        if num_layers == 0 and width != w_dim:
            raise ValueError(f"without layers w has {width} numbers, not w_dim {w_dim}")
        for index in range(num_layers):
            is_last = index == num_layers - 1
            out = w_dim if is_last or hidden_dim is None else hidden_dim
            layer = EqualizedLinear(
                width, out, act="lrelu", lr_multiplier=lr_multiplier, weight_gain=weight_gain
            )
            self.add_module(f"fc{index}", layer)
            width = out
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    @exact_float32
    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map z [N, z_dim] and c [N, c_dim] to ws [N, num_ws, w_dim], or to w if num_ws is None.

        Truncation moves the first `truncation_cutoff` styles (None: all) towards `w_avg`.

        Raises:
            ValueError: if z or c is missing or has another width.
        """
        inputs = []
        if self.z_dim > 0:
            inputs.append(checked_input(z, self.z_dim, "z"))
        if self.c_dim > 0:
            inputs.append(self.embed(checked_input(c, self.c_dim, "c")))
        if self.label_norm == "joint":
            w = pixel_norm(torch.cat(inputs, dim=1))
        else:
            w = torch.cat([pixel_norm(part) for part in inputs], dim=1)
        for index in range(self.num_layers):
            w = self.get_submodule(f"fc{index}")(w)
        if self.num_ws is None:
            return w
        return truncate(broadcast(w, self.num_ws), self.w_avg, truncation_psi, truncation_cutoff)

    @torch.no_grad()
    def update_w_avg(self, ws: Tensor, beta: float) -> None:
        """Update `w_avg` to `lerp(mean, w_avg, beta)`, with the batch mean of ws before mixing."""
        self.w_avg.copy_(ws[:, 0].mean(dim=0).lerp(self.w_avg, beta))


def checked_input(x: Tensor | None, width: int, name: str) -> Tensor:
    """Return latents or labels [N, width] in float32 or wider.

    Raises:
        ValueError: if they are missing or have another shape.
    """
    if x is None or x.ndim != 2 or x.shape[1] != width:
        found = "None" if x is None else list(x.shape)
        raise ValueError(f"{name} must be [N, {width}], got {found}")
    return x.to(torch.promote_types(x.dtype, torch.float32))
