"""The state that a picture is computed from, read from JSON with every value bounded."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from stylegan.errors import ConfigError
from stylegan.latent.interpolate import Easing
from stylegan.latent.seeds import MAX_SEED
from stylegan.nn.noise import NoiseMode

Space = Literal["z", "w"]

ID = re.compile(r"[0-9a-f]{16}")
"""Identifiers of saved latents and of files of directions."""
MAX_STEPS = 10.0  # of a walk, in units of a random latent
MAX_PSI = 4.0
MAX_STRENGTH = 30.0  # of an edit, in standard deviations of w
MAX_NOISE = 10.0  # factor on the noise
MAX_MIXES = 8
MAX_EDITS = 64
MAX_LAYERS = 64
MAX_KEYS = 64
MAX_FRAMES = 2000


@dataclass(frozen=True, kw_only=True)
class Base:
    """A latent.

    Attributes:
        seed: of z, from 0 to 2**32 - 1; without effect if there are saved latents.
        saved: identifier of saved latents; None for the seed.
    """

    seed: int = 0
    saved: str | None = None


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A step away from the latent in a plane of z or w that two random latents span.

    Attributes:
        space: where the plane lies. Saved latents have no z, so they move in w.
        plane: number of the plane.
        x: steps along its first axis, each as long as a random latent.
        y: steps along its second axis.
    """

    space: Space = "w"
    plane: int = 0
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise inputs.

    Attributes:
        mode: "const" uses the stored noise, or that of the saved latents; "random" draws it from
            `seed`; "none" adds none.
        seed: of random noise.
        strength: factor on the noise.
    """

    mode: NoiseMode = "const"
    seed: int = 0
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A second latent for some style inputs.

    Attributes:
        base: the latent.
        amounts: of each style input, coarsest first, from 0 (none of it) to 1 (only this latent).
            Style inputs beyond the end of the list have 0.
    """

    base: Base
    amounts: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A step along a direction in w.

    Attributes:
        directions: name of a set of directions.
        index: of the direction in the set.
        strength: in standard deviations of w.
        layers: style inputs that it acts on; None for those of the set.
    """

    directions: str
    index: int
    strength: float
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PictureState:
    """All that a picture depends on, beside the network.

    Attributes:
        base: the latent.
        walk: step away from it.
        psi: truncation, after the walk: 1 for none, 0 for the mean image.
        cutoff: truncate only this many style inputs; None for all.
        class_index: number of the class; None for the first one, or without labels.
        noise: the noise inputs.
        lod: level of detail of a growing network; None for that of the file.
        mixes: latents for some style inputs, in order.
        edits: steps along directions, after mixing.
    """

    base: Base = Base()
    walk: Walk = Walk()
    psi: float = 1.0
    cutoff: int | None = None
    class_index: int | None = None
    noise: Noise = Noise()
    lod: float | None = None
    mixes: tuple[Mix, ...] = ()
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Keyframes and how to move between them.

    Attributes:
        keys: at least one picture. Noise and level of detail are those of the first.
        frames_per_key: frames from one key to the next.
        easing: between each key and the next.
        is_loop: whether the last key leads back to the first.
    """

    keys: tuple[PictureState, ...]
    frames_per_key: int
    easing: Easing = "none"
    is_loop: bool = True

    @property
    def num_frames(self) -> int:
        """Number of frames of the whole video."""
        num = len(self.keys)
        return num * self.frames_per_key if self.is_loop else (num - 1) * self.frames_per_key + 1


def read_timeline(value: object) -> Timeline:
    """Return the timeline that a JSON object describes.

    Raises:
        ConfigError: if a value has another type or is out of bounds, or there are too many frames.
    """
    fields = Fields(value, "timeline")
    keys = fields.items("keys", MAX_KEYS)
    seconds = fields.number("seconds", 1.5, 0.05, 60.0)
    timeline = Timeline(
        keys=tuple(read_state(key) for key in keys),
        frames_per_key=max(1, round(seconds * fields.number("fps", 25.0, 1.0, 60.0))),
        easing=fields.choice("easing", "none", get_args(Easing)),  # type: ignore[arg-type]
        is_loop=fields.flag("loop"),
    )
    fields.check_all_read()
    if not keys:
        raise ConfigError("the timeline has no keyframes")
    if timeline.num_frames > MAX_FRAMES:
        raise ConfigError(f"a timeline has at most {MAX_FRAMES} frames, got {timeline.num_frames}")
    return timeline


def read_state(value: object) -> PictureState:
    """Return the state that a JSON object describes; missing keys have their defaults.

    Raises:
        ConfigError: if a key is unknown, or a value has another type or is out of bounds.
    """
    fields = Fields(value, "state")
    state = PictureState(
        base=_read_base(fields.take("base", {}), "base"),
        walk=_read_walk(fields.take("walk", {})),
        psi=fields.number("psi", 1.0, -MAX_PSI, MAX_PSI),
        cutoff=fields.optional_whole("cutoff", 0, MAX_LAYERS),
        class_index=fields.optional_whole("class", 0, 1_000_000),
        noise=_read_noise(fields.take("noise", {})),
        lod=fields.optional_number("lod", 0.0, 16.0),
        mixes=tuple(_read_mix(each) for each in fields.items("mixes", MAX_MIXES)),
        edits=tuple(_read_edit(each) for each in fields.items("edits", MAX_EDITS)),
    )
    fields.check_all_read()
    return state


