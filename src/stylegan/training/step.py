"""One iteration of training: the algorithm, whole.

Generator, path length, discriminator, R1, averages: the order of StyleGAN2; ProGAN and StyleGAN
begin with the discriminator. Each phase draws its own latents, and is one step of its network's
Adam.

A batch may be shared by processes, and each share cut to what fits in memory: gradients, terms and
running means are those of the whole batch all the same. Nothing here waits for the device.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from stylegan import distributed
from stylegan.errors import StyleganError
from stylegan.losses.objective import (
    Draw,
    Loss,
    discriminator_loss,
    drawn_path_lengths,
    generator_loss,
    has_second_derivatives,
    path_length_loss,
    r1_loss,
    show,
    styles,
)
from stylegan.microbatch import BatchSlice, GroupGenerators
from stylegan.models.base import AbstractDiscriminator, AbstractGenerator
from stylegan.nn.compiled import uncompiled
from stylegan.ops.box import fade
from stylegan.rng import generator_for, randn_rows
from stylegan.training.ema import update_ema
from stylegan.training.schedule import ema_beta, is_due
from stylegan.training.state import TrainState

MAX_SKIPPED_IN_ROW = 20
CHECK_EVERY = 16  # iterations, on a device for which one would have to wait

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
            resolution of `state.stage`. Fading is done here. With several processes, this one's
            rows of them, `state.part(state.stage.batch)`.
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
    batch = len(reals) if distributed.world_size() == 1 else state.stage.batch
    draws = draws or (lambda phase, num: draw(state, phase, num, draw_labels))
    reals = fade(reals, state.stage.fade)
    phases = {
        "G": lambda: _train_generator(state, batch, draws, pl_noise, timer),
        "D": lambda: _train_discriminator(state, batch, reals, real_c, draws, timer),
    }
    terms: dict[str, Tensor] = {}
    for phase in "GD" if state.config.optim.order == "generator-first" else "DG":
        terms |= phases[phase]()
    beta = ema_beta(state.config.ema, nimg=state.nimg, batch=batch)
    update_ema(state.generator_ema, state.generator, beta)
    state.averages.add(terms)
    _check_skipped(state, state.nimg + batch)
    state.advance(batch)
    return terms


def _train_generator(
    state: TrainState, batch: int, draws: Draws, pl_noise: Noise | None, timer: Timer
) -> dict[str, Tensor]:
    config = state.config.loss
    is_with_main = config.pl_weight > 0 and config.pl_interval is None
    with timer("G"), _frozen(state.discriminator):
        sums = _Sums(state.generator)
        drawn = draws("G", batch)
        for part in _pieces(state, batch):
            loss = generator_loss(
                state.generator, state.discriminator, drawn.take(part), config=config
            )
            sums.add(loss, part.fraction)
        pl_mean = state.pl_mean
        if is_with_main:
            with uncompiled(state.config.runtime.compile):
                pl_mean = _add_path_lengths(state, batch, draws, pl_noise, sums)
        terms = _optimize(state, "G", sums, pl_mean)
    if config.pl_weight > 0 and is_due(state.iteration, config.pl_interval):
        with timer("regularizers"), uncompiled(state.config.runtime.compile):
            sums = _Sums(state.generator)
            pl_mean = _add_path_lengths(state, batch, draws, pl_noise, sums)
            terms |= _optimize(state, "path_length", sums, pl_mean)
    return terms


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """While open, compute no gradients of a network's weights: compiled code does so unasked."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _add_path_lengths(
    state: TrainState, batch: int, draws: Draws, pl_noise: Noise | None, sums: "_Sums"
) -> Tensor:
    """Add the loss of path lengths, and return their new running mean.

    The loss of each depends on the mean of all. Where a process has its share in one piece, the
    means meet between passes forward and back; else all lengths are computed twice.
    """
    config, shrink = state.config.loss, state.config.loss.pl_batch_shrink
    num = batch // shrink
    drawn = draws("path_length", num)
    noise = None if pl_noise is None else pl_noise(num)
    parts = _pieces(state, num, shrink=shrink)

    def lengths(part: BatchSlice, *, create_graph: bool) -> Tensor:
        return drawn_path_lengths(
            state.generator,
            drawn.take(part),
            pl_noise=_path_noise(state, part) if noise is None else part.take(noise),
            create_graph=create_graph,
        )

    is_one = len(parts) == 1
    found = [lengths(part, create_graph=is_one) for part in parts]
    (total,) = distributed.all_reduce_sum([torch.cat([each.detach() for each in found]).sum()])
    pl_mean = state.pl_mean
    for part, each in zip(parts, found, strict=True):
        loss, pl_mean = path_length_loss(
            each if is_one else lengths(part, create_graph=True),
            pl_mean=state.pl_mean,
            batch_mean=total / num,
            config=config,
        )
        sums.add(loss, part.fraction)
    return pl_mean


