"""Whether a network made an image: how near its projection comes, against what is known.

Source: Karras et al. 2020 (StyleGAN2), section 5 and figure 9.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylegan.errors import DataError
from stylegan.latent.render import map_latents
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps, synthesize

VERSION = 1
FEWEST = 5  # of either side; with less there is no curve to speak of
_SMALLEST = 1e-8  # distances below it are as good as 0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Distances of a network's own images and of real ones after projection.

    Attributes:
        own: of images that the network made.
        real: of real images.
        facts: what they depend on: network, distance, options, class, seed, data; JSON.

    Raises:
        DataError: if a side has too few, or a distance is negative or not finite.
    """

    own: Sequence[float]
    real: Sequence[float]
    facts: Mapping[str, object]

    def __post_init__(self) -> None:
        for name, values in (("own", self.own), ("real", self.real)):
            if len(values) < FEWEST:
                raise DataError(
                    f"{len(values)} distances of {name} images",
                    expected=f"at least {FEWEST}",
                    fix="calibrate with more images",
                )
            if not all(math.isfinite(value) and value >= 0 for value in values):
                raise DataError(
                    f"a distance of {name} images that is negative or not finite",
                    expected="distances",
                    fix="calibrate again",
                )

    @property
    def area(self) -> float:
        """Area under the ROC curve: how often an own image is nearer than a real one."""
        return area_under_curve(self.own, self.real)

    @property
    def area_error(self) -> float:
        """Standard error of the area; see `area_error`."""
        return area_error(self.own, self.real)

    @property
    def overlap(self) -> float:
        """Common area of the two histograms, each of area 1: 0 apart, 1 alike."""
        edges = histogram_edges(self.own, self.real)
        own, real = (np.histogram(side, edges)[0] / len(side) for side in (self.own, self.real))
        return float(np.minimum(own, real).sum())

    @cached_property
    def _line(self) -> tuple[float, float]:
        return _logistic_line(_logs(self.own), _logs(self.real))

    def probability(self, distance: float) -> float:
        """Return the probability that the network made an image, both sides as likely before.

        A logistic regression on the logarithm of the distance, with Platt's targets, which keep
        it from being certain after a few images that are apart, and each side weighing the same.

        Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2.
        """
        slope, offset = self._line
        exponent = slope * math.log(max(distance, _SMALLEST)) + offset
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, exponent))))

    def threshold(self, false_positive_rate: float) -> float:
        """Return the distance below which at most such a share of the real images lies."""
        ordered = sorted(self.real)
        index = math.floor(false_positive_rate * len(ordered) + 1e-9)
        return ordered[index] if index < len(ordered) else math.inf

    def is_unlike(self, distance: float) -> bool:
        """Tell whether an image lies further than all of the real ones."""
        return distance > max(self.real)

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` reads."""
        return {
            "version": VERSION,
            **self.facts,
            "own": list(self.own),
            "real": list(self.real),
            "area_under_curve": self.area,
            "area_error": self.area_error,
            "overlap": self.overlap,
        }

    @classmethod
    def from_json(cls, content: object) -> "Calibration":
        """Read what `to_json` gave.

        Raises:
            DataError: if it is none.
        """
        match content:
            case {"version": 1, "own": [*own], "real": [*real], **facts} if all(
                isinstance(value, float | int) for value in [*own, *real]
            ):
                for derived in ("area_under_curve", "area_error", "overlap"):
                    facts.pop(derived, None)
                return cls(own=own, real=real, facts={str(k): v for k, v in facts.items()})
        raise DataError(
            "no calibration",
            expected=f"version {VERSION}, with distances of own and real images",
            fix="calibrate again",
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which of several networks made an image.

    Attributes:
        probabilities: of each network, in their order, that it made the image.
        none: probability that none of them did.
        best: index of the likeliest network; None where none is likelier than all of them.
        is_certain: whether the likeliest case has more than 95 %.
    """

    probabilities: Sequence[float]
    none: float
    best: int | None
    is_certain: bool


def decide(probabilities: Sequence[float]) -> Verdict:
    """Weigh networks against each other and against none of them.

    Each case is as likely beforehand, and an image looks real to all networks but its own.

    Args:
        probabilities: of each network against real images, by `Calibration.probability`.
    """
    # log(1 - p) from p itself would be lost near 1
    odds = [p / max(1 - p, 1e-15) for p in probabilities]
    total = 1 + sum(odds)
    shares = [each / total for each in odds]
    cases = [*shares, 1 / total]
    best = max(range(len(cases)), key=cases.__getitem__)
    return Verdict(
        probabilities=shares,
        none=1 / total,
        best=None if best == len(shares) else best,
        is_certain=cases[best] > 0.95,
    )


def own_image(
    generator: AbstractGenerator, seed: int, *, c: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make an image whose noise is drawn from its seed, too, as those of figure 9.

    Source: the official projector: `RandomState(seed)` gives z, then each layer's noise, in order
    of the layers.

    Args:
        generator: in eval mode.
        seed: in 0..2**32 - 1.
        c: label, [c_dim]; None where the generator takes none.

    Returns:
        The image [1, C, R, R], nominally in [-1, 1], and its noise by layer, [r, r].
    """
    stream = np.random.RandomState(seed)
    device = next(generator.parameters()).device
    z = torch.from_numpy(stream.randn(1, generator.z_dim)).to(torch.float32)
    noise = {
        layer: torch.from_numpy(stream.randn(*stored.shape)).to(device, torch.float32)
        for layer, stored in noise_maps(generator).items()
    }
    with torch.no_grad():
        return synthesize(generator, map_latents(generator, z, c=c), noise=noise), noise


def area_under_curve(own: Sequence[float], real: Sequence[float]) -> float:
    """Return how often an own image's distance is below a real one's; ties count half.

    Source: Mann and Whitney 1947; the area under the ROC curve, exactly.
    """
    return float(_wins(own, real).mean())


def area_error(own: Sequence[float], real: Sequence[float]) -> float:
    """Return the standard error of the area; 0 where the sides are apart, which proves little.

    Source: DeLong et al. 1988, "Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves".
    """
    wins = _wins(own, real)
    of_own = wins.mean(axis=1).var(ddof=1) / len(own)
    of_real = wins.mean(axis=0).var(ddof=1) / len(real)
    return math.sqrt(of_own + of_real)


def roc_curve(own: Sequence[float], real: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return false and true positive rates as the threshold on the distance rises, from (0, 0)."""
    thresholds = np.unique(np.concatenate([own, real]))
    false, true = (
        np.searchsorted(np.sort(side), thresholds, side="right") / len(side) for side in (real, own)
    )
    return [0.0, *false.tolist()], [0.0, *true.tolist()]


def histogram_edges(
    own: Sequence[float], real: Sequence[float], *, num: int = 30
) -> NDArray[np.float64]:
    """Return edges of bins over both sides, of equal width in the logarithm of the distance."""
    both = np.concatenate([_logs(own), _logs(real)])
    low, high = both.min(), both.max()
    margin = max(1e-3, 1e-3 * (high - low))
    edges: NDArray[np.float64] = np.exp(np.linspace(low - margin, high + margin, num + 1))
    return edges


def _wins(own: Sequence[float], real: Sequence[float]) -> NDArray[np.float64]:
    """Return for each pair 1 where the own image is nearer, 1/2 for a tie, [own, real]."""
    a, b = np.asarray(own, np.float64)[:, None], np.asarray(real, np.float64)[None]
    wins: NDArray[np.float64] = (a < b) + 0.5 * (a == b)
    return wins


def _logs(values: Sequence[float]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(np.asarray(values, np.float64), _SMALLEST))
    return logs


def _logistic_line(own: NDArray[np.float64], real: NDArray[np.float64]) -> tuple[float, float]:
    """Fit the log odds of being own as a line in x, by Newton's method."""
    x = np.concatenate([own, real])
    mean, scale = x.mean(), max(x.std(), 1e-6)
    x = (x - mean) / scale
    # Platt's targets, (N + 1) / (N + 2) and 1 / (N + 2), with the N of each side
    wanted = np.concatenate(
        [
            np.full(len(own), (len(own) + 1) / (len(own) + 2)),
            np.full(len(real), 1 / (len(real) + 2)),
        ]
    )
    weight = np.concatenate(
        [np.full(len(own), 0.5 / len(own)), np.full(len(real), 0.5 / len(real))]
    )
    design = np.stack([x, np.ones_like(x)], axis=1)
    line = np.zeros(2)

    def loss(candidate: NDArray[np.float64]) -> float:
        z = design @ candidate
        return float((weight * (np.logaddexp(0, z) - wanted * z)).sum())

    for _ in range(100):
        p = 1 / (1 + np.exp(-(design @ line)))
        gradient = design.T @ (weight * (p - wanted))
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(line - size * step) > loss(line) and size > 1e-6:
            size /= 2
        line = line - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    slope = line[0] / scale
    return float(slope), float(line[1] - slope * mean)
