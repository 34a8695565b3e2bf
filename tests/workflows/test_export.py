"""Exported generators compute what the generator computes."""

import json
import sys

import pytest
import torch

import stylegan
from cases import in_turn
from stylegan.cli import main as cli
from stylegan.errors import ConfigError, StyleganError
from stylegan.graphs import onnx_file
from stylegan.models.noise import synthesize
from stylegan.models.registry import create

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

TINY = {"channel_base": 512, "channel_max": 32, "z_dim": 8}  # narrower ones lose more in float16
KINDS = {
    "ProGAN": ("progan", 16, {"lod": 0.5}),
    "ProGAN, labels": ("progan", 16, {"c_dim": 3}),
    "StyleGAN B": ("stylegan-b", 16, {}),
    "StyleGAN C": ("stylegan-c", "24x40", {}),
    "StyleGAN D": ("stylegan-d", 16, {"img_channels": 1}),
    "StyleGAN F": ("stylegan-f", 16, {"c_dim": 3, "lod": 1.25}),
    "growing": ("stylegan2-c", 16, {"lod": 0.75}),
    "orig": ("stylegan2-f", 16, {"architecture": "orig", "img_channels": 5}),
    "skip": ("stylegan2-f", "40x24", {"c_dim": 3, "conv_clamp": 256.0}),
    "resnet": ("stylegan2-f", 16, {"architecture": "resnet"}),
    "mipmap": ("msg-stylegan2", 16, {}),
}
FORMS = [
    {},
    {"fp16": True},
    {"noise": "inputs"},
    {"noise": "inputs", "fp16": True, "part": "synthesis"},
    {"noise": "none", "part": "synthesis"},
    {"part": "mapping"},
]


def tiny(kind):
    """Return a generator in which noise, biases and the mean of w are not zero."""
    name, size, options = KINDS[kind]
    options = {**options}
    lod = options.pop("lod", 0)
    widths = {} if name == "progan" else {"w_dim": 8}
    torch.manual_seed(0)
    generator = create(name, size, **(TINY | widths | options)).generator_ema
    for parameter in generator.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    if generator.w_avg is not None:
        generator.w_avg.normal_()
    generator.lod = lod
    return generator


def run(path, **inputs):
    """Compute an ONNX file."""
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {name: torch.as_tensor(value).numpy() for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, feeds)[0])


@pytest.mark.parametrize(("kind", "form"), in_turn([*KINDS], FORMS), ids=str)
def test_onnx_agrees_with_eager_mode_at_batch_1_and_5(kind, form, tmp_path):
    generator = tiny(kind)
    exported = stylegan.export.onnx(generator, tmp_path / "g.onnx", **form)
    limit = 2 / 255 if form.get("fp16") else 1e-4
    assert set(exported.differences) == {1, 5}
    assert 0 <= max(exported.differences.values()) <= limit
    model = onnx_file.import_extra("onnx", extra="export", purpose="").load(exported.path)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert list(model.functions) == []


def test_psi_cutoff_and_labels_of_an_onnx_file_are_those_of_the_generator(tmp_path):
    generator = tiny("skip")
    path = stylegan.export.onnx(generator, tmp_path / "g.onnx").path
    z, c = torch.randn(3, 8), torch.eye(3)
    for psi, cutoff in ((1.0, 8), (0.5, 8), (0.3, 2), (0.0, 0), (-1.0, 3)):
        images = run(path, z=z, c=c, psi=torch.tensor(psi), cutoff=cutoff)
        expected = generator(z, c, truncation_psi=psi, truncation_cutoff=cutoff)
        torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)


def test_parts_and_noise_inputs_together_compute_the_images(tmp_path):
    generator = tiny("growing")
    mapping = stylegan.export.onnx(generator, tmp_path / "mapping.onnx", part="mapping")
    synthesis = stylegan.export.onnx(
        generator, tmp_path / "synthesis.onnx", part="synthesis", noise="inputs"
    )
    z = torch.randn(2, 8)
    ws = run(mapping.path, z=z, psi=torch.tensor(0.7), cutoff=6)
    torch.testing.assert_close(ws, generator.mapping(z, truncation_psi=0.7))
    noise = {value.name: torch.randn(2, *value.shape[1:]) for value in synthesis.inputs[1:]}
    assert list(noise) == [
        f"noise.{layer}" for layer in ("b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1")
    ]
    expected = synthesize(
        generator, ws, noise={name.removeprefix("noise."): each for name, each in noise.items()}
    )
    torch.testing.assert_close(run(synthesis.path, ws=ws, **noise), expected, rtol=1e-4, atol=1e-4)


