import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import stylegan
from stylegan.errors import ConfigError
from stylegan.images import to_uint8
from stylegan.latent import project
from stylegan.latent.project import (
    DEFAULTS,
    ProjectionConfig,
    Projector,
    noise_regularizer,
    psnr,
)
from stylegan.latent.render import render
from stylegan.latent.saved import SavedLatents, read_latents, write_latents
from stylegan.latent.seeds import latents_from_seeds
from stylegan.latent.statistics import style_statistics
from stylegan.models.noise import store_noise, synthesize
from stylegan.perceptual.discriminator import DiscriminatorDistance
from stylegan.pixel_format import PixelFormat

STEPS = 40


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        networks = stylegan.create(
            "stylegan2-e", 16, channel_base=128, z_dim=16, w_dim=16, mapping_layers=2
        )
        with torch.no_grad():
            for name, parameter in networks.generator.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.2)
    networks.generator.eval().requires_grad_(False)
    return networks


@pytest.fixture(scope="module")
def distance(networks):
    return DiscriminatorDistance(networks.discriminator)


@pytest.fixture(scope="module")
def statistics(networks):
    return style_statistics(networks.generator, num=500)


@pytest.fixture
def targets(networks):
    generator = networks.generator
    return to_uint8(generator(latents_from_seeds([1, 2, 3], generator.z_dim)))


@pytest.fixture
def projector(networks, distance, statistics):
    def build(targets, *, seed=0, space="w", initial=None, **options):
        config = replace(DEFAULTS[space], **{"num_steps": STEPS, **options})
        return Projector(
            networks.generator,
            targets,
            distance=distance,
            statistics=statistics,
            config=config,
            seed=seed,
            initial=initial,
        )

    return build


def run(projector, steps=STEPS):
    for _ in range(steps):
        projector.advance()
    return projector


def test_images_of_the_network_are_found_again(projector, targets):
    at_first = projector(targets).result()
    found = run(projector(targets, num_steps=200), 200).result()
    for before, after in zip(at_first, found, strict=True):
        assert after.distance < before.distance / 5
        assert after.psnr > before.psnr + 1


def test_w_plus_gets_closer_than_w_to_images_that_the_network_did_not_make(projector):
    pictures = torch.randint(0, 256, [3, 3, 4, 4], generator=torch.Generator().manual_seed(0))
    targets = pictures.to(torch.uint8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    in_w, in_plus = (run(projector(targets, space=space)).result() for space in ("w", "w+"))
    for flat, layered in zip(in_w, in_plus, strict=True):
        assert layered.distance < flat.distance
        assert len(flat.ws[0].unique(dim=0)) == 1
        assert len(layered.ws[0].unique(dim=0)) == 6


def test_saved_latents_give_the_same_pixels(networks, projector, targets, tmp_path):
    found = run(projector(targets)).result()
    for index, each in enumerate(found):
        path = tmp_path / f"{index}.npz"
        write_latents(path, each.ws, noise=each.noise)
        saved = read_latents(path, networks.generator)
        other = stylegan.create(
            "stylegan2-e", 16, channel_base=128, z_dim=16, w_dim=16, mapping_layers=2
        ).generator.eval()
        other.load_state_dict(networks.generator.state_dict())
        store_noise(other, saved.noise)
        assert torch.equal(next(iter(render(other, saved.ws))), each.image)


def test_the_network_is_not_changed(networks, projector, targets):
    before = {name: value.clone() for name, value in networks.generator.state_dict().items()}
    run(projector(targets), 3)
    after = networks.generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("space", "stop"),
    [
        ("w", 1),
        ("w+", 17),
        ("w", STEPS - 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("w+", 1), ("w", 17), ("w+", STEPS - 1)]
        ),
    ],
)
def test_what_goes_on_from_a_state_is_what_was_not_stopped(projector, targets, space, stop):
    whole = run(projector(targets, space=space)).result()
    state = run(projector(targets, space=space), stop).state_dict()
    resumed = projector(targets, space=space)
    resumed.load_state_dict(state)
    assert resumed.step == stop
    for a, b in zip(whole, run(resumed, STEPS - stop).result(), strict=True):
        assert torch.equal(a.ws, b.ws)
        assert a.distance == b.distance
        assert all(torch.equal(a.noise[layer], b.noise[layer]) for layer in a.noise)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_projection_from_latents_starts_at_their_images(networks, projector, targets, space):
    ws = networks.generator.mapping(latents_from_seeds([1, 2, 4], 16))
    start = projector(targets, space=space, initial=SavedLatents(ws=ws))
    expected = torch.stack(list(render(networks.generator, ws)))
    assert torch.equal(start.images(), expected)
    first = start.result()
    assert torch.equal(torch.cat([each.ws for each in first]), ws)
    assert first[0].psnr > 50  # seeds 1 and 2 are those of the targets
    assert first[2].distance > first[0].distance
    found = run(projector(targets, space=space), 20).result()
    noise = {layer: maps.flip(0) for layer, maps in found[0].noise.items()}
    latents = SavedLatents(ws=found[0].ws, noise=noise)  # one for all images
    again = projector(targets[:1], space=space, initial=latents)
    expected = synthesize(networks.generator, found[0].ws, noise=noise)
    assert torch.equal(again.images(), to_uint8(expected))


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_projection_from_latents_never_ends_worse_than_it_began(
    networks, projector, targets, space
):
    ws = networks.generator.mapping(latents_from_seeds([1, 5, 6], 16))
    options = {"space": space, "initial": SavedLatents(ws=ws), "learning_rate": 1.0}
    begun = projector(targets, **options)
    before = begun.result()
    ended = run(begun, 3)
    assert any(
        now.distance > then.distance
        for (now, _), then in zip(ended._current(), before, strict=True)
    )
    for now, then in zip(ended.result(), before, strict=True):
        assert now.distance <= then.distance
    assert torch.equal(ended.result()[0].image, before[0].image)  # it could not become better
    slow = run(projector(targets, **(options | {"learning_rate": 0.02}))).result()
    assert slow[1].distance < before[1].distance
    state = run(projector(targets, **options), 3).state_dict()
    resumed = projector(targets, **options)
    resumed.load_state_dict(state)
    for now, then in zip(resumed.result(), ended.result(), strict=True):
        assert now.distance == then.distance


