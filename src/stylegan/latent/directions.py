"""Directions in w along which images change: found, saved, applied."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from stylegan.errors import ConfigError, DataError
from stylegan.files import write_atomic
from stylegan.models.base import AbstractGenerator
from stylegan.nn.equalized import EqualizedLinear

FORMAT = "stylegan-directions"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Orthonormal directions in w, and the style inputs that they act on.

    Attributes:
        vectors: [K, w_dim], float32, orthonormal.
        names: of each, different.
        deviations: of w along each, [K]: the unit of strengths.
        importances: of each, [K]: what the method orders by.
        layers: style inputs that they act on.
        method: "factorize", "pca" or "labels".
        facts: what else is known of them, such as the network's checksum; JSON.

    Raises:
        ValueError: if lengths differ, names are equal, or vectors are not orthonormal.
    """

    vectors: Tensor
    names: Sequence[str]
    deviations: Tensor
    importances: Tensor
    layers: Sequence[int]
    method: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num = len(self.vectors)
        lengths = {len(self.names), len(self.deviations), len(self.importances)}
        if self.vectors.ndim != 2 or lengths != {num} or len(set(self.names)) != num:
            raise ValueError("directions need a name, a deviation and an importance each")
        products = self.vectors.double() @ self.vectors.double().T
        if not torch.allclose(products, torch.eye(num, dtype=torch.float64), atol=1e-4):
            raise ValueError("directions are not orthonormal")

    def apply(self, ws: Tensor, strengths: Mapping[str, float]) -> Tensor:
        """Move ws [N, num_ws, w_dim] along directions, in the layers that these act on.

        Strengths of 0 change nothing, not a bit. So add up what is asked of one direction, as
        `add_up` does, before it is applied: +a and then -a is the identity.

        Args:
            ws: in any dtype.
            strengths: by name, in deviations of w.

        Raises:
            ConfigError: if there is no direction of a name.
        """
        step = torch.zeros(self.vectors.shape[1], dtype=torch.float64)
        for name, strength in strengths.items():
            index = self._index(name)
            step = step + strength * float(self.deviations[index]) * self.vectors[index].double()
        if not step.any():
            return ws
        moved = ws.clone()
        layers = list(self.layers)
        moved[:, layers] = (ws[:, layers].double() + step.to(ws.device)).to(ws.dtype)
        return moved

    def renamed(self, names: Sequence[str]) -> "Directions":
        """Return the same directions under other names."""
        return Directions(**{**self.__dict__, "names": list(names)})

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise ConfigError(
                f"no direction is called {name!r}",
                expected=f"one of {', '.join(self.names)}",
                fix="choose one of them",
            )
        return list(self.names).index(name)


