import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel
from stylegan.ops.modulated_conv import modulated_conv2d

KERNEL = fir_kernel(RESAMPLE_TAPS)
FORMS = ["scaled", "grouped"]
# Oracle of spec, section 17
WEIGHT = torch.tensor([[-3.5, -2.5, -1.5, -0.5], [0.5, 1.5, 2.5, 3.5]])[:, :, None, None]
STYLES = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.5, 1.0, 1.0, 3.0]])
X = torch.tensor([1.0, -2.0, 3.0, 0.5])[None, :, None, None].repeat(2, 1, 1, 1)


def arguments(*, size=3, dtype=torch.float64, out_channels=4):
    return {
        "x": torch.randn(3, 5, 6, 6, dtype=dtype),
        "weight": torch.randn(out_channels, 5, size, size, dtype=dtype),
        "styles": torch.randn(3, 5, dtype=dtype) + 1,
    }


@pytest.mark.parametrize("form", FORMS)
def test_known_values(form):
    plain = modulated_conv2d(X, WEIGHT, STYLES, demodulate=False, form=form)
    expected = torch.tensor([[10.875, -12.125], [-2.0, 10.0]])
    torch.testing.assert_close(plain[:, :, 0, 0], expected, rtol=0, atol=1e-5)
    demodulated = modulated_conv2d(X, WEIGHT, STYLES, form=form)
    expected = torch.tensor([[1.728970, -2.814255], [-0.538138, 0.917422]])
    torch.testing.assert_close(demodulated[:, :, 0, 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("up_kernel", [None, KERNEL])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_both_forms_are_one_function(size, demodulate, up_kernel):
    side = 6 if up_kernel is None else 12
    options = {
        "demodulate": demodulate,
        "up_kernel": up_kernel,
        "noise": torch.randn(3, 1, side, side, dtype=torch.float64),
        "bias": torch.randn(4, dtype=torch.float64),
        "gain": 1.7,
    }
    given = arguments(size=size)
    scaled, grouped = (modulated_conv2d(**given, **options, form=form) for form in FORMS)
    torch.testing.assert_close(scaled, grouped)


def test_both_forms_agree_in_float32_to_2e_6():
    given = arguments(dtype=torch.float32)
    scaled, grouped = (modulated_conv2d(**given, form=form) for form in FORMS)
    assert (scaled - grouped).abs().max() < 2e-6


@pytest.mark.parametrize("form", FORMS)
def test_demodulation_cancels_the_scale_of_weights_and_styles(form):
    given = arguments()
    y = modulated_conv2d(**given, form=form)
    louder = given | {"weight": given["weight"] * 100, "styles": given["styles"] * 10}
    torch.testing.assert_close(modulated_conv2d(**louder, form=form), y, rtol=0, atol=1e-6)


def test_demodulation_keeps_unit_variance():
    x = torch.randn(4, 32, 32, 32)
    styles = torch.rand(4, 32) * 5
    y = modulated_conv2d(x, torch.randn(16, 32, 3, 3), styles)
    inside = y[:, :, 1:-1, 1:-1]
    assert abs(inside.std().item() - 1) < 0.03  # 57,600 correlated values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(6, 6), (3, 1, 6, 6)])
@pytest.mark.parametrize("biased", [True, False])
def test_noise_is_added_after_demodulation(form, shape, biased):
    given = arguments()
    noise = torch.randn(shape, dtype=torch.float64)
    change = modulated_conv2d(**given, noise=noise, form=form) - modulated_conv2d(
        **given, form=form
    )
    torch.testing.assert_close(change, noise.expand_as(change))


@pytest.mark.parametrize("form", FORMS)
def test_float16_does_not_overflow(form):
    given = {name: value.half() for name, value in arguments(dtype=torch.float32).items()}
    loud = given | {"styles": given["styles"] * 1000, "x": given["x"] * 100}
    y = modulated_conv2d(**loud, form=form)
    exact = modulated_conv2d(**{name: value.double() for name, value in loud.items()}, form=form)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y.double(), exact, rtol=0.01, atol=1.0)  # 11 bits of about 300


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("up_kernel", [None, KERNEL])
def test_gradients_of_both_orders(form, up_kernel):
    inputs = (
        torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 2, dtype=torch.float64, requires_grad=True),
    )

    def op(x, weight, styles):
        return modulated_conv2d(x, weight, styles, up_kernel=up_kernel, form=form)

    assert gradcheck(op, inputs)
    assert gradgradcheck(op, inputs)


@pytest.mark.gpu
def test_cuda_equals_cpu():
    given = arguments(dtype=torch.float32)
    there = modulated_conv2d(**{name: value.cuda() for name, value in given.items()}).cpu()
    torch.testing.assert_close(there, modulated_conv2d(**given), rtol=1e-4, atol=1e-4)