def test_latents_of_layers_are_refused_for_space_w(projector, targets):
    initial = SavedLatents(ws=torch.randn(1, 6, 16))
    with pytest.raises(ConfigError, match=r"another w for each layer.*choose space w\+"):
        projector(targets, initial=initial)


def test_a_state_of_other_options_is_refused(projector, targets):
    state = projector(targets, space="w+").state_dict()
    with pytest.raises(ValueError, match="other options"):
        projector(targets).load_state_dict(state)


def test_an_image_s_draws_do_not_depend_on_its_company(projector, targets):
    alone = run(projector(targets[1:2]), 5).result()[0]
    together = run(projector(targets), 5).result()[1]
    torch.testing.assert_close(together.ws, alone.ws, atol=1e-3, rtol=1e-3)
    other = run(projector(targets[1:2], seed=1), 5).result()[0]
    assert not torch.allclose(other.ws, alone.ws, atol=1e-2, rtol=1e-2)


def test_noise_maps_stay_normalized_and_can_be_left_alone(projector, targets):
    found = run(projector(targets), 10).result()[0]
    assert list(found.noise) == ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]
    for values in found.noise.values():
        assert values.mean().item() == pytest.approx(0, abs=1e-5)
        assert values.square().mean().item() == pytest.approx(1, abs=1e-4)
    assert run(projector(targets, optimizes_noise=False), 3).result()[0].noise == {}


def test_the_ramps_of_the_official_schedule(projector, targets, statistics):
    rates, starts = [], projector(targets[:1], num_steps=100, space="w")
    for _ in range(100):
        starts.advance()
        rates.append(starts._adam.param_groups[0]["lr"])
    assert rates[0] == 0
    assert rates[1] == pytest.approx(0.1 * 0.01 / 0.05)
    assert rates[5:75] == pytest.approx([0.1] * 70)
    assert rates[99] == pytest.approx(0.1 * (0.5 - 0.5 * math.cos(math.pi * 0.01 / 0.25)))


def test_noise_on_w_is_new_in_each_step_and_fades_with_the_square(
    projector, statistics, monkeypatch
):
    stream = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, [24, 3, 16, 16], generator=stream).to(torch.uint8)
    seen = []

    def spy(generator, ws, *, noise):
        seen.append(ws.detach().clone())
        return synthesize(generator, ws, noise=noise)

    monkeypatch.setattr(project, "synthesize", spy)
    # w itself hardly moves
    run(projector(pictures, num_steps=8, learning_rate=1e-9), 8)
    noise = [(ws[:, 0] - statistics.mean) / (0.05 * statistics.std) for ws in seen]
    # a share of 0.75 is 6 of 8 steps: 1, (5/6)^2, (4/6)^2...
    for step, each in enumerate(noise[:5]):
        assert each.std().item() == pytest.approx((1 - step / 6) ** 2, rel=0.15)
    assert noise[6].abs().max() < 1e-4
    assert noise[7].abs().max() < 1e-4
    for a, b in pairwise(noise[:5]):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.25


