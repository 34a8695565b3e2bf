"""What messages of the page mean: each action's parameters, its checks, and its reply."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stylegan.errors import ConfigError
from stylegan.explorer.pictures import Format, encode, moving_format
from stylegan.explorer.session import DRAG_LEARNING_RATE, Session
from stylegan.explorer.state import (
    MAX_FRAMES,
    MAX_STRENGTH,
    Fields,
    PictureState,
    read_state,
    read_timeline,
    state_json,
)

MAX_POINTS = 32
MASK_SIDE = 64  # cells of a mask in each direction, whatever the size of the picture

IsStopped = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer to the page.

    Attributes:
        data: a JSON object.
        image: an encoded picture; empty for none.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    image: bytes = b""


def _read_picture_state(fields: Fields) -> PictureState:
    return read_state(fields.take("state", {}))


def _describe(session: Session, fields: Fields) -> Reply:
    return Reply(data=session.describe())


def _render(session: Session, fields: Fields) -> Reply:
    """Compute a picture; while a control moves, as JPEG and perhaps with less resolution."""
    is_moving = fields.flag("moving")
    picture = session.picture(_read_picture_state(fields), allows_preview=is_moving)
    form: Format = moving_format(picture.pixels) if is_moving else "png"
    data = {
        "preview": picture.is_preview,
        "seconds": picture.seconds,
        "format": form,
    }
    return Reply(data=data, image=encode(picture.pixels, form))


def _list_directions(session: Session, fields: Fields) -> Reply:
    directions = session.directions(fields.text("directions", max_length=40))
    return Reply(data={"names": list(directions.names), "layers": list(directions.layers)})


def _ends(session: Session, fields: Fields) -> Reply:
    pixels = session.ends(
        _read_picture_state(fields),
        fields.text("directions", max_length=40),
        fields.whole("index", 0, 0, 4096),
        strength=fields.number("strength", 3.0, 0.0, MAX_STRENGTH),
    )
    return Reply(image=encode(pixels, "png"))


def _read_identifiers(fields: Fields, key: str) -> list[str]:
    found = []
    for value in fields.items(key, 1000):
        name = Fields({key: value}, "action").identifier(key)
        assert name is not None  # only a missing value gives None
        found.append(name)
    return found


def _direction_between(session: Session, fields: Fields) -> Reply:
    name = session.direction_between(
        _read_identifiers(fields, "first"),
        _read_identifiers(fields, "second"),
        name=fields.text("name", max_length=40),
    )
    return Reply(data={"directions": name})


def _favourite(session: Session, fields: Fields) -> Reply:
    """Add a picture to the gallery."""
    state = _read_picture_state(fields)
    _, baked = session.baked(state)
    name = baked.base.saved
    assert name is not None
    session.gallery.add(name, session.thumbnail(state), state_json(state))
    return Reply(data={"saved": name})


def _list_favourites(session: Session, fields: Fields) -> Reply:
    entries = [{"id": each.id, "state": each.state} for each in session.gallery.favourites()]
    return Reply(data={"favourites": entries})


def _remove_favourite(session: Session, fields: Fields) -> Reply:
    name = fields.identifier("favourite")
    if name is None:
        raise ConfigError("favourite is missing")
    session.gallery.remove(name)
    return Reply()


def _thumbnail(session: Session, fields: Fields) -> Reply:
    return Reply(image=encode(session.thumbnail(_read_picture_state(fields)), "png"))


def _frame(session: Session, fields: Fields) -> Reply:
    """Compute a frame of a timeline, in the format of moving pictures."""
    timeline = read_timeline(fields.take("timeline", {}))
    pixels = session.frame(timeline, fields.whole("index", 0, 0, MAX_FRAMES))
    form = moving_format(pixels)
    data = {"format": form, "num_frames": timeline.num_frames}
    return Reply(data=data, image=encode(pixels, form))


def _video(session: Session, fields: Fields, is_stopped: IsStopped) -> Iterator[Reply]:
    """Write a video; the last reply has the name under which it can be downloaded."""
    values = fields.take("timeline", {})
    timeline = read_timeline(values)
    fps = Fields(values, "timeline").number("fps", 25.0, 1.0, 60.0)
    form = fields.choice("format", "mp4", ("mp4", "webm", "gif", "zip"))
    path = session.exports.new_path("" if form == "zip" else f".{form}")
    for num in session.video(timeline, path, fps=fps):
        if is_stopped():
            return
        yield Reply(data={"step": num, "num_steps": timeline.num_frames})
    yield Reply(data={"file": session.exports.finished(path).name})


def _drag(session: Session, fields: Fields, is_stopped: IsStopped) -> Iterator[Reply]:
    """Drag points; the last reply has the state that shows the result."""
    num_steps = fields.whole("num_steps", 200, 1, 5000)
    steps = session.drag(
        _read_picture_state(fields),
        handles=_read_points(fields, "handles"),
        targets=_read_points(fields, "targets"),
        mask=_read_mask(fields),
        learning_rate=fields.number("learning_rate", DRAG_LEARNING_RATE, 1e-4, 1.0),
        num_steps=num_steps,
    )
    last = None
    for last in steps:
        form = moving_format(last.pixels)
        data = {"step": last.num_steps, "handles": last.handles, "format": form}
        yield Reply(data=data, image=encode(last.pixels, form))
        if is_stopped():
            break
    if last is not None:
        state = session.keep(last.latents, last.shown)
        yield Reply(data={"state": state_json(state), "handles": last.handles})


def _read_points(fields: Fields, key: str) -> list[tuple[float, float]]:
    points = []
    for value in fields.items(key, MAX_POINTS):
        point = Fields({key: value}, "drag").numbers(key, 2, 0.0, 1e5)
        if len(point) != 2:
            raise ConfigError(f"drag.{key} must hold pairs of numbers")
        points.append((point[0], point[1]))
    return points


def _read_mask(fields: Fields) -> Tensor | None:
    """Return the cells of a mask, a text of 0 and 1 row by row; None for no mask."""
    text = fields.take("mask", "")
    if text == "":
        return None
    if not isinstance(text, str) or re.fullmatch(f"[01]{{{MASK_SIDE**2}}}", text) is None:
        raise ConfigError(f"drag.mask must be {MASK_SIDE**2} digits 0 or 1")
    return torch.tensor([digit == "1" for digit in text]).view(MASK_SIDE, MASK_SIDE)


def _bake(session: Session, fields: Fields) -> Reply:
    """Keep the latents of a picture, and return the state that shows them."""
    return Reply(data={"state": state_json(session.baked(_read_picture_state(fields))[1])})


ACTIONS: Mapping[str, Callable[[Session, Fields], Reply]] = {
    "describe": _describe,
    "render": _render,
    "list_directions": _list_directions,
    "ends": _ends,
    "direction_between": _direction_between,
    "favourite": _favourite,
    "list_favourites": _list_favourites,
    "remove_favourite": _remove_favourite,
    "bake": _bake,
    "thumbnail": _thumbnail,
    "frame": _frame,
}
"""Actions that are answered at once."""

JOBS: Mapping[str, Callable[[Session, Fields, IsStopped], Iterator[Reply]]] = {
    "video": _video,
    "drag": _drag,
}
"""Actions that answer after each of many steps. Once their third argument gives True they end soon,
with what they have."""
