"""Triton's kernels against plain PyTorch in float64: values, first and second derivatives.

Without a GPU they run in Triton's interpreter (tests/conftest.py).
"""

import importlib.util
import inspect
import logging
import math
import sys
from dataclasses import replace

import pytest
import torch

from cases import kernel_grid

if importlib.util.find_spec("triton") is None:
    pytest.skip("no Triton for this system", allow_module_level=True)

from stylegan.ops import backend
from stylegan.ops.backend import is_fused, use_backend
from stylegan.ops.bias_act import bias_act
from stylegan.ops.epilogue import epilogue
from stylegan.ops.fir import fir_kernel, upfirdn2d
from stylegan.ops.kernels import check_kernels
from stylegan.training.state import TrainState
from stylegan.training.step import train_step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def draw(*shape, layout=torch.contiguous_format):
    x = torch.randn(shape, dtype=torch.float64).to(DEVICE)
    return x.to(memory_format=layout).requires_grad_() if x.ndim == 4 else x.requires_grad_()


def derivatives(compute, inputs):
    """Return the value of an op, its gradients, and the gradients of those."""
    y = compute(*inputs)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(DEVICE)
    weight.requires_grad_()
    first = torch.autograd.grad((y * weight).sum(), inputs, create_graph=True)
    probes = [torch.randn(g.shape, generator=generator, dtype=g.dtype).to(DEVICE) for g in first]
    total = sum((g * probe).sum() for g, probe in zip(first, probes, strict=True))
    second = torch.autograd.grad(total, [*inputs, weight], allow_unused=True, create_graph=True)
    return [y, *first, *second]


def check(compute, inputs):
    with use_backend("reference"):
        expected = derivatives(compute, inputs)
    with use_backend("triton"):
        found = derivatives(compute, inputs)
    for a, b in zip(found, expected, strict=True):
        if a is None or b is None:  # a graph without a path is a gradient of zero
            assert all(each is None or each.abs().max() == 0 for each in (a, b))
        else:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("layout", "noise", "used", "activation"),
    kernel_grid(
        LAYOUTS,
        ["none", "shared", "each"],
        [(True, True), (True, False), (False, True)],
        [(0.2, None), (0.2, 1.5), (1.0, 1.5)],
    ),
)
def test_epilogue(layout, noise, used, activation):
    (scaled, biased), (slope, clamp) = used, activation
    x = draw(3, 4, 5, 6, layout=layout)
    shapes = {"none": None, "shared": (5, 6), "each": (3, 1, 5, 6)}
    parts = {
        "scale": draw(3, 4) if scaled else None,
        "noise": None if noise == "none" else draw(*shapes[noise]),
        "bias": draw(4) if biased else None,
    }
    names = [name for name, part in parts.items() if part is not None]

    def compute(x, *values):
        return epilogue(x * 1.0, **dict(zip(names, values, strict=True)), slope=slope, clamp=clamp)

    check(compute, [x, *(parts[name] for name in names)])


@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("clamp", [None, 1.0])
def test_bias_act(act, clamp):
    check(lambda x, b: bias_act(x, b, act=act, clamp=clamp), [draw(2, 3, 5, 4), draw(3)])


RESAMPLINGS = [
    (1, 1, (2, 1, 2, 1), (4, 4)),
    (2, 1, (2, 1, 2, 1), (4, 4)),
    (1, 2, (1, 1, 1, 1), (4, 4)),
    (2, 2, (3, -1, 0, 2), (3, 5)),
    (3, 2, (-1, 4, 2, -2), (5, 3)),
]


