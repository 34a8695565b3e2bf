import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from stylegan.ops.normalize import adain, minibatch_stddev, pixel_norm


def test_pixel_norm_known_values():
    y = pixel_norm(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(y, torch.tensor([[0.848528, 1.131371]]), rtol=0, atol=1e-6)


def test_pixel_norm_projects_to_a_sphere_of_radius_sqrt_c():
    norms = pixel_norm(torch.randn(5, 64) * 7).norm(dim=1)
    torch.testing.assert_close(norms, torch.full([5], 8.0))


def unstyled(x):
    """Return AdaIN with a scale of 1 and a shift of 0: instance normalization."""
    scale = torch.ones(x.shape[:2], dtype=torch.promote_types(x.dtype, torch.float32))
    return adain(x, scale, torch.zeros_like(scale))


def test_adain_without_a_style_has_known_values():
    x = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).expand(1, 1, 2, 2)  # mean 4, variance 5
    expected = torch.tensor([[-3.0, -1.0], [1.0, 3.0]]).expand(1, 1, 2, 2) / 5**0.5
    torch.testing.assert_close(unstyled(x), expected)


def test_adain_of_a_constant_is_the_shift():
    assert unstyled(torch.full([1, 2, 4, 4], 7.0)).abs().max() == 0


def test_adain_is_instance_norm_and_style():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64) * 5 + 2
    scale, shift = torch.randn(2, 2, 3, dtype=torch.float64)
    styled = F.instance_norm(x, eps=1e-8) * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(adain(x, scale, shift), styled)
    with torch.no_grad():
        assert torch.equal(adain(x.requires_grad_(), scale, shift), adain(x, scale, shift))


@pytest.mark.parametrize("trained", [(0, 1, 2), (0,), (1, 2), (2,)])
def test_gradients_of_adain_of_both_orders(trained):
    inputs = [torch.randn(2, 3, 3, 2), torch.randn(2, 3), torch.randn(2, 3)]
    inputs = [t.double().requires_grad_(i in trained) for i, t in enumerate(inputs)]
    assert gradcheck(adain, inputs)
    assert gradgradcheck(adain, inputs)


def test_gradients_of_adain_are_the_same_whether_or_not_they_are_differentiated():
    x, scale, shift = torch.randn(2, 3, 4, 4), torch.randn(2, 3), torch.randn(2, 3)
    inputs = [t.requires_grad_() for t in (x, scale, shift)]
    out, direction = adain(*inputs), torch.randn(2, 3, 4, 4)
    once = torch.autograd.grad(out, inputs, direction, retain_graph=True)
    again = torch.autograd.grad(out, inputs, direction, create_graph=True)
    torch.testing.assert_close(again, once, rtol=1e-4, atol=1e-5)  # sums in another order


def test_minibatch_stddev_known_values_and_strided_groups():
    x = torch.arange(8.0).square()[:, None, None, None].expand(8, 2, 3, 3)
    y = minibatch_stddev(x, group_size=4)
    assert y.shape == (8, 3, 3, 3)
    assert torch.equal(y[:, :2], x)
    expected = torch.tensor([14.0, 18.330303]).repeat(4)[:, None, None].expand(8, 3, 3)
    torch.testing.assert_close(y[:, 2], expected)


def test_minibatch_stddev_averages_over_its_share_of_the_channels():
    x = torch.zeros(2, 4, 1, 1)
    x[1] = torch.tensor([2.0, 4.0, 6.0, 8.0])[:, None, None]  # stddev 1, 2, 3, 4
    y = minibatch_stddev(x, group_size=2, num_channels=2)
    torch.testing.assert_close(y[:, 4:].flatten(1), torch.tensor([[1.5, 3.5]] * 2))


def test_a_small_batch_is_one_group():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(minibatch_stddev(x, group_size=4), minibatch_stddev(x, group_size=2))


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="6 / 4"):
        minibatch_stddev(torch.zeros(6, 2, 4, 4), group_size=4)


def test_gradients_of_both_orders():
    x = torch.randn(4, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    for op in (pixel_norm, unstyled, lambda x: minibatch_stddev(x, group_size=2)):
        assert gradcheck(op, x)
        assert gradgradcheck(op, x)


def test_statistics_of_half_precision_are_computed_in_float32():
    x = (torch.randn(4, 2, 8, 8) * 300).half()  # squares overflow float16
    ones = torch.ones(4, 2)
    for op in (
        lambda x: adain(x, ones, ones),
        lambda x: minibatch_stddev(x, group_size=4),
    ):
        y = op(x)
        assert y.dtype == torch.float16
        assert torch.isfinite(y).all()