def state_json(state: PictureState) -> dict[str, object]:
    """Return the JSON object that `read_state` maps to a state."""
    return {
        "base": dataclasses.asdict(state.base),
        "walk": dataclasses.asdict(state.walk),
        "psi": state.psi,
        "cutoff": state.cutoff,
        "class": state.class_index,
        "noise": dataclasses.asdict(state.noise),
        "lod": state.lod,
        "mixes": [dataclasses.asdict(mix) for mix in state.mixes],
        "edits": [dataclasses.asdict(edit) for edit in state.edits],
    }


class Fields:
    """A JSON object whose values are read one by one, each within bounds.

    Args:
        value: the object.
        name: of the object, for errors.

    Raises:
        ConfigError: if the value is no object.
    """

    def __init__(self, value: object, name: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be an object, got {_short(value)}")
        self._name = name
        self._values = dict(value)

    def take(self, key: str, default: object) -> object:
        """Return the value of a key without a check."""
        value = self._values.pop(key, None)
        return default if value is None else value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """Return a finite number; ConfigError if it is out of bounds."""
        value = self.take(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # type: ignore[operator]  # also of NaN
            raise self._error(key, f"a number from {low:g} to {high:g}", value)
        return float(value)  # type: ignore[arg-type]

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        """Return a number, or None if there is none."""
        value = self.take(key, None)
        return (
            None if value is None else Fields({key: value}, self._name).number(key, low, low, high)
        )

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """Return a whole number; ConfigError if it is out of bounds."""
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._error(key, f"a whole number from {low} to {high}", value)
        return value

    def optional_whole(self, key: str, low: int, high: int) -> int | None:
        """Return a whole number, or None if there is none."""
        value = self.take(key, None)
        return (
            None if value is None else Fields({key: value}, self._name).whole(key, low, low, high)
        )

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """Return one of a few words; ConfigError for another."""
        value = self.take(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self._error(key, f"one of {', '.join(choices)}", value)
        return value

    def flag(self, key: str) -> bool:
        """Return true or false, the default."""
        value = self.take(key, False)
        if not isinstance(value, bool):
            raise self._error(key, "true or false", value)
        return value

    def text(self, key: str, *, max_length: int) -> str:
        """Return a text; ConfigError if it is longer, or there is none."""
        value = self.take(key, None)
        if not isinstance(value, str) or len(value) > max_length:
            raise self._error(key, f"a text of at most {max_length} letters", value)
        return value

    def identifier(self, key: str) -> str | None:
        """Return an identifier, or None if there is none."""
        value = self.take(key, None)
        if value is not None and (not isinstance(value, str) or ID.fullmatch(value) is None):
            raise self._error(key, "an identifier", value)
        return value

    def items(self, key: str, max_length: int) -> list[object]:
        """Return a list; ConfigError if it is longer."""
        value = self.take(key, [])
        if not isinstance(value, list | tuple) or len(value) > max_length:
            raise self._error(key, f"a list of at most {max_length} entries", value)
        return list(value)

    def numbers(self, key: str, max_length: int, low: float, high: float) -> list[float]:
        """Return a list of finite numbers within bounds."""
        values = self.items(key, max_length)
        return [Fields({key: value}, self._name).number(key, low, low, high) for value in values]

    def check_all_read(self) -> None:
        """Raise ConfigError if the object has other keys."""
        if self._values:
            raise ConfigError(f"{self._name} has an unknown key {_short(next(iter(self._values)))}")

    def _error(self, key: str, expected: str, value: object) -> ConfigError:
        return ConfigError(f"{self._name}.{key} must be {expected}, got {_short(value)}")


def _read_base(value: object, name: str) -> Base:
    fields = Fields(value, name)
    base = Base(seed=fields.whole("seed", 0, 0, MAX_SEED), saved=fields.identifier("saved"))
    fields.check_all_read()
    return base


def _read_walk(value: object) -> Walk:
    fields = Fields(value, "walk")
    walk = Walk(
        space=fields.choice("space", "w", get_args(Space)),  # type: ignore[arg-type]
        plane=fields.whole("plane", 0, 0, MAX_SEED),
        x=fields.number("x", 0.0, -MAX_STEPS, MAX_STEPS),
        y=fields.number("y", 0.0, -MAX_STEPS, MAX_STEPS),
    )
    fields.check_all_read()
    return walk


def _read_noise(value: object) -> Noise:
    fields = Fields(value, "noise")
    noise = Noise(
        mode=fields.choice("mode", "const", get_args(NoiseMode)),  # type: ignore[arg-type]
        seed=fields.whole("seed", 0, 0, MAX_SEED),
        strength=fields.number("strength", 1.0, 0.0, MAX_NOISE),
    )
    fields.check_all_read()
    return noise


def _read_mix(value: object) -> Mix:
    fields = Fields(value, "mix")
    mix = Mix(
        base=_read_base(fields.take("base", {}), "mix.base"),
        amounts=tuple(fields.numbers("amounts", MAX_LAYERS, 0.0, 1.0)),
    )
    fields.check_all_read()
    return mix


def _read_edit(value: object) -> Edit:
    fields = Fields(value, "edit")
    layers = fields.take("layers", None)
    edit = Edit(
        directions=fields.text("directions", max_length=40),
        index=fields.whole("index", 0, 0, 4096),
        strength=fields.number("strength", 0.0, -MAX_STRENGTH, MAX_STRENGTH),
        layers=None
        if layers is None
        else tuple(
            Fields({"layer": layer}, "edit").whole("layer", 0, 0, MAX_LAYERS - 1)
            for layer in Fields({"layers": layers}, "edit").items("layers", MAX_LAYERS)
        ),
    )
    fields.check_all_read()
    return edit


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
