"""Files that a page sends: PNG files with latents, latents and directions, by their content."""

from pathlib import Path
from tempfile import TemporaryDirectory

from stylegan.data.readers import open_image
from stylegan.errors import ConfigError, DataError
from stylegan.explorer.pictures import latents_in, latents_of_npz
from stylegan.explorer.session import Session
from stylegan.explorer.state import Base, PictureState, read_state, state_json
from stylegan.latent.directions import Directions, read_directions
from stylegan.latent.saved import SavedLatents

MAX_UPLOAD_BYTES = 32 * 2**20
MAX_PIXELS = 40_000_000


def receive_file(session: Session, data: bytes) -> dict[str, object]:
    """Return what a file means, as JSON with its "kind".

    "latents" has the state that shows them (the first ones of several), "directions" the
    identifier of the set.

    Args:
        session: whose network latents and directions must fit.
        data: the content. Its name is not used.

    Raises:
        ConfigError: if the file is too large.
        DataError: if it is nothing of these, damaged, or does not fit the network.
    """
    if len(data) > MAX_UPLOAD_BYTES:
        raise ConfigError(f"a file has at most {MAX_UPLOAD_BYTES // 2**20} MB")
    if data[:4] == b"PK\x03\x04" or data[:6] == b"\x93NUMPY":
        return _show(session, latents_of_npz(data, session.generator), {})
    if data[8:9] == b"{" and b"__metadata__" in data[:200]:
        return {"kind": "directions", "directions": session.keep_directions(_directions(data))}
    return _receive_image(session, data)


def _receive_image(session: Session, data: bytes) -> dict[str, object]:
    image = open_image(data)
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"a picture has at most {MAX_PIXELS // 10**6} million pixels")
    found = latents_in(image, session.generator)
    if found is not None:
        return _show(session, *found)
    raise DataError(
        "this picture holds no latents",
        fix="project it with `stylegan project`, and open projected_w.npz",
    )


def _show(session: Session, latents: SavedLatents, stored: object) -> dict[str, object]:
    """Keep the first of some latents, and return the state that shows them."""
    ws = latents.ws[:1]
    name = session.gallery.keep(SavedLatents(ws=ws, noise=latents.noise))
    state = read_state(stored)
    shown = PictureState(
        base=Base(saved=name), noise=state.noise, lod=state.lod, class_index=state.class_index
    )
    session.check(shown)
    return {"kind": "latents", "state": state_json(shown), "num_latents": len(latents.ws)}


def _directions(data: bytes) -> Directions:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "directions.safetensors"
        path.write_bytes(data)
        try:
            return read_directions(path)
        except DataError:
            raise DataError(
                "the file holds no directions", fix="write one by `stylegan directions find`"
            ) from None
