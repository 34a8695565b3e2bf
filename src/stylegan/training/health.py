"""Signs that a run goes wrong: overfitting, collapse and divergence, measured at each log line."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan.data.dataset import ImageDataset
from stylegan.image_size import ImageSize
from stylegan.microbatch import BatchSlice
from stylegan.ops.box import fade
from stylegan.ops.normalize import stddev_group
from stylegan.rng import generator_for
from stylegan.training.sampling import DrawLabels, sample_augmentation, sample_grid_latents
from stylegan.training.state import TrainState

Reals = Callable[[int, ImageSize], Tensor]
"""Returns `num` real images, float32 [num, C, H, W] in [-1, 1], of a size."""

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
        training: the training set, to be compared with `held_out`.
        held_out: real images that are not trained on; None if there are none.
        draw_labels: draws labels of samples; None for networks without labels.
    """

    def __init__(
        self,
        state: TrainState,
        reals: Reals,
        *,
        training: ImageDataset | None,
        held_out: ImageDataset | None,
        draw_labels: DrawLabels | None,
    ) -> None:
        self._state = state
        self._reals = reals
        self._num_samples = min(max(state.config.output.samples, 2), MAX_SAMPLES)
        self._training = training
        self._held_out = held_out
        self._draw_labels = draw_labels
        self._spread_of_reals: dict[ImageSize, float] = {}
        self._real_spread()  # now, as reading other images later would interrupt the stream

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return further terms of a log line. A value that is not finite is left out.

        - `samples/diversity`: standard deviation over samples of the EMA, always of the same
          latents (as many as in the grid, at most 32), as a root mean square over pixels, divided
          by that over real images. Near 0 for equal images.
        - `logits/held_out`, `logits/training`: mean outputs of the discriminator for held-out
          images and for as many training images, at most 128, augmented as in training. Both are
          measured at the same moment, as outputs change from one iteration to the next.
        - `overfitting/r_v`: 0 if held-out images have the same outputs as training images, 1 if
          they have those of these samples (Karras et al. 2020, ADA, equation 1).
        """
        samples, c = self._samples()
        measured = {"samples/diversity": spread(samples) / max(self._real_spread(), 1e-6)}
        if self._training is not None and self._held_out is not None:
            num = min(len(self._held_out), MAX_HELD_OUT)
            training = self._mean_logit(*self._draw(self._training, num))
            held_out = self._mean_logit(*self._draw(self._held_out, num))
            generated = self._mean_logit(samples, c)
            measured |= {"logits/training": training, "logits/held_out": held_out}
            if training > generated:
                measured["overfitting/r_v"] = (training - held_out) / (training - generated)
        return {name: value for name, value in measured.items() if math.isfinite(value)}

    def _real_spread(self) -> float:
        size = self._state.stage.size
        if size not in self._spread_of_reals:
            self._spread_of_reals[size] = spread(self._reals(self._num_samples, size))
        return self._spread_of_reals[size]

    def _samples(self) -> tuple[Tensor, Tensor | None]:
        """Return samples of the EMA, with their labels."""
        num = self._num_samples
        z, c = sample_grid_latents(self._state, num, self._draw_labels)
        batches = [slice(start, start + _BATCH) for start in range(0, num, _BATCH)]
        generator = self._state.generator_ema
        samples = [generator(z[rows], None if c is None else c[rows]) for rows in batches]
        return torch.cat(samples), c

    def _draw(self, dataset: ImageDataset, num: int) -> tuple[Tensor, Tensor | None]:
        """Return some images of a set, always the same, with their labels if they are used."""
        state = self._state
        # Neighbors in a set are alike, and the discriminator compares the images of a group.
        stream = generator_for("probe order", seed=state.config.seed)
        indices = torch.randperm(len(dataset), generator=stream)[:num].tolist()
        batch = dataset.gather(indices, resolution=state.stage.size)
        x = fade(dataset.pixels.to_float(batch).to(state.device), state.stage.fade)
        if state.discriminator.c_dim == 0:
            return x, None
        return x, dataset.gather_labels(indices).to(state.device)

    def _mean_logit(self, x: Tensor, c: Tensor | None) -> float:
        """Return the mean output of the discriminator for whole groups of minibatch std."""
        state = self._state
        group = stddev_group(state.config.discriminator.mbstd_group_size, state.stage.batch)
        num = max(len(x) // group, 1) * group
        rows = [row % len(x) for row in range(num)]
        x, c = x[rows], None if c is None else c[rows]
        augmentation = sample_augmentation(state, "probe", num)
        if augmentation is not None:
            x = augmentation.of(BatchSlice.whole(num))(x)
        size = max(_BATCH // group, 1) * group
        logits = [
            state.discriminator(x[part], None if c is None else c[part])
            for part in (slice(start, start + size) for start in range(0, num, size))
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
