"""What each rank of a test runs: iterations in float64, so that differences show."""

from dataclasses import replace

import torch

from stylegan import distributed
from stylegan.losses.objective import LossConfig
from stylegan.models.stylegan2 import DiscriminatorConfig, GeneratorConfig
from stylegan.training.config import DataConfig, RunConfig, RuntimeConfig
from stylegan.training.sampling import sample_inputs
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

BATCH = 16


def config(batch_gpu, overrides):
    sizes = {"resolution": 8, "channel_base": 64, "channel_max": 8}
    return RunConfig(
        preset="test",
        family="stylegan2",
        generator=GeneratorConfig(z_dim=8, w_dim=8, mapping_layers=2, **sizes),
        discriminator=DiscriminatorConfig(**sizes),
        data=DataConfig(path="none"),
        loss=LossConfig(gamma=1.0, r1_interval=3, pl_interval=2),
        runtime=RuntimeConfig(batch_gpu=batch_gpu),
        batch=BATCH,
    ).with_overrides(*overrides)


def train(num_iterations, batch_gpu=None, overrides=()):
    state = TrainState(config(batch_gpu, overrides), torch.device("cpu"))
    for _, network in state.networks.items():
        network.double()
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(0.3)
    state.pl_mean = state.pl_mean.double()
    gradients = {}
    spy_on(state.optimizer_g, gradients, ["G", "path_length"])
    spy_on(state.optimizer_d, gradients, ["D", "R1"])

    def inputs(phase, num):
        sampled = sample_inputs(state, phase, num)
        z_mix = None if sampled.z_mix is None else sampled.z_mix.double()
        return replace(sampled, z=sampled.z.double(), z_mix=z_mix)

    for iteration in range(num_iterations):
        stream = torch.Generator().manual_seed(iteration)
        reals = torch.randn(BATCH, 3, 8, 8, generator=stream, dtype=torch.float64)
        train_step(state, state.shard(BATCH).take(reals), inputs=inputs)
    tensors = {
        f"{name}.{key}": value
        for name, network in state.networks.items()
        for key, value in network.state_dict().items()
    }
    return {
        "gradients": gradients,
        "weights": tensors | {"pl_mean": state.pl_mean},
        "means": state.averages.report(),
    }


def spy_on(optimizer, gradients, phases):
    phases = list(phases)

    def note(optimizer, args, kwargs):
        if phases:
            grads = [
                parameter.grad.flatten().clone()
                for group in optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            gradients[phases.pop(0)] = torch.cat(grads)

    optimizer.register_step_pre_hook(note)


def train_as_rank(out, num_iterations, batch_gpu, overrides):
    """Train; rank 0 writes weights, running means and the gradients of each phase's first step."""
    with distributed.process_group():
        result = train(num_iterations, batch_gpu, overrides)
        if distributed.is_main_process():
            torch.save(result, out)
    return 0