@pytest.mark.parametrize(
    ("layout", "flip", "resampling"), kernel_grid(LAYOUTS, [False, True], RESAMPLINGS)
)
def test_upfirdn(layout, flip, resampling):
    up, down, padding, taps = resampling
    kernel = torch.randn(*taps, dtype=torch.float64).to(DEVICE)
    check(
        lambda x: upfirdn2d(x, kernel, up=up, down=down, padding=padding, flip=flip, gain=1.5),
        [draw(2, 3, 7, 6, layout=layout)],
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("noise", ["none", "shared", "each"])
def test_both_implementations_of_the_epilogue_are_as_exact_as_stated(layout, dtype, noise):
    x = torch.randn(3, 4, 8, 8).to(DEVICE, dtype, memory_format=layout)
    scale, bias = torch.randn(3, 4).to(DEVICE), torch.randn(4).to(DEVICE)
    shapes = {"none": [], "shared": [8, 8], "each": [3, 1, 8, 8]}
    added = None if noise == "none" else torch.randn(shapes[noise]).to(DEVICE)
    terms = [x.double() * scale.double()[:, :, None, None], bias.double()[:, None, None]]
    terms += [] if added is None else [added.double()]
    expected = torch.nn.functional.leaky_relu(sum(terms), 0.2)
    magnitude = sum(term.abs() for term in terms)
    single = 4 * torch.finfo(torch.float32).eps * magnitude
    half_unit = torch.finfo(dtype).eps / 2
    # Triton's interpreter truncates to bfloat16 where a GPU rounds
    rounding = 2 * half_unit if dtype == torch.bfloat16 else half_unit
    bounds = {
        "triton": rounding * expected.abs() + single,  # one rounding, of the result
        "reference": 5 * half_unit * magnitude + single,  # one after each operation
    }
    for name, bound in bounds.items():
        with use_backend(name):
            y = epilogue(x.clone(), scale=scale, noise=added, bias=bias, slope=0.2)
        assert y.dtype == dtype
        assert ((y.double() - expected).abs() <= bound).all(), name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["reference", "triton"])
def test_derivatives_of_both_orders_in_half_precision_are_those_of_float64(name, dtype, layout):
    x = torch.randn(3, 4, 8, 8).to(DEVICE, dtype, memory_format=layout)
    scale, bias, noise = torch.randn(3, 4), torch.randn(4), torch.randn(3, 1, 8, 8)
    kernel = fir_kernel([1.0, 3.0, 3.0, 1.0]).to(DEVICE)
    weight = torch.randn(3, 4, 16, 16)

    def derivatives_in(dtype, backend_name):
        inputs = [x.to(dtype).requires_grad_()]
        wide = torch.promote_types(dtype, torch.float32)
        inputs += [t.to(DEVICE, wide).requires_grad_() for t in (scale, noise, bias)]
        with use_backend(backend_name):
            y = epilogue(inputs[0] * 1, scale=inputs[1], noise=inputs[2], bias=inputs[3], slope=0.2)
            y = upfirdn2d(y, kernel, up=2, padding=(2, 1, 2, 1), gain=4)
            total = (y.to(wide).square() * weight.to(DEVICE, wide)).sum()
            first = torch.autograd.grad(total, inputs, create_graph=True)
            second = torch.autograd.grad(first[0].to(wide).square().sum(), inputs)
        return [*first, *second]

    found = derivatives_in(dtype, name)
    expected = derivatives_in(torch.float64, "reference")
    for result, exact in zip(found, expected, strict=True):
        error = (result.double() - exact).norm() / exact.norm()
        assert error < 8 * torch.finfo(dtype).eps


def test_a_bound_that_half_precision_rounds_stops_gradients():
    x = torch.tensor([-400.0, -100, 0, 100, 181.0, 400]).reshape(1, 1, 2, 3)
    grads = {}
    for name in ("reference", "triton"):
        given = x.to(DEVICE, torch.float16).requires_grad_()
        with use_backend(name):
            y = bias_act(given, act="lrelu", gain=1.0, clamp=256 * math.sqrt(0.5))
        (grads[name],) = torch.autograd.grad(y.sum(), given)
    assert grads["triton"].flatten()[-1] == 0  # of what was clamped to 181.0
    # at the rounded bound itself the derivative may be either
    for index in (0, 1, 3, 5):
        assert grads["triton"].flatten()[index] == grads["reference"].flatten()[index]


def test_what_is_no_number_is_seen_behind_a_clamp():
    x = torch.tensor([float("nan"), 1.0]).reshape(1, 1, 1, 2).to(DEVICE)
    with use_backend("triton"):
        y = bias_act(x, clamp=256.0)
    assert y.isnan().tolist() == [[[[True, False]]]]


def test_what_changes_nothing_launches_nothing():
    x = torch.zeros(1, 1, 2, 2)
    with use_backend("triton"):
        assert bias_act(x) is x


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("epilogue", torch.bfloat16),
        ("epilogue_slope", torch.float16),
        ("upfirdn", torch.float32),
        *(
            pytest.param(name, dtype, marks=pytest.mark.slow)
            for name in ("epilogue", "epilogue_slope", "upfirdn")
            for dtype in (torch.float32, torch.bfloat16, torch.float16)
        ),
    ],
    ids=str,
)
def test_a_wrong_kernel_is_found_in_each_dtype_and_layout(monkeypatch, name, dtype):
    check_kernels(DEVICE, dtype)
    real = getattr(backend_kernels(), name)
    for layout in LAYOUTS:

        def wrong(x, *args, layout=layout, **options):
            y = real(x, *args, **options)
            is_affected = x.is_contiguous(memory_format=layout) and x.dtype == dtype
            return y + 0.05 if is_affected else y

        monkeypatch.setattr(backend_kernels(), name, wrong)
        message = rf"{name} differs from the reference \({dtype}, {layout}\)"
        with pytest.raises(RuntimeError, match=message):
            check_kernels(DEVICE, dtype)


