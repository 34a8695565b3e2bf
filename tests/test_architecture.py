"""Imports point down only, and strangers do not meet. LAYERS is the architecture."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "stylegan"

# Bottom first; a row holds strangers, a module or a folder each.
LAYERS = [
    ["errors"],
    ["extras"],
    ["files"],
    ["image_size", "rng", "progress", "plotting"],
    ["distributed", "download", "microbatch"],
    ["captions", "alpha", "png16"],
    ["images"],
    ["pixel_format"],
    ["notebook"],
    ["latents"],
    ["ops"],
    ["devices", "nn"],
    ["models"],
    ["losses", "perceptual", "augmentation"],
    ["interop", "graphs"],
    ["data"],
    ["training", "metrics", "latent", "analysis"],
    ["profiling", "classifiers", "explorer"],
    ["workflows"],
    ["cli"],
    ["__main__"],
]
# The order of the files within a folder; a file may import earlier ones only.
FOLDERS = {
    "ops": [
        "kernels",
        "backend",
        "precision",
        "epilogue",
        "box",
        "fir",
        "resample_conv",
        "bias_act",
        "normalize",
        "modulated_conv",
    ],
    "nn": [
        "noise",
        "equalized",
        "compiled",
        "checkpointing",
        "progressive",
        "mapping",
        "modulated",
        "adain",
    ],
    "models": [
        "growth",
        "sizes",
        "base",
        "noise",
        "progan",
        "stylegan",
        "stylegan2",
        "registry",
        "io",
        "classifiers",
    ],
    "losses": ["adversarial", "regularizers", "objective"],
    "augmentation": [
        "draws",
        "parameters",
        "wavelets",
        "geometry",
        "pixels",
        "pipeline",
        "diffaugment",
        "policy",
    ],
    "data": [
        "damage",
        "array_files",
        "readers",
        "labels",
        "sources",
        "label_files",
        "check",
        "resumable_zip",
        "prepare",
        "dataset",
        "describe",
        "pictures",
        "sampler",
        "loader",
        "shards",
        "shard_stream",
    ],
    "data/sources": [
        "base",
        "arrays",
        "crc32c",
        "tfrecord",
        "lsun",
        "cifar",
        "mnist",
        "npy",
        "tiff",
        "video",
        "containers",
        "files",
        "folder",
        "zip",
        "open",
    ],
    "perceptual": [
        "weights",
        "detector",
        "inception",
        "vgg",
        "efficientnet",
        "torchscript",
        "discriminator",
        "networks",
    ],
    "training": [
        "fields",
        "config",
        "presets",
        "threads",
        "configure",
        "schedule",
        "reals",
        "ema",
        "stats",
        "path_features",
        "state",
        "sampling",
        "step",
        "memory",
        "checkpoint",
        "log",
        "history",
        "health",
        "best",
        "evaluation",
        "clock",
        "signals",
        "outputs",
        "transfer",
        "loop",
    ],
    "classifiers": ["attributes", "fit"],
    "profiling": [
        "speed",
        "roofline",
        "estimate",
    ],
    "metrics": [
        "protocols",
        "moments",
        "frechet",
        "kernel",
        "inception_score",
        "precision_recall",
        "sliced_wasserstein",
        "separability",
        "sources",
        "path_length",
        "targets",
        "features",
        "records",
        "measure",
        "suite",
        "ranking",
    ],
    "latent": [
        "seeds",
        "layers",
        "interpolate",
        "render",
        "saved",
        "grids",
        "video",
        "statistics",
        "directions",
        "drag",
        "project",
        "tune",
        "targets",
        "projection_folder",
        "attribution",
    ],
    "explorer": [
        "state",
        "gallery",
        "pictures",
        "exports",
        "session",
        "uploads",
        "actions",
        "guard",
        "server",
    ],
    "analysis": [
        "activations",
        "droplets",
        "phase",
        "usage",
        "spectra",
        "variation",
    ],
    "interop": [
        "restricted",
        "shapes",
        "naming",
        "arrays",
        "storages",
        "torch_file",
        "official_pickle",
        "tensorflow_pickle",
        "tensorflow_stylegan",
        "tensorflow_stylegan2",
        "rosinality",
        "basicsr",
        "nvidia",
        "unsupported",
        "catalogue",
        "load",
        "classifiers",
        "convert",
    ],
    "graphs": ["parts", "recorder", "operators", "onnx_file", "pt2_file"],
    "workflows": [
        "bench",
        "convert",
        "page",
        "curves",
        "data",
        "networks",
        "export",
        "generate",
        "project",
        "attribute",
        "directions",
        "evaluate",
        "training_metrics",
        "initial",
        "recipe",
        "training_set",
        "train",
        "train_classifier",
        "figures",
        "analyze",
        "report",
        "card",
        "pack",
        "demo",
        "explore",
    ],
    "cli": [
        "parser",
        "command",
        "launch",
        "data",
        "evaluate",
        "live",
        "run_options",
        "train",
        "train_classifier",
        "generate",
        "project",
        "attribute",
        "analyze",
        "directions",
        "report",
        "pack",
        "export",
        "convert",
        "bench",
        "demo",
        "explore",
        "main",
        "completion",
    ],
}
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):  # walk, not body: an import inside a function counts too
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(path: Path, text: str) -> list[str]:
    here = path.relative_to(ROOT).with_suffix("").parts
    found = []
    for name in imported_names(ast.parse(text)):
        parts = name.split(".")
        if parts[0] != "stylegan" or len(parts) < 3:
            continue  # `from stylegan import __version__` is open to all
        there = parts[1:]
        if there[0] == here[0]:
            depth = 2 if "/".join(here[:2]) in FOLDERS and there[:2] == list(here[:2]) else 1
            order = FOLDERS["/".join(here[:depth])]
            if order.index(there[depth]) >= order.index(here[depth]):
                found.append(f"{'/'.join(here)} imports {name}, which does not come before it")
        elif RANK[there[0]] >= RANK[here[0]]:
            found.append(f"{'/'.join(here)} imports {name}, which does not lie below it")
    return found


def source_files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path.name != "__init__.py"]


def test_no_file_imports_upwards_or_a_stranger():
    assert [line for path in source_files() for line in violations(path, path.read_text())] == []


def test_every_file_has_a_room():
    for path in source_files():
        here = path.relative_to(ROOT).with_suffix("").parts
        assert here[0] in RANK, f"{path} is in no layer"
        for depth in range(1, len(here)):
            order = FOLDERS["/".join(here[:depth])]
            assert here[depth] in order, f"{path} has no place in its folder's order"


def test_every_room_has_one_file_or_folder():
    for folder, order in FOLDERS.items():
        assert len(set(order)) == len(order)
        for name in order:
            path = ROOT / folder / name
            assert path.with_suffix(".py").is_file() or path.is_dir(), path


def test_folders_say_what_they_are_and_import_nothing():
    for path in ROOT.rglob("*/__init__.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree)
        assert len(tree.body) == 1, f"{path} holds more than a docstring"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ops/fir.py", "from stylegan.nn.equalized import EqualizedLinear"),
        ("ops/fir.py", "def f():\n    import stylegan.training.loop"),
        ("ops/fir.py", "from stylegan.ops.modulated_conv import modulated_conv2d"),
        ("losses/objective.py", "from stylegan.data.dataset import ImageDataset"),
        ("data/sources/folder.py", "from stylegan.data.sources.open import open_source"),
        ("data/sources/folder.py", "from stylegan.data.dataset import ImageDataset"),
        ("data/labels.py", "from stylegan.data.sources.base import AbstractSource"),
        ("metrics/sliced_wasserstein.py", "from stylegan.training.loop import train"),
    ],
)
def test_the_rule_sees_every_kind_of_wrong_import(path, text):
    assert violations(ROOT / path, text)


def test_the_library_never_prints():
    for path in source_files():
        if path.relative_to(ROOT).parts[0] == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            assert not is_print, f"{path}:{node.lineno} prints"


def test_names_of_test_files_are_unique():
    """Pytest imports them as modules without a package."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
