"""Two whole iterations of the official loop: from equal weights and draws to equal weights."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.interop.nvidia import load_official_pickle
from stylegan.losses.objective import GeneratorInputs, LossConfig
from stylegan.training.config import DataConfig, EmaConfig, OptimConfig, RunConfig
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

HERE = Path(__file__).parent
BATCH = 8
# The README says that no noise enters, as the strengths are 0; after one Adam step they are not.
# The reference drew everything from torch's stream of seed 51, where its latents stand at these
# positions, each followed by the noise of the generator's pass.
SEED = 51
POSITIONS = {
    (0, "Gmain"): 37040,
    (0, "Greg"): 42480,
    (0, "Dmain"): 48368,
    (1, "Gmain"): 60144,
    (1, "Dmain"): 65584,
}
PHASES = {"G": "Gmain", "path_length": "Greg", "D": "Dmain"}
# One Adam step moves a weight by about 2e-3 whatever its gradient is (golden README).
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def arrays():
    with np.load(HERE / "train-step.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def reference_draw(arrays, iteration: int, phase: str, num: int) -> GeneratorInputs:
    z = arrays[f"it{iteration}_{phase}_z"]
    stream = torch.Generator().manual_seed(SEED)
    torch.randn(POSITIONS[iteration, phase], generator=stream)
    assert torch.equal(torch.randn(z.shape, generator=stream), z)
    return GeneratorInputs(z=z[:num], noise=stream)


def trained_state(arrays) -> TrainState:
    networks = load_official_pickle(HERE / "train-step.pkl")
    config = RunConfig(
        preset="golden",
        family="stylegan2",
        generator=networks.generator.config,
        discriminator=networks.discriminator.config,
        data=DataConfig(path="none"),
        loss=LossConfig(gamma=1.0, mixing_prob=0.0),
        optim=OptimConfig(),
        # beta 0.9 for a batch of 8
        ema=EmaConfig(half_life_kimg=8 / (1000 * np.log2(1 / 0.9)), w_avg_beta=0.998),
        batch=BATCH,
    )
    state = TrainState(config, torch.device("cpu"))
    state.generator.load_state_dict(networks.generator.state_dict())
    state.generator_ema.load_state_dict(networks.generator_ema.state_dict())
    state.discriminator.load_state_dict(networks.discriminator.state_dict())
    for iteration in range(2):
        train_step(
            state,
            arrays[f"it{iteration}_reals"],
            inputs=lambda phase, num, i=iteration: reference_draw(arrays, i, PHASES[phase], num),
            pl_noise=lambda num: arrays["it0_Greg_pl_noise"][:num],
        )
    return state


def test_two_iterations_give_the_official_weights(arrays):
    state = trained_state(arrays)
    prefixes = {
        "G": state.generator,
        "D": state.discriminator,
        "G_ema": state.generator_ema,
    }
    compared = 0
    for prefix, network in prefixes.items():
        tensors = {
            name: value
            for name, value in network.state_dict().items()
            if not name.endswith("noise_const")  # never changes, and is not in the file
        }
        expected = {
            name.removeprefix(f"after_{prefix}."): value
            for name, value in arrays.items()
            if name.startswith(f"after_{prefix}.") and not name.endswith("resample_filter")
        }
        assert tensors.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                tensors[name], value, rtol=0, atol=TOLERANCE, msg=f"{prefix}.{name}"
            )
            compared += 1
    assert compared > 80
    torch.testing.assert_close(state.pl_mean, arrays["after_pl_mean"].float(), rtol=0, atol=1e-6)


def test_the_check_sees_a_path_length_that_is_a_tenth_too_large(arrays):
    state = trained_state(arrays)
    wrong = copy.deepcopy(arrays)
    wrong["it0_Greg_pl_noise"] *= 1.1
    other = trained_state(wrong)
    name = "synthesis.b8.conv1.weight"
    change = (state.generator.state_dict()[name] - other.generator.state_dict()[name]).abs().max()
    assert change > TOLERANCE
