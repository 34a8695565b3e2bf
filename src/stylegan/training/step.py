"""One training iteration, in the order of the StyleGAN2 paper.

Generator, path-length regularization, discriminator, R1 regularization, EMA; ProGAN and StyleGAN
train the discriminator first. Each phase samples its own latents and takes one optimizer step.

The batch may be sharded over ranks, and each shard split into micro-batches that fit in memory.
Gradients and statistics are those of the whole batch in either case. Nothing here waits for the
device.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from stylegan import distributed
from stylegan.errors import StyleganError, decided
from stylegan.losses.objective import (
    Augment,
    GeneratorInputs,
    Loss,
    discriminator_input,
    discriminator_loss,
    generator_loss,
    needs_second_derivatives,
    path_length_loss,
    r1_loss,
    sampled_path_lengths,
    styles,
)
from stylegan.microbatch import BatchSlice
from stylegan.models.base import Images
from stylegan.nn.compiled import uncompiled
from stylegan.ops.box import fade
from stylegan.training.ema import update_ema
from stylegan.training.sampling import (
    DrawLabels,
    sample_augmentation,
    sample_inputs,
    sample_interpolation_alpha,
    sample_path_noise,
    sample_replaced,
)
from stylegan.training.schedule import ema_beta, is_due
from stylegan.training.state import TrainState

MAX_SKIPPED_IN_ROW = 20
CHECK_EVERY = 16  # iterations between checks on a GPU, where reading the counter waits for it

InputSampler = Callable[[str, int], GeneratorInputs]
PathNoise = Callable[[int], Tensor]
Timer = Callable[[str], AbstractContextManager[object]]


def train_step(
    state: TrainState,
    reals: Tensor,
    *,
    real_c: Tensor | None = None,
    draw_labels: DrawLabels | None = None,
    inputs: InputSampler | None = None,
    pl_noise: PathNoise | None = None,
    timer: Timer = lambda _: nullcontext(),
) -> dict[str, Tensor]:
    """Train both networks on one batch.

    Source: Karras et al. 2020 (StyleGAN2), appendix B; Goodfellow et al. 2014, algorithm 1.

    Args:
        state: changed in place; nothing else is.
        reals: real images, [n, C, H, W] in [-1, 1], on the state's device, at the resolution of
            `state.stage`, before fading. On several ranks, this rank's shard of the batch,
            `state.shard(state.stage.batch)`.
        real_c: labels of the real images, [n, c_dim]; None for networks without labels.
        draw_labels: draws labels for generated images, [n, c_dim], distributed as in the
            dataset; None for networks without labels, or if `inputs` is given.
        inputs: returns the generator's inputs for a phase ("G", "path_length" or "D") and batch
            size; None samples them as a function of seed, phase and nimg.
        pl_noise: returns the directions of the path lengths for a batch size, [n, C, R, R];
            None samples them likewise.
        timer: called with "G", "D" or "regularizers"; the context that it returns wraps the work.

    Returns:
        The statistics of this iteration, means over the batch, [] each, detached.

    Raises:
        ValueError: if the networks have labels and some are missing.
        StyleganError: after 20 steps of one phase in a row with non-finite gradients.
    """
    G, D = state.generator, state.discriminator
    config, is_compiled = state.config.loss, state.config.runtime.compile
    if (real_c is not None) != (D.c_dim > 0):
        raise ValueError("real_c must be given for networks with labels, and only for them")
    batch = len(reals) if distributed.world_size() == 1 else state.stage.batch
    shard = state.shard(batch)
    micro_batches = shard.micro_batches(state.batch_gpu)
    inputs = inputs or (lambda phase, num: sample_inputs(state, phase, num, draw_labels))
    reals = fade(reals, state.stage.fade)
    stats: dict[str, Tensor] = {}

    def reals_of(micro_batch: BatchSlice) -> tuple[Tensor, Tensor | None]:
        rows = micro_batch.relative_to(shard)
        return rows.take(reals), None if real_c is None else rows.take(real_c)

    def augmentation(use: str) -> Callable[[BatchSlice], Augment | None]:
        whole = sample_augmentation(state, use, batch)
        return lambda micro_batch: None if whole is None else whole.of(micro_batch)

    def train_generator() -> None:
        with timer("G"), frozen(D):
            step = PhaseStep(state, "G")
            latents, augment = inputs("G", batch), augmentation("G")
            for micro_batch in micro_batches:
                loss = generator_loss(
                    G, D, latents.take(micro_batch), config=config, augment=augment(micro_batch)
                )
                step.backward(loss, micro_batch)
            pl_mean = None
            if config.pl_weight > 0 and config.pl_interval is None:  # not lazy: in the same step
                with uncompiled(is_compiled):
                    pl_mean = backward_path_lengths(state, step, batch, inputs, pl_noise)
            stats.update(step.finish(pl_mean))

        # Path length, every pl_interval iterations.
        if config.pl_weight > 0 and is_due(state.iteration, config.pl_interval):
            with timer("regularizers"), uncompiled(is_compiled):
                step = PhaseStep(state, "path_length")
                pl_mean = backward_path_lengths(state, step, batch, inputs, pl_noise)
                stats.update(step.finish(pl_mean))

    def train_discriminator() -> None:
        with timer("D"):
            step = PhaseStep(state, "D")
            latents = inputs("D", batch)
            is_wgan = config.adversarial == "wgan-gp"
            alpha = sample_interpolation_alpha(state, batch) if is_wgan else None
            augment_reals, augment_fakes = augmentation("reals"), augmentation("fakes")
            is_replaced = sample_replaced(state, batch)
            for micro_batch in micro_batches:
                images, c = reals_of(micro_batch)
                fake_inputs = latents.take(micro_batch)
                with torch.no_grad():
                    ws, unmixed_ws = styles(G, fake_inputs)
                    fakes = discriminator_input(G, ws, fake_inputs)
                    step.add_stats({"w": unmixed_ws.mean(dim=0, keepdim=True)}, micro_batch)
                    if is_replaced is not None:
                        mask = micro_batch.take(is_replaced)
                        images = replace_rows(images, fakes, mask)
                        c = None if c is None else replace_rows(c, fake_inputs.c, mask)
                with uncompiled(is_compiled and needs_second_derivatives(config)):
                    loss = discriminator_loss(
                        D,
                        images,
                        fakes,
                        config=config,
                        alpha=None if alpha is None else micro_batch.take(alpha),
                        real_c=c,
                        fake_c=fake_inputs.c,
                        augment_reals=augment_reals(micro_batch),
                        augment_fakes=augment_fakes(micro_batch),
                        logit_means=state.logit_means,
                    )
                    step.backward(loss, micro_batch)
            stats.update(step.finish())
            G.update_w_avg(stats.pop("w"), state.config.ema.w_avg_beta)
            state.logit_means = state.logit_means.updated(
                stats["logits/real"], stats["logits/fake"]
            )
            state.augment_control.add(stats["logits/real_sign"], batch)

        # R1, every r1_interval iterations.
        if decided(config.gamma, "loss.gamma") > 0 and is_due(state.iteration, config.r1_interval):
            with timer("regularizers"), uncompiled(is_compiled):
                step = PhaseStep(state, "R1")
                augment = augmentation("R1")
                for micro_batch in micro_batches:
                    images, c = reals_of(micro_batch)
                    loss = r1_loss(D, images, config=config, real_c=c, augment=augment(micro_batch))
                    step.backward(loss, micro_batch)
                stats.update(step.finish())
                state.augment_control.add(stats.pop("r1/real_sign"), batch)

    if state.config.optim.order == "generator-first":
        train_generator()
        train_discriminator()
    else:
        train_discriminator()
        train_generator()
    beta = ema_beta(state.config.ema, nimg=state.nimg, batch=batch)
    update_ema(state.generator_ema, G, beta)

    if state.config.augment.is_adaptive:
        state.augment_control.advance(batch)
        stats["augment/p"] = torch.tensor(state.augment_control.p, device=state.device)
    state.averages.add(stats)
    _check_skipped(state, state.nimg + batch)
    state.advance(batch)
    return stats


def backward_path_lengths(
    state: TrainState,
    step: "PhaseStep",
    batch: int,
    inputs: InputSampler,
    pl_noise: PathNoise | None,
) -> Tensor:
    """Accumulate the gradients of path-length regularization, and return the new running mean.

    The loss of each image depends on the mean length over the whole batch. With one micro-batch,
    that mean is all-reduced between its forward and backward passes; with several, all lengths
    are computed first without a graph, and then again one micro-batch at a time.
    """
    config = state.config.loss
    if config.pl_space != "pixels" and state.path_features is None:
        raise ValueError(f"path lengths of {config.pl_space} need TrainState(path_features=...)")
    num = batch // config.pl_batch_shrink
    latents = inputs("path_length", num)
    noise = None if pl_noise is None else pl_noise(num)
    shard = state.shard(num, shrink=config.pl_batch_shrink)
    micro_batches = shard.micro_batches(state.batch_gpu)

    def lengths_of(micro_batch: BatchSlice, *, create_graph: bool) -> Tensor:
        def draw_noise(shape: torch.Size) -> Tensor:
            if noise is not None:
                return micro_batch.take(noise)
            return sample_path_noise(state, micro_batch, shape)

        return sampled_path_lengths(
            state.generator,
            latents.take(micro_batch),
            draw_noise=draw_noise,
            features=state.path_features,
            create_graph=create_graph,
        )

    is_single = len(micro_batches) == 1
    lengths = [lengths_of(micro_batch, create_graph=is_single) for micro_batch in micro_batches]
    (total,) = distributed.all_reduce_sum([torch.cat([each.detach() for each in lengths]).sum()])
    pl_mean = state.pl_mean
    for micro_batch, known in zip(micro_batches, lengths, strict=True):
        loss, pl_mean = path_length_loss(
            known if is_single else lengths_of(micro_batch, create_graph=True),
            pl_mean=state.pl_mean,
            batch_mean=total / num,
            config=config,
        )
        step.backward(loss, micro_batch)
    return pl_mean


class PhaseStep:
    """The optimizer step of a phase: accumulates gradients and statistics over micro-batches.

    Args:
        state: whose networks and optimizers are used.
        phase: "G", "path_length", "D" or "R1".
    """

    def __init__(self, state: TrainState, phase: str) -> None:
        self._state = state
        self._phase = phase
        is_generator = phase in ("G", "path_length")
        network = state.generator if is_generator else state.discriminator
        self._optimizer = state.optimizer_g if is_generator else state.optimizer_d
        self._parameters = [
            parameter for parameter in network.parameters() if parameter.requires_grad
        ]
        self._stats: dict[str, Tensor] = {}
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Loss, micro_batch: BatchSlice) -> None:
        """Add the gradients of a micro-batch, weighted by its fraction of the batch."""
        torch.autograd.backward(loss.total * micro_batch.fraction, inputs=self._parameters)
        self.add_stats(loss.terms, micro_batch)

    def add_stats(self, means: dict[str, Tensor], micro_batch: BatchSlice) -> None:
        """Add the means of a micro-batch to the means over the batch."""
        for name, mean in means.items():
            weighted = mean * micro_batch.fraction
            self._stats[name] = self._stats[name] + weighted if name in self._stats else weighted

    def finish(self, pl_mean: Tensor | None = None) -> dict[str, Tensor]:
        """Sum over ranks, take the optimizer step, and return statistics and gradient norm.

        A step with non-finite gradients is skipped and counted, and the running mean of path
        lengths then stays, too. A parameter that the loss does not reach, such as the bias of RGB
        in path lengths, is not updated, and Adam does not count the step for it, as in the
        official PyTorch code. Which parameters are reached depends only on options and schedule,
        so it is the same on all ranks.

        Args:
            pl_mean: the new running mean of path lengths, if the phase computes one.
        """
        state, phase = self._state, self._phase
        reached = [parameter for parameter in self._parameters if parameter.grad is not None]
        grads = [parameter.grad for parameter in reached if parameter.grad is not None]
        summed = distributed.all_reduce_sum([*grads, *self._stats.values()])
        grads, means = summed[: len(grads)], summed[len(grads) :]
        stats = dict(zip(self._stats, means, strict=True))
        norm = torch.nn.utils.get_total_norm(grads)
        is_bad = ~torch.isfinite(norm)
        for parameter, grad in zip(reached, grads, strict=True):
            parameter.grad = grad
        # Fused Adam skips the step where found_inf is 1, as for GradScaler, without a sync.
        self._optimizer.found_inf = is_bad.to(torch.float32)  # type: ignore[attr-defined]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        state.skipped = state.skipped + is_bad
        in_row = state.skipped_in_row.get(phase, torch.zeros_like(state.skipped))
        state.skipped_in_row[phase] = (in_row + 1) * is_bad
        if pl_mean is not None:
            state.pl_mean = torch.where(is_bad, state.pl_mean, pl_mean)
        return stats | {f"grad_norm/{phase}": norm}


def replace_rows(rows: Tensor, others: Images | None, is_replaced: Tensor) -> Tensor:
    """Return [N, ...] with the rows of another tensor where `is_replaced`, [N], says so."""
    assert isinstance(others, Tensor)
    return torch.where(is_replaced.view(-1, *[1] * (rows.ndim - 1)), others, rows)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Compute no gradients for a network's weights; compiled code would compute them otherwise."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _check_skipped(state: TrainState, nimg: int) -> None:
    if state.device.type != "cpu" and state.iteration % CHECK_EVERY:
        return
    for phase, num in state.skipped_in_row.items():
        if num >= MAX_SKIPPED_IN_ROW:
            raise StyleganError(
                f"non-finite gradients in {int(num)} steps of phase {phase} in a row, "
                f"up to {nimg} images",
                fix="start a new run, from a snapshot of this one by --init-from if there is one, "
                "with a lower learning rate, a higher gamma or --precision fp32",
            )
