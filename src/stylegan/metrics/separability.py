"""Linear separability: whether one plane in latent space tells an attribute of the image."""

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
        score: exp of the sum of `entropies`; 1 if planes tell all attributes, up to
            2^attributes.
        entropies: in nats, one for each attribute: what its plane leaves unknown.
        one_sided: attributes, by index, of which all kept images have one label; nothing is unknown
            of these, as in the original, and nothing told either.
        num_unfinished: planes whose fit stopped at its limit of iterations, so that another
            plane might do better.
    """

    score: float
    entropies: tuple[float, ...]
    one_sided: tuple[int, ...]
    num_unfinished: int


def separability(latents: Tensor, logits: Tensor, *, num_kept: int) -> Separability:
    """Fit a plane for each attribute, and score what the planes leave unknown.

    For each attribute the `num_kept` images of the most certain label are taken, a linear
    support vector machine learns the label from the latent, and predicts it for the same images.
    If all labels are equal, nothing is unknown.

    Certainty is ordered by |logit|, as the original's max(softmax([logit, -logit])) is; there
    float32 makes all certainties from |logit| 9 on equal to 1, and which of these are kept is left
    to the sort. The machine is scikit-learn's `LinearSVC` with its defaults, as in the original;
    of two forms of the same problem the one without the dual is solved, where 2018's
    scikit-learn took the dual, whose iterations ended before the optimum. Takes 5 to 8 s
    of one core and 1.5 GB for 100,000 latents of 512 numbers, each attribute.

    Source: Karras et al. 2019 (StyleGAN), section 4.2 and appendix C.

    Args:
        latents: z or w, float [N, D].
        logits: of the classifiers, float [N, attributes]; above 0 is the first class.
        num_kept: images for each attribute; the paper keeps half.

    Raises:
        ConfigError: if scikit-learn is not installed.
        ValueError: if the counts do not go together.
    """
    if len(latents) != len(logits) or logits.ndim != 2 or not 1 <= num_kept <= len(latents):
        raise ValueError(
            f"separability takes latents [N, D], logits [N, attributes] and at most N kept, got "
            f"{list(latents.shape)}, {list(logits.shape)} and {num_kept}"
        )
    entropies: list[float] = []
    one_sided: list[int] = []
    num_unfinished = 0
    for index, column in enumerate(logits.unbind(dim=1)):
        # Stable, so that equal certainties keep their order on every machine.
        order = column.abs().sort(descending=True, stable=True).indices[:num_kept]
        labels = column[order] < 0
        if labels.all() or not labels.any():
            one_sided.append(index)
            entropies.append(0.0)
            continue
        predicted, finished = _fit_and_predict(latents[order], labels)
        entropies.append(conditional_entropy(predicted, labels))
        num_unfinished += not finished
    return Separability(
        score=math.exp(sum(entropies)),
        entropies=tuple(entropies),
        one_sided=tuple(one_sided),
        num_unfinished=num_unfinished,
    )


def conditional_entropy(predicted: Tensor, labels: Tensor) -> float:
    """Return H(label | prediction) in nats, from 0 to log 2, of the table of both.

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


def fit_plane(latents: Tensor, labels: Tensor) -> tuple[Tensor, float, bool]:
    """Separate two kinds of latents by a plane, with a linear support vector machine.

    Args:
        latents: [N, D].
        labels: bool [N], both of them present.

    Returns:
        Normal [D], float64, and offset: `latents @ normal + offset` is positive where a label is
        predicted; and whether the fit ended by itself.

    Raises:
        ConfigError: if scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
        from sklearn.svm import LinearSVC  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            "linear separability without scikit-learn",
            expected="the extra packages of the metrics",
            fix="pip install 'stylegan[metrics]'",
        ) from error
    machine = LinearSVC(dual="auto", random_state=0)
    with warnings.catch_warnings():
        # Counted instead; a line of a library about its own options helps nobody here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(latents.detach().cpu().numpy(), labels.cpu().numpy())
    normal = torch.from_numpy(machine.coef_[0]).double()
    return normal, float(machine.intercept_[0]), bool(machine.n_iter_ < machine.max_iter)


def _fit_and_predict(latents: Tensor, labels: Tensor) -> tuple[Tensor, bool]:
    """Return predictions, bool [N], and whether the fit ended by itself; there are both labels."""
    normal, offset, finished = fit_plane(latents, labels)
    return latents.detach().cpu().double() @ normal + offset > 0, finished
