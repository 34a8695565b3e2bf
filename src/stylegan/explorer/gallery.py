"""Latents on disk that the page refers to by identifiers, and the favourites among them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.explorer.state import ID
from stylegan.files import write_atomic
from stylegan.images import png_bytes
from stylegan.latent.directions import Directions, read_directions, write_directions
from stylegan.latent.saved import SavedLatents, read_latents, write_latents
from stylegan.models.base import AbstractGenerator

MAX_FAVOURITES = 1000


@dataclass(frozen=True, kw_only=True)
class Favourite:
    """A picture of the gallery.

    Attributes:
        id: identifier of its latents.
        state: JSON of the page from which it was computed.
    """

    id: str
    state: object


class Gallery:
    """A folder with `ID.npz`: latents that other commands take too.

    A favourite also has `ID.png`, its thumbnail, and `ID.json`, the state of the page. Identifiers
    are hashes of the content, so that a link shows the same picture later.

    Args:
        folder: is made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, latents: SavedLatents) -> str:
        """Write latents unless they are there, and return their identifier."""
        digest = hashlib.sha256(_bytes_of(latents.ws))
        for layer in sorted(latents.noise):
            digest.update(layer.encode() + _bytes_of(latents.noise[layer]))
        name = digest.hexdigest()[:16]
        path = self.path(name, ".npz")
        if not path.exists():
            write_latents(path, latents.ws, noise=latents.noise)
        return name

    def latents(self, name: str, generator: AbstractGenerator) -> SavedLatents:
        """Return the latents of an identifier.

        Raises:
            ConfigError: if there are none.
            DataError: if the file is damaged or does not fit the generator.
        """
        path = self.path(name, ".npz")
        if not path.exists():
            raise ConfigError(f"there are no saved latents {name} in {self.folder}")
        return read_latents(path, generator)

    def keep_directions(self, directions: Directions) -> str:
        """Write directions, and return their identifier."""
        name = hashlib.sha256(_bytes_of(directions.vectors)).hexdigest()[:16]
        write_directions(self.path(name, ".safetensors"), directions)
        return name

    def directions(self, name: str) -> Directions:
        """Return the directions of an identifier; ConfigError if there are none."""
        path = self.path(name, ".safetensors")
        if not path.exists():
            raise ConfigError(f"there are no directions {name} in {self.folder}")
        return read_directions(path)

    def direction_names(self) -> list[str]:
        """Return the identifiers of directions, oldest first."""
        paths = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        return [path.stem for path in paths if ID.fullmatch(path.stem)]

    def add(self, name: str, thumbnail: Tensor, state: Mapping[str, object]) -> None:
        """Make saved latents a favourite.

        Args:
            name: identifier of the latents.
            thumbnail: uint8 [C, H, W].
            state: JSON of the page.

        Raises:
            ConfigError: if the gallery is full.
        """
        if len(self.favourites()) >= MAX_FAVOURITES:
            raise ConfigError(f"the gallery holds {MAX_FAVOURITES} pictures; remove some")
        write_atomic(self.path(name, ".png"), png_bytes(thumbnail))
        write_atomic(self.path(name, ".json"), json.dumps(state))

    def remove(self, name: str) -> None:
        """Make latents no favourite; the latents stay for links and undo."""
        for suffix in (".json", ".png"):
            self.path(name, suffix).unlink(missing_ok=True)

    def favourites(self) -> list[Favourite]:
        """Return the favourites, oldest first; damaged ones are left out."""
        found = []
        paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in paths:
            if ID.fullmatch(path.stem) and self.path(path.stem, ".png").exists():
                try:
                    state = json.loads(path.read_text("utf-8"))
                except ValueError:
                    continue
                found.append(Favourite(id=path.stem, state=state))
        return found

    def path(self, name: str, suffix: str) -> Path:
        """Return the path of a file of an identifier.

        Raises:
            ConfigError: if the name is no identifier.
        """
        if ID.fullmatch(name) is None:
            raise ConfigError(f"{name[:40]!r} is no identifier of saved latents")
        return self.folder / f"{name}{suffix}"


def _bytes_of(values: Tensor) -> bytes:
    return values.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