def add_up(edits: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Add up the strengths asked of each direction; those that cancel out are left out."""
    strengths: dict[str, float] = {}
    for name, strength in edits:
        strengths[name] = strengths.get(name, 0.0) + strength
    return {name: strength for name, strength in strengths.items() if strength != 0}


def factorize(
    generator: AbstractGenerator, w: Tensor, *, layers: Sequence[int], num: int
) -> Directions:
    """Find the directions of w that change styles most, from the weights alone.

    Eigenvectors of A^T A, where A stacks the weights that turn w into styles in the chosen
    layers: of StyleGAN2 the scales of convolutions, of StyleGAN scales and shifts of AdaIN. The
    weights that turn w into RGB styles are left out.

    Source: Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs", section 3.

    Args:
        generator: with styles.
        w: samples [N, w_dim], which give the unit of strengths.
        layers: style inputs.
        num: how many, at most `w_dim`.

    Raises:
        ConfigError: if the generator has no styles, or fewer dimensions.
    """
    affines = style_affines(generator)
    rows = [
        (affine.weight.detach() * affine.scale).double().cpu()
        for layer in layers
        for affine in affines[layer]
    ]
    if not rows:
        raise ConfigError(
            "a network without styles in these layers",
            expected="layers whose weights turn w into styles",
            fix="choose other layers, another network, or --method pca",
        )
    a = torch.cat(rows)
    return _ordered(a.T @ a, w, layers=layers, num=num, method="factorize")


def principal(w: Tensor, *, layers: Sequence[int], num: int) -> Directions:
    """Find the directions along which w varies most; importances are shares of the variance.

    Source: Härkönen et al. 2020, "GANSpace", section 2.2.

    Args:
        w: samples [N, w_dim].
        layers: style inputs to act on.
        num: how many, at most `w_dim`.

    Raises:
        ConfigError: if w has fewer dimensions.
    """
    centred = (w - w.mean(dim=0)).double().cpu()
    covariance = centred.T @ centred / len(centred)
    found = _ordered(covariance, w, layers=layers, num=num, method="pca")
    shares = found.importances / covariance.trace().float()
    return Directions(**{**found.__dict__, "importances": shares})


def separating(
    normals: Sequence[Tensor], w: Tensor, *, names: Sequence[str], layers: Sequence[int]
) -> Directions:
    """Make directions of the normals of planes that separate attributes.

    Each is made orthogonal to those before it, so that it changes its attribute and not theirs.
    Importances are the shares of the normals that remain.

    Source: Shen et al. 2020, "Interpreting the Latent Space of GANs for Semantic Face Editing",
    section 2.2.

    Args:
        normals: [w_dim] each, of any length.
        w: samples [N, w_dim].
        names: of the attributes.
        layers: style inputs to act on.

    Raises:
        ConfigError: if an attribute's normal depends on those before it.
    """
    vectors: list[Tensor] = []
    shares: list[float] = []
    for name, normal in zip(names, normals, strict=True):
        unit = normal.double() / normal.double().norm()
        rest = unit
        for _ in range(2):  # twice is enough for orthogonality to rounding
            for vector in vectors:
                rest = rest - (rest @ vector) * vector
        share = rest.norm().item()
        if not share > 1e-3:
            raise ConfigError(
                f"the direction of {name} follows from those before it",
                expected="attributes that differ",
                fix="leave it out",
            )
        vectors.append(rest / share)
        shares.append(share)
    stacked = torch.stack(vectors)
    return Directions(
        vectors=stacked.float(),
        names=list(names),
        deviations=_deviations(stacked, w),
        importances=torch.tensor(shares),
        layers=list(layers),
        method="labels",
    )


def style_affines(generator: AbstractGenerator) -> list[list[EqualizedLinear]]:
    """Return for each style input the linear layers that make styles of convolutions of it."""
    found: list[list[EqualizedLinear]] = [[] for _ in range(generator.num_ws)]
    seen: list[tuple[EqualizedLinear, int]] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, EqualizedLinear)
        seen.append((module, int(inputs[0][0, 0].item())))

    affines = [
        module
        for name, module in generator.synthesis.named_modules()
        if name.endswith(".affine") and ".torgb" not in name
    ]
    handles = [module.register_forward_hook(hook) for module in affines]
    try:
        # each style input is filled with its own number, which tells who reads it
        numbers = torch.arange(generator.num_ws, dtype=torch.float32)
        device = next(generator.parameters()).device
        ws = numbers[None, :, None].expand(1, -1, generator.w_dim).to(device)
        with torch.no_grad():
            generator.synthesis(ws)
    finally:
        for handle in handles:
            handle.remove()
    for affine, layer in seen:
        found[layer].append(affine)
    return found


def write_directions(path: str | os.PathLike[str], directions: Directions) -> None:
    """Write directions as a safetensors file, whole or not at all."""
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
        "deviations": directions.deviations.contiguous(),
        "importances": directions.importances.contiguous(),
    }
    metadata = {"directions": json.dumps(description)}
    write_atomic(path, to_bytes(tensors, metadata=metadata))


def read_directions(path: str | os.PathLike[str]) -> Directions:
    """Read what `write_directions` wrote.

    Raises:
        DataError: if the file is none, or damaged.
    """
    try:
        if not Path(path).is_file():
            raise OSError("no such file")
        with safetensors.safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["directions"])
            if (description["format"], description["version"]) != (FORMAT, VERSION):
                raise ValueError("of another version")
            return Directions(
                vectors=file.get_tensor("vectors").float(),
                deviations=file.get_tensor("deviations").float(),
                importances=file.get_tensor("importances").float(),
                names=[str(name) for name in description["names"]],
                layers=[int(layer) for layer in description["layers"]],
                method=str(description["method"]),
                facts=dict(description["facts"]),
            )
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise DataError(
            f"{path} holds no directions ({' '.join(str(error).split())[:80]})",
            expected="a file of `stylegan directions find`",
            fix="find them again",
        ) from error


def check_fit(directions: Directions, generator: AbstractGenerator, path: object) -> None:
    """Check that directions are in a generator's w, and act on layers that it has.

    Raises:
        DataError: if they are not.
    """
    width = directions.vectors.shape[1]
    if width != generator.w_dim or max(directions.layers) >= generator.num_ws:
        raise DataError(
            f"{path}: directions of width {width} in layers up to {max(directions.layers)}",
            expected=f"width {generator.w_dim}, and layers up to {generator.num_ws - 1}",
            fix="use those of this network",
        )


def _ordered(
    matrix: Tensor, w: Tensor, *, layers: Sequence[int], num: int, method: str
) -> Directions:
    """Take the eigenvectors of a symmetric matrix with the largest eigenvalues."""
    if not 1 <= num <= len(matrix):
        raise ConfigError(
            f"{num} directions", expected=f"1 to {len(matrix)}, the width of w", fix="choose fewer"
        )
    values, vectors = torch.linalg.eigh(matrix)
    values, vectors = values.flip(0)[:num], vectors.flip(1)[:, :num].T
    # an eigenvector has no sign; the largest part is positive on every machine
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    vectors = vectors * vectors.gather(1, largest).sign()
    return Directions(
        vectors=vectors.float(),
        names=[f"{method}-{index}" for index in range(num)],
        deviations=_deviations(vectors, w),
        importances=values.clamp_min(0).float(),
        layers=list(layers),
        method=method,
    )


def _deviations(vectors: Tensor, w: Tensor) -> Tensor:
    deviations: Tensor = (w.double().cpu() @ vectors.T).std(dim=0).float()
    return deviations
