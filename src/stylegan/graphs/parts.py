"""The part of a generator that a graph computes, its inputs, and the comparison with eager mode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stylegan.models.base import AbstractGenerator
from stylegan.models.noise import noise_maps, synthesize

Part = Literal["both", "mapping", "synthesis"]
GraphNoise = Literal["const", "inputs", "none"]

BATCH = "N"
"""Name of the dimension that may have any size."""
NOISE_PREFIX = "noise."
COMPARED = ((1, 1.0), (5, 0.7))
"""Batch size and psi of each comparison; psi below 1 truncates the first half of the styles."""


@dataclass(frozen=True, kw_only=True)
class GraphValue:
    """An input or output of a graph.

    Attributes:
        name: in the file.
        shape: sizes; `BATCH` stands for any size, and no sizes for a single number.
        dtype: float32, or int64 for counts.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32


class GeneratorPart(nn.Module):
    """A generator, or one of its two networks, with tensors as its only arguments.

    `forward` takes the tensors of `inputs` in their order. Truncation is part of the mapping
    network: psi and cutoff are inputs, unless the network has no mean of w.

    Args:
        generator: in eval mode, on the CPU.
        part: "both" maps z to images, "mapping" z to ws, "synthesis" ws to images.
        noise: "const" for the stored noise, "inputs" for one input for each layer with noise,
            "none" for none. A mapping network has none.

    Attributes:
        inputs: names and shapes of the arguments.
        output: "ws" or "images".
    """

    def __init__(self, generator: AbstractGenerator, *, part: Part, noise: GraphNoise) -> None:
        super().__init__()
        self.generator = generator
        self.part: Part = part
        self.noise: GraphNoise = noise
        self.has_truncation = part != "synthesis" and generator.w_avg is not None
        self.inputs = tuple(self._inputs())
        size = generator.current_size
        self.output = (
            GraphValue(name="ws", shape=(BATCH, generator.num_ws, generator.w_dim))
            if part == "mapping"
            else GraphValue(
                name="images", shape=(BATCH, generator.img_channels, size.height, size.width)
            )
        )

    def _inputs(self) -> list[GraphValue]:
        generator = self.generator
        if self.part == "synthesis":
            inputs = [GraphValue(name="ws", shape=(BATCH, generator.num_ws, generator.w_dim))]
        else:
            inputs = [GraphValue(name="z", shape=(BATCH, generator.z_dim))]
            if generator.c_dim > 0:
                inputs.append(GraphValue(name="c", shape=(BATCH, generator.c_dim)))
        if self.has_truncation:
            inputs.append(GraphValue(name="psi", shape=()))
            inputs.append(GraphValue(name="cutoff", shape=(), dtype=torch.int64))
        if self.part != "mapping" and self.noise == "inputs":
            inputs += [
                GraphValue(name=NOISE_PREFIX + layer, shape=(BATCH, 1, *values.shape))
                for layer, values in self._used_noise().items()
            ]
        return inputs

    def _used_noise(self) -> dict[str, Tensor]:
        """Return the stored noise, [H, W], of the layers at the level of detail."""
        top = self.generator.synthesis.current_resolution
        return {
            layer: values
            for layer, values in noise_maps(self.generator).items()
            if int(layer.partition(".")[0].removeprefix("b")) <= top
        }

    def forward(self, *tensors: Tensor) -> Tensor:
        """Compute the part: ws [N, num_ws, w_dim], or images [N, img_channels, H, W].

        The result has gradients with respect to all inputs but cutoff.
        """
        values = {value.name: tensor for value, tensor in zip(self.inputs, tensors, strict=True)}
        ws = values["ws"] if self.part == "synthesis" else self._styles(values)
        if self.part == "mapping":
            return ws
        return self._images(ws, values)

    def _styles(self, values: Mapping[str, Tensor]) -> Tensor:
        ws: Tensor = self.generator.mapping(values["z"], values.get("c"))
        w_avg = self.generator.w_avg
        if w_avg is None:
            return ws
        # As `latents.truncate`, for numbers that are not known when the graph is made.
        index = torch.arange(self.generator.num_ws)[:, None]
        strength = (1 - values["psi"]) * (index < values["cutoff"]).to(ws.dtype)  # [num_ws, 1]
        return ws + (w_avg - ws) * strength

    def _images(self, ws: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        if self.noise == "none":
            images: Tensor = self.generator.synthesis(ws, noise_mode="none")
            return images
        noise = {
            # As a map for each image, [1, 1, H, W]: a layer would add shared noise [H, W] to its
            # bias, which as a constant of a graph has the size of all its features.
            layer: values.get(NOISE_PREFIX + layer, stored[None, None])
            for layer, stored in self._used_noise().items()
        }
        return synthesize(self.generator, ws, noise=noise)

    def example(self, num: int, *, psi: float = 1.0, seed: int = 0) -> list[Tensor]:
        """Return random inputs: `num` latents, their labels in turn, and noise.

        Args:
            num: batch size.
            psi: truncation; other values than 1 truncate the first half of the styles.
            seed: of the random numbers.
        """
        stream = torch.Generator().manual_seed(seed)
        generator = self.generator
        z = torch.randn(num, generator.z_dim, generator=stream)
        c = torch.eye(max(generator.c_dim, 1))[torch.arange(num) % max(generator.c_dim, 1)]
        num_ws = generator.num_ws
        values = {
            "z": z,
            "c": c,
            "psi": torch.tensor(psi),
            "cutoff": torch.tensor(num_ws if psi == 1 else num_ws // 2),
        }
        if self.part == "synthesis":
            with torch.no_grad():
                values["ws"] = generator.mapping(z, c if generator.c_dim > 0 else None).contiguous()
        for value in self.inputs:
            if value.name.startswith(NOISE_PREFIX):
                shape = [num, *(int(side) for side in value.shape[1:])]
                values[value.name] = torch.randn(shape, generator=stream)
        return [values[value.name] for value in self.inputs]

    @torch.no_grad()
    def eager(self, tensors: Sequence[Tensor]) -> Tensor:
        """Compute what `forward` does by the generator's own methods."""
        values = {value.name: tensor for value, tensor in zip(self.inputs, tensors, strict=True)}
        psi, cutoff = 1.0, None
        if self.has_truncation:
            psi, cutoff = values["psi"].item(), int(values["cutoff"].item())
        if self.part == "synthesis":
            ws = values["ws"]
        else:
            ws = self.generator.mapping(values["z"], values.get("c"), psi, cutoff)
        if self.part == "mapping":
            return ws
        if self.noise != "inputs":
            images: Tensor = self.generator.synthesis(ws, noise_mode=self.noise)
            return images
        return synthesize(
            self.generator,
            ws,
            noise={
                name.removeprefix(NOISE_PREFIX): values[name]
                for name in values
                if name.startswith(NOISE_PREFIX)
            },
        )


def compare(part: GeneratorPart, run: Callable[[list[Tensor]], Tensor]) -> dict[int, float]:
    """Return the largest difference between a graph and eager mode in float32, by batch size.

    Values are nominally in [-1, 1]; if any exceed it, differences are divided by the largest one.

    Args:
        part: what the graph computes; its generator computes in `compute_dtype` float32.
        run: computes the graph from the tensors of `part.inputs`.
    """
    differences = {}
    for num, psi in COMPARED:
        inputs = part.example(num, psi=psi, seed=num)
        expected, computed = part.eager(inputs), run(inputs)
        if computed.shape != expected.shape:
            return {num: float("inf")}
        largest = max(1.0, expected.abs().max().item())
        differences[num] = (computed - expected).abs().max().item() / largest
    return differences
