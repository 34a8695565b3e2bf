"""Reader of official TensorFlow pickles, without TensorFlow and without running code of the file.

ProGAN, StyleGAN, StyleGAN2 and StyleGAN2-ADA share the container: a tuple (G, D, Gs) of
networks, each with its variables as numpy arrays, its arguments, and source code, which is ignored.

Source: the file layout of Karras et al. 2018, 2019, 2020, as observed.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stylegan.errors import WeightsError
from stylegan.interop.arrays import Array, array_calls
from stylegan.interop.restricted import (
    BoundedFile,
    Budget,
    Machine,
    first_name,
    instance_of,
    new_record,
    quoted,
)
from stylegan.interop.shapes import refusal

KEYS = ("G", "D", "Gs")
NETWORK_NAMES = {"G": "generator", "D": "discriminator", "Gs": "generator_ema"}
"""Our names of the networks, by the official names."""
_NETWORKS = ("dnnlib.tflib.network.Network", "tfutil.Network")
_DICTIONARIES = ("dnnlib.util.EasyDict", "config.EasyDict", "collections.OrderedDict")
_MAX_DEPTH = 3  # nesting of components; the official networks have 1
_MAX_NAME = 100  # characters of a variable's name


@dataclass(frozen=True, kw_only=True)
class TensorFlowNetwork:
    """One network of an official TensorFlow pickle, as data.

    Args:
        version: version of the container: 2 ProGAN, 3 StyleGAN, 4 StyleGAN2; higher in some files.
        name: such as "Gs".
        build_func_name: the function that built it, such as "G_main" or "D_stylegan2".
        static_kwargs: arguments of that function. Those of components are overridden by those of
            the whole network.
        variables: in TensorFlow's layout and names; those of the components "mapping" and
            "synthesis" start with "mapping/" and "synthesis/".
    """

    version: int
    name: str
    build_func_name: str
    static_kwargs: Mapping[str, object] = field(repr=False)
    variables: Mapping[str, Tensor] = field(repr=False)


def is_tensorflow_pickle(path: Path) -> bool:
    """Return whether a file starts like one of these pickles; never raises."""
    return first_name(path) in _NETWORKS


def read_tensorflow_pickle(
    path: str | os.PathLike[str], *, only: Collection[str] = KEYS
) -> dict[str, TensorFlowNetwork]:
    """Read the networks of an official TensorFlow pickle without running anything from it.

    Args:
        path: the file.
        only: keys to return; arrays of other networks are not built.

    Returns:
        The networks "G", "D" and "Gs", as far as the file has them. Three networks are in the
        official order; fewer are identified by their names. A single network that reads images is
        "D", whatever its name.

    Raises:
        WeightsError: if the file is missing, damaged, of another kind, names anything but
            arrays and settings, or declares more data than it holds.
    """
    path = Path(path)
    try:
        with BoundedFile(path) as stream:
            num_bytes = stream.num_bytes
            budget = Budget(num_bytes, str(path))
            root = Machine(str(path), _calls(budget), budget=budget).run(stream)
            stream.check_end(str(path))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror})",
            expected="an official TensorFlow pickle",
        ) from error
    networks = {}
    for key, network in _keyed(root, str(path)).items():
        if key not in only:
            continue
        # One budget for each network: G and Gs may share their arrays.
        views = Budget(num_bytes, str(path))
        try:
            networks[key] = _flattened(network, views)
        except (TypeError, ValueError) as error:
            raise refusal(f"{path} ({key}) holds {error}", "a network") from error
    return networks


@dataclass(eq=False)
class _Network:
    """A network in the file."""

    state: dict[object, object] = field(default_factory=dict)

    def restore(self, state: object) -> None:
        """Take the state, a dictionary."""
        self.state = instance_of(state, dict)

    def text(self, name: str) -> str:
        """Return a string of the state, shortened to what messages and comparisons need."""
        return instance_of(self.state.get(name, ""), str)[:_MAX_NAME]

    def part(self, name: str) -> dict[str, object]:
        """Return a dictionary of the state, after checking the keys."""
        part = instance_of(self.state.get(name, {}), dict)
        if any(not isinstance(key, str) or len(key) > _MAX_NAME for key in part):
            raise TypeError("a name that is too long, or none")
        return dict(part)


def _calls(budget: Budget) -> dict[str, Callable[..., object]]:
    """Return the stand-ins for the names that these files need."""
    return {
        **dict.fromkeys(_NETWORKS, _Network),
        **dict.fromkeys(_DICTIONARIES, new_record),
        **array_calls(budget),
    }


def _keyed(root: object, origin: str) -> dict[str, _Network]:
    """Return the networks of the file by their official names."""
    networks = [root] if isinstance(root, _Network) else root
    if not isinstance(networks, tuple | list) or not 1 <= len(networks) <= len(KEYS):
        raise refusal(f"{origin} holds {quoted(root)}", "one to three networks (G, D, Gs)")
    keyed: dict[str, _Network] = {}
    for index, network in enumerate(networks):
        if not isinstance(network, _Network):
            raise refusal(f"{origin} holds {quoted(network)}", "networks (G, D, Gs) only")
        try:
            key = KEYS[index] if len(networks) == len(KEYS) else network.text("name")
        except TypeError as error:
            raise refusal(f"{origin} holds {error}", "a network's name") from error
        # A single network, such as an official classifier, may have any name.
        if root is network and key not in KEYS and _is_discriminator(network):
            key = "D"
        if key not in KEYS or key in keyed:
            again = "a second " if key in keyed else ""
            raise refusal(f"{origin} holds {again}network {quoted(key)}", "one each of G, D, Gs")
        keyed[key] = network
    return keyed


def _is_discriminator(network: _Network) -> bool:
    """Return whether a network reads images; faults in it are reported when it is built."""
    variables = network.state.get("variables")
    if not isinstance(variables, list):
        return False
    names = [item[0] for item in variables if isinstance(item, tuple) and item]
    return any(isinstance(name, str) and "FromRGB" in name for name in names)


def _flattened(root: _Network, views: Budget) -> TensorFlowNetwork:
    """Join the variables and arguments of a network and its components."""
    arguments: dict[str, object] = {}
    variables: dict[str, Tensor] = {}
    seen: set[int] = set()

    def visit(network: _Network, prefix: str, depth: int) -> None:
        # A component in two places could be expanded 2**depth times.
        parts = {id(network), id(network.state), id(network.state.get("variables"))}
        if depth > _MAX_DEPTH or not seen.isdisjoint(parts):
            raise ValueError(f"component {quoted(prefix)} twice or too deep")
        seen.update(parts)
        for name, component in network.part("components").items():
            visit(instance_of(component, _Network), f"{prefix}{name}/", depth + 1)
        for item in instance_of(network.state.get("variables", []), list):
            pair = instance_of(item, tuple)
            if len(pair) != 2:
                raise ValueError("a variable that is not a pair of name and value")
            name, value = pair
            name = prefix + instance_of(name, str)
            # TensorFlow returns a variable without axes as a numpy scalar, not as an array.
            is_scalar = isinstance(value, int | float) and not isinstance(value, bool)
            tensor = (
                torch.tensor(value, dtype=torch.float32)
                if is_scalar
                else instance_of(value, Array).tensor()
            )
            views.charge(tensor.nbytes)
            if len(name) > _MAX_NAME or name in variables:
                raise ValueError(f"variable {quoted(name)} twice, or with too long a name")
            variables[name] = tensor
        arguments.update(network.part("static_kwargs"))

    visit(root, "", 0)
    return TensorFlowNetwork(
        version=instance_of(root.state.get("version", 0), int),
        name=root.text("name"),
        build_func_name=root.text("build_func_name"),
        static_kwargs=arguments,
        variables=variables,
    )
