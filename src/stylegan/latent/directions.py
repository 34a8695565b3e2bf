"""Directions in w along which images change: find, save and apply them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from stylegan.errors import ConfigError, DataError
from stylegan.files import write_atomic
from stylegan.latent.render import device_of
from stylegan.models.base import AbstractGenerator
from stylegan.nn.equalized import EqualizedLinear

FORMAT = "stylegan-directions"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Orthonormal directions in w, and the style inputs that they act on.

    Attributes:
        vectors: [K, w_dim], float32, orthonormal.
        names: of the directions, unique.
        stds: standard deviations of w along the directions, [K]: the unit of strengths.
        importances: what the method sorts by, [K].
        layers: style inputs that they act on.
        method: "factorize", "pca" or "labels".
        facts: options of the method, and the network's checksum; JSON.

    Raises:
        ValueError: if lengths differ, names are equal, or vectors are not orthonormal.
    """

    vectors: Tensor
    names: Sequence[str]
    stds: Tensor
    importances: Tensor
    layers: Sequence[int]
    method: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num = len(self.vectors)
        lengths = {len(self.names), len(self.stds), len(self.importances)}
        if self.vectors.ndim != 2 or lengths != {num} or len(set(self.names)) != num:
            raise ValueError("each direction needs a unique name, a std and an importance")
        products = self.vectors.double() @ self.vectors.double().T
        if not torch.allclose(products, torch.eye(num, dtype=torch.float64), atol=1e-4):
            raise ValueError("directions are not orthonormal")

    def apply(self, ws: Tensor, strengths: Mapping[str, float]) -> Tensor:
        """Move ws [N, num_ws, w_dim] along directions, in the layers that these act on.

        If all strengths are 0, the result equals `ws` bit for bit. Sum the strengths of one
        direction by `sum_strengths` first, so that +a and -a cancel exactly.

        Args:
            ws: in any dtype.
            strengths: by name, in standard deviations of w.

        Raises:
            ConfigError: if there is no direction of a name.
        """
        step = torch.zeros(self.vectors.shape[1], dtype=torch.float64)
        for name, strength in strengths.items():
            index = self._index(name)
            step = step + strength * float(self.stds[index]) * self.vectors[index].double()
        if not step.any():
            return ws
        moved = ws.clone()
        layers = list(self.layers)
        moved[:, layers] = (ws[:, layers].double() + step.to(ws.device)).to(ws.dtype)
        return moved

    def renamed(self, names: Sequence[str]) -> "Directions":
        """Return the same directions under other names."""
        return replace(self, names=list(names))

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise ConfigError(
                f"there is no direction {name!r}; the directions are {', '.join(self.names)}"
            )
        return list(self.names).index(name)