def test_the_metadata_says_how_to_use_an_onnx_file(tmp_path):
    generator = tiny("StyleGAN F")
    generator.class_names = ("a", "b", "c")
    path = stylegan.export.onnx(generator, tmp_path / "g.onnx").path
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["stylegan"])
    assert metadata["family"] == "stylegan"
    assert metadata["image_range"] == [-1, 1]
    assert metadata["image_size"] == [8, 8]  # lod 1.25
    assert metadata["lod"] == 1.25
    assert metadata["class_names"] == ["a", "b", "c"]
    assert metadata["w_avg"] == generator.w_avg.tolist()
    assert set(metadata["max_difference"]) == {"1", "5"}
    described = [(value["name"], value["shape"]) for value in metadata["inputs"]]
    assert described == [(value.name, value.shape) for value in session.get_inputs()]


def test_a_generator_keeps_its_precision_and_a_float16_file_is_half_as_large(tmp_path):
    generator = create("stylegan2-small", 16).generator_ema
    generator.compute_dtype = torch.bfloat16
    full = stylegan.export.onnx(generator, tmp_path / "a.onnx")
    half = stylegan.export.onnx(generator, tmp_path / "b.onnx", fp16=True)
    assert half.num_bytes < 0.55 * full.num_bytes
    assert generator.compute_dtype == torch.bfloat16


def test_an_export_works_in_inference_mode(tmp_path):
    generator = tiny("orig")
    with torch.inference_mode():
        exported = stylegan.export.onnx(generator, tmp_path / "g.onnx")
    assert max(exported.differences.values()) <= 1e-4


@pytest.mark.parametrize("shift", [0.1, float("nan")])
def test_a_file_that_differs_too_much_is_not_written(tmp_path, monkeypatch, shift):
    correct = onnx_file.run_onnx

    def shifted(content, part):
        compute = correct(content, part)
        return lambda tensors: compute(tensors) + shift

    monkeypatch.setattr(onnx_file, "run_onnx", shifted)
    with pytest.raises(StyleganError, match=r"differs from eager mode by .* at batch 1"):
        stylegan.export.onnx(tiny("orig"), tmp_path / "g.onnx", fp16=True)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_reported_before_a_network_is_loaded(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"must be a file that ends in \.onnx"):
        stylegan.export.onnx("nowhere", tmp_path / "g.bin")
    with pytest.raises(ConfigError, match=r"must be a file that ends in \.pt2"):
        stylegan.export.pt2("nowhere", tmp_path / "g.onnx")
    with pytest.raises(ConfigError, match="leave out --fp16"):
        stylegan.export.onnx("nowhere", tmp_path / "g.onnx", part="mapping", fp16=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed.*stylegan\[export\]"):
        stylegan.export.onnx("nowhere", tmp_path / "g.onnx")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        stylegan.export.pt2("nowhere", tmp_path / "g.pt2", aot=True)


def test_the_command_prints_inputs_and_differences(tmp_path, capsys):
    from stylegan.models import io
    from stylegan.models.base import Networks

    io.save(Networks(generator_ema=tiny("resnet")), tmp_path / "net")
    out = tmp_path / "g.onnx"
    assert cli.main(["export", "onnx", "--network", str(tmp_path / "net"), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "z [N, 8], psi [], cutoff []" in text
    assert "images [N, 3, 16, 16]" in text
    assert "at batch 1" in text
    assert "at batch 5" in text
    assert out.is_file()


@pytest.mark.slow  # torch.export takes seconds
@pytest.mark.parametrize("form", [{}, {"noise": "inputs", "part": "synthesis"}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pt2_file_agrees_with_eager_mode_and_holds_the_metadata(kind, form, tmp_path):
    exported = stylegan.export.pt2(tiny(kind), tmp_path / "g.pt2", **form)
    assert max(exported.differences.values()) <= 1e-4
    assert list(tmp_path.iterdir()) == [exported.path]
    extra = {"stylegan.json": ""}
    program = torch.export.load(exported.path, extra_files=extra)
    assert json.loads(extra["stylegan.json"]) == exported.metadata
    inputs = [
        torch.zeros([3 if side == "N" else side for side in value.shape], dtype=value.dtype)
        for value in exported.inputs
    ]
    assert program.module()(*inputs).shape == (3, *exported.output.shape[1:])


@pytest.mark.slow  # compiles for a minute
def test_a_compiled_pt2_file_agrees_with_eager_mode(tmp_path):
    exported = stylegan.export.pt2(tiny("skip"), tmp_path / "g.pt2", aot=True)
    assert max(exported.differences.values()) <= 1e-4