@pytest.mark.slow
def test_the_pixel_term_pulls_towards_the_pixels(projector, targets):
    with_pixels = run(projector(targets, pixel_weight=10.0)).result()
    without = run(projector(targets)).result()
    assert sum(each.psnr for each in with_pixels) > sum(each.psnr for each in without)


def test_noise_regularizer_of_a_checkerboard_and_of_stripes():
    # neighbours of a checkerboard are opposite at once: (-1)^2 along both axes, and its 2x2 means
    # vanish
    tile = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8)[None, None]
    assert noise_regularizer({"a": tile}).tolist() == [2]
    # vertical stripes of width 8: 3/4 agree along x at first, 1/2 after one pooling, all along y
    stripes = torch.cat([torch.ones(16, 8), -torch.ones(16, 8)], dim=1)[None, None]
    expected = (0.75**2 + 1) + (0.5**2 + 1)
    assert noise_regularizer({"a": stripes}).tolist() == pytest.approx([expected])
    assert noise_regularizer({"a": stripes, "b": tile}).tolist() == pytest.approx([expected + 2])
    small = torch.ones(1, 1, 4, 4)  # one level only
    assert noise_regularizer({"a": small}).tolist() == [2]


def test_psnr_of_a_known_error():
    image = torch.full([3, 4, 4], 100, dtype=torch.uint8)
    assert psnr(image, image + 51, PixelFormat()) == pytest.approx(10 * math.log10(25))
    assert psnr(image, image, PixelFormat()) == math.inf


def test_large_images_are_reduced_before_they_are_compared(networks, distance, statistics):
    class Watched(torch.nn.Module):
        smallest, largest = 1, 8

        def view(self, images, pixels):
            return pixels.flat(images)

        def layers(self, images):
            seen.append(images)
            yield images

    seen = []
    targets = torch.randint(0, 256, [1, 3, 16, 16], dtype=torch.uint8)
    Projector(networks.generator, targets, distance=Watched(), statistics=statistics)
    halves = targets.float().reshape(1, 3, 8, 2, 8, 2).mean(dim=(3, 5)) / 127.5 - 1
    torch.testing.assert_close(seen[0], halves)
    Watched.smallest, Watched.largest = 40, 256
    Projector(networks.generator, targets, distance=Watched(), statistics=statistics)
    assert seen[1].shape == (1, 3, 48, 48)


@pytest.mark.parametrize("preset", ["progan", "stylegan-b", "stylegan-f", "stylegan2-d"])
def test_each_family_projects_at_its_level_of_detail(preset):
    networks = stylegan.create(preset, 16, channel_base=64, channel_max=8, img_channels=1)
    networks.generator.lod = networks.discriminator.lod = 1.0
    generator = networks.generator.eval().requires_grad_(False)
    targets = torch.randint(0, 256, [1, 1, 8, 8], dtype=torch.uint8)
    projector = Projector(
        generator,
        targets,
        distance=DiscriminatorDistance(networks.discriminator),
        statistics=style_statistics(generator, num=20),
        config=ProjectionConfig(num_steps=3),
    )
    found = run(projector, 3).result()[0]
    assert found.image.shape == (1, 8, 8)
    assert found.ws.shape == (1, generator.num_ws, generator.w_dim)
    assert {values.shape[-1] for values in found.noise.values()} <= {4, 8}


def test_w_plus_of_a_network_with_one_style_is_refused():
    generator = stylegan.create("progan", 16, channel_base=64).generator.eval()
    with pytest.raises(ConfigError, match="one style input"):
        Projector(
            generator,
            torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
            distance=None,
            statistics=style_statistics(generator, num=2),
            config=DEFAULTS["w+"],
        )


def test_targets_of_another_size_are_refused(projector):
    with pytest.raises(ValueError, match="targets must be"):
        projector(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    "options",
    [{"space": "z"}, {"num_steps": 0}, {"learning_rate": 0}, {"pixel_weight": -1}],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        ProjectionConfig(**options)
