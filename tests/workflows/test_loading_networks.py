import torch

import stylegan
from stylegan.ops.precision import is_tf32
from stylegan.workflows.networks import load_generator


def test_a_loaded_generator_is_computed_with_in_real_float32():
    generator = stylegan.create("stylegan2-f", 8, channel_base=64, channel_max=6).generator
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    assert load_generator(generator) is generator
    assert not is_tf32()
