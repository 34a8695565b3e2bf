import pytest
import torch
import torch.nn.functional as F

import stylegan
from stylegan.analysis.activations import feature_layers, observe_features
from stylegan.analysis.droplets import find_droplets, find_spikes, magnitude_maps
from stylegan.latent.render import map_latents
from stylegan.latent.seeds import latents_from_seeds

FAMILIES = ["progan", "stylegan-b", "stylegan-f", "stylegan2-b", "stylegan2-e", "stylegan2-f"]


def clean(kind, num, channels, side, seed):
    stream = torch.Generator().manual_seed(seed)
    if kind == "white":
        maps = torch.randn(num, channels, side, side, generator=stream)
    elif kind == "smooth":
        wide = torch.randn(num, channels, side + 6, side + 6, generator=stream)
        maps = F.avg_pool2d(wide, 7, stride=1)
    else:  # an object on a quiet ground
        maps = torch.randn(num, channels, side, side, generator=stream)
        axis = torch.linspace(-1, 1, side)
        maps = maps * torch.where(axis[:, None].square() + axis.square() < 0.3, 3.0, 0.3)
    return F.leaky_relu(maps, 0.2)


def plant(maps, places, strength):
    """Add a small blob to all channels of each map, as a droplet is."""
    side = maps.shape[-1]
    axis = torch.arange(side)
    rms = maps.square().mean(dim=(2, 3), keepdim=True).sqrt()
    for row, (y, x) in enumerate(places):
        blob = torch.exp(-((axis[:, None] - y).square() + (axis - x).square()) / 2.0)
        maps[row] += strength * rms[row] * blob
    return maps


@pytest.mark.parametrize("kind", ["white", "smooth", "object"])
@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_a_planted_spike_is_found_at_its_place(kind, side):
    stream = torch.Generator().manual_seed(side)
    places = torch.randint(2, side - 2, [8, 2], generator=stream)
    found = find_spikes(plant(clean(kind, 8, 32, side, 1), places.tolist(), 30.0))
    assert found.found.all()
    assert torch.equal(found.place, places)
    assert found.magnitude.shape == (8, side, side)
    assert (found.agreement > 0.9).all()


def test_no_false_alarm_in_a_thousand_clean_maps():
    num = 0
    for seed, side in enumerate([4, 8, 16, 32, 64] * 2):
        for kind in ("white", "smooth", "object"):
            for channels in (16, 64):
                found = find_spikes(clean(kind, 17, channels, side, seed))
                assert not found.found.any(), (kind, side, channels)
                num += 17
    assert num > 1000


@pytest.mark.parametrize("preset", FAMILIES)
def test_no_false_alarm_in_the_maps_of_random_networks(preset):
    num = 0
    for seed in range(4):
        torch.manual_seed(seed)
        generator = stylegan.create(preset, 32, channel_base=512, channel_max=16).generator.eval()
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.1)
        found = find_droplets(
            generator, [map_latents(generator, latents_from_seeds(range(8), 512))]
        )
        assert found.share == 0
        num += sum(8 for _ in found.layers)
    assert num >= 4 * 8 * 6  # over all families more than a thousand maps


def test_a_spike_in_few_channels_is_no_droplet():
    maps = clean("white", 4, 32, 32, 0)
    spiked = plant(maps[:, :8].clone(), [(5, 6)] * 4, 200.0)
    found = find_spikes(torch.cat([spiked, maps[:, 8:]], dim=1))
    assert (found.score > 10).all()
    assert (found.agreement < 0.3).all()
    assert not found.found.any()


def test_a_large_bright_area_is_no_droplet():
    maps = clean("white", 2, 32, 32, 0)
    maps[:, :, :8, :8] += 40
    found = find_spikes(maps)
    assert (found.area > 0.02).all()
    assert not found.found.any()


def test_a_weak_spike_and_a_narrow_layer_are_scored_but_no_droplets():
    weak = find_spikes(plant(clean("white", 2, 32, 32, 0), [(5, 6)] * 2, 3.0))
    assert not weak.found.any()
    narrow = find_spikes(plant(clean("white", 2, 4, 32, 0), [(5, 6)] * 2, 60.0))
    assert (narrow.score > 10).all()
    assert not narrow.found.any()
    assert find_spikes(torch.zeros(1, 16, 8, 8)).score.tolist() == [0]


@pytest.mark.parametrize("preset", ["progan", "stylegan-f", "stylegan2-e"])
@pytest.mark.parametrize("layer", ["b16.conv0", "b32.conv1"])
def test_a_spike_planted_in_a_network_is_found_in_its_layer_and_place(preset, layer):
    torch.manual_seed(0)
    generator = stylegan.create(preset, 32, channel_base=512, channel_max=16).generator.eval()
    module = feature_layers(generator)[layer]

    def spike(module, inputs, output):
        return plant(output.clone(), [(5, 9), (7, 3)], 40.0)

    handle = module.register_forward_hook(spike, prepend=True)
    ws = map_latents(generator, latents_from_seeds([1, 2], generator.z_dim))
    found = find_droplets(generator, [ws])
    images, spikes = magnitude_maps(generator, ws, layer)
    handle.remove()
    side = int(layer[1:3])
    assert [place[0] for place in found.places] == [layer, layer]
    assert found.places[0][1:] == pytest.approx((5.5 / side, 9.5 / side))
    assert found.places[1][1:] == pytest.approx((7.5 / side, 3.5 / side))
    assert found.share == 1
    assert found.num_images == 2
    before = [each for each in found.layers if each.side < side]
    assert all(each.share == 0 for each in before)
    (there,) = [each for each in found.layers if each.layer == layer]
    assert there.share == 1
    assert there.highest_score > 10
    assert images.shape == (2, 3, 32, 32)
    assert spikes.place.tolist() == [[5, 9], [7, 3]]


def test_batches_are_looked_at_one_after_the_other():
    torch.manual_seed(0)
    generator = stylegan.create("stylegan-f", 16, channel_base=256, channel_max=16).generator.eval()
    ws = map_latents(generator, latents_from_seeds(range(5), 512))
    whole, parts = find_droplets(generator, [ws]), find_droplets(generator, ws.split([2, 3]))
    for a, b in zip(whole.layers, parts.layers, strict=True):
        assert a.layer == b.layer
        assert a.highest_score == pytest.approx(b.highest_score, rel=1e-4)
    assert whole.layers[0].layer == "b4.input"  # the constant counts for every image
    with observe_features(generator, lambda *_: None):
        pass
