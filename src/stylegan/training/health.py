"""Signs that a run goes wrong: overfitting, collapse and divergence, measured at each log line."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan import images
from stylegan.data.dataset import ImageDataset
from stylegan.microbatch import BatchSlice
from stylegan.ops.box import fade
from stylegan.ops.normalize import stddev_group
from stylegan.rng import generator_for
from stylegan.training.sampling import DrawLabels, sample_augmentation, sample_grid_latents
from stylegan.training.state import TrainState

Reals = Callable[[int, int], Tensor]
"""Returns `num` real images, float32 [num, C, R, R] in [-1, 1], at a resolution R."""

MAX_HELD_OUT = 128
MAX_SAMPLES = 32
_BATCH = 16

NUM_LINES = 5
"""Consecutive log lines that must show a sign before it is reported."""
MAX_RV, MAX_RT = 0.5, 0.95
"""Largest values in a healthy run, ours. r_v and r_t: Karras et al. 2020 (ADA), section 3."""
MIN_DIVERSITY, MAX_DIVERSITY_LOSS = 0.4, 0.5
MAX_LOGIT = 50.0
MAX_GRAD_GROWTH = 100.0
MIN_LINES_BEFORE = 20
"""Log lines before, without which nothing is reported: at first, all networks change quickly."""
MAX_SKIPPED = 0.1

GUIDE = "docs/troubleshooting.md#it-runs-but-the-pictures-are-bad"


class HealthProbe:
    """Measures what the training step does not: held-out images, and diversity of samples.

    It draws from streams of its own and changes nothing in the run.

    Args:
        state: of the run.
        reals: returns real images.
        held_out: real images that are not trained on; None if there are none.
        draw_labels: draws labels of samples; None for networks without labels.
    """

    def __init__(
        self,
        state: TrainState,
        reals: Reals,
        *,
        held_out: ImageDataset | None,
        draw_labels: DrawLabels | None,
    ) -> None:
        self._state = state
        self._reals = reals
        self._num_samples = min(max(state.config.output.samples, 2), MAX_SAMPLES)
        self._held_out = held_out
        self._draw_labels = draw_labels
        seed = state.config.seed
        self._held_out_order: list[int] = []
        if held_out is not None:
            # Neighbors in a set are alike, and the discriminator compares the images of a group.
            stream = generator_for("held_out order", seed=seed)
            self._held_out_order = torch.randperm(len(held_out), generator=stream).tolist()
        self._spread_of_reals: dict[int, float] = {}
        self._real_spread()  # now, as reading other images later would interrupt the stream

    @torch.no_grad()
    def measure(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Return further terms of a log line, from its means since the last one.

        A value that is not finite, as of a run that diverges, is left out.

        - `samples/diversity`: standard deviation over samples of the EMA, always of the same
          latents (as many as in the grid, at most 32), as a root mean square over pixels, divided
          by that over real images. Near 0 for equal images.
        - `logits/held_out`: mean output of the discriminator for held-out images, which are
          augmented like the others.
        - `overfitting/r_v`: 0 if held-out images have the same outputs as training images, 1 if
          they have those of generated images (Karras et al. 2020, ADA, equation 1).
        """
        measured = {"samples/diversity": self._diversity()}
        if self._held_out is not None:
            held_out = self._held_out_logit(self._held_out)
            measured["logits/held_out"] = held_out
            real, fake = terms.get("logits/real"), terms.get("logits/fake")
            if real is not None and fake is not None and real > fake:
                measured["overfitting/r_v"] = (real - held_out) / (real - fake)
        return {name: value for name, value in measured.items() if math.isfinite(value)}

    def _diversity(self) -> float:
        return spread(self._samples()) / max(self._real_spread(), 1e-6)

    def _real_spread(self) -> float:
        side = self._state.stage.resolution
        if side not in self._spread_of_reals:
            self._spread_of_reals[side] = spread(self._reals(self._num_samples, side))
        return self._spread_of_reals[side]

    def _samples(self) -> Tensor:
        num = self._num_samples
        z, c = sample_grid_latents(self._state, num, self._draw_labels)
        batches = [slice(start, start + _BATCH) for start in range(0, num, _BATCH)]
        generator = self._state.generator_ema
        return torch.cat([generator(z[rows], None if c is None else c[rows]) for rows in batches])

    def _held_out_logit(self, held_out: ImageDataset) -> float:
        state = self._state
        discriminator, stage = state.discriminator, state.stage
        group = stddev_group(state.config.discriminator.mbstd_group_size, stage.batch)
        size = max(_BATCH // group, 1) * group
        num = max(min(len(held_out), MAX_HELD_OUT) // group, 1) * group
        order = self._held_out_order
        indices = [order[index % len(order)] for index in range(num)]
        batch = held_out.gather(indices, resolution=stage.resolution)
        x = fade(images.from_uint8(batch).to(state.device), stage.fade)
        augmentation = sample_augmentation(state, "held_out", num)
        if augmentation is not None:
            x = augmentation.of(BatchSlice.whole(num))(x)
        c = None
        if discriminator.c_dim > 0:
            c = held_out.gather_labels(indices).to(state.device)
        logits = [
            discriminator(x[rows], None if c is None else c[rows])
            for rows in (slice(start, start + size) for start in range(0, num, size))
        ]
        return float(torch.cat(logits).mean())


def spread(batch: Tensor) -> float:
    """Return the standard deviation over images [N, C, H, W], as a root mean square over pixels."""
    return float(batch.float().var(dim=0).mean().sqrt())


def signs(lines: Sequence[Mapping[str, Any]], *, has_logits: bool) -> dict[str, str]:
    """Return the signs that the last log lines show, each with what was seen and what to change.

    The signs are "overfitting", "collapse" and "divergence".

    Args:
        lines: records of kind "tick", oldest first.
        has_logits: whether the discriminator's outputs are logits, and not those of a critic, whose
            size and sign mean nothing (WGAN-GP).
    """
    if len(lines) < MIN_LINES_BEFORE + NUM_LINES:
        return {}
    recent = [line["terms"] for line in lines[-NUM_LINES:]]
    found = {
        "overfitting": _overfitting(recent) if has_logits else None,
        "collapse": _collapse(lines),
        "divergence": _divergence(lines, has_logits=has_logits),
    }
    return {sign: text for sign, text in found.items() if text is not None}


def _overfitting(recent: Sequence[Mapping[str, float]]) -> str | None:
    r_v, r_t = _all(recent, "overfitting/r_v"), _all(recent, "logits/real_sign")
    if r_v and min(r_v) > MAX_RV:
        seen = f"held-out images look generated to the discriminator (r_v {r_v[-1]:.2f})"
    elif r_t and not r_v and min(r_t) > MAX_RT:
        seen = f"the discriminator is certain of nearly every real image (r_t {r_t[-1]:.2f})"
    else:
        return None
    is_adaptive = bool(_all(recent, "augment/p"))
    change = "a lower --augment-target" if is_adaptive else "--augment ada"
    return f"overfitting: {seen}; try {change}, more images, or an earlier snapshot; see {GUIDE}"


def _collapse(lines: Sequence[Mapping[str, Any]]) -> str | None:
    diversity = _all([line["terms"] for line in lines], "samples/diversity")
    if not diversity:  # the log of an older version
        return None
    recent, best = max(diversity[-NUM_LINES:]), max(diversity)
    if recent > MIN_DIVERSITY or recent > MAX_DIVERSITY_LOSS * best:
        return None
    return (
        f"collapse: samples are becoming alike (diversity {diversity[-1]:.2f} of that of real "
        f"images, {best:.2f} before); go on from an earlier snapshot by --init-from with a higher "
        f"gamma or a lower learning rate; see {GUIDE}"
    )


def _divergence(lines: Sequence[Mapping[str, Any]], *, has_logits: bool) -> str | None:
    recent, before = lines[-NUM_LINES:], lines[:-NUM_LINES]
    seen = None
    num_skipped = recent[-1]["skipped"] - recent[0]["skipped"]
    if num_skipped > MAX_SKIPPED * (recent[-1]["iteration"] - recent[0]["iteration"]):
        seen = f"{num_skipped} of the last optimizer steps had non-finite gradients"
    for name in ("logits/real", "logits/fake") if has_logits else ():
        values = _all([line["terms"] for line in recent], name)
        if values and min(abs(value) for value in values) > MAX_LOGIT:
            seen = f"the discriminator's outputs are huge ({name} {values[-1]:.3g})"
    for name in ("grad_norm/G", "grad_norm/D"):
        values = _all([line["terms"] for line in recent], name)
        earlier = _all([line["terms"] for line in before], name)
        if values and earlier:
            usual = statistics.median(earlier)
            if min(values) > MAX_GRAD_GROWTH * usual:
                seen = f"gradients have grown ({name} {values[-1]:.3g}, {usual:.3g} before)"
    if seen is None:
        return None
    return (
        f"divergence: {seen}; start again from an earlier snapshot by --init-from with a higher "
        f"gamma, a lower learning rate or --precision fp32; see {GUIDE}"
    )


def _all(terms: Iterable[Mapping[str, float]], name: str) -> list[float]:
    return [line[name] for line in terms if name in line]
