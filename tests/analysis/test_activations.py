import pytest
import torch

import stylegan
from stylegan.analysis.activations import feature_layers, observe_features
from stylegan.models.registry import CONFIGURATIONS

LAYERS = ["b4", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]


@pytest.mark.parametrize("preset", CONFIGURATIONS)
def test_every_family_shows_each_layer_once_coarsest_first(preset):
    generator = stylegan.create(preset, 16, channel_base=64, channel_max=8).generator.eval()
    seen = []
    ws = generator.mapping(torch.randn(2, generator.z_dim))
    with torch.no_grad(), observe_features(generator, lambda name, x: seen.append((name, x.shape))):
        generator.synthesis(ws)
    names = [name for name, _ in seen]
    assert names == list(feature_layers(generator))
    assert [name for name in names if not name.startswith("b4")] == LAYERS[1:]
    for name, shape in seen:
        assert shape[2] == shape[3] == int(name[1:].partition(".")[0])
        assert shape[1] == min(8, 64 // shape[3])
    assert all(not module._forward_hooks for module in generator.modules())


def test_features_of_adain_are_those_before_it():
    generator = stylegan.create("stylegan-f", 16, channel_base=64, channel_max=8).generator.eval()
    seen = {}
    with torch.no_grad(), observe_features(generator, seen.__setitem__):
        generator(torch.randn(1, generator.z_dim))
    before = seen["b8.conv0"]
    after = []
    handle = generator.synthesis.b8.conv0.register_forward_hook(
        lambda module, inputs, output: after.append(output)
    )
    with torch.no_grad():
        generator(torch.randn(1, generator.z_dim))
    handle.remove()
    # leaky ReLU of gain 1 lets through a fifth of what is negative; AdaIN centres
    assert before.min() < 0 < before.mean()
    assert not torch.allclose(before, after[0], atol=1e-2)


def test_nothing_is_left_after_an_error():
    generator = stylegan.create("stylegan2-f", 16, channel_base=64).generator
    with pytest.raises(ZeroDivisionError), observe_features(generator, lambda name, x: 1 / 0):
        generator(torch.randn(1, generator.z_dim))
    assert all(not module._forward_hooks for module in generator.modules())