@pytest.mark.parametrize(
    ("name", "option"),
    [("epilogue_slope", {"scale": None}), ("upfirdn", {"down": 2}), ("upfirdn", {"up": 2})],
)
def test_a_kernel_that_is_wrong_in_derivatives_alone_is_found(monkeypatch, name, option):
    real = getattr(backend_kernels(), name)

    def wrong(*args, **options):
        bound = inspect.signature(real).bind(*args, **options).arguments
        is_affected = all(bound[key] == value for key, value in option.items())
        return real(*args, **options) * (1.1 if is_affected else 1)

    monkeypatch.setattr(backend_kernels(), name, wrong)
    with pytest.raises(RuntimeError, match=f"{name} differs"):
        check_kernels(DEVICE, torch.bfloat16)


@pytest.mark.parametrize("name", ["epilogue", "epilogue_slope", "upfirdn"])
def test_a_kernel_that_changes_the_memory_layout_is_found(monkeypatch, name):
    real = getattr(backend_kernels(), name)
    monkeypatch.setattr(
        backend_kernels(), name, lambda *args, **options: real(*args, **options).contiguous()
    )
    message = rf"{name} changes the memory layout \(torch.bfloat16, torch.channels_last\)"
    with pytest.raises(RuntimeError, match=message):
        check_kernels(DEVICE, torch.bfloat16)


def test_each_dtype_is_checked_once_at_its_first_use(monkeypatch):
    checked = []
    monkeypatch.setattr("stylegan.ops.kernels.check_kernels", lambda *key: checked.append(key))
    monkeypatch.setattr(backend, "_checked", {})

    class OnGPU:
        is_cuda, device = True, torch.device("cuda", 0)

        def __init__(self, dtype):
            self.dtype = dtype

    for _ in range(2):
        assert is_fused(OnGPU(torch.bfloat16))
        assert is_fused(OnGPU(torch.float32))
    assert [dtype for _, dtype in checked] == [torch.bfloat16, torch.float32]


def backend_kernels():
    from stylegan.ops import kernels

    return kernels


def test_kernels_that_fail_are_not_used_and_a_warning_gives_the_reason(monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("upfirdn differs from the reference\nand more")

    monkeypatch.setattr("stylegan.ops.kernels.check_kernels", fail)
    with caplog.at_level(logging.INFO, logger="stylegan"):
        assert not backend._is_correct(DEVICE, torch.float32)
    assert caplog.records[-1].levelno == logging.WARNING
    assert (
        "fused kernels are off for torch.float32 (upfirdn differs from the reference)"
        in caplog.text
    )


def test_without_triton_kernels_are_not_used_and_nothing_warns(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "stylegan.ops.kernels", None)
    with caplog.at_level(logging.INFO, logger="stylegan"):
        assert not backend._is_correct(DEVICE, torch.float32)
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_the_cpu_takes_the_reference_unless_asked_otherwise():
    x = torch.zeros(1)
    assert not is_fused(x)
    with use_backend("triton"):
        assert is_fused(x)
    with use_backend("reference"):
        assert not is_fused(x)
    with pytest.raises(ValueError, match="'cuda'"), use_backend("cuda"):
        pass


@pytest.mark.gpu
def test_a_gpu_takes_the_kernels():
    assert is_fused(torch.zeros(1, device="cuda"))


@pytest.mark.slow
def test_a_training_step_with_kernels_is_one_without(run_config):
    config = replace(
        run_config,
        generator=replace(run_config.generator, resolution=8),
        discriminator=replace(run_config.discriminator, resolution=8, mbstd_group_size=4),
        batch=4,
    )
    reals = torch.randn(4, 3, 8, 8).to(DEVICE)
    terms = {}
    for name in ("reference", "triton"):
        with use_backend(name):
            terms[name] = train_step(TrainState(config, DEVICE), reals)
    assert len(terms["triton"]) > 10
    for name, value in terms["reference"].items():
        torch.testing.assert_close(terms["triton"][name], value, rtol=1e-3, atol=1e-5, msg=name)
