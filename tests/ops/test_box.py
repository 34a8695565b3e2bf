import torch

from stylegan.ops.box import downsample_box, fade, image_pyramid, upsample_nearest


def test_known_values():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert downsample_box(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert upsample_nearest(x[..., :1, :2]).squeeze().tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert upsample_nearest(x, factor=1) is x
    assert downsample_box(x, factor=4).item() == 7.5


def test_a_fade_of_half_is_the_mean_of_both_resolutions():
    x = torch.randn(2, 3, 8, 8)
    blocks = downsample_box(x).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(fade(x, 0.5), (x + blocks) / 2)
    assert fade(x, 0) is x
    torch.testing.assert_close(fade(x, 1), blocks)


def test_a_mipmap_keeps_the_mean_and_ends_at_four():
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    levels = image_pyramid(x, num_levels=4)
    assert [level.shape[-1] for level in levels] == [32, 16, 8, 4]
    for level in levels:
        torch.testing.assert_close(level.mean(dim=(2, 3)), x.mean(dim=(2, 3)))


def test_gradients_of_first_and_second_order():
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    for function in (upsample_nearest, downsample_box, lambda x: fade(x, 0.3)):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)
