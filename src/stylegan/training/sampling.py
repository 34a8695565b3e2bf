"""The random inputs of an iteration: a function of seed, phase and images shown.

Everything is drawn for the whole batch, or per group of rows, so that it does not depend on the
number of ranks or on the micro-batch size.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from stylegan.augmentation.policy import Augmentation, draw_augmentation
from stylegan.losses.objective import GeneratorInputs
from stylegan.microbatch import BatchSlice, GroupGenerators
from stylegan.rng import generator_for, randn_rows
from stylegan.training.state import TrainState

DrawLabels = Callable[[int, torch.Generator], Tensor]
"""Draws labels [n, c_dim] from a random generator."""


def sample_inputs(
    state: TrainState, phase: str, num: int, draw_labels: DrawLabels | None = None
) -> GeneratorInputs:
    """Sample latents, labels, style mixing and noise of a phase for the whole batch.

    Latents and mixing come from CPU generators, so they are the same on every device. Mixing is
    decided once per batch, as in the official code, and crosses over among the style inputs that
    the current level of detail uses. Labels have a generator of their own, so that networks
    without labels get the same latents.

    Raises:
        ValueError: if the networks have labels and `draw_labels` is None.
    """
    seed, nimg, network = state.config.seed, state.nimg, state.generator
    generator = generator_for(f"latents/{phase}", seed=seed, nimg=nimg)
    z = torch.randn([num, network.z_dim], generator=generator)
    z_mix = torch.randn([num, network.z_dim], generator=generator)
    is_mixed = torch.rand([], generator=generator).item() < state.config.loss.mixing_prob
    num_ws = network.num_ws - 2 * math.floor(state.stage.lod)
    if num_ws > 1:
        crossover = int(torch.randint(1, num_ws, [], generator=generator))
    else:
        is_mixed, crossover = False, 0
    c = None
    if network.c_dim > 0:
        if draw_labels is None:
            raise ValueError("networks with labels need draw_labels")
        c = draw_labels(num, generator_for(f"labels/{phase}", seed=seed, nimg=nimg))
    shrink = state.config.loss.pl_batch_shrink if phase == "path_length" else 1
    rows = state.whole_batch(num, shrink=shrink)
    return GeneratorInputs(
        z=_to_device(z, state.device),
        z_mix=_to_device(z_mix, state.device) if is_mixed else None,
        crossover=crossover,
        noise=GroupGenerators(
            purpose=f"noise/{phase}", seed=seed, nimg=nimg, device=state.device, rows=rows
        ),
        c=None if c is None else _to_device(c, state.device),
    )


def sample_path_noise(state: TrainState, rows: BatchSlice, shape: torch.Size) -> Tensor:
    """Sample the directions of path-length regularization for some rows, of a shape [n, ...]."""
    generators = GroupGenerators(
        purpose="path_noise",
        seed=state.config.seed,
        nimg=state.nimg,
        device=state.device,
        rows=rows,
    )
    return randn_rows(shape, tuple(generators), state.device)


def sample_interpolation_alpha(state: TrainState, num: int) -> Tensor:
    """Sample WGAN-GP's positions between real (0) and generated (1) images: [num], uniform."""
    generator = generator_for("interpolation", seed=state.config.seed, nimg=state.nimg)
    return _to_device(torch.rand([num], generator=generator), state.device)


def sample_grid_latents(
    state: TrainState, num: int, draw_labels: DrawLabels | None
) -> tuple[Tensor, Tensor | None]:
    """Return the latents [num, z_dim] and labels [num, c_dim] of the grids of samples.

    They are the same throughout a run. Labels are None for networks without them.
    """
    seed, shape = state.config.seed, [num, state.generator_ema.z_dim]
    z = torch.randn(shape, generator=generator_for("samples", seed=seed)).to(state.device)
    if draw_labels is None:
        return z, None
    c = draw_labels(num, generator_for("sample_labels", seed=seed))
    return z, c.to(state.device)


def sample_augmentation(state: TrainState, use: str, num: int) -> Augmentation | None:
    """Sample the augmentation of a whole batch; None if there is none.

    Args:
        state: of the run.
        use: of the batch: "G", "reals", "fakes" or "R1". Each has draws of its own.
        num: images of the batch.
    """
    generator = generator_for(f"augment/{use}", seed=state.config.seed, nimg=state.nimg)
    return draw_augmentation(
        state.config.augment,
        state.augment_control.p,
        num,
        generator,
        has_alpha=state.pixels.has_alpha,
    )


def sample_replaced(state: TrainState, num: int) -> Tensor | None:
    """Sample which real images APA replaces by generated ones, [num]; None for other modes."""
    if state.config.augment.mode != "apa":
        return None
    generator = generator_for("augment/replaced", seed=state.config.seed, nimg=state.nimg)
    is_replaced = torch.rand([num], generator=generator) < state.augment_control.p
    return _to_device(is_replaced, state.device)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
