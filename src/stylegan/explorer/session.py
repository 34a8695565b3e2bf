"""A loaded generator and what a page does with it, without any knowledge of the web."""

import contextlib
import functools
import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.explorer.exports import Exports
from stylegan.explorer.gallery import Gallery
from stylegan.explorer.pictures import thumbnail
from stylegan.explorer.state import ID, Base, Edit, Noise, PictureState, Timeline, Walk
from stylegan.latent.directions import Directions, check_fit, factorize, principal, separating
from stylegan.latent.drag import DragConfig, Dragger, Point
from stylegan.latent.interpolate import loop_through, walk_through
from stylegan.latent.render import device_of, map_latents
from stylegan.latent.saved import SavedLatents
from stylegan.latent.seeds import latents_from_seeds
from stylegan.latent.statistics import sample_styles
from stylegan.latent.video import auto_scale, check_video, write_video
from stylegan.latents import truncate
from stylegan.models.base import AbstractGenerator
from stylegan.models.growth import max_lod, resolution_at
from stylegan.models.noise import noise_maps, synthesize
from stylegan.rng import generator_for

NUM_DIRECTIONS = 12
NUM_STYLES = 10_000  # samples of w, as in `stylegan directions find`
PREVIEW_SECONDS = 0.1  # a picture that takes longer gets a preview
MAX_PREVIEW_LOD = 2
THUMBNAIL_SIDE = 64  # pixels
DRAG_LEARNING_RATE = 0.01  # five times the paper's, as small networks need few steps then
MAX_VIDEO_BYTES = 2**30  # of its frames in memory
COMPUTED = ("factorize", "pca")
"""Sets of directions that are computed from the network."""
_CACHE_SIZE = 512


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A computed picture.

    Attributes:
        pixels: uint8 [C, H, W].
        seconds: how long it took.
        is_preview: whether it has less resolution than the network's images.
    """

    pixels: Tensor
    seconds: float
    is_preview: bool


@dataclass(frozen=True, kw_only=True)
class DragStep:
    """A picture while it is dragged.

    Attributes:
        handles: the points as they are now.
        num_steps: number of steps done.
        latents: of the picture, on the CPU.
        shown: the state before; `Session.keep` replaces its latents.
        pixels: uint8 [C, H, W].
    """

    handles: list[Point]
    num_steps: int
    latents: SavedLatents
    shown: PictureState
    pixels: Tensor


class Session:
    """A generator, its caches, and every action of the page as a method.

    It is used by one thread at a time. Nothing depends on earlier calls except for their speed:
    a picture is a function of its `PictureState`.

    Args:
        generator: in eval mode.
        gallery: where latents are kept.
        name: of the network, for the page.

    Attributes:
        exports: files that were made for the page.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        gallery: Gallery,
        *,
        name: str,
    ) -> None:
        self.generator = generator
        self.gallery = gallery
        self.name = name
        self.exports = Exports()
        self._full_seconds: float | None = None
        self._map_seed = functools.lru_cache(_CACHE_SIZE)(self._map_seed_uncached)
        self._saved = functools.lru_cache(64)(lambda name: gallery.latents(name, generator))
        self._path = functools.lru_cache(1)(self._path_uncached)
        self._directions: dict[str, Directions] = {}

    def describe(self) -> dict[str, object]:
        """Return what the page must know about the network, as JSON."""
        generator = self.generator
        return {
            "name": self.name,
            "height": generator.img_size.height,
            "width": generator.img_size.width,
            "num_ws": generator.num_ws,
            "has_truncation": generator.w_avg is not None,
            "has_noise": bool(noise_maps(generator)),
            "num_classes": generator.c_dim,
            "class_names": list(generator.class_names),
            "max_lod": max_lod(generator.img_resolution) if generator.is_growing else 0,
            "lod": generator.lod,
            "device": device_of(generator).type,
            "direction_sets": [*COMPUTED, *self.gallery.direction_names()],
            "has_video": importlib.util.find_spec("av") is not None,
        }

    def picture(self, state: PictureState, *, allows_preview: bool = False) -> Picture:
        """Compute the picture of a state.

        Args:
            state: of the page.
            allows_preview: give a smaller picture if the full one takes over 100 ms, which was
                measured at an earlier call. It exists for networks with an RGB output at each
                resolution that do not grow.

        Raises:
            ConfigError: if the network does not have what the state refers to.
        """
        self.check(state)
        start = time.perf_counter()
        lod = self._preview_lod() if allows_preview else 0
        pixels = self._pixels(self.latents(state), state, extra_lod=lod)
        seconds = time.perf_counter() - start
        if lod == 0:
            self._full_seconds = min(seconds, self._full_seconds or seconds)
        return Picture(pixels=pixels, seconds=seconds, is_preview=lod > 0)

    def check(self, state: PictureState) -> None:
        """Raise ConfigError unless the network has what a state refers to."""
        generator = self.generator
        if generator.w_avg is None and state.psi != 1:
            raise ConfigError("this network has no mapping network, so psi must be 1")
        if state.class_index is not None and state.class_index >= generator.c_dim:
            raise ConfigError(
                f"class must be below {generator.c_dim}, the number of classes, got "
                f"{state.class_index}"
            )
        if state.cutoff is not None and state.cutoff > generator.num_ws:
            raise ConfigError(f"cutoff must be at most {generator.num_ws}, got {state.cutoff}")
        top = max_lod(generator.img_resolution) if generator.is_growing else 0
        if state.lod is not None and state.lod > top:
            raise ConfigError(f"lod must be at most {top}, got {state.lod:g}")
        for mix in state.mixes:
            if len(mix.amounts) > generator.num_ws:
                raise ConfigError(f"a mix has at most {generator.num_ws} amounts")

    def latents(self, state: PictureState) -> SavedLatents:
        """Return the latents of a state: ws [1, num_ws, w_dim], and noise maps if it has its own.

        Walk, truncation, mixing and edits are applied, so saved and loaded again with psi 1 they
        give the same picture.
        """
        base = state.base
        saved = None if base.saved is None else self._saved(base.saved)
        ws = self._truncated(self._walked(base, state.walk, state.class_index), state)
        for mix in state.mixes:
            other = self._walked(mix.base, Walk(), state.class_index)
            amounts = torch.zeros(self.generator.num_ws, 1, device=ws.device)
            amounts[: len(mix.amounts), 0] = torch.tensor(mix.amounts)
            ws = ws.lerp(self._truncated(other, state), amounts)
        for edit in state.edits:
            ws = self._edited(ws, edit)
        return SavedLatents(ws=ws, noise={} if saved is None else saved.noise)

    def baked(self, state: PictureState) -> tuple[SavedLatents, PictureState]:
        """Return latents and noise maps of a state, and the state that shows them."""
        latents = self.latents(state)
        noise = Noise(mode=state.noise.mode)
        if state.noise != Noise(mode=state.noise.mode) or state.noise.mode == "random":
            maps = self._noise(latents, state.noise)
            latents = replace(latents, noise={name: each.cpu() for name, each in maps.items()})
            noise = Noise(mode="none" if state.noise.mode == "none" else "const")
        latents = SavedLatents(ws=latents.ws.cpu(), noise=latents.noise)
        name = self.gallery.keep(latents)
        shown = PictureState(
            base=Base(saved=name),
            class_index=state.class_index,
            noise=noise,
            lod=state.lod,
        )
        return latents, shown

    def directions(self, name: str) -> Directions:
        """Return a set of directions: "factorize", "pca" or one of the gallery.

        The first two are those of `stylegan directions find` for all style inputs.

        Raises:
            ConfigError: if there is no such set, or the network has no styles to factorize.
        """
        if name not in self._directions:
            self._directions[name] = self._load_directions(name)
        return self._directions[name]

    def keep_directions(self, directions: Directions) -> str:
        """Keep directions in the gallery, and return their identifier.

        Raises:
            DataError: if they do not fit the network.
        """
        check_fit(directions, self.generator)
        name = self.gallery.keep_directions(directions)
        self._directions[name] = directions
        return name

    def direction_between(self, first: list[str], second: list[str], *, name: str) -> str:
        """Make a direction from the mean of some latents to that of others, and keep it.

        Args:
            first: identifiers of saved latents.
            second: identifiers of saved latents, in which a positive strength results.
            name: of the direction.

        Raises:
            ConfigError: if a group is empty, or both have the same mean.
        """
        if not first or not second:
            raise ConfigError("a direction needs at least one picture in each group")
        means = [
            torch.cat([self._saved(each).ws for each in group]).mean(dim=(0, 1))
            for group in (first, second)
        ]
        normal = means[1] - means[0]
        if not normal.any():
            raise ConfigError("the two groups have the same mean")
        layers = range(self.generator.num_ws)
        directions = separating([normal], self._styles, names=[name], layers=layers)
        return self.keep_directions(directions)

    def ends(self, state: PictureState, name: str, index: int, *, strength: float) -> Tensor:
        """Return thumbnails of the two ends of a direction's slider, side by side.

        Args:
            state: of the page; what it already has of this direction is left out.
            name: of the set of directions.
            index: of the direction.
            strength: at the upper end; the lower end has its negative.

        Returns:
            uint8 [C, h, 2 w], the lower end on the left.
        """
        mine = [edit for edit in state.edits if (edit.directions, edit.index) == (name, index)]
        others = tuple(edit for edit in state.edits if edit not in mine)
        layers = mine[0].layers if mine else None
        ends = []
        for sign in (-1, 1):
            end = Edit(directions=name, index=index, strength=sign * strength, layers=layers)
            ends.append(self.thumbnail(replace(state, edits=(*others, end))))
        return torch.cat(ends, dim=2)

    def thumbnail(self, state: PictureState) -> Tensor:
        """Return a small picture of a state, uint8 [C, h, w] with sides of at most 64."""
        self.check(state)
        side, lod = self.generator.img_resolution, 0
        while self._has_previews and side >> lod > THUMBNAIL_SIDE:
            lod += 1
        pixels = self._pixels(self.latents(state), state, extra_lod=lod)
        return thumbnail(pixels, THUMBNAIL_SIDE)

    def frame(self, timeline: Timeline, index: int) -> Tensor:
        """Return a frame of a timeline, uint8 [C, H, W]; frames of keys are their pictures.

        Raises:
            ConfigError: if there is no such frame.
        """
        if index >= timeline.num_frames:
            raise ConfigError(f"the timeline has {timeline.num_frames} frames, got {index}")
        latents = self._path(timeline)
        ws = latents.ws[index : index + 1].to(device_of(self.generator))
        return self._pixels(SavedLatents(ws=ws, noise=latents.noise), timeline.keys[0])

    def video(
        self, timeline: Timeline, path: Path, *, fps: float, scale: int | None = None
    ) -> Iterator[int]:
        """Write a timeline as a video, or as frames into a folder.

        Args:
            timeline: the keyframes.
            path: whose suffix gives the format, as of `stylegan generate video`.
            fps: frames per second.
            scale: enlarge by this whole number; None for that of `stylegan generate video`.

        Yields:
            The number of frames computed. The file is written after the last one.

        Raises:
            ConfigError: if the video is too large, or its format is not available.
        """
        check_video(path, fps)
        generator = self.generator
        size = generator.img_size
        if scale is None:
            scale = auto_scale(path, max(size.height, size.width))
        num_bytes = timeline.num_frames * 3 * size.height * size.width
        if num_bytes > MAX_VIDEO_BYTES:
            raise ConfigError("the video is too large; choose fewer keyframes or seconds")
        frames = []
        for index in range(timeline.num_frames):
            frames.append(self.frame(timeline, index))
            yield index + 1
        write_video(frames, path, fps=fps, scale=scale)

    def drag(
        self,
        state: PictureState,
        *,
        handles: Sequence[Point],
        targets: Sequence[Point],
        mask: Tensor | None = None,
        learning_rate: float = DRAG_LEARNING_RATE,
        num_steps: int = 200,
    ) -> Iterator[DragStep]:
        """Drag points of a picture to their targets, by changing its latents.

        Args:
            state: of the page.
            handles: points (x, y) in pixels.
            targets: one for each handle.
            mask: True where the picture may change, bool [h, w] of any size; None for everywhere.
            learning_rate: of Adam.
            num_steps: steps at most; it ends earlier when all handles have arrived.

        Yields:
            The present handles, latents and picture, after each step.

        Raises:
            ConfigError: if a point lies outside the picture.
        """
        latents, shown = self.baked(state)
        size = self.generator.current_size
        if mask is not None:
            resized = F.interpolate(mask[None, None].float(), [size.height, size.width])
            mask = resized[0, 0] > 0.5
        with self._at_lod(self.generator.lod if state.lod is None else state.lod, 0):
            dragger = Dragger(
                self.generator,
                latents.ws,
                handles=handles,
                targets=targets,
                mask=mask,
                noise=self._noise(latents, shown.noise) if shown.noise.mode != "none" else None,
                config=DragConfig(learning_rate=learning_rate),
            )
        for _ in range(num_steps):
            with self._at_lod(self.generator.lod if state.lod is None else state.lod, 0):
                dragger.advance()
            current = SavedLatents(ws=dragger.ws, noise=latents.noise)
            yield DragStep(
                handles=list(dragger.handles),
                num_steps=dragger.step,
                latents=SavedLatents(ws=dragger.ws.cpu(), noise=latents.noise),
                shown=shown,
                pixels=self._pixels(current, shown),
            )
            if dragger.is_done:
                return

    def keep(self, latents: SavedLatents, shown: PictureState) -> PictureState:
        """Keep latents in the gallery, and return a state that shows them as `shown` does its."""
        return replace(shown, base=Base(saved=self.gallery.keep(latents)))

    def _path_uncached(self, timeline: Timeline) -> SavedLatents:
        """Return the latents of all frames, on the CPU, and the noise of the first key."""
        for key in timeline.keys:
            self.check(key)
        latents = [self.latents(key) for key in timeline.keys]
        path = loop_through if timeline.is_loop else walk_through
        ws = path(
            torch.cat([each.ws.cpu() for each in latents]),
            timeline.frames_per_key,
            easing=timeline.easing,
        )
        return SavedLatents(ws=ws, noise=latents[0].noise)

    @functools.cached_property
    def _styles(self) -> Tensor:
        label = self._label(None)
        return sample_styles(self.generator, num=NUM_STYLES, seed=0, c=label)

    def _load_directions(self, name: str) -> Directions:
        if ID.fullmatch(name):
            directions = self.gallery.directions(name)
            check_fit(directions, self.generator)
            return directions
        layers = range(self.generator.num_ws)
        num = min(NUM_DIRECTIONS, self.generator.w_dim)
        if name == "factorize":
            return factorize(self.generator, self._styles, layers=layers, num=num)
        if name == "pca":
            return principal(self._styles, layers=layers, num=num)
        raise ConfigError(f"there are no directions {name!r}")

    def _edited(self, ws: Tensor, edit: Edit) -> Tensor:
        directions = self.directions(edit.directions)
        if edit.index >= len(directions.names):
            raise ConfigError(
                f"{edit.directions} has {len(directions.names)} directions, got {edit.index}"
            )
        if edit.layers is not None:
            if not edit.layers:
                return ws
            if max(edit.layers) >= self.generator.num_ws:
                raise ConfigError(f"layers must be below {self.generator.num_ws}")
            directions = replace(directions, layers=edit.layers)
        return directions.apply(ws, {directions.names[edit.index]: edit.strength})

    def _walked(self, base: Base, walk: Walk, class_index: int | None) -> Tensor:
        """Return the ws of a latent after a walk, untruncated."""
        is_still = walk.x == 0 and walk.y == 0
        in_z = walk.space == "z" and base.saved is None
        if base.saved is not None:
            ws = self._saved(base.saved).ws.to(device_of(self.generator))
        elif is_still or not in_z:
            ws = self._map_seed(base.seed, class_index)
        else:
            z = latents_from_seeds([base.seed], self.generator.z_dim)
            away = z + walk.x * self._plane_z(walk.plane, 0) + walk.y * self._plane_z(walk.plane, 1)
            z = away * (z.norm() / away.norm())  # at the length of the seed's z
            ws = map_latents(self.generator, z, c=self._label(class_index))
        if is_still or in_z:
            return ws
        mean = torch.zeros(1, device=ws.device) if self._mean is None else self._mean
        for axis, steps in enumerate((walk.x, walk.y)):
            away = map_latents(
                self.generator, self._plane_z(walk.plane, axis), c=self._label(class_index)
            )
            ws = ws + steps * (away - mean)
        return ws

    def _truncated(self, ws: Tensor, state: PictureState) -> Tensor:
        return ws if self._mean is None else truncate(ws, self._mean, state.psi, state.cutoff)

    @property
    def _mean(self) -> Tensor | None:
        return self.generator.w_avg

    def _plane_z(self, plane: int, axis: int) -> Tensor:
        source = generator_for("explorer plane", seed=plane, nimg=axis)
        return torch.randn(1, self.generator.z_dim, generator=source)

    def _map_seed_uncached(self, seed: int, class_index: int | None) -> Tensor:
        z = latents_from_seeds([seed], self.generator.z_dim)
        return map_latents(self.generator, z, c=self._label(class_index))

    def _label(self, class_index: int | None) -> Tensor | None:
        c_dim = self.generator.c_dim
        return None if c_dim == 0 else torch.eye(c_dim)[class_index or 0]

    def _noise(self, latents: SavedLatents, noise: Noise) -> dict[str, Tensor]:
        """Return the noise of each layer, [r, r]."""
        maps = {}
        for layer, stored in noise_maps(self.generator).items():
            if noise.mode == "random":
                source = generator_for(f"explorer noise/{layer}", seed=noise.seed)
                values = torch.randn(stored.shape, generator=source)
            else:
                values = latents.noise.get(layer, stored)
            maps[layer] = values.to(stored.device) * noise.strength
        return maps

    def _pixels(self, latents: SavedLatents, state: PictureState, *, extra_lod: int = 0) -> Tensor:
        """Return the picture of latents, uint8 [C, H, W], on the CPU."""
        generator, noise = self.generator, state.noise
        is_stored = noise.mode == "const" and noise.strength == 1 and not latents.noise
        with self._at_lod(generator.lod if state.lod is None else state.lod, extra_lod):
            with torch.no_grad():
                if noise.mode == "none" or is_stored:
                    mode = "none" if noise.mode == "none" else "const"
                    images = generator.synthesis(latents.ws, noise_mode=mode)
                else:
                    images = synthesize(generator, latents.ws, noise=self._noise(latents, noise))
            return generator.pixels.shown(images[0]).cpu()

    @contextlib.contextmanager
    def _at_lod(self, lod: float, extra_lod: int) -> Iterator[None]:
        """Compute at a level of detail; `extra_lod` applies to networks that do not grow."""
        before = self.generator.synthesis.lod
        # not the generator's property, which refuses networks that do not grow
        self.generator.synthesis.lod = lod + extra_lod
        try:
            yield
        finally:
            self.generator.synthesis.lod = before

    @property
    def _has_previews(self) -> bool:
        architecture = getattr(self.generator.config, "architecture", None)
        return architecture in ("skip", "mipmap")

    def _preview_lod(self) -> int:
        """Return the level of detail at which a picture takes at most 100 ms, by estimate."""
        seconds = self._full_seconds
        if seconds is None or seconds <= PREVIEW_SECONDS or not self._has_previews:
            return 0
        lod = 1
        smallest = resolution_at(self.generator.img_resolution, MAX_PREVIEW_LOD)
        while lod < MAX_PREVIEW_LOD and seconds / 3**lod > PREVIEW_SECONDS and smallest >= 32:
            lod += 1
        return lod
