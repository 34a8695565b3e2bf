"""The augmentation pipeline of ADA."""

import torch
from torch import Tensor

from stylegan.augmentation.geometry import inverse_geometry, warp
from stylegan.augmentation.parameters import AugmentParameters
from stylegan.augmentation.pixels import (
    add_noise,
    amplify_bands,
    color_matrices,
    cut_out,
    join_alpha,
    recolor,
    split_alpha,
)


def augment(images: Tensor, parameters: AugmentParameters, *, has_alpha: bool = False) -> Tensor:
    """Transform images by the parameters of each.

    The result can be differentiated with respect to the images any number of times.

    Colors are transformed for any number of channels; hue needs three. With alpha, color, filter
    and noise change the colors in proportion to alpha, which they leave as it is; the geometry
    moves both, and cutout makes its rectangle transparent.

    Source: Karras et al. 2020 (ADA), section 2 and appendix B.

    Args:
        images: [N, C, H, W] in [-1, 1], any float dtype. Values of the result are not clamped.
        parameters: of `draw_parameters`.
        has_alpha: whether the images are premultiplied RGBA.

    Raises:
        ValueError: if there are parameters of another number of images.
    """
    if len(parameters) != len(images):
        raise ValueError(f"parameters of {len(parameters)} images for {len(images)} images")
    values, dtype = parameters.values, images.dtype
    images = images.to(torch.promote_types(dtype, torch.float32))
    if geometry := parameters.of("blit", "geom"):
        height, width = images.shape[2:]
        images = warp(images, inverse_geometry(geometry, height=height, width=width))
    if color := parameters.of("color"):
        matrices = color_matrices(color, images.shape[1], has_alpha=has_alpha)
        images = recolor(images, *matrices)
    if "band_gains" in values or "noise_std" in values:
        images = _filter_and_add_noise(images, parameters, has_alpha=has_alpha)
    if "cutout" in values:
        images = cut_out(images, values["cutout"], level=-1.0 if has_alpha else 0.0)
    return images.to(dtype)


def _filter_and_add_noise(
    images: Tensor, parameters: AugmentParameters, *, has_alpha: bool
) -> Tensor:
    values, alpha = parameters.values, None
    if has_alpha:
        images, alpha = split_alpha(images)
    if "band_gains" in values:
        images = amplify_bands(images, values["band_gains"])
    if "noise_std" in values:
        std, seeds = values["noise_std"], values["noise_seed"]
        if alpha is None:
            images = add_noise(images, std, seeds)
        else:
            images = images + add_noise(torch.zeros_like(images), std, seeds) * alpha
    return images if alpha is None else join_alpha(images, alpha)
