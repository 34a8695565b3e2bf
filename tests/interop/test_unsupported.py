"""Files of programs with other networks are refused by the program's name, with the way round."""

import pytest
import torch

from stylegan.errors import WeightsError
from stylegan.interop.load import kind_of, load

LUCIDRAINS = {
    "S.net.0.weight": (512, 512),
    "G.initial_block": (1, 512, 4, 4),
    "G.blocks.0.to_style1.weight": (512, 512),
    "G.blocks.0.to_noise1.weight": (512, 1),
    "G.blocks.0.conv1.weight": (512, 512, 3, 3),
    "D.blocks.0.net.0.weight": (16, 3, 3, 3),
    "SE.net.0.weight": (512, 512),
    "GE.blocks.0.to_rgb.conv.weight": (3, 512, 1, 1),
}
MMGENERATION = {
    "style_mapping.1.weight": (512, 512),
    "constant_input.const": (1, 512, 4, 4),
    "convs.0.conv.weight": (1, 512, 512, 3, 3),
    "to_rgbs.0.bias": (1, 3, 1, 1),
}
CLEAN = {
    "style_mlp.1.weight": (512, 512),
    "style_mlp.3.weight": (512, 512),
    "constant_input.weight": (1, 512, 4, 4),
    "style_conv1.bias": (1, 512, 1, 1),
    "style_convs.0.weight": (1,),
    "style_convs.0.bias": (1, 512, 1, 1),
    "style_convs.0.modulated_conv.weight": (1, 512, 512, 3, 3),
}
BILINEAR = {
    "style_mlp.1.weight": (512, 512),
    "style_mlp.2.weight": (512, 512),
    "style_convs.0.activate.bias": (512,),
    "style_convs.0.modulated_conv.weight": (1, 512, 512, 3, 3),
}
CRITIC = {"conv_body.0.0.weight": (32, 3, 1, 1), "final_linear.0.weight": (512, 8192)}
PROGRESSION = {"generator.progression.0.conv1.0.weight": (1,), "style.1.weight_orig": (1,)}


def tensors(shapes, prefix=""):
    """Make small tensors under the names of a program; the shapes document the facts."""
    return {prefix + name: torch.ones([min(n, 3) for n in shape]) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("content", "name", "fix"),
    [
        (
            {"GAN": tensors(LUCIDRAINS), "version": "1.8.9"},
            "lucidrains' stylegan2-pytorch: its network is not StyleGAN2 of the paper",
            "train a network here",
        ),
        (tensors(LUCIDRAINS), "lucidrains' stylegan2-pytorch", "train a network here"),
        (
            {
                "meta": {"mmgen_version": "0.7"},
                "state_dict": tensors(MMGENERATION, "generator.")
                | tensors(MMGENERATION, "generator_ema."),
            },
            "MMGeneration or MMagic",
            "use the official file",
        ),
        ({"state_dict": tensors(MMGENERATION)}, "MMGeneration or MMagic", "use the official file"),
        (tensors(MMGENERATION), "MMGeneration or MMagic", "use the official file"),
        (
            {"params_ema": tensors(CLEAN)},
            "BasicSR or GFPGAN, of the variant clean",
            "smooth.kernel",
        ),
        (
            {
                "params_ema": tensors(CLEAN, "stylegan_decoder.")
                | {"conv_body_first.bias": torch.ones(1)}
            },
            "BasicSR or GFPGAN, of the variant clean or bilinear: this variant upsamples without",
            "use the original variant",
        ),
        ({"params": tensors(BILINEAR)}, "BasicSR or GFPGAN, of the variant", "original variant"),
        ({"params": tensors(CRITIC)}, "BasicSR's discriminator", "use its net_g file"),
        (tensors(PROGRESSION), "rosinality's style-based-gan-pytorch", "official StyleGAN file"),
    ],
)
def test_a_file_of_another_program_is_refused_by_its_name(tmp_path, content, name, fix):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert f"{path} is a file of {name}" in message
    assert fix in message
    assert message.isprintable()


def test_other_files_are_described_by_their_first_keys(tmp_path):
    torch.save({"epoch": 1, "model\n": tensors({"a.weight": (1,)})}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"holds 'epoch', 'model.*'; expected official"):
        load(tmp_path / "model.pt")
    (tmp_path / "text").write_text("x")
    with pytest.raises(WeightsError) as caught:
        kind_of(tmp_path / "text")
    assert "a BasicSR or GFPGAN file" in str(caught.value)
