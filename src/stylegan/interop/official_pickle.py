"""Reader of official PyTorch pickles: ADA, and StyleGAN2 networks of StyleGAN3's repository.

Only tensors, settings and names are read. The source code inside is ignored, and no class is
imported. Objects of classes outside the list in spec 14.3, such as other discriminators, are
placeholders. They are left out, with a line in the log.

Source: the file layout of Karras et al. 2020 (ADA) and 2021 (StyleGAN3), as observed.
"""

import io
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop.arrays import array_calls, as_bytes
from stylegan.interop.restricted import (
    BoundedFile,
    Budget,
    Machine,
    Placeholder,
    instance_of,
    new_record,
    quoted,
)
from stylegan.interop.shapes import refusal
from stylegan.interop.storages import Storage, StoredTensor, load_all, read_legacy, tensor_calls

logger = logging.getLogger(__name__)

KEYS = ("G", "D", "G_ema")
_MAX_DEPTH = 8  # nesting of modules; the official networks have 4
_MAX_NAME = 64  # characters of one component of a dotted name
_PARTS = ("_parameters", "_buffers", "_modules")
_INTERNAL_STATE = {*_PARTS, "_init_args", "_init_kwargs"}


@dataclass(frozen=True, kw_only=True)
class OfficialModule:
    """One network of an official pickle, as data.

    Args:
        class_name: such as "Generator".
        init_args: positional arguments of its constructor.
        init_kwargs: keyword arguments of its constructor.
        attributes: plain attributes of the module and its children, under dotted names such as
            "b4.mbstd.group_size".
        state_dict: parameters and buffers under their official names.
    """

    class_name: str
    init_args: tuple[object, ...]
    init_kwargs: Mapping[str, object]
    attributes: Mapping[str, object] = field(repr=False)
    state_dict: Mapping[str, Tensor] = field(repr=False)


def read_official_pickle(
    path: str | os.PathLike[str], *, only: Collection[str] = KEYS
) -> dict[str, OfficialModule]:
    """Read the networks of an official PyTorch pickle without running anything from it.

    Args:
        path: the file.
        only: keys to read; tensors of other networks are not built.

    Returns:
        The networks "G", "D" and "G_ema", as far as the file has them. Beside a generator, networks
        of unknown classes are left out.

    Raises:
        WeightsError: if the file is missing, damaged, of another kind, names functions or modules
            that no such file needs, or declares more data than it holds or may hold.
    """
    path = Path(path)
    try:
        with BoundedFile(path) as stream:
            magic = stream.peek(2)[:2]
            if len(magic) < 2 or magic[0] != 0x80 or magic[1] > 5:
                found = "a zip archive" if magic == b"PK" else "no pickle"
                raise refusal(f"{path} is {found}", "an official PyTorch pickle")
            reader = _Reader(str(path), stream.num_bytes)
            root = Machine(str(path), reader.calls, budget=reader.budget, keeps_unknown=True).run(
                stream
            )
            stream.check_end(str(path))
            return reader.modules(root, only)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror})",
            expected="an official PyTorch pickle",
        ) from error


@dataclass(frozen=True, eq=False)
class _Node:
    """A module in the file."""

    class_name: str
    state: dict[object, object]

    def part(self, name: str) -> dict[str, object]:
        """Return a dictionary of its state, such as `_parameters`, after checking the keys."""
        part = instance_of(self.state.get(name, {}), dict)
        if any(not isinstance(key, str) or len(key) > _MAX_NAME for key in part):
            raise TypeError("a name that is too long, or none")
        return dict(part)


def _unknown_class(value: object) -> str | None:
    """Return the name of an unknown class in a module and its children; None if there is none."""
    pending, seen = [value], set[int]()
    while pending:
        each = pending.pop()
        if isinstance(each, Placeholder):
            return each.name
        children = each.state.get("_modules") if isinstance(each, _Node) else None
        if isinstance(children, dict) and id(children) not in seen:
            seen.add(id(children))
            pending.extend(children.values())
    return None


