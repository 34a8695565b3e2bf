"""Pure functions on z and w. No network in sight."""

import torch
import torch.nn.functional as F
from torch import Tensor


def broadcast(w: Tensor, num_ws: int) -> Tensor:
    """Repeat w [N, w_dim] for every style input: [N, num_ws, w_dim]."""
    return w.unsqueeze(1).expand(-1, num_ws, -1)


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Pull styles towards the mean: `w_avg + psi * (w - w_avg)`.

    Source: Karras et al. 2019 (StyleGAN), appendix B.

    Args:
        ws: [N, num_ws, w_dim].
        w_avg: the mean of w, [w_dim].
        psi: 1 changes nothing, 0 gives the mean, negative values the opposite.
        cutoff: only the first `cutoff` style inputs are truncated; None means all.
    """
    if psi == 1:
        return ws
    num = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([w_avg.lerp(ws[:, :num], psi), ws[:, num:]], dim=1)


def mix(ws: Tensor, other: Tensor, crossover: int) -> Tensor:
    """Take `ws` for style inputs below `crossover` and `other` from there on.

    Source: Karras et al. 2019 (StyleGAN), section 3.1, mixing regularization.

    Args:
        ws: [N, num_ws, w_dim].
        other: [N, num_ws, w_dim].
        crossover: 0 gives `other`, num_ws gives `ws`.
    """
    return torch.cat([ws[:, :crossover], other[:, crossover:]], dim=1)


def lerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Interpolate linearly; `t` in [0, 1] broadcasts against a and b."""
    return a + (b - a) * t


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """Interpolate along the great circle between the directions of a and b, [..., dim].

    Both are normalized to unit length first, and so is the result, as in the path-length metric.

    Source: Karras et al. 2019 (StyleGAN), section 4.1.
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    cosine = (a * b).sum(dim=-1, keepdim=True)
    angle_rad = t * torch.acos(cosine.clamp(-1, 1))
    tangent = b - cosine * a
    # Equal or opposite directions have no tangent; normalize keeps its zero, and we stay at a.
    result = a * torch.cos(angle_rad) + F.normalize(tangent, dim=-1) * torch.sin(angle_rad)
    return F.normalize(result, dim=-1)
