"""Generators as files that run without this package: ONNX, and PyTorch's exported programs."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan import __version__
from stylegan.errors import ConfigError, StyleganError
from stylegan.extras import import_extra
from stylegan.files import atomic_path, write_atomic
from stylegan.graphs import onnx_file, pt2_file
from stylegan.graphs.parts import GeneratorPart, GraphNoise, GraphValue, Part, compare
from stylegan.models.base import AbstractGenerator
from stylegan.models.registry import family_of
from stylegan.notebook import TextResult
from stylegan.progress import Progress
from stylegan.workflows.networks import Network, check_suffix, load_generator

METADATA_KEY = "stylegan"
"""Name of the metadata in an ONNX file; that of the extra file in a pt2 file ends in .json."""
MAX_DIFFERENCE = {"float32": 1e-4, "float16": 2 / 255}
"""Largest difference from eager mode in float32 that an export may have, by precision."""


@dataclass(frozen=True, kw_only=True)
class Export(TextResult):
    """A file that `onnx` or `pt2` wrote.

    Attributes:
        path: of the file.
        num_bytes: its size.
        inputs: names and shapes of the inputs, in their order.
        output: name and shape of the output.
        differences: the largest difference from eager mode in float32, by batch size.
        metadata: what is stored in the file, as JSON.
    """

    path: Path
    num_bytes: int
    inputs: Sequence[GraphValue]
    output: GraphValue
    differences: Mapping[int, float]
    metadata: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the path, the size, inputs and output, and the differences."""
        lines = [
            f"written  {self.path}, {self.num_bytes / 1e6:.1f} MB",
            f"inputs   {', '.join(map(_shown, self.inputs))}",
            f"output   {_shown(self.output)}",
            "differs  "
            + ", ".join(f"by {value:.1e} at batch {num}" for num, value in self.differences.items())
            + " from eager mode, at most",
        ]
        return "\n".join(lines)