class _Reader:
    """Stand-ins for the allowed names, with the budget of one file."""

    def __init__(self, origin: str, num_bytes: int) -> None:
        self.origin = origin
        self.num_bytes = num_bytes
        self.budget = Budget(num_bytes, origin)
        self.calls: dict[str, Callable[..., object]] = {
            "torch_utils.persistence._reconstruct_persistent_obj": self._node,
            "dnnlib.util.EasyDict": new_record,
            "collections.OrderedDict": new_record,
            "builtins.set": self._set,
            "torch.storage._load_from_bytes": self._storage,
            **tensor_calls(origin),
            **array_calls(self.budget),
        }
        self.storage_calls = tensor_calls(origin)

    def modules(self, root: object, only: Collection[str]) -> dict[str, OfficialModule]:
        """Turn the file's top-level dictionary into modules."""
        kinds = (_Node, Placeholder)
        if not isinstance(root, dict) or not any(isinstance(root.get(k), kinds) for k in KEYS):
            raise refusal(
                f"{self.origin} holds no network under G, D or G_ema",
                "a dictionary with official networks",
            )
        left_out = self._left_out(root)
        result = {}
        for key in KEYS:
            node = root.get(key)
            if node is None or key not in only or key in left_out:
                continue
            try:
                result[key] = self._module(instance_of(node, _Node))
            except (TypeError, ValueError) as error:
                raise refusal(f"{self.origin} ({key}) holds {error}", "a network") from error
        return result

    def _left_out(self, root: dict[object, object]) -> dict[str, str]:
        """Return the classes of the parts of the file that cannot be read, and log their names.

        Raises:
            WeightsError: if that leaves no generator.
        """
        left_out = {
            str(key)[:_MAX_NAME]: name
            for key, value in root.items()
            if (name := _unknown_class(value)) is not None
        }
        left_out |= {
            str(key)[:_MAX_NAME]: value.class_name
            for key, value in root.items()
            if isinstance(value, _Node) and key not in (*KEYS, "augment_pipe", *left_out)
        }
        if not left_out:
            return {}
        names = {quoted(key).strip("'"): quoted(name).strip("'") for key, name in left_out.items()}
        listed = ", ".join(f"{key} ({name})" for key, name in names.items())
        if not any(isinstance(root.get(key), _Node) and key not in left_out for key in KEYS):
            raise refusal(
                f"{self.origin} holds only networks of other classes: {listed}",
                "a StyleGAN2 generator under G or G_ema",
            )
        logger.info("%s: left out parts of other classes: %s", self.origin, listed)
        return left_out

    def _module(self, root: _Node) -> OfficialModule:
        attributes: dict[str, object] = {}
        stored: dict[str, StoredTensor] = {}
        seen: set[int] = set()

        def visit(node: _Node, prefix: str, depth: int) -> None:
            # A module in two places could be expanded 2**depth times.
            parts = [
                id(node),
                id(node.state),
                *(id(node.state[p]) for p in _PARTS if p in node.state),
            ]
            if depth > _MAX_DEPTH or not seen.isdisjoint(parts):
                raise refusal(
                    f"{self.origin} has module {quoted(prefix)} twice or too deep", "a tree"
                )
            seen.update(parts)
            for name, value in (node.part("_parameters") | node.part("_buffers")).items():
                if value is not None:
                    stored[prefix + name] = instance_of(value, StoredTensor)
            for key, value in node.state.items():
                is_internal = key in _INTERNAL_STATE or not isinstance(key, str)
                if not is_internal and isinstance(value, str | int | float | None):
                    attributes[f"{prefix}{str(key)[:_MAX_NAME]}"] = value
            for name, child in node.part("_modules").items():
                if child is not None:
                    visit(instance_of(child, _Node), f"{prefix}{name}.", depth + 1)

        visit(root, "", 0)
        return OfficialModule(
            class_name=root.class_name,
            init_args=instance_of(root.state.get("_init_args", ()), tuple),
            init_kwargs=root.part("_init_kwargs"),
            attributes=attributes,
            state_dict=load_all(stored, num_bytes=self.num_bytes, origin=self.origin),
        )

    def _node(self, meta: object) -> _Node:
        meta = instance_of(meta, dict)
        if meta.get("type") != "class":
            raise ValueError(f"a persistent object of type {quoted(meta.get('type'))}")
        class_name = instance_of(meta.get("class_name"), str)
        return _Node(class_name, instance_of(meta.get("state"), dict))

    def _set(self, items: object) -> set[object]:
        names = instance_of(items, list)
        self.budget.hold_set(len(names))
        return {instance_of(name, str) for name in names}

    def _storage(self, data: object) -> Storage:
        """Return the single storage in data that `torch.save` wrote."""
        if isinstance(data, str):  # protocol 2 stores bytes as text
            self.budget.charge(len(data))
            self.budget.hold(len(data))
        data = bytes(as_bytes(data))
        if data.startswith(b"PK"):
            raise ValueError("a storage in a zip archive")
        root = read_legacy(
            io.BytesIO(data),
            self.origin,
            num_bytes=len(data),
            calls=self.storage_calls,
            budget=self.budget,
            data=data,
        )
        return instance_of(root, Storage)
