"""In which precision what can be computed: gradients of each phase against float64."""

from dataclasses import replace

import pytest
import torch

from stylegan.errors import ConfigError
from stylegan.losses.objective import (
    GeneratorInputs,
    LossConfig,
    discriminator_loss,
    generator_loss,
    path_length_loss,
    r1_loss,
    sampled_path_lengths,
)
from stylegan.models.sizes import dtype_at
from stylegan.models.stylegan2 import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from stylegan.ops.precision import float32_precision

CONFIG = LossConfig(gamma=1.0)
SIZES = {"resolution": 64, "channel_base": 512, "channel_max": 32}
# cosine between the gradient and that of float64; and how far its norm may be off
NEEDED = {"fp32": (0.999999, 1e-3), "bf16": (0.99, 0.1), "fp16": (0.999, 0.05)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(GeneratorConfig(z_dim=32, w_dim=32, mapping_layers=2, **SIZES))
        discriminator = Discriminator(DiscriminatorConfig(**SIZES))
        z, reals = torch.randn(4, 32), torch.rand(4, 3, 64, 64) * 2 - 1
        noise = torch.randn(4, 3, 64, 64)
    return generator, discriminator, z, reals, noise


def gradients(networks, dtype):
    """Return the gradient of each phase as one vector."""
    generator, discriminator, z, reals, noise = networks
    wide = dtype == torch.float64
    for network in (generator, discriminator):
        network.to(torch.float64 if wide else torch.float32)
        network.compute_dtype = torch.float32 if wide else dtype
    if wide:
        z, reals, noise = z.double(), reals.double(), noise.double()
    draw = GeneratorInputs(z=z)
    lengths = sampled_path_lengths(generator, draw, draw_noise=lambda _: noise)
    fakes = generator(z).detach()
    losses = {
        "G": (generator_loss(generator, discriminator, draw, config=CONFIG), generator),
        "path_length": (
            path_length_loss(lengths, pl_mean=torch.zeros([]).to(z.dtype), config=CONFIG)[0],
            generator,
        ),
        "D": (discriminator_loss(discriminator, reals, fakes, config=CONFIG), discriminator),
        "R1": (r1_loss(discriminator, reals, config=CONFIG), discriminator),
    }
    found = {}
    for phase, (loss, network) in losses.items():
        grads = torch.autograd.grad(loss.total, [*network.parameters()], allow_unused=True)
        found[phase] = torch.cat([grad.flatten().double() for grad in grads if grad is not None])
    return found


@pytest.fixture(scope="module")
def exact(networks):
    return gradients(networks, torch.float64)


@pytest.fixture(scope="module", params=NEEDED)
def of_precision(networks, request):
    return request.param, gradients(networks, DTYPES[request.param])


@pytest.mark.parametrize("phase", ["G", "path_length", "D", "R1"])
def test_gradients_of_each_phase_are_those_of_float64(exact, of_precision, phase):
    precision, gradients_of = of_precision
    found, expected = gradients_of[phase], exact[phase]
    cosine, error = NEEDED[precision]
    assert found.isfinite().all()
    assert torch.cosine_similarity(found, expected, dim=0) > cosine
    assert abs(found.norm() / expected.norm() - 1) < error


def test_half_precision_is_that_of_the_four_highest_resolutions():
    half, single = torch.float16, torch.float32
    found = [dtype_at(side, full=256, dtype=half) for side in (4, 8, 16, 32, 64, 128, 256)]
    assert found == [single] * 3 + [half] * 4
    assert [dtype_at(side, full=16, dtype=half) for side in (4, 8, 16)] == [single, half, half]
    assert dtype_at(4, full=256, dtype=torch.bfloat16) == torch.bfloat16


def test_half_precision_does_not_overflow(networks):
    generator, discriminator, z, reals, _ = networks
    for network in (generator, discriminator):
        network.float()
        network.compute_dtype = torch.float16
    with torch.no_grad():
        before = generator.synthesis.b64.conv0.affine.bias.clone()
        generator.synthesis.b64.conv0.affine.bias.fill_(3e4)  # demodulation takes it back
        images = generator(z)
        generator.synthesis.b64.conv0.affine.bias.copy_(before)
        logits = discriminator(reals * 1e4)
    assert images.isfinite().all()
    assert images.dtype == torch.float32
    assert logits.isfinite().all()


def test_half_precision_of_other_families_is_refused(growing_config):
    with pytest.raises(ConfigError, match="precision fp16 works for stylegan2 only"):
        replace(growing_config, family="stylegan", precision="fp16").check()


@pytest.mark.parametrize(("precision", "expected"), [("tf32", True), ("fp32", False)])
def test_tf32_is_on_while_it_is_asked_for(precision, expected):
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [each.allow_tf32 for each in flags]
    with float32_precision(tf32=precision == "tf32"):
        assert [each.allow_tf32 for each in flags] == [expected] * 2
    assert [each.allow_tf32 for each in flags] == before
