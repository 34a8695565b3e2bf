"""ProGAN, StyleGAN and StyleGAN2 in PyTorch.

The names below are imported on first use, so `import stylegan` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylegan.images import to_pil
    from stylegan.interop.load import load, load_networks
    from stylegan.models.io import save
    from stylegan.models.registry import create
    from stylegan.progress import ProgressBar
    from stylegan.workflows import analyze, directions, export, generate
    from stylegan.workflows.attribute import attribute
    from stylegan.workflows.bench import bench
    from stylegan.workflows.convert import convert
    from stylegan.workflows.data import augment, check, info, prepare, shard
    from stylegan.workflows.demo import demo
    from stylegan.workflows.evaluate import compare, evaluate, watch
    from stylegan.workflows.explore import explore
    from stylegan.workflows.pack import pack
    from stylegan.workflows.project import project
    from stylegan.workflows.report import report
    from stylegan.workflows.train import train
    from stylegan.workflows.train_classifier import train_classifier

__version__ = "0.2.0"
__all__ = [
    "ProgressBar",
    "analyze",
    "attribute",
    "augment",
    "bench",
    "check",
    "compare",
    "convert",
    "create",
    "demo",
    "directions",
    "evaluate",
    "explore",
    "export",
    "generate",
    "info",
    "load",
    "load_networks",
    "pack",
    "prepare",
    "project",
    "report",
    "save",
    "shard",
    "to_pil",
    "train",
    "train_classifier",
    "watch",
]

_HOMES = {
    "ProgressBar": "stylegan.progress",
    "analyze": "stylegan.workflows",
    "attribute": "stylegan.workflows.attribute",
    "augment": "stylegan.workflows.data",
    "bench": "stylegan.workflows.bench",
    "check": "stylegan.workflows.data",
    "compare": "stylegan.workflows.evaluate",
    "convert": "stylegan.workflows.convert",
    "create": "stylegan.models.registry",
    "demo": "stylegan.workflows.demo",
    "evaluate": "stylegan.workflows.evaluate",
    "explore": "stylegan.workflows.explore",
    "directions": "stylegan.workflows",
    "export": "stylegan.workflows",
    "generate": "stylegan.workflows",
    "info": "stylegan.workflows.data",
    "load": "stylegan.interop.load",
    "load_networks": "stylegan.interop.load",
    "pack": "stylegan.workflows.pack",
    "prepare": "stylegan.workflows.data",
    "project": "stylegan.workflows.project",
    "report": "stylegan.workflows.report",
    "save": "stylegan.models.io",
    "shard": "stylegan.workflows.data",
    "to_pil": "stylegan.images",
    "train": "stylegan.workflows.train",
    "train_classifier": "stylegan.workflows.train_classifier",
    "watch": "stylegan.workflows.evaluate",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stylegan' has no attribute {name!r}")
    import importlib

    home = importlib.import_module(_HOMES[name])
    if hasattr(home, name):
        return getattr(home, name)
    return importlib.import_module(f"{_HOMES[name]}.{name}")  # a module of functions


def __dir__() -> list[str]:
    """List the public names, also those that have not been imported yet."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
