"""Linear separability: how well hyperplanes in latent space predict attributes of images."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Separability:
    """The score of a latent space, over all attributes.

    Attributes:
        score: exp of the sum of `entropies`: 1 if hyperplanes predict all attributes, at most
            2^attributes.
        entropies: conditional entropy of each attribute given the prediction, in nats.
        one_sided: indices of attributes for which all kept images have the same label; their
            entropy is 0, as in the original.
        num_not_converged: number of fits that reached the limit of iterations.
    """

    score: float
    entropies: tuple[float, ...]
    one_sided: tuple[int, ...]
    num_not_converged: int


def separability(latents: Tensor, logits: Tensor, *, num_kept: int) -> Separability:
    """Fit a hyperplane for each attribute, and return the conditional entropies.

    For each attribute the `num_kept` images with the most confident labels are taken. A linear
    support vector machine is fitted to their latents and labels, and predicts the same images.

    Confidence is ordered by |logit|, which is the order of the original's
    max(softmax([logit, -logit])). In its float32 all confidences from |logit| = 9 on are 1, and the
    sorting algorithm decides which of these are kept. The classifier is scikit-learn's
    `LinearSVC` with its defaults, as in the original; the primal problem is solved, where
    scikit-learn of 2018 solved the dual, whose iterations stopped before the optimum. It takes 5 to
    8 s on one core and 1.5 GB for 100,000 latents of 512 numbers, for each attribute.

    Source: Karras et al. 2019 (StyleGAN), section 4.2 and appendix C.

    Args:
        latents: z or w, float [N, D].
        logits: outputs of the classifiers, float [N, attributes]; positive for the first class.
        num_kept: number of images for each attribute; half of them in the paper.

    Raises:
        ConfigError: if scikit-learn is not installed.
        ValueError: if the counts do not match.
    """
    if len(latents) != len(logits) or logits.ndim != 2 or not 1 <= num_kept <= len(latents):
        raise ValueError(
            f"separability takes latents [N, D], logits [N, attributes] and at most N kept, got "
            f"{list(latents.shape)}, {list(logits.shape)} and {num_kept}"
        )
    entropies: list[float] = []
    one_sided: list[int] = []
    num_not_converged = 0
    for index, column in enumerate(logits.unbind(dim=1)):
        # Stable, so that the order of equal confidences is the same on every machine.
        order = column.abs().sort(descending=True, stable=True).indices[:num_kept]
        labels = column[order] < 0
        if labels.all() or not labels.any():
            one_sided.append(index)
            entropies.append(0.0)
            continue
        predicted, has_converged = _fit_and_predict(latents[order], labels)
        entropies.append(conditional_entropy(predicted, labels))
        num_not_converged += not has_converged
    return Separability(
        score=math.exp(sum(entropies)),
        entropies=tuple(entropies),
        one_sided=tuple(one_sided),
        num_not_converged=num_not_converged,
    )


def conditional_entropy(predicted: Tensor, labels: Tensor) -> float:
    """Return the conditional entropy H(label | prediction) in nats, from 0 to log 2.

    Args:
        predicted: bool [N].
        labels: bool [N].
    """
    cells = predicted.long() * 2 + labels.long()
    table = torch.bincount(cells, minlength=4).view(2, 2).double() / len(cells)
    totals = table.sum(dim=1)
    # H(X, Y) - H(X); at most rounding below 0.
    entropy = torch.xlogy(totals, totals).sum() - torch.xlogy(table, table).sum()
    return max(float(entropy), 0.0)


def fit_hyperplane(latents: Tensor, labels: Tensor) -> tuple[Tensor, float, bool]:
    """Separate two classes of latents by a hyperplane, with a linear support vector machine.

    Args:
        latents: [N, D].
        labels: bool [N]; both values must occur.

    Returns:
        Normal, float64 [D], and offset (`latents @ normal + offset` is positive where True is
        predicted), and whether the fit converged.

    Raises:
        ConfigError: if scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
        from sklearn.svm import LinearSVC  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            "linear separability needs scikit-learn", fix="pip install 'stylegan[metrics]'"
        ) from error
    classifier = LinearSVC(dual="auto", random_state=0)
    with warnings.catch_warnings():
        # The caller counts fits that did not converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(latents.detach().cpu().numpy(), labels.cpu().numpy())
    normal = torch.from_numpy(classifier.coef_[0]).double()
    return normal, float(classifier.intercept_[0]), bool(classifier.n_iter_ < classifier.max_iter)


def _fit_and_predict(latents: Tensor, labels: Tensor) -> tuple[Tensor, bool]:
    """Return predictions, bool [N], and whether the fit converged."""
    normal, offset, has_converged = fit_hyperplane(latents, labels)
    return latents.detach().cpu().double() @ normal + offset > 0, has_converged
