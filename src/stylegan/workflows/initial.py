"""The initial weights of a run."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan import distributed
from stylegan.interop.load import load_networks
from stylegan.models.base import Networks
from stylegan.models.growth import resolution_at
from stylegan.models.registry import FAMILIES
from stylegan.training.checkpoint import list_checkpoints, read_config
from stylegan.training.history import Stage, stages_of


@dataclass(frozen=True, kw_only=True)
class Initial:
    """The networks that a run starts from.

    Attributes:
        networks: None on ranks above 0, and for a run that has a checkpoint of its own already.
        architectures: options of the networks; None for a run from random weights.
        grown_to: the nominal resolution that the networks have grown to; None if they do not grow.
        history: the runs that the networks come from; empty where there are no networks.
    """

    networks: Networks | None = None
    architectures: list[Any] | None = None
    grown_to: int | None = None
    history: Sequence[Stage] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything except the networks and their history as plain JSON data."""
        kinds = {kind: name for name, kind in _kinds().items()}
        architectures = [
            {"kind": kinds[type(options)], "options": dataclasses.asdict(options)}
            for options in self.architectures or []
        ]
        return {"architectures": architectures, "grown_to": self.grown_to}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Initial":
        """Make an equal object, without networks, from what `to_json` returned."""
        kinds = _kinds()
        architectures = [
            kinds[entry["kind"]](**entry["options"]) for entry in data["architectures"]
        ]
        return cls(architectures=architectures, grown_to=data["grown_to"])


def _kinds() -> dict[str, type[Any]]:
    """Return the classes of networks' options by name."""
    return {
        f"{name}/{network}": kind
        for name, family in FAMILIES.items()
        for network, kind in (
            ("generator", family.generator_config),
            ("discriminator", family.discriminator_config),
        )
    }


def find_initial(source: str | None, run_dir: Path) -> Initial:
    """Load the networks that a run starts from; only rank 0 reads them.

    Args:
        source: the option `init_from`.
        run_dir: folder of the run.
    """
    if source is None:
        return Initial()
    with distributed.keep_others_waiting():
        initial = _read(source, run_dir) if distributed.is_main_process() else Initial()
    description = distributed.broadcast_bytes(json.dumps(initial.to_json()).encode())
    if distributed.is_main_process():
        return initial
    return Initial.from_json(json.loads(description or b""))


def _read(source: str, run_dir: Path) -> Initial:
    """Load the networks to start from.

    A run with a checkpoint continues without its source, which may have been deleted: the run's
    own config has the options of the networks.
    """
    started = read_config(run_dir)
    if started is not None and started.init_from == source and list_checkpoints(run_dir):
        growth = started.growth
        return Initial(
            architectures=[started.generator, started.discriminator],
            grown_to=None if growth is None else growth.initial_resolution,
        )
    networks = load_networks(source)
    average = networks.generator_ema or networks.generator
    loaded = [network for network in (average, networks.discriminator) if network is not None]
    grown = [
        resolution_at(network.img_resolution, math.ceil(network.lod))
        for network in loaded
        if network.is_growing
    ]
    return Initial(
        networks=networks,
        architectures=[network.config for network in loaded],
        grown_to=min(grown, default=None),
        history=stages_of(source),
    )
