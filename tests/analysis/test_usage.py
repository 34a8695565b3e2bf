import pytest
import torch

import stylegan
from stylegan.analysis.usage import resolution_usage
from stylegan.errors import ConfigError
from stylegan.latent.render import map_latents
from stylegan.latent.seeds import latents_from_seeds
from stylegan.nn.modulated import ToRGB
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel, upsample2d


@pytest.fixture
def generator():
    torch.manual_seed(1)
    return stylegan.create("stylegan2-e", 32, channel_base=256, channel_max=16).generator.eval()


def batches(generator, num=32):
    return map_latents(generator, latents_from_seeds(range(num), generator.z_dim)).split(8)


class Noise(ToRGB):
    """Gives pixels of known deviation in the place of a layer's RGB, and a bias."""

    def __init__(self, side, deviation):
        super().__init__(1, 3, w_dim=1)
        self.side, self.deviation = side, deviation
        with torch.no_grad():
            self.bias.fill_(5.0)

    def forward(self, x, w):
        noise = torch.randn(len(x), 3, self.side, self.side, dtype=torch.float64)
        noise = (noise - noise.mean()) / noise.std()
        return (self.deviation * noise).float() + self.bias[:, None, None]


def gain_of(side, top):
    """What upsampling leaves of white noise's deviation: its filter's taps are 1/4 to 9/16."""
    noise = torch.randn(64, 1, side, side, dtype=torch.float64)
    image, kernel = noise, fir_kernel(RESAMPLE_TAPS).double()
    while image.shape[-1] < top:
        image = upsample2d(image, kernel)
    return (image.std() / noise.std()).item()


def test_scales_set_by_hand_are_recovered(generator):
    wanted = {4: 0.3, 8: 0.2, 16: 0.1, 32: 0.4}
    for side, deviation in wanted.items():
        scaled = deviation / gain_of(side, 32)
        generator.synthesis.get_submodule(f"b{side}").torgb = Noise(side, scaled)
    found = resolution_usage(generator, batches(generator, 64))
    assert found.deviations[32] == pytest.approx(0.4, rel=1e-3)
    assert found.shares == pytest.approx({4: 0.3, 8: 0.2, 16: 0.1, 32: 0.4}, abs=0.01)


@pytest.mark.parametrize("scales", [(1, 2, 3, 4), (10, 1, 1, 0.5), (0.1, 0, 5, 1)])
def test_shares_follow_the_scales_to_a_percent(generator, scales):
    before = resolution_usage(generator, batches(generator)).deviations
    with torch.no_grad():
        for (side, _), scale in zip(before.items(), scales, strict=True):
            torgb = generator.synthesis.get_submodule(f"b{side}.torgb")
            torgb.weight *= scale / before[side]  # RGB is linear in its weight
            torgb.bias += side  # and a bias does not count
    found = resolution_usage(generator, batches(generator))
    for side, scale in zip(found.shares, scales, strict=True):
        assert found.deviations[side] == pytest.approx(scale, rel=0.01, abs=1e-6)
        assert found.shares[side] == pytest.approx(scale / sum(scales), abs=0.01)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.num_images == 32


@pytest.mark.parametrize("preset", ["progan", "stylegan-f", "stylegan2-d", "msg-stylegan2"])
def test_networks_that_make_no_sum_are_refused(preset):
    generator = stylegan.create(preset, 16, channel_base=64).generator.eval()
    with pytest.raises(ConfigError, match="skip generator"):
        resolution_usage(generator, [])


def test_hooks_do_not_stay(generator):
    resolution_usage(generator, batches(generator, 8))
    assert all(not module._forward_hooks for module in generator.modules())
