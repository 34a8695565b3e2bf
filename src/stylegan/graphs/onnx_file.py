"""A generator as an ONNX model, and its computation by onnxruntime."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stylegan.extras import import_extra
from stylegan.graphs.operators import CONVERTERS, OPSET
from stylegan.graphs.parts import GeneratorPart, GraphValue
from stylegan.graphs.recorder import Recorder
from stylegan.ops.backend import use_backend

IR_VERSION = 9
"""Version of the file format, that of ONNX releases with this opset."""


def build_onnx(part: GeneratorPart, *, half: bool) -> Any:
    """Return an `onnx.ModelProto` of a part, of standard operators only.

    Args:
        part: what to compute; its generator computes in `compute_dtype`.
        half: store large constants in float16, also those of layers that compute in float32.

    Raises:
        ConfigError: if onnx is not installed.
        NotImplementedError: if the network has an operation without an entry in the table.
    """
    onnx = import_extra("onnx", extra="export", purpose="export onnx")
    recorder = Recorder(onnx, CONVERTERS, half=half)
    # In a caller's inference mode PyTorch would not split operations into basic ones.
    with torch.inference_mode(False), torch.no_grad(), use_backend("portable"):
        inputs = part.example(1)
        for value, tensor in zip(part.inputs, inputs, strict=True):
            recorder.name(tensor, value.name)
        with recorder:
            output = part(*inputs)
    recorder.node("Identity", [output], result=output, name=part.output.name)
    nodes, constants = recorder.used(part.output.name)
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "generator",
        [_value_info(onnx, value) for value in part.inputs],
        [_value_info(onnx, part.output)],
        constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="stylegan",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnx(content: bytes, part: GeneratorPart) -> Callable[[list[Tensor]], Tensor]:
    """Return a function that computes a serialized graph of a part with onnxruntime on the CPU.

    Raises:
        ConfigError: if onnxruntime is not installed.
    """
    runtime = import_extra("onnxruntime", extra="export", purpose="export onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(tensors: list[Tensor]) -> Tensor:
        feeds = {
            value.name: tensor.numpy() for value, tensor in zip(part.inputs, tensors, strict=True)
        }
        return torch.from_numpy(session.run(None, feeds)[0])

    return run


def set_metadata(model: Any, texts: Mapping[str, str]) -> None:
    """Store texts in an `onnx.ModelProto`, which runtimes return as custom metadata."""
    onnx = import_extra("onnx", extra="export", purpose="export onnx")
    onnx.helper.set_model_props(model, dict(texts))


def _value_info(onnx: ModuleType, value: GraphValue) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=value.dtype).numpy().dtype)
    return onnx.helper.make_tensor_value_info(value.name, kind, value.shape)
