"""What a run starts from, by `--init-from`."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan import distributed
from stylegan.interop.load import load_networks
from stylegan.models.base import Networks
from stylegan.models.growth import resolution_at
from stylegan.models.registry import FAMILIES
from stylegan.training.checkpoint import list_checkpoints, read_config


@dataclass(frozen=True, kw_only=True)
class Initial:
    """What `--init-from` names.

    Attributes:
        networks: None for a run that has started from them, and needs them no more; and in
            processes that do not read them.
        architectures: their options; None without `--init-from`.
        grown_to: the side that they have grown to; None where they do not grow.
    """

    networks: Networks | None = None
    architectures: list[Any] | None = None
    grown_to: int | None = None

    def describe(self) -> dict[str, Any]:
        """Return all but the networks as plain JSON data."""
        kinds = {kind: name for name, kind in _kinds().items()}
        architectures = [
            {"kind": kinds[type(each)], "options": dataclasses.asdict(each)}
            for each in self.architectures or []
        ]
        return {"architectures": architectures, "grown_to": self.grown_to}

    @classmethod
    def described(cls, data: dict[str, Any]) -> "Initial":
        """Make one from what `describe` returned."""
        kinds, found = _kinds(), data["architectures"]
        architectures = [kinds[each["kind"]](**each["options"]) for each in found]
        return cls(architectures=architectures, grown_to=data["grown_to"])


def _kinds() -> dict[str, type[Any]]:
    """Name the kinds of networks' options."""
    return {
        f"{name}/{part}": kind
        for name, family in FAMILIES.items()
        for part, kind in (
            ("generator", family.generator_config),
            ("discriminator", family.discriminator_config),
        )
    }


def find_initial(source: str | None, run_dir: Path) -> Initial:
    """Return what `--init-from` names. The leader alone reads it, and has the networks.

    Args:
        source: what the option says; None without it.
        run_dir: folder of the run.
    """
    if source is None:
        return Initial()
    with distributed.keep_others_waiting():
        initial = _read(source, run_dir) if distributed.is_main_process() else Initial()
    described = distributed.broadcast_bytes(json.dumps(initial.describe()).encode())
    return (
        initial
        if distributed.is_main_process()
        else Initial.described(json.loads(described or b""))
    )


def _read(source: str, run_dir: Path) -> Initial:
    """Load the networks to start from.

    A run that has started from them goes on where their source is gone: its own config tells
    what is needed of them.
    """
    started = read_config(run_dir)
    is_the_same = started is not None and started.init_from == source
    if started is not None and is_the_same and list_checkpoints(run_dir):
        growth = started.growth
        return Initial(
            architectures=[started.generator, started.discriminator],
            grown_to=None if growth is None else growth.initial_resolution,
        )
    networks = load_networks(source)
    average = networks.generator_ema or networks.generator
    found = [network for network in (average, networks.discriminator) if network is not None]
    grown = [
        resolution_at(network.img_resolution, math.ceil(network.lod))
        for network in found
        if network.is_growing
    ]
    return Initial(
        networks=networks,
        architectures=[network.config for network in found],
        grown_to=min(grown, default=None),
    )
