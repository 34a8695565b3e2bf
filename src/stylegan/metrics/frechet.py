"""Frechet distance between Gaussians fitted to two sets of features."""

import torch
from torch import Tensor

from stylegan.metrics.moments import Moments


def frechet_distance(a: Moments, b: Moments, *, unbiased: bool) -> float:
    """Return the Frechet distance between Gaussians with the moments of two sets.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a
    Local Nash Equilibrium", section 3. The official implementations differ only in the divisor of
    the covariance: N - 1 in `fid50k`, N in `fid50k_full`.

    Args:
        a: moments of one set, of at least two rows.
        b: moments of the other set, of the same width.
        unbiased: divide covariances by N - 1, instead of N.

    Raises:
        ValueError: if the widths differ, or a set has fewer than two rows.
    """
    return gaussian_frechet_distance(
        a.mean, a.covariance(unbiased=unbiased), b.mean, b.covariance(unbiased=unbiased)
    )


def gaussian_frechet_distance(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> float:
    """Return |m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    The trace of the matrix root is the sum of the singular values of S_a^(1/2) S_b^(1/2), and both
    roots come from symmetric eigendecompositions. This avoids the root of a matrix that is not
    symmetric, for which scipy's `sqrtm` gives complex or unstable results if the product is almost
    singular. Where `sqrtm` succeeds, as used by the official code, both agree up to rounding.

    Eigenvalues of a covariance below D * 2.2e-16 times its largest are rounding errors and count as
    0. The result is not clamped: for equal sets it is 0 up to rounding (about 1e-13 times the
    traces), and may be slightly negative.

    Args:
        mean_a: float [D]. Everything is computed in float64 on the CPU.
        covariance_a: float [D, D], symmetric and positive semidefinite; it may be singular.
        mean_b: float [D].
        covariance_b: float [D, D].

    Raises:
        ValueError: if the shapes do not match, or a number is not finite.
    """
    width = mean_a.numel()
    inputs = []
    for name, tensor, shape in (
        ("mean_a", mean_a, (width,)),
        ("covariance_a", covariance_a, (width, width)),
        ("mean_b", mean_b, (width,)),
        ("covariance_b", covariance_b, (width, width)),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {list(shape)}, got {list(tensor.shape)}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} must be finite")
        inputs.append(tensor.detach().cpu().double())
    mean_a, covariance_a, mean_b, covariance_b = inputs
    product = _root_rows(covariance_a) @ _root_rows(covariance_b).T
    cross = torch.linalg.svdvals(product).sum()
    traces = covariance_a.trace() + covariance_b.trace()
    return float((mean_a - mean_b).square().sum() + (traces - 2 * cross))


def _root_rows(covariance: Tensor) -> Tensor:
    """Return R [rank, D] with R^T R = S, the root of S up to a rotation, without zero rows.

    The sum of singular values does not depend on the rotation.
    """
    values, vectors = torch.linalg.eigh(covariance)
    limit = values.abs().max() * len(values) * torch.finfo(torch.float64).eps
    kept = values > limit
    root: Tensor = values[kept].sqrt()[:, None] * vectors[:, kept].T
    return root
