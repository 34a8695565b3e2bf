"""One iteration of training: the algorithm, whole.

Generator, path length, discriminator, R1, averages: the order of StyleGAN2; ProGAN and StyleGAN
begin with the discriminator. Each phase draws its own latents, and is one step of its network's
Adam.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from stylegan.errors import StyleganError
from stylegan.losses.objective import (
    Draw,
    Loss,
    discriminator_loss,
    generator_loss,
    path_length_loss,
    r1_loss,
    show,
    styles,
)
from stylegan.ops.box import fade
from stylegan.rng import generator_for
from stylegan.training.ema import update_ema
from stylegan.training.schedule import ema_beta, is_due
from stylegan.training.state import TrainState

MAX_SKIPPED_IN_ROW = 20

Draws = Callable[[str, int], Draw]
LabelDraws = Callable[[int, torch.Generator], Tensor]
Noise = Callable[[int], Tensor]
Timer = Callable[[str], AbstractContextManager[object]]


def train_step(
    state: TrainState,
    reals: Tensor,
    *,
    real_c: Tensor | None = None,
    draw_labels: LabelDraws | None = None,
    draws: Draws | None = None,
    pl_noise: Noise | None = None,
    timer: Timer = lambda _: nullcontext(),
) -> dict[str, Tensor]:
    """Train both networks on one batch.

    Source: Karras et al. 2020 (StyleGAN2), appendix B; Goodfellow et al. 2014, algorithm 1.

    Args:
        state: changed in place, and nothing else is.
        reals: real images, [batch, C, R, R] in [-1, 1], on the state's device, at the
            resolution of `state.stage`. Fading is done here.
        real_c: labels of the real images, [batch, c_dim], likewise; None where the networks
            have none.
        draw_labels: draws the labels of so many generated images from a stream, [n, c_dim], as
            they are in the set; None likewise, or where `draws` brings them.
        draws: gives the random numbers of a phase ("G", "path_length", "D") for so many
            images; None draws them as a function of seed, phase and nimg.
        pl_noise: gives the direction of the path lengths for so many images, [n, C, R, R];
            None likewise.
        timer: called with "G", "D" or "regularizers", wraps the work of that kind.

    Returns:
        The terms of this iteration, [] each, detached.

    Raises:
        ValueError: if the networks have labels and some are missing.
        StyleganError: after 20 steps of one phase in a row with non-finite gradients.
    """
    if (real_c is not None) != (state.discriminator.c_dim > 0):
        raise ValueError("real_c must be there for networks with labels, and for no others")
    draws = draws or (lambda phase, num: draw(state, phase, num, draw_labels))
    pl_noise = pl_noise or (lambda num: _path_noise(state, num))
    reals = fade(reals, state.stage.fade)
    phases = {
        "G": lambda: _train_generator(state, len(reals), draws, pl_noise, timer),
        "D": lambda: _train_discriminator(state, reals, real_c, draws, timer),
    }
    terms: dict[str, Tensor] = {}
    for phase in "GD" if state.config.optim.order == "generator-first" else "DG":
        terms |= phases[phase]()
    beta = ema_beta(state.config.ema, nimg=state.nimg, batch=len(reals))
    update_ema(state.generator_ema, state.generator, beta)
    state.averages.add(terms)
    _check_skipped(state, state.nimg + len(reals))
    state.advance(len(reals))
    return terms


def _train_generator(
    state: TrainState, batch: int, draws: Draws, pl_noise: Noise, timer: Timer
) -> dict[str, Tensor]:
    config = state.config.loss
    num = batch // config.pl_batch_shrink
    is_with_main = config.pl_weight > 0 and config.pl_interval is None

    def path_lengths() -> tuple[Loss, Tensor]:
        return path_length_loss(
            state.generator,
            draws("path_length", num),
            pl_noise=pl_noise(num),
            pl_mean=state.pl_mean,
            config=config,
        )

    def step(phase: str, loss: Loss, pl_mean: Tensor) -> dict[str, Tensor]:
        terms = loss.terms | _optimize(state, phase, loss.total)
        if state.skipped_in_row[phase] == 0:
            state.pl_mean = pl_mean
        return terms

    with timer("G"):
        pl_mean = state.pl_mean
        drawn = draws("G", batch)
        loss = generator_loss(state.generator, state.discriminator, drawn, config=config)
        if is_with_main:
            added, pl_mean = path_lengths()
            loss = Loss(total=loss.total + added.total, terms=loss.terms | added.terms)
        terms = step("G", loss, pl_mean)
    if config.pl_weight > 0 and is_due(state.iteration, config.pl_interval):
        with timer("regularizers"):
            terms |= step("path_length", *path_lengths())
    return terms


def _train_discriminator(
    state: TrainState, reals: Tensor, real_c: Tensor | None, draws: Draws, timer: Timer
) -> dict[str, Tensor]:
    config = state.config.loss
    with timer("D"):
        with torch.no_grad():
            drawn = draws("D", len(reals))
            ws, unmixed = styles(state.generator, drawn)
            fakes = show(state.generator, ws, drawn)
            state.generator.update_w_avg(unmixed, state.config.ema.w_avg_beta)
        positions = _positions(state, len(reals)) if config.adversarial == "wgan-gp" else None
        loss = discriminator_loss(
            state.discriminator,
            reals,
            fakes,
            config=config,
            positions=positions,
            real_c=real_c,
            fake_c=drawn.c,
        )
        terms = loss.terms | _optimize(state, "D", loss.total)

    if config.gamma > 0 and is_due(state.iteration, config.r1_interval):
        with timer("regularizers"):
            loss = r1_loss(state.discriminator, reals, config=config, real_c=real_c)
            terms |= loss.terms | _optimize(state, "R1", loss.total)
    return terms


def draw(state: TrainState, phase: str, num: int, draw_labels: LabelDraws | None = None) -> Draw:
    """Draw the latents, labels, style mixing and noise of a phase from its place in the run.

    Latents and mixing come from CPU streams, so that they are the same on every device.
    Mixing is decided once for the batch, as in the official code, and crosses over between style
    inputs that the current level of detail has. Labels have a stream of their own, so that
    networks without them draw the same latents.

    Raises:
        ValueError: if the networks have labels and there is nothing to draw them.
    """
    seed, nimg, generator = state.config.seed, state.nimg, state.generator
    stream = generator_for(f"latents/{phase}", seed=seed, nimg=nimg)
    z = torch.randn([num, generator.z_dim], generator=stream)
    z_mix = torch.randn([num, generator.z_dim], generator=stream)
    is_mixed = torch.rand([], generator=stream).item() < state.config.loss.mixing_prob
    num_ws = generator.num_ws - 2 * math.floor(state.stage.lod)
    if num_ws > 1:
        crossover = int(torch.randint(1, num_ws, [], generator=stream))
    else:
        is_mixed, crossover = False, 0
    c = None
    if generator.c_dim > 0:
        if draw_labels is None:
            raise ValueError("networks with labels need draw_labels")
        c = draw_labels(num, generator_for(f"labels/{phase}", seed=seed, nimg=nimg))
    return Draw(
        z=z.to(state.device),
        z_mix=z_mix.to(state.device) if is_mixed else None,
        crossover=crossover,
        noise=generator_for(f"noise/{phase}", seed=seed, nimg=nimg, device=state.device),
        c=None if c is None else c.to(state.device),
    )


def _path_noise(state: TrainState, num: int) -> Tensor:
    generator = state.generator
    stream = generator_for("path_noise", seed=state.config.seed, nimg=state.nimg)
    side = state.stage.resolution
    noise = torch.randn([num, generator.img_channels, side, side], generator=stream)
    return noise.to(state.device)


def _positions(state: TrainState, num: int) -> Tensor:
    """Draw where between a real and a generated image WGAN-GP takes its gradient."""
    stream = generator_for("interpolation", seed=state.config.seed, nimg=state.nimg)
    return torch.rand([num], generator=stream).to(state.device)


def _optimize(state: TrainState, phase: str, loss: Tensor) -> dict[str, Tensor]:
    """Take one step of a phase down its loss and return the norm of the gradient as a term.

    A step with a gradient that is not finite is left out and counted. A parameter that the
    loss does not reach, such as the bias of RGB in path lengths, is left out too, and Adam does
    not count the step for it: as in the official PyTorch code.
    """
    is_generator = phase in ("G", "path_length")
    network = state.generator if is_generator else state.discriminator
    optimizer = state.optimizer_g if is_generator else state.optimizer_d
    parameters = list(network.parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    norm = torch.nn.utils.get_total_norm([grad for grad in grads if grad is not None])
    if torch.isfinite(norm):
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.skipped_in_row[phase] = 0
    else:
        state.skipped += 1
        state.skipped_in_row[phase] = state.skipped_in_row.get(phase, 0) + 1
    return {f"grad_norm/{phase}": norm}


def _check_skipped(state: TrainState, nimg: int) -> None:
    for phase, num in state.skipped_in_row.items():
        if num >= MAX_SKIPPED_IN_ROW:
            raise StyleganError(
                f"non-finite gradients in {num} steps of phase {phase} in a row, "
                f"up to {nimg} images",
                expected="finite gradients",
                fix="start a new run, from a snapshot of this one by --init-from if there is one, "
                "with a lower learning rate, a higher gamma or --precision fp32",
            )
