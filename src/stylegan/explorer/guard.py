"""Which requests the server answers: host, origin and token are checked before anything else."""

import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every response. The page can load nothing from other servers."""


class Guard:
    """Middleware that refuses requests of other pages, and those without the token.

    A page of another site can make a browser send requests here, but not with our Origin. With a
    domain name of its own that resolves to this machine (DNS rebinding), it cannot send our Host.

    Args:
        app: what to protect.
        hosts: names that the Host header may have, beside IP addresses if `allows_addresses`.
        allows_addresses: whether any IP address may be the host, as when listening on all.
        token: the secret of the link; None for none. A browser that gives it once as `?token=`
            gets it as a cookie.
        port: part of the cookie's name, as browsers share cookies between ports.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        allows_addresses: bool,
        token: str | None,
        port: int,
    ) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._allows_addresses = allows_addresses
        self._token = token
        self._cookie = f"stylegan-explore-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": refusal})
            else:
                response = PlainTextResponse(refusal + "\n", status_code=403, headers=HEADERS)
                await response(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] == "/" and scope["query_string"]:
            await self._give_cookie(scope, receive, send)  # the browser keeps the fragment
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        """Return why a request is refused, or None."""
        host = headers.get("host", "")
        if not self._is_own_host(host):
            return "this address is not that of the explorer; open the link that the command prints"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "the request comes from another site"
        if self._token is not None:
            given = QueryParams(scope["query_string"]).get("token") or cookie_parser(
                headers.get("cookie", "")
            ).get(self._cookie, "")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return "the token is missing or wrong; open the link that the command prints"
        return None

    def _is_own_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.lower() in self._hosts:
            return True
        if not self._allows_addresses:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def _give_cookie(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Move the token from the link to a cookie, so that it does not stay in the history."""
        response = RedirectResponse("/", status_code=303, headers=HEADERS)
        if self._token is not None:
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        await response(scope, receive, send)
