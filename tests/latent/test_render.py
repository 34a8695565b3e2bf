import pytest
import torch

from stylegan.images import to_uint8
from stylegan.latent.render import map_latents, render
from stylegan.latent.seeds import latents_from_seeds


@pytest.fixture(scope="module")
def z():
    return latents_from_seeds(range(6), 16)


def rendered(generator, ws, **options):
    return torch.stack(list(render(generator, ws, **options)))


def test_a_picture_is_the_generator_s_output_in_eight_bits(generator, z):
    ws = map_latents(generator, z, psi=0.7, cutoff=3)
    pictures = rendered(generator, ws)
    assert pictures.dtype == torch.uint8
    assert pictures.device.type == "cpu"
    for index in range(len(z)):
        direct = generator(z[index : index + 1], truncation_psi=0.7, truncation_cutoff=3)
        assert torch.equal(pictures[index], to_uint8(direct)[0])


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_a_picture_does_not_depend_on_its_company_or_the_batch(generator, z, noise_mode):
    together = rendered(
        generator,
        map_latents(generator, z, batch=4),
        noise_mode=noise_mode,
        noise_keys=range(6),
        batch=5,
    )
    for index in (5, 2):
        alone = rendered(
            generator,
            map_latents(generator, z[index : index + 1]),
            noise_mode=noise_mode,
            noise_keys=[index],
            batch=1,
        )
        assert torch.equal(alone[0], together[index])


def test_random_noise_depends_on_the_seed_and_the_key(generator, z):
    ws = map_latents(generator, z[:1]).repeat(3, 1, 1)
    first = rendered(generator, ws, noise_mode="random", noise_keys=[7, 8, 7], seed=1)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    other = rendered(generator, ws[:1], noise_mode="random", noise_keys=[7], seed=2)
    assert not torch.equal(first[0], other[0])


def test_random_noise_leaves_the_global_generator_alone(generator, z):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    rendered(generator, map_latents(generator, z[:2]), noise_mode="random")
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_come_one_by_one_without_gradients_and_leave_the_caller_s_on(generator, z):
    generator.requires_grad_(True)
    try:
        ws = map_latents(generator, z)
        assert not ws.requires_grad
        pictures = render(generator, ws)
        assert next(pictures).shape == (3, 32, 32)
        assert torch.is_grad_enabled()
        assert len(list(pictures)) == 5
    finally:
        generator.requires_grad_(False)


def test_no_latents_give_no_pictures(generator, z):
    ws = map_latents(generator, z[:0])
    assert ws.shape == (0, 8, 16)
    assert list(render(generator, ws)) == []
