"""Memory and parameters of a run, before it starts."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stylegan.losses.objective import GeneratorInputs, discriminator_loss, generator_loss
from stylegan.models.base import num_parameters
from stylegan.training.config import RunConfig
from stylegan.training.state import TrainState


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Sizes of a run, on one rank.

    Attributes:
        generator_parameters: number of parameters of G.
        discriminator_parameters: number of parameters of D.
        state_bytes: memory of the networks, the EMA, gradients and the state of both optimizers.
        activation_bytes: memory that the larger main phase keeps for its backward pass.
    """

    generator_parameters: int
    discriminator_parameters: int
    state_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Memory of state and activations, without libraries and workspace."""
        return self.state_bytes + self.activation_bytes


def estimate(config: RunConfig) -> Estimate:
    """Compute the sizes of a run without allocating memory.

    Progressive growing is taken at the full resolution. Activations are those of one micro-batch:
    the rank's shard of the batch, or `runtime.batch_gpu` images of it.

    A feature network of path lengths is not counted. The networks run on torch's meta device, which
    has shapes only, and a hook adds up the tensors that autograd would keep.
    """
    with torch.device("meta"):
        state = TrainState(config, torch.device("meta"))
        for _, network in state.networks.items():
            network.lod = 0.0
        num = max(map(len, state.shard(config.batch).micro_batches(config.runtime.batch_gpu)))
        z = torch.empty(num, state.generator.z_dim)
        size = state.generator.img_size
        reals = torch.empty(num, state.generator.img_channels, size.height, size.width)
        c_dim = state.generator.c_dim
        c = torch.empty(num, c_dim) if c_dim > 0 else None
        draw = GeneratorInputs(z=z, c=c)
        with _SavedBytes() as kept_g:
            generator_loss(state.generator, state.discriminator, draw, config=config.loss)
        with _SavedBytes() as kept_d:
            discriminator_loss(
                state.discriminator,
                reals,
                reals,
                config=config.loss,
                alpha=torch.empty(num),
                real_c=c,
                fake_c=c,
                logit_means=state.logit_means,
            )
    generator, discriminator = map(num_parameters, (state.generator, state.discriminator))
    # float32: G has weight, gradient, two moments and the average; D all but the average
    return Estimate(
        generator_parameters=generator,
        discriminator_parameters=discriminator,
        state_bytes=4 * (5 * generator + 4 * discriminator),
        activation_bytes=max(kept_g.total, kept_d.total),
    )


class _SavedBytes:
    """Context manager that adds up the storage of all tensors that autograd saves, each once."""

    def __init__(self) -> None:
        self.total = 0
        self._seen: dict[int, torch.UntypedStorage] = {}  # kept alive, so that ids stay unique
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hooks.__exit__(*exc_info)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage
            self.total += storage.nbytes()
        return tensor