def _train_discriminator(
    state: TrainState,
    batch: int,
    reals: Tensor,
    real_c: Tensor | None,
    draws: Draws,
    timer: Timer,
) -> dict[str, Tensor]:
    config, is_compiled = state.config.loss, state.config.runtime.compile
    own, parts = state.part(batch), _pieces(state, batch)
    with timer("D"):
        sums = _Sums(state.discriminator)
        drawn = draws("D", batch)
        positions = _positions(state, batch) if config.adversarial == "wgan-gp" else None
        for part in parts:
            rows = part.relative_to(own)
            with torch.no_grad():
                draw_of_part = drawn.take(part)
                ws, unmixed = styles(state.generator, draw_of_part)
                fakes = show(state.generator, ws, draw_of_part)
                sums.add_term("w", unmixed.mean(dim=0, keepdim=True), part.fraction)
            with uncompiled(is_compiled and has_second_derivatives(config)):
                loss = discriminator_loss(
                    state.discriminator,
                    rows.take(reals),
                    fakes,
                    config=config,
                    positions=None if positions is None else part.take(positions),
                    real_c=None if real_c is None else rows.take(real_c),
                    fake_c=draw_of_part.c,
                )
                sums.add(loss, part.fraction)
        terms = _optimize(state, "D", sums)
        state.generator.update_w_avg(terms.pop("w"), state.config.ema.w_avg_beta)

    if config.gamma > 0 and is_due(state.iteration, config.r1_interval):
        with timer("regularizers"), uncompiled(is_compiled):
            sums = _Sums(state.discriminator)
            for part in parts:
                rows = part.relative_to(own)
                loss = r1_loss(
                    state.discriminator,
                    rows.take(reals),
                    config=config,
                    real_c=None if real_c is None else rows.take(real_c),
                )
                sums.add(loss, part.fraction)
            terms |= _optimize(state, "R1", sums)
    return terms


def _pieces(state: TrainState, num: int, *, shrink: int = 1) -> list[BatchSlice]:
    """Cut this process's share of a batch to what is computed at once."""
    return state.part(num, shrink=shrink).micro_batches(state.batch_gpu)


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
        z=_sent(z, state.device),
        z_mix=_sent(z_mix, state.device) if is_mixed else None,
        crossover=crossover,
        noise=GroupGenerators(
            purpose=f"noise/{phase}",
            seed=seed,
            nimg=nimg,
            device=state.device,
            rows=_whole(state, phase, num),
        ),
        c=None if c is None else _sent(c, state.device),
    )


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device, without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _whole(state: TrainState, phase: str, num: int) -> BatchSlice:
    """Return the whole batch of a phase, in the groups of `state.part`."""
    shrink = state.config.loss.pl_batch_shrink if phase == "path_length" else 1
    part = state.part(num, shrink=shrink)
    return BatchSlice.whole(num, group_size=part.group_size)


def _path_noise(state: TrainState, part: BatchSlice) -> Tensor:
    side = state.stage.resolution
    streams = GroupGenerators(
        purpose="path_noise",
        seed=state.config.seed,
        nimg=state.nimg,
        device=state.device,
        rows=part,
    )
    shape = [len(part), state.generator.img_channels, side, side]
    return randn_rows(shape, tuple(streams), state.device)


