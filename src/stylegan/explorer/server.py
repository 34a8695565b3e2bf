"""The web server of the explorer: a page, a socket for each page, uploads and downloads."""

import asyncio
import json
import logging
import socket as sockets
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from stylegan.errors import ConfigError, StyleganError
from stylegan.explorer.actions import ACTIONS, JOBS, IsStopped, Reply
from stylegan.explorer.guard import LOOPBACK, Guard
from stylegan.explorer.pictures import npz_bytes, png_with_latents
from stylegan.explorer.session import Session
from stylegan.explorer.state import Fields, read_state, state_json
from stylegan.explorer.uploads import MAX_UPLOAD_BYTES, receive_file

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 2**18
MAX_WAITING = 16  # messages of one page, beside the newest picture that it asks for
MAX_PAGES = 32
STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}

Result = TypeVar("Result")


class Explorer:
    """The application. All computation happens in one thread, so the pages take turns.

    The state of a page is in the page: each message holds all that it needs, so several pages do
    not interfere.

    Args:
        session: what computes.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._num_pages = 0
        self._files = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}

    def app(self) -> Starlette:
        """Return the application, without the checks of `Guard`."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            self._thread.shutdown(wait=False, cancel_futures=True)

        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/static/{name}", self._static),
                Route("/upload", self._upload, methods=["POST"]),
                Route("/picture.png", self._picture),
                Route("/latents.npz", self._latents),
                Route("/favourite/{name}.png", self._thumbnail),
                Route("/export/{name}", self._export),
                WebSocketRoute("/socket", self._socket),
            ],
            lifespan=lifespan,
        )

    async def compute(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in the thread that computes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _page(self, request: Request) -> Response:
        return FileResponse(self._files["index.html"], media_type="text/html")

    async def _static(self, request: Request) -> Response:
        path = self._files.get(request.path_params["name"])
        if path is None:
            return PlainTextResponse("there is no such file\n", status_code=404)
        return FileResponse(path, media_type=_TYPES[path.suffix])

    async def _upload(self, request: Request) -> Response:
        async def answer() -> Response:
            length = request.headers.get("content-length", "")
            if length.isdecimal() and int(length) > MAX_UPLOAD_BYTES:
                raise _too_many_bytes()
            data = bytearray()
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_UPLOAD_BYTES:
                    raise _too_many_bytes()
            return JSONResponse(await self.compute(receive_file, self.session, bytes(data)))

        return await _answered(answer)

    async def _picture(self, request: Request) -> Response:
        """Send a PNG that holds its latents."""

        def compute() -> bytes:
            state = read_state(_json(request.query_params.get("state", "{}")))
            picture = self.session.picture(state)
            latents, baked = self.session.baked(state)
            return png_with_latents(picture.pixels, latents, state_json(baked))

        async def answer() -> Response:
            return _download(await self.compute(compute), "picture.png", "image/png")

        return await _answered(answer)

    async def _latents(self, request: Request) -> Response:
        """Send latents as `stylegan generate` takes them."""

        def compute() -> bytes:
            state = read_state(_json(request.query_params.get("state", "{}")))
            return npz_bytes(self.session.baked(state)[0])

        async def answer() -> Response:
            data = await self.compute(compute)
            return _download(data, "latents.npz", "application/octet-stream")

        return await _answered(answer)

    async def _thumbnail(self, request: Request) -> Response:
        async def answer() -> Response:
            path = self.session.gallery.path(request.path_params["name"], ".png")
            if not path.exists():
                raise ConfigError("there is no such favourite")
            return FileResponse(path, media_type="image/png")

        return await _answered(answer)

    async def _export(self, request: Request) -> Response:
        async def answer() -> Response:
            path = self.session.exports.find(request.path_params["name"])
            return FileResponse(path, filename=f"explore{path.suffix}")

        return await _answered(answer)

    async def _socket(self, websocket: WebSocket) -> None:
        if self._num_pages >= MAX_PAGES:
            await websocket.close(1013, f"{MAX_PAGES} pages are open already")
            return
        await websocket.accept()
        self._num_pages += 1
        try:
            await _Page(self, websocket).serve()
        finally:
            self._num_pages -= 1


class _Page:
    """One open page: its messages are answered in order, except for pictures.

    Of the pictures that it asks for, only the newest is computed.
    """

    def __init__(self, explorer: Explorer, websocket: WebSocket) -> None:
        self._explorer = explorer
        self._websocket = websocket
        self._newest: dict[str, object] | None = None
        self._others: list[dict[str, object]] = []
        self._arrived = asyncio.Event()
        self._job: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Answer messages until the page closes."""
        answering = asyncio.create_task(self._answer_messages())
        try:
            while True:
                text = await self._websocket.receive()
                if text["type"] == "websocket.disconnect":
                    break
                await self._take(text.get("text"))
        except WebSocketDisconnect:
            pass
        finally:
            self._is_stopped = True
            for task in (answering, self._job):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):  # the page is gone
                        await task

    async def _take(self, text: str | None) -> None:
        """Put a message in its place, or report that it cannot be read."""
        try:
            if text is None:
                raise ConfigError("messages are JSON objects")
            message = Fields(_json(text), "message")
            values = {
                "id": message.whole("id", 0, 0, 2**53),
                "action": message.text("action", max_length=40),
                "parameters": message.take("parameters", {}),
            }
        except StyleganError as error:
            await self._send(0, Reply(data={"error": str(error)}))
            return
        if values["action"] == "stop":
            self._is_stopped = True
        elif values["action"] == "render":
            superseded, self._newest = self._newest, values
            if superseded is not None:
                await self._send(superseded["id"], Reply(data={"superseded": True}))
        elif len(self._others) >= MAX_WAITING:
            await self._send(values["id"], Reply(data={"error": "too many requests at once"}))
        else:
            self._others.append(values)
        self._arrived.set()

    async def _answer_messages(self) -> None:
        while True:
            await self._arrived.wait()
            if self._newest is not None:
                message, self._newest = self._newest, None
            elif self._others:
                message = self._others.pop(0)
            else:
                self._arrived.clear()
                continue
            action = str(message["action"])
            if action in JOBS:
                await self._start(message)
            else:
                reply = await self._explorer.compute(
                    _reply_to, self._explorer.session, action, message["parameters"]
                )
                await self._send(message["id"], reply)

    async def _start(self, message: dict[str, object]) -> None:
        if self._job is not None and not self._job.done():
            text = "this page computes something already; stop it first"
            await self._send(message["id"], Reply(data={"error": text, "done": True}))
            return
        self._is_stopped = False
        self._job = asyncio.create_task(self._run(message))

    async def _run(self, message: dict[str, object]) -> None:
        """Send the replies of a job. Between its steps, pictures are computed."""
        steps = _steps_of(
            self._explorer.session,
            str(message["action"]),
            message["parameters"],
            lambda: self._is_stopped,
        )
        try:
            while (reply := await self._explorer.compute(next, steps, None)) is not None:
                await self._send(message["id"], reply)
        finally:
            await self._explorer.compute(steps.close)
        await self._send(message["id"], Reply(data={"done": True}))

    async def _send(self, number: object, reply: Reply) -> None:
        """Send the length of a JSON object in four bytes, the object, and the picture."""
        text = json.dumps({**reply.data, "id": number}).encode()
        async with self._sending:
            await self._websocket.send_bytes(len(text).to_bytes(4, "little") + text + reply.image)


def _reply_to(session: Session, action: str, parameters: object) -> Reply:
    """Return the reply to an action; an error becomes one line."""
    try:
        if action not in ACTIONS:
            raise ConfigError(f"there is no action {action!r}")
        fields = Fields(parameters, "parameters")
        return ACTIONS[action](session, fields)
    except Exception as error:
        return Reply(data={"error": one_line(error)})


def _steps_of(
    session: Session, action: str, parameters: object, is_stopped: IsStopped
) -> Generator[Reply, None, None]:
    """Yield the replies of a job; an error becomes one line."""
    try:
        yield from JOBS[action](session, Fields(parameters, "parameters"), is_stopped)
    except Exception as error:
        yield Reply(data={"error": one_line(error)})


def one_line(error: Exception) -> str:
    """Return the text of an error for the page; an unexpected one is logged with its traceback."""
    if isinstance(error, StyleganError):
        return " ".join(str(error).split())
    logger.error("the explorer failed", exc_info=error)
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return "the device has not enough memory"
    return f"an unexpected error: {type(error).__name__}; the terminal shows more"


async def _answered(answer: Callable[[], Any]) -> Response:
    try:
        response: Response = await answer()
        return response
    except StyleganError as error:
        return JSONResponse({"error": one_line(error)}, status_code=400)
    except Exception as error:
        return JSONResponse({"error": one_line(error)}, status_code=500)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("the message is not JSON") from None


def _download(data: bytes, name: str, media_type: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media_type, headers=headers)


def _too_many_bytes() -> ConfigError:
    return ConfigError(f"a file has at most {MAX_UPLOAD_BYTES // 2**20} MB")


def listen(host: str, port: int) -> sockets.socket:
    """Open the socket that the server listens at.

    Args:
        host: a name or an address.
        port: 0 for a free one.

    Raises:
        ConfigError: if the port is in use, or there is no such host.
    """
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    listener = sockets.socket(family, sockets.SOCK_STREAM)
    try:
        listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at {host}:{port}: {error.strerror or error}",
            fix="choose another --port, or 0 for a free one",
        ) from None
    return listener


def serve(session: Session, listener: sockets.socket, *, host: str, token: str | None) -> None:
    """Serve the page until the process is interrupted.

    Args:
        session: what computes.
        listener: of `listen`.
        host: as of `listen`.
        token: the secret of the link; None for none.
    """
    config = uvicorn.Config(
        guarded(Explorer(session), host=host, port=listener.getsockname()[1], token=token),
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        limit_concurrency=128,
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[listener])


def guarded(explorer: Explorer, *, host: str, port: int, token: str | None) -> Guard:
    """Return the application with the checks of `Guard`; arguments as of `serve`."""
    is_local = host in LOOPBACK
    hosts = {*LOOPBACK} if is_local else {*LOOPBACK, host, sockets.gethostname()}
    return Guard(explorer.app(), hosts=hosts, allows_addresses=not is_local, token=token, port=port)
