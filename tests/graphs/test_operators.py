"""ONNX graphs compute what PyTorch computes, one operation at a time."""

import pytest
import torch
import torch.nn.functional as F

from stylegan.graphs.operators import CONVERTERS
from stylegan.graphs.recorder import Recorder
from stylegan.ops.backend import use_backend
from stylegan.ops.fir import RESAMPLE_TAPS, fir_kernel, upsample2d

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

WEIGHT = torch.linspace(-1, 1, 3 * 4 * 9).reshape(3, 4, 3, 3)
FUNCTIONS = {
    "sum with a factor": lambda x: x.add(torch.ones(4, 1, 1), alpha=2) - x * 0.5,
    "number minus tensor": lambda x: (1 - x) / 3,
    "interpolation": lambda x: x.lerp(x.square(), 0.3),
    "addcmul": lambda x: torch.addcmul(torch.ones(4, 1, 1), x, x),
    "statistics": lambda x: (
        (x.mean(dim=(2, 3), keepdim=True) + 2).rsqrt() * x.sum(dim=(1,), keepdim=True)
    ),
    "largest magnitude": lambda x: x / x.abs().amax(dim=1, keepdim=True),
    "products": lambda x: x[:, :, 0, 0] @ torch.ones(4, 2) + F.linear(x[:, 0, 0], torch.ones(2, 6)),
    "convolution": lambda x: F.leaky_relu(F.conv2d(x, WEIGHT, stride=2, padding=1), 0.2),
    "transposed": lambda x: F.conv_transpose2d(
        x, WEIGHT.transpose(0, 1), stride=2, padding=1, output_padding=1
    ),
    "padding": lambda x: F.pad(x, (1, 0, 2, 3)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0),
    "filter": lambda x: upsample2d(x, fir_kernel(RESAMPLE_TAPS)),
    "slices": lambda x: torch.cat([x[:, 1:3], x[:, :, 1:2].expand(-1, -1, 5, -1)[:, :2]], dim=1),
    "parts": lambda x: x.chunk(2, dim=1)[1] * x.unbind(dim=1)[0].unsqueeze(1),
    "shapes": lambda x: x.permute(0, 2, 3, 1).reshape(len(x), -1).clamp(-0.5, 0.5),
    "dtypes": lambda x: (torch.arange(6) < x.mul(0).to(torch.int64)).float() + x.half().float(),
}


def computed(function, x, *, half=False):
    """Compute a function by the graph that is recorded for a batch of one."""
    recorder = Recorder(onnx, CONVERTERS, half=half)
    first = x[:1].clone()
    recorder.name(first, "x")
    with torch.no_grad(), use_backend("portable"), recorder:
        result = function(first)
    recorder.node("Identity", [result], name="y")
    nodes, constants = recorder.used("y")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape])
        for name, shape in (("x", x.shape[1:]), ("y", result.shape[1:]))
    ]
    graph = onnx.helper.make_graph(nodes, "graph", values[:1], values[1:], constants)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), constants


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_graph_recorded_with_one_image_computes_any_number(name):
    x = torch.randn(3, 4, 5, 6)
    function = FUNCTIONS[name]
    torch.testing.assert_close(computed(function, x)[0], function(x), rtol=1e-5, atol=1e-5)


def test_computations_on_weights_are_not_part_of_the_graph():
    weight = torch.randn(4, 4, 3, 3)
    _, constants = computed(
        lambda x: F.conv2d(x, weight.square().sqrt() * 2), torch.randn(2, 4, 6, 6)
    )
    assert len(constants) == 1


def test_large_constants_are_stored_in_float16_if_asked():
    weight = torch.randn(32, 4, 3, 3)
    x = torch.randn(2, 4, 6, 6)
    result, (constant,) = computed(lambda x: F.conv2d(x, weight), x, half=True)
    assert len(constant.raw_data) == 2 * weight.numel()
    torch.testing.assert_close(result, F.conv2d(x, weight.half().float()), rtol=1e-5, atol=1e-5)


def test_an_operation_without_equivalent_is_an_error():
    with pytest.raises(NotImplementedError, match=r"aten\.erf"):
        computed(torch.erf, torch.randn(2, 4, 5, 6))