def onnx(
    network: Network,
    out: Path | str,
    *,
    part: Part = "both",
    noise: GraphNoise = "const",
    fp16: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write a generator as an ONNX file.

    The batch may have any size, and psi and cutoff are inputs. There are only standard operators,
    of opset 18. The file is computed with onnxruntime at batch 1 and 5, and written if the results
    equal those of eager mode in float32 within 1e-4, or 2/255 with --fp16, of the range [-1, 1].

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        out: the file to write, NAME.onnx.
        part: "both" maps z to images; "mapping" maps z to ws, "synthesis" ws to images.
        noise: "const" stores the noise in the file; "inputs" has an input for each layer with
            noise; "none" adds none.
        fp16: store weights in float16, and convolve in it where the network does in training.
        progress: called while a URL is downloaded.

    Returns:
        The file, and how far it differs from eager mode.

    Raises:
        StyleganError: if an option or a file cannot be used, or the difference is larger.
    """
    path = Path(out)
    check_suffix(path, ".onnx")
    if fp16 and part == "mapping":
        raise ConfigError("the mapping network computes in float32", fix="leave out --fp16")
    import_extra("onnx", extra="export", purpose="export onnx")
    import_extra("onnxruntime", extra="export", purpose="export onnx")
    chosen = _load_part(network, part=part, noise=noise, progress=progress)
    chosen.generator.compute_dtype = torch.float16 if fp16 else torch.float32
    model = onnx_file.build_onnx(chosen, half=fp16)
    chosen.generator.compute_dtype = torch.float32
    precision = "float16" if fp16 else "float32"
    run = onnx_file.run_onnx(model.SerializeToString(), chosen)
    differences = _checked_differences(chosen, run, precision=precision)
    metadata = _metadata(chosen, differences, precision=precision)
    onnx_file.set_metadata(model, {METADATA_KEY: json.dumps(metadata)})
    write_atomic(path, model.SerializeToString())
    return _export(path, chosen, differences, metadata)


def pt2(
    network: Network,
    out: Path | str,
    *,
    part: Part = "both",
    noise: GraphNoise = "const",
    aot: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write a generator as a program of torch.export.

    The batch may have any size, and psi and cutoff are inputs. The file is loaded again, computed
    at batch 1 and 5, and kept if the results equal those of eager mode within 1e-4.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name.
        out: the file to write, NAME.pt2.
        part: "both" maps z to images; "mapping" maps z to ws, "synthesis" ws to images.
        noise: "const" stores the noise in the file; "inputs" has an input for each layer with
            noise; "none" adds none.
        aot: compile it by AOTInductor, which takes minutes and a C++ compiler. The file then holds
            a library for this machine's kind of processor.
        progress: called while a URL is downloaded.

    Returns:
        The file, and how far it differs from eager mode.

    Raises:
        StyleganError: if an option or a file cannot be used, or the difference is larger.
    """
    path = Path(out)
    check_suffix(path, ".pt2")
    if aot:
        pt2_file.check_aot_compiler()
    chosen = _load_part(network, part=part, noise=noise, progress=progress)
    program = pt2_file.export_program(chosen)
    with atomic_path(path) as temporary:
        # PyTorch demands the suffix
        written = temporary.with_suffix(".pt2")
        try:
            pt2_file.write_program(program, written, is_compiled=aot)
            run = pt2_file.run_program(written, is_compiled=aot)
            differences = _checked_differences(chosen, run, precision="float32")
            metadata = _metadata(chosen, differences, precision="float32")
            pt2_file.add_metadata(written, METADATA_KEY, json.dumps(metadata))
            written.replace(temporary)
        finally:
            written.unlink(missing_ok=True)
    return _export(path, chosen, differences, metadata)


def _load_part(
    network: Network, *, part: Part, noise: GraphNoise, progress: Progress | None
) -> GeneratorPart:
    """Load a generator, or copy a loaded one, onto the CPU in float32."""
    with torch.inference_mode(False):  # tensors made in it cannot be recorded
        generator = load_generator(network, "cpu", progress=progress)
        if isinstance(network, AbstractGenerator):
            generator = copy.deepcopy(generator).cpu()
        generator = generator.float().eval().requires_grad_(False)
    generator.compute_dtype = torch.float32
    generator.activation_checkpointing = False
    return GeneratorPart(generator, part=part, noise=noise)


def _checked_differences(
    part: GeneratorPart, run: Callable[[list[Tensor]], Tensor], *, precision: str
) -> dict[int, float]:
    differences = compare(part, run)
    limit = MAX_DIFFERENCE[precision]
    for num, difference in differences.items():
        if not difference <= limit:  # also for NaN
            raise StyleganError(
                f"the exported {precision} graph differs from eager mode by {difference:.1e} at "
                f"batch {num}, more than {limit:.1e}; nothing was written",
                fix="leave out --fp16" if precision == "float16" else None,
            )
    return differences


def _metadata(
    part: GeneratorPart, differences: Mapping[int, float], *, precision: str
) -> dict[str, Any]:
    generator = part.generator
    w_avg = generator.w_avg
    return {
        "version": __version__,
        "family": family_of(generator),
        "part": part.part,
        "noise": part.noise,
        "precision": precision,
        "inputs": [_described(value) for value in part.inputs],
        "outputs": [_described(part.output)],
        "image_range": [-1, 1],
        "image_size": [generator.current_size.height, generator.current_size.width],
        "img_channels": generator.img_channels,
        "lod": generator.lod,
        "z_dim": generator.z_dim,
        "w_dim": generator.w_dim,
        "c_dim": generator.c_dim,
        "num_ws": generator.num_ws,
        "class_names": list(generator.class_names),
        "w_avg": None if w_avg is None else w_avg.tolist(),
        "max_difference": {str(num): value for num, value in differences.items()},
    }


def _described(value: GraphValue) -> dict[str, Any]:
    dtype = str(value.dtype).removeprefix("torch.")
    return {"name": value.name, "dtype": dtype, "shape": list(value.shape)}


def _shown(value: GraphValue) -> str:
    return f"{value.name} [{', '.join(map(str, value.shape))}]"


def _export(
    path: Path, part: GeneratorPart, differences: dict[int, float], metadata: dict[str, Any]
) -> Export:
    return Export(
        path=path,
        num_bytes=path.stat().st_size,
        inputs=part.inputs,
        output=part.output,
        differences=differences,
        metadata=metadata,
    )