def _positions(state: TrainState, num: int) -> Tensor:
    """Draw where between a real and a generated image WGAN-GP takes its gradient."""
    stream = generator_for("interpolation", seed=state.config.seed, nimg=state.nimg)
    return _sent(torch.rand([num], generator=stream), state.device)


class _Sums:
    """Gradients and terms of a phase, summed over the parts of its batch.

    Args:
        network: whose parameters the phase moves.
    """

    def __init__(self, network: AbstractGenerator | AbstractDiscriminator) -> None:
        self.parameters = list(network.parameters())
        self.terms: dict[str, Tensor] = {}
        self._grads: list[Tensor | None] = []

    def add(self, loss: Loss, share: float) -> None:
        """Differentiate the loss of a part, and add what that contributes to the batch's."""
        total = loss.total if share == 1 else loss.total * share
        grads = torch.autograd.grad(total, self.parameters, allow_unused=True)
        if self._grads:
            both = zip(self._grads, grads, strict=True)
            pairs = [(old, new) for old, new in both if old is not None and new is not None]
            torch._foreach_add_([old for old, _ in pairs], [new for _, new in pairs])
        else:  # Adam reads them in the order of its parameter's memory; see `lazy_adam`
            self._grads = [None if grad is None else grad.contiguous() for grad in grads]
        for name, value in loss.terms.items():
            self.add_term(name, value, share)

    def add_term(self, name: str, value: Tensor, share: float) -> None:
        """Add what a part contributes to a mean over the batch."""
        value = value if share == 1 else value * share
        self.terms[name] = self.terms[name] + value if name in self.terms else value

    def across(self) -> tuple[Sequence[Tensor | None], dict[str, Tensor]]:
        """Return gradients and terms of the whole batch, by one exchange of all processes."""
        present = [index for index, grad in enumerate(self._grads) if grad is not None]
        grads = [grad for grad in self._grads if grad is not None]
        summed = distributed.all_reduce_sum([*grads, *self.terms.values()])
        all_grads: list[Tensor | None] = [None] * len(self._grads)
        for index, grad in zip(present, summed, strict=False):
            all_grads[index] = grad
        return all_grads, dict(zip(self.terms, summed[len(present) :], strict=True))


def _optimize(
    state: TrainState, phase: str, sums: _Sums, pl_mean: Tensor | None = None
) -> dict[str, Tensor]:
    """Take one step of a phase, and return its terms with the norm of the gradient.

    A step with a gradient that is not finite is left out and counted, and then the running mean
    of path lengths stays, too. A parameter that the loss does not reach, such as the bias of RGB
    in path lengths, is left out, and Adam does not count the step for it: as in the official
    PyTorch code.
    """
    is_generator = phase in ("G", "path_length")
    optimizer = state.optimizer_g if is_generator else state.optimizer_d
    grads, terms = sums.across()
    norm = torch.nn.utils.get_total_norm([grad for grad in grads if grad is not None])
    is_bad = ~torch.isfinite(norm)
    for parameter, grad in zip(sums.parameters, grads, strict=True):
        parameter.grad = grad
    optimizer.found_inf = is_bad.to(torch.float32)  # type: ignore[attr-defined]  # as GradScaler does
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    state.skipped = state.skipped + is_bad
    in_row = state.skipped_in_row.get(phase, torch.zeros_like(state.skipped))
    state.skipped_in_row[phase] = (in_row + 1) * is_bad
    if pl_mean is not None:
        state.pl_mean = torch.where(is_bad, state.pl_mean, pl_mean)
    return terms | {f"grad_norm/{phase}": norm}


def _check_skipped(state: TrainState, nimg: int) -> None:
    if state.device.type != "cpu" and state.iteration % CHECK_EVERY:
        return
    for phase, num in state.skipped_in_row.items():
        if num >= MAX_SKIPPED_IN_ROW:
            raise StyleganError(
                f"non-finite gradients in {int(num)} steps of phase {phase} in a row, "
                f"up to {nimg} images",
                expected="finite gradients",
                fix="start a new run, from a snapshot of this one by --init-from if there is one, "
                "with a lower learning rate, a higher gamma or --precision fp32",
            )
