"""The explorer: a page in the browser to play with a generator."""

import secrets
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from stylegan.devices import DeviceName
from stylegan.download import cache_folder
from stylegan.errors import ConfigError
from stylegan.explorer.gallery import Gallery
from stylegan.explorer.session import Session
from stylegan.extras import import_extra
from stylegan.interop.catalogue import bundled_names
from stylegan.latent.render import device_of
from stylegan.models.base import AbstractGenerator
from stylegan.progress import Progress
from stylegan.training.threads import default_threads, using_threads
from stylegan.workflows.networks import (
    Network,
    check_folder,
    fingerprint_of,
    load_generator,
)

DEFAULT_PORT = 8765
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """A page that is served.

    Attributes:
        link: of the page, with the token if there is one.
        gallery: the folder with latents and favourites.
    """

    link: str
    gallery: Path


def explore(
    network: Network | None = None,
    *,
    port: int = DEFAULT_PORT,
    host: str = "127.0.0.1",
    token: str | None = None,
    browser: bool = True,
    gallery: Path | str | None = None,
    device: DeviceName | torch.device = "auto",
    on_result: Callable[[Exploration], object] | None = None,
    progress: Progress | None = None,
) -> Exploration:
    """Open a page in the browser to play with a generator, until interrupted by Ctrl-C.

    The page changes seeds, truncation, noise, mixing and directions, and keeps favourites. Its
    address holds the whole state, so a link shows the same picture again. Only this machine can
    open it; another --host needs a token, which is part of the link.

    Args:
        network: a run folder, a native folder, a weight file, a URL or a known name (default: the
            network that comes with the package).
        port: of the page; 0 takes a free one.
        host: address to listen at; 0.0.0.0 for all of this machine's.
        token: secret without which nothing is answered (default: a random one if the host is not
            this machine, else none).
        browser: open the page.
        gallery: folder for latents and favourites (default: a folder of the network in the cache).
        device: where to compute; "auto" prefers CUDA, then Apple's MPS. A loaded generator stays
            on its device.
        on_result: called when the page can be opened.
        progress: called while a URL is downloaded.

    Returns:
        The page, after it was closed.

    Raises:
        StyleganError: if an option or a file cannot be used.
    """
    for module in ("starlette", "uvicorn", "websockets"):
        import_extra(module, extra="explore", purpose="explore")
    from stylegan.explorer import server  # after the check, as it imports them

    if not 0 <= port <= 65535:
        raise ConfigError(f"port must be from 0 to 65535, got {port}")
    if token is not None and len(token) < 8:
        raise ConfigError("token must have at least 8 letters")
    if token is None and host not in _LOOPBACK:
        token = secrets.token_urlsafe(16)
    folder = None if gallery is None else Path(gallery)
    check_folder(folder)
    source = _default_network() if network is None else network
    generator = load_generator(source, device, progress=progress)
    listener = server.listen(host, port)
    try:
        if folder is None:
            folder = cache_folder() / "explore" / fingerprint_of(generator)[:16]

        name = (
            f"{type(generator).__module__.rpartition('.')[2]} {generator.img_resolution}"
            if isinstance(source, AbstractGenerator)
            else Path(source).name
        )
        session = Session(generator, Gallery(folder), name=name)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        link = f"http://{shown}:{listener.getsockname()[1]}/"
        if token is not None:
            link += f"?token={token}"
        result = Exploration(link=link, gallery=folder)
        listener.listen()
        if on_result is not None:
            on_result(result)
        if browser:  # in a thread, as a browser in the terminal does not return
            threading.Thread(target=webbrowser.open, args=[link], daemon=True).start()
        # The browser needs a core too: it is often on this machine.
        num_threads = default_threads()[0] if device_of(generator).type == "cpu" else None
        with using_threads(num_threads):
            server.serve(session, listener, host=host, token=token)
        return result
    finally:
        listener.close()


def _default_network() -> str:
    names = bundled_names()
    if not names:
        raise ConfigError("no network was given", fix="choose one with --network")
    return names[0]
