"""The memory layouts in which networks compute."""

import pytest
import torch

from stylegan.models.registry import build_discriminator, build_generator, configs_for

PRESETS = ["progan", "stylegan-f", "stylegan2-e"]
TINY = {"channel_base": 64, "channel_max": 8}


def outputs(network, *args, names):
    """Return what the modules of some names gave."""
    found = {}
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in names:
            module.register_forward_hook(
                lambda module, given, out, name=name: found.update({name: out})
            )
    network(*args)
    return found


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_discriminators_compute_in_channels_last(preset, channels):
    family, _, config = configs_for(preset, 32, img_channels=channels, **TINY)
    network = build_discriminator(family, config)
    found = outputs(network, torch.zeros(4, channels, 32, 32), names=("conv0", "fromrgb"))
    assert len(found) > 3
    for name, out in found.items():
        if out.shape[2] > 1:
            assert out.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("preset", ["stylegan-f", "stylegan2-e"])
def test_blocks_get_styles_in_one_layout(preset):  # torch.compile would compile each for each
    family, config, _ = configs_for(preset, 32, **TINY)
    network = build_generator(family, config).synthesis
    own = torch.randn(2, network.num_ws, config.w_dim)
    strides = []
    for ws in (own, own[:, :1].expand(-1, network.num_ws, -1)):
        handles = [
            block.register_forward_pre_hook(
                lambda block, args, options: strides.append(
                    (options["ws"] if "ws" in options else args[1]).stride()
                ),
                with_kwargs=True,
            )
            for name, block in network.named_children()
            if name.startswith("b")
        ]
        network(ws)
        for handle in handles:
            handle.remove()
    num = len(strides) // 2
    assert num == 4
    assert strides[:num] == strides[num:]
