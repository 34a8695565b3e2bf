"""What messages of the page mean: each action's parameters, its checks, and its reply."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stylegan.errors import ConfigError
from stylegan.explorer.pictures import Format, encode
from stylegan.explorer.session import Session
from stylegan.explorer.state import (
    MAX_FRAMES,
    MAX_STRENGTH,
    Fields,
    PictureState,
    read_state,
    read_timeline,
    state_json,
)


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
    form: Format = "jpeg" if is_moving else "png"
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
    """Compute a frame of a timeline, as JPEG."""
    timeline = read_timeline(fields.take("timeline", {}))
    pixels = session.frame(timeline, fields.whole("index", 0, 0, MAX_FRAMES))
    data = {"format": "jpeg", "num_frames": timeline.num_frames}
    return Reply(data=data, image=encode(pixels, "jpeg"))


def _video(session: Session, fields: Fields) -> Iterator[Reply]:
    """Write a video; the last reply has the name under which it can be downloaded."""
    values = fields.take("timeline", {})
    timeline = read_timeline(values)
    fps = Fields(values, "timeline").number("fps", 25.0, 1.0, 60.0)
    form = fields.choice("format", "mp4", ("mp4", "webm", "gif", "zip"))
    path = session.exports.new_path("" if form == "zip" else f".{form}")
    for num in session.video(timeline, path, fps=fps):
        yield Reply(data={"step": num, "num_steps": timeline.num_frames})
    yield Reply(data={"file": session.exports.finished(path).name})


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

JOBS: Mapping[str, Callable[[Session, Fields], Iterator[Reply]]] = {"video": _video}
"""Actions that answer after each of many steps, and can be stopped."""
