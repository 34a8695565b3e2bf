"""The augmentation pipeline of ADA."""

import torch
from torch import Tensor

from stylegan.augmentation.geometry import inverse_geometry, warp
from stylegan.augmentation.parameters import AugmentParameters
from stylegan.augmentation.pixels import add_noise, amplify_bands, color_matrices, cut_out, recolor


def augment(images: Tensor, parameters: AugmentParameters) -> Tensor:
    """Transform images by the parameters of each.

    The result can be differentiated with respect to the images any number of times.

    Source: Karras et al. 2020 (ADA), section 2 and appendix B.

    Args:
        images: [N, C, H, W] in [-1, 1], any float dtype. Values of the result are not clamped.
        parameters: of `draw_parameters`.

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
        images = recolor(images, *color_matrices(color, images.shape[1]))
    if "band_gains" in values:
        images = amplify_bands(images, values["band_gains"])
    if "noise_std" in values:
        images = add_noise(images, values["noise_std"], values["noise_seed"])
    if "cutout" in values:
        images = cut_out(images, values["cutout"])
    return images.to(dtype)
