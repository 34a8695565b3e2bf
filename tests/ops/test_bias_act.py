import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan.ops.bias_act import bias_act


def test_known_values():
    x = torch.tensor([[-2.0, 3.0]])
    y = bias_act(x, torch.tensor([0.5, -1.0]), act="lrelu")
    torch.testing.assert_close(y, torch.tensor([[-0.424264, 2.828427]]), rtol=0, atol=1e-6)


def test_linear_has_gain_one_and_leaky_relu_sqrt_two():
    x = torch.tensor([[-1.0, 1.0]])
    assert torch.equal(bias_act(x), x)
    torch.testing.assert_close(bias_act(x, act="lrelu"), math.sqrt(2) * torch.tensor([[-0.2, 1.0]]))


def test_bias_goes_to_channels_and_clamp_comes_last():
    x = torch.zeros(2, 3, 4, 4)
    y = bias_act(x, torch.tensor([-9.0, 1.0, 9.0]), gain=2, clamp=5)
    assert y[1, :, 2, 3].tolist() == [-5, 2, 5]


@pytest.mark.parametrize("act", ["linear", "lrelu"])
def test_gradients_of_both_orders(act):
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, b: bias_act(x, b, act=act, gain=1.5, clamp=2), (x, bias))
    assert gradgradcheck(lambda x, b: bias_act(x, b, act=act, gain=1.5, clamp=2), (x, bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_keeps_the_dtype(dtype):
    y = bias_act(torch.randn(2, 3, 4, 4).to(dtype), torch.ones(3), act="lrelu")
    assert y.dtype == dtype
