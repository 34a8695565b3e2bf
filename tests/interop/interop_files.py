"""Write files in the layout of the official pickles, honest and hostile ones."""

import sys
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor


class Persistent:
    """An object that pickles like an official module."""

    def __init__(self, meta: dict[str, object]) -> None:
        self.meta = meta

    def __reduce__(self):
        function = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        return (function, (self.meta,))


def persistent(
    class_name: str,
    tensors: Mapping[str, Tensor],
    *,
    init_args: tuple[object, ...] = (),
    init_kwargs: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    source: str = "",
) -> Persistent:
    """Nest a state dict as the official modules nest it."""
    children: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        head, _, tail = name.partition(".")
        if tail:
            children.setdefault(head, {})[tail] = tensor
        else:
            own[name] = tensor
    state = {
        "training": False,
        "_parameters": {k: torch.nn.Parameter(v) for k, v in own.items() if "const" not in k},
        "_buffers": {k: v for k, v in own.items() if "const" in k},
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": {name: persistent("Layer", child) for name, child in children.items()},
        "_init_args": init_args,
        "_init_kwargs": dict(init_kwargs or {}),
        **(attributes or {}),
    }
    meta = {"type": "class", "version": 6, "module_src": source}
    return Persistent(meta | {"class_name": class_name, "state": state})