def sum_strengths(edits: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Sum the strengths of each name, and leave out those that cancel."""
    strengths: dict[str, float] = {}
    for name, strength in edits:
        strengths[name] = strengths.get(name, 0.0) + strength
    return {name: strength for name, strength in strengths.items() if strength != 0}


def factorize(
    generator: AbstractGenerator,
    w: Tensor,
    *,
    layers: Sequence[int],
    num: int,
    normalize: bool = True,
) -> Directions:
    """Find the directions of w that change styles most, from the weights alone.

    They are eigenvectors of A^T A, where A stacks the weights of the affine layers that map w to
    styles in the chosen layers: to the scales of convolutions in StyleGAN2, to the scales and
    shifts of AdaIN in StyleGAN. The weights for the styles of RGB are left out.

    Source: Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs", section 3.
    The authors' code normalizes each row of A, the weight vector of one style, to unit length
    (there the columns of the transposed matrix); the paper does not.

    Args:
        generator: with styles.
        w: samples [N, w_dim], for the unit of strengths.
        layers: style inputs.
        num: number of directions, at most `w_dim`.
        normalize: normalize the rows of A. Recorded in `facts`.

    Raises:
        ConfigError: if the layers have no styles, or `num` is out of range.
    """
    affines = style_affines(generator)
    rows = [
        (affine.weight.detach() * affine.scale).double().cpu()
        for layer in layers
        for affine in affines[layer]
    ]
    if not rows:
        raise ConfigError(
            "a network without styles in these layers cannot be factorized",
            fix="choose other layers, or method pca",
        )
    a = torch.cat(rows)
    if normalize:
        a = F.normalize(a, dim=1)
    directions = _ordered(a.T @ a, w, layers=layers, num=num, method="factorize")
    return replace(directions, facts={"normalize": normalize})


def principal(w: Tensor, *, layers: Sequence[int], num: int) -> Directions:
    """Find the principal components of w; importances are fractions of the variance.

    Source: Härkönen et al. 2020, "GANSpace", section 2.2.

    Args:
        w: samples [N, w_dim].
        layers: style inputs to act on.
        num: number of directions, at most `w_dim`.

    Raises:
        ConfigError: if `num` is out of range.
    """
    centered = (w - w.mean(dim=0)).double().cpu()
    covariance = centered.T @ centered / len(centered)
    directions = _ordered(covariance, w, layers=layers, num=num, method="pca")
    fractions = directions.importances / covariance.trace().float()
    return replace(directions, importances=fractions)


def separating(
    normals: Sequence[Tensor], w: Tensor, *, names: Sequence[str], layers: Sequence[int]
) -> Directions:
    """Orthogonalize the normals of hyperplanes that separate attributes.

    Each is made orthogonal to those before it, so that it changes its attribute and not theirs.
    Importances are the lengths that remain of the unit normals.

    Source: Shen et al. 2020, "Interpreting the Latent Space of GANs for Semantic Face Editing",
    section 2.2.

    Args:
        normals: [w_dim] each, of any length.
        w: samples [N, w_dim].
        names: of the attributes.
        layers: style inputs to act on.

    Raises:
        ConfigError: if a normal is a linear combination of those before it.
    """
    vectors: list[Tensor] = []
    lengths: list[float] = []
    for name, normal in zip(names, normals, strict=True):
        unit = normal.double() / normal.double().norm()
        rest = unit
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for vector in vectors:
                rest = rest - (rest @ vector) * vector
        length = rest.norm().item()
        if not length > 1e-3:
            raise ConfigError(
                f"the direction of {name} is a combination of those before it", fix="leave it out"
            )
        vectors.append(rest / length)
        lengths.append(length)
    stacked = torch.stack(vectors)
    return Directions(
        vectors=stacked.float(),
        names=list(names),
        stds=_stds(stacked, w),
        importances=torch.tensor(lengths),
        layers=list(layers),
        method="labels",
    )


def style_affines(generator: AbstractGenerator) -> list[list[EqualizedLinear]]:
    """Return for each style input the affine layers that map it to styles of convolutions."""
    by_input: list[list[EqualizedLinear]] = [[] for _ in range(generator.num_ws)]

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, EqualizedLinear)
        by_input[int(inputs[0][0, 0].item())].append(module)

    affines = [
        module
        for name, module in generator.synthesis.named_modules()
        if name.endswith(".affine") and ".torgb" not in name
    ]
    handles = [module.register_forward_hook(hook) for module in affines]
    try:
        # each style input is filled with its index, which identifies it at the affine layer
        numbers = torch.arange(generator.num_ws, dtype=torch.float32, device=device_of(generator))
        ws = numbers[None, :, None].expand(1, -1, generator.w_dim)
        with torch.no_grad():
            generator.synthesis(ws)
    finally:
        for handle in handles:
            handle.remove()
    return by_input


def write_directions(path: str | os.PathLike[str], directions: Directions) -> None:
    """Write directions as a safetensors file, atomically."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "names": list(directions.names),
        "layers": list(directions.layers),
        "method": directions.method,
        "facts": dict(directions.facts),
    }
    tensors = {
        "vectors": directions.vectors.contiguous(),
        "deviations": directions.stds.contiguous(),  # the file's name for them
        "importances": directions.importances.contiguous(),
    }
    metadata = {"directions": json.dumps(description)}
    write_atomic(path, to_bytes(tensors, metadata=metadata))


def read_directions(path: str | os.PathLike[str]) -> Directions:
    """Read a file of `write_directions`.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        if not Path(path).is_file():
            raise OSError("no such file")
        with safetensors.safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["directions"])
            if (description["format"], description["version"]) != (FORMAT, VERSION):
                raise ValueError("another version")
            return Directions(
                vectors=file.get_tensor("vectors").float(),
                stds=file.get_tensor("deviations").float(),
                importances=file.get_tensor("importances").float(),
                names=[str(name) for name in description["names"]],
                layers=[int(layer) for layer in description["layers"]],
                method=str(description["method"]),
                facts=dict(description["facts"]),
            )
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise DataError(
            f"{path} holds no directions ({' '.join(str(error).split())[:80]})",
            fix="write a file by `stylegan directions find`",
        ) from error


def check_fit(directions: Directions, generator: AbstractGenerator) -> None:
    """Check that directions fit a generator's w_dim and style inputs.

    Raises:
        DataError: if they do not.
    """
    width = directions.vectors.shape[1]
    if width != generator.w_dim or max(directions.layers) >= generator.num_ws:
        raise DataError(
            f"the directions have w_dim {width} and act on layers up to {max(directions.layers)}, "
            f"but this network has w_dim {generator.w_dim} and layers up to {generator.num_ws - 1}"
        )


def _ordered(
    matrix: Tensor, w: Tensor, *, layers: Sequence[int], num: int, method: str
) -> Directions:
    """Return the eigenvectors of a symmetric matrix with the largest eigenvalues."""
    if not 1 <= num <= len(matrix):
        raise ConfigError(f"count must be from 1 to {len(matrix)}, the dimensions of w, got {num}")
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0)[:num], vectors.flip(1)[:, :num].T
    # an eigenvector has no sign; its largest component becomes positive, on every machine
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    vectors = vectors * vectors.gather(1, largest).sign()
    return Directions(
        vectors=vectors.float(),
        names=[f"{method}-{index}" for index in range(num)],
        stds=_stds(vectors, w),
        importances=values.clamp_min(0).float(),
        layers=list(layers),
        method=method,
    )


def _stds(vectors: Tensor, w: Tensor) -> Tensor:
    stds: Tensor = (w.double().cpu() @ vectors.T).std(dim=0).float()
    return stds
