"""FID's Inception-v3 and LPIPS of VGG16 compute what existing implementations do."""

from pathlib import Path

import numpy as np
import pytest
import torch

import made_up
from stylegan.perceptual.inception import InceptionV3
from stylegan.perceptual.vgg import LPIPS

HERE = Path(__file__).parent
# The conformance data ask for 1e-4; float32 in another order of operations gives 2e-6.
TOLERANCE = 1e-5


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(HERE / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= TOLERANCE * max(1, expected.abs().max())


@torch.no_grad()
def test_inception_agrees_at_every_tap():
    golden = arrays("inception-v3-fid.npz")
    state = made_up.inception_v3(seed=int(golden["seed"]))
    assert len(state) == 566
    network = InceptionV3(state)
    prepared = network.prepare(golden["images_uint8"])
    for tap, num in zip(network.taps(prepared), (64, 192, 768, 2048), strict=True):
        assert_agree(tap.mean(dim=(2, 3)), golden[f"features_{num}"])
    features = network(prepared)
    assert_agree(features, golden["features_2048"])
    assert_agree(network.logits(features, bias=False), golden["features_logits_unbiased"])
    assert_agree(network.logits(features, bias=True), golden["features_logits"])
    expected = golden["features_logits_unbiased"].softmax(dim=1)
    torch.testing.assert_close(network.probabilities(features), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_lpips_agrees_as_a_distance_and_as_an_embedding():
    golden = arrays("lpips-vgg16.npz")
    network = LPIPS(made_up.vgg16_convolutions(seed=int(golden["seed"])))
    distance = network.distance(golden["a"], golden["b"])
    # Relative, as the distances are small.
    torch.testing.assert_close(distance, golden["distance"], rtol=TOLERANCE, atol=0)
    points = network.embed(golden["a"]), network.embed(golden["b"])
    squared = (points[0] - points[1]).square().sum(dim=1)
    torch.testing.assert_close(squared, golden["distance"], rtol=TOLERANCE, atol=0)


def test_the_linear_layers_of_lpips_are_the_published_ones():
    golden = arrays("lpips-vgg16.npz")
    network = LPIPS(made_up.vgg16_convolutions())
    for index in range(5):
        expected = golden[f"lin{index}"]
        torch.testing.assert_close(network.get_buffer(f"root{index}").square(), expected)


@pytest.mark.gpu
@torch.no_grad()
def test_inception_on_a_gpu_agrees():
    golden = arrays("inception-v3-fid.npz")
    network = InceptionV3(made_up.inception_v3(seed=int(golden["seed"]))).to("cuda")
    features = network(network.prepare(golden["images_uint8"].to("cuda"))).cpu()
    assert (features - golden["features_2048"]).abs().max() <= 1e-4 * 3
