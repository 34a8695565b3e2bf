"""Attribution: whether a network generated an image, by the distance after projection.

Source: Karras et al. 2020 (StyleGAN2), section 5 and figure 9.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylegan.errors import DataError
from stylegan.extras import import_extra
from stylegan.latent.render import device_of, map_latents
from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps, synthesize

VERSION = 1
MIN_IMAGES = 5  # of either kind
ERROR_RATE = 0.05
"""Of own images that are denied, and of real images that are attributed with certainty."""
MIN_CERTAIN = 19
"""Images of a kind, from which on p-values can be as low as `ERROR_RATE`: 1 / (19 + 1)."""
CONFIDENCE = 0.95
_MIN_DISTANCE = 1e-8  # smaller distances count as this one, as a logarithm is taken


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Distances after projection of a network's own images and of real ones.

    Attributes:
        generated: distances of images that the network generated.
        real: distances of real images.
        facts: what they depend on: network, distance, options, class, seed, data; JSON.

    Raises:
        DataError: if there are fewer than `MIN_IMAGES` of either kind, or a distance is negative or
            not finite.
    """

    generated: Sequence[float]
    real: Sequence[float]
    facts: Mapping[str, object]

    def __post_init__(self) -> None:
        for name, values in (("generated", self.generated), ("real", self.real)):
            if len(values) < MIN_IMAGES:
                raise DataError(
                    f"a calibration needs at least {MIN_IMAGES} {name} images, got {len(values)}"
                )
            if not all(math.isfinite(value) and value >= 0 for value in values):
                raise DataError(f"a distance of {name} images is negative or not finite")

    @property
    def area(self) -> float:
        """Area under the ROC curve; see `area_under_curve`."""
        return area_under_curve(self.generated, self.real)

    @property
    def area_error(self) -> float:
        """Standard error of the area; see `area_error`."""
        return area_error(self.generated, self.real)

    @property
    def overlap(self) -> float:
        """Common area of the two normalized histograms: 0 if disjoint, 1 if equal."""
        edges = histogram_edges(self.generated, self.real)
        generated, real = (
            np.histogram(values, edges)[0] / len(values) for values in (self.generated, self.real)
        )
        return float(np.minimum(generated, real).sum())

    @cached_property
    def _regression(self) -> tuple[float, float]:
        return _fit_logistic(_logs(self.generated), _logs(self.real))

    def probability(self, distance: float) -> float:
        """Return the probability that the network generated an image, with equal priors.

        A logistic regression on the logarithm of the distance, in which both kinds have equal
        weight. Platt's soft targets prevent certainty after a few images that are separable. They
        are also the limits of the result, as the regression would otherwise be more certain of
        distances outside those of the calibration. If own images have larger distances than real
        ones, which only chance explains, the result is 0.5.

        Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2.
        """
        slope, intercept = self._regression
        if slope >= 0:
            return 0.5
        exponent = slope * math.log(max(distance, _MIN_DISTANCE)) + intercept
        probability = 1 / (1 + math.exp(-max(-700.0, min(700.0, exponent))))
        least, most = 1 / (len(self.generated) + 2), 1 - 1 / (len(self.real) + 2)
        return max(least, min(most, probability))

    def own_p_value(self, distance: float) -> float:
        """Return the p-value of the hypothesis that the network generated an image.

        If it did, the image is one more of the calibration's own images, and each rank of its
        distance is equally likely. So at most a fraction p of all own images has a p-value of p or
        less, whatever the distribution and however few images the calibration has.

        Source: Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World",
        chapter 2 (conformal p-values).
        """
        return (1 + sum(own >= distance for own in self.generated)) / (1 + len(self.generated))

    def real_p_value(self, distance: float) -> float:
        """Return the p-value of the hypothesis that an image is a real one; see `own_p_value`."""
        return (1 + sum(real <= distance for real in self.real)) / (1 + len(self.real))

    def threshold(self, false_positive_rate: float) -> float:
        """Return the distance below which at most this fraction of the real images lies."""
        index = self.num_below_threshold(false_positive_rate)
        return sorted(self.real)[index] if index < len(self.real) else math.inf

    def num_below_threshold(self, false_positive_rate: float) -> int:
        """Return the number of real images below `threshold`, if all distances differ."""
        return math.floor(false_positive_rate * len(self.real) + 1e-9)

    def false_positive_bound(self, false_positive_rate: float) -> float:
        """Return an upper bound of the fraction of all real images that lies below `threshold`.

        It holds with a confidence of 95 %. The threshold is an order statistic of the calibration,
        and the fraction below the k-th of m order statistics has the distribution
        Beta(k, m + 1 - k), whatever the distribution of the distances. The quantile is the upper
        limit of Clopper and Pearson.

        Source: Wilks 1941, "Determination of Sample Sizes for Setting Tolerance Limits"; Clopper
        and Pearson 1934, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
        Binomial".
        """
        num_below, num = self.num_below_threshold(false_positive_rate), len(self.real)
        if num_below >= num:
            return 1.0
        stats = import_extra("scipy.stats", extra="metrics", purpose="attribution")
        return float(stats.beta.ppf(CONFIDENCE, num_below + 1, num - num_below))

    def exceeds_real(self, distance: float) -> bool:
        """Return whether a distance is larger than that of every real image."""
        return distance > max(self.real)

    def to_json(self) -> dict[str, object]:
        """Return JSON for `from_json`."""
        return {
            "version": VERSION,
            **self.facts,
            "own": list(self.generated),
            "real": list(self.real),
            "area_under_curve": self.area,
            "area_error": self.area_error,
            "overlap": self.overlap,
        }

    @classmethod
    def from_json(cls, content: object) -> "Calibration":
        """Read the JSON of `to_json`.

        Raises:
            DataError: if it is something else.
        """
        match content:
            case {"version": 1, "own": [*generated], "real": [*real], **others} if all(
                isinstance(value, float | int) for value in [*generated, *real]
            ):
                derived = ("area_under_curve", "area_error", "overlap")
                facts = {str(key): value for key, value in others.items() if key not in derived}
                return cls(generated=generated, real=real, facts=facts)
        raise DataError(
            f"not a calibration of version {VERSION} with distances of own and real images"
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which of several networks generated an image.

    Attributes:
        probabilities: that each network generated the image, in the networks' order.
        none: probability that none of them did.
        best: index of the most likely network; None if "none of them" is more likely.
        is_certain: whether the most likely case has more than 95 %, and the calibration excludes
            the alternative.
        is_undecided: whether "none of them" is more likely, but the calibration does not exclude
            one of the networks.
    """

    probabilities: Sequence[float]
    none: float
    best: int | None
    is_certain: bool
    is_undecided: bool


def decide(calibrations: Sequence[Calibration], distances: Sequence[float]) -> Verdict:
    """Combine the probabilities of several networks.

    The cases "generated by network i" and "by none of them" have equal priors. An image is
    assumed to look real to every network that did not generate it.

    A network is excluded if the p-value of its own images is at most `ERROR_RATE`; so at most 5 %
    of a network's own images are denied. In the same way, at most 5 % of real images are attributed
    to a network with certainty.

    Args:
        calibrations: of each network.
        distances: of the image after projection into each network.
    """
    pairs = list(zip(calibrations, distances, strict=True))
    probabilities = [calibration.probability(distance) for calibration, distance in pairs]
    # log(1 - p) from p itself would be lost near 1
    odds = [p / max(1 - p, 1e-15) for p in probabilities]
    total = 1 + sum(odds)
    posterior = [value / total for value in odds]
    best = max(range(len(odds)), key=odds.__getitem__)
    is_made = odds[best] > 1
    if is_made:
        is_excluding = pairs[best][0].real_p_value(distances[best]) <= ERROR_RATE
    else:
        is_excluding = all(each.own_p_value(distance) <= ERROR_RATE for each, distance in pairs)
    return Verdict(
        probabilities=posterior,
        none=1 / total,
        best=best if is_made else None,
        is_certain=is_excluding and max(*posterior, 1 / total) > 0.95,
        is_undecided=not is_made and not is_excluding,
    )


def image_with_seeded_noise(
    generator: AbstractGenerator, seed: int, *, c: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Generate an image whose noise also depends on the seed, as for figure 9.

    Source: the official projector: `RandomState(seed)` gives z, then each layer's noise, in order
    of the layers.

    Args:
        generator: in eval mode.
        seed: in 0..2**32 - 1.
        c: label, [c_dim]; None for a generator without labels.

    Returns:
        The image [1, C, R, R], nominally in [-1, 1], and its noise by layer, [r, r].
    """
    stream = np.random.RandomState(seed)
    device = device_of(generator)
    z = torch.from_numpy(stream.randn(1, generator.z_dim)).to(torch.float32)
    noise = {
        layer: torch.from_numpy(stream.randn(*stored.shape)).to(device, torch.float32)
        for layer, stored in noise_maps(generator).items()
    }
    with torch.no_grad():
        return synthesize(generator, map_latents(generator, z, c=c), noise=noise), noise


def area_under_curve(generated: Sequence[float], real: Sequence[float]) -> float:
    """Return the area under the ROC curve.

    It is the probability that a generated image has a smaller distance than a real one (Mann and
    Whitney 1947); ties count half.
    """
    return float(_sklearn("metrics").roc_auc_score(*_samples(generated, real)))


def area_error(generated: Sequence[float], real: Sequence[float]) -> float:
    """Return the standard error of the area; 0 if the distances are separable.

    Source: DeLong et al. 1988, "Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves". scikit-learn has no standard error.
    """
    a, b = np.asarray(generated, np.float64)[:, None], np.asarray(real, np.float64)[None]
    wins = (a < b) + 0.5 * (a == b)
    of_generated = wins.mean(axis=1).var(ddof=1) / len(generated)
    of_real = wins.mean(axis=0).var(ddof=1) / len(real)
    return math.sqrt(of_generated + of_real)


def roc_curve(generated: Sequence[float], real: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return false and true positive rates for rising thresholds of the distance, from (0, 0)."""
    false, true, _ = _sklearn("metrics").roc_curve(
        *_samples(generated, real), drop_intermediate=False
    )
    return false.tolist(), true.tolist()


def histogram_edges(
    generated: Sequence[float], real: Sequence[float], *, num: int = 30
) -> NDArray[np.float64]:
    """Return `num + 1` edges over all distances, at equal intervals of their logarithm."""
    both = np.concatenate([_logs(generated), _logs(real)])
    low, high = both.min(), both.max()
    margin = max(1e-3, 1e-3 * (high - low))
    edges: NDArray[np.float64] = np.exp(np.linspace(low - margin, high + margin, num + 1))
    return edges


def _samples(
    generated: Sequence[float], real: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return targets, 1 for generated, and scores that are high for small distances."""
    targets = np.concatenate([np.ones(len(generated)), np.zeros(len(real))])
    return targets, -np.concatenate([generated, real])


def _logs(values: Sequence[float]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(np.asarray(values, np.float64), _MIN_DISTANCE))
    return logs


def _fit_logistic(generated: NDArray[np.float64], real: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and intercept of the log odds of being generated."""
    x = np.concatenate([generated, real])
    mean, std = x.mean(), max(x.std(), 1e-6)
    x = ((x - mean) / std)[:, None]
    # Platt's targets are (N + 1) / (N + 2) and 1 / (N + 2), with the N of each kind. A soft target
    # is a sample of each class, with the target and its complement as weights.
    target = np.concatenate(
        [
            np.full(len(generated), (len(generated) + 1) / (len(generated) + 2)),
            np.full(len(real), 1 / (len(real) + 2)),
        ]
    )
    weight = np.concatenate([np.full(len(kind), 0.5 / len(kind)) for kind in (generated, real)])
    model = _sklearn("linear_model").LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    model.fit(
        np.concatenate([x, x]),
        np.repeat([1, 0], len(x)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    slope = float(model.coef_[0, 0]) / std
    return float(slope), float(model.intercept_[0] - slope * mean)


def _sklearn(module: str) -> Any:
    return import_extra(f"sklearn.{module}", extra="metrics", purpose="attribution")
