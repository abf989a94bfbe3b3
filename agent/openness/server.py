"""The page of a gateway over HTTP: ``/`` for people, ``/queue.json`` for programs. It takes nothing in.

Rules: two paths, GET and HEAD, no body is read; what is shown is made at most once in ``PAGE_KEPT_S``,
however many ask; connections are bounded. It is off unless the operator names an address; TLS is for a proxy
before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

from agent.errors import SocketInUseError
from agent.limits import MAX_PAGE_CONNECTIONS, PAGE_KEPT_S
from agent.local.queue_views import QueueView
from agent.openness.document import public_document
from agent.openness.html import page

_log = logging.getLogger(__name__)
_Scope = MutableMapping[str, Any]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Page:
    """An ASGI application.

    Args:
        view: returns the site's queue as it stands.
        clock: for how long something is shown.
    """

    def __init__(self, view: Callable[[], Awaitable[QueueView]], clock: Callable[[], float]) -> None:
        self._view = view
        self._clock = clock
        self._made_at_s = float("-inf")
        self._bodies: dict[str, tuple[str, bytes]] = {}
        self._making = asyncio.Lock()

    async def __call__(self, scope: _Scope, receive: object, send: _Send) -> None:
        """Answer one request."""
        del receive
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, "text/plain", b"only GET and HEAD\n", head=False)
            return
        kind, body = (await self._made()).get(scope["path"], ("", b""))
        head = scope["method"] == "HEAD"
        if kind:
            await _answer(send, 200, kind, body, head=head)
        else:
            await _answer(send, 404, "text/plain", b"there are / and /queue.json\n", head=head)

    async def _made(self) -> dict[str, tuple[str, bytes]]:
        async with self._making:
            if self._clock() - self._made_at_s >= PAGE_KEPT_S:
                view = await self._view()
                data = json.dumps(public_document(view), indent=2).encode() + b"\n"
                self._bodies = {
                    "/": ("text/html; charset=utf-8", page(view).encode()),
                    "/queue.json": ("application/json", data),
                }
                self._made_at_s = self._clock()
            return self._bodies


class PageServer:
    """A running page. Made by ``start``, ended by ``close``."""

    def __init__(self, server: _Server, task: asyncio.Task[None], address: str) -> None:
        self._server = server
        self._task = task
        self.address = address

    @classmethod
    async def start(cls, app: Page, host: str, port: int) -> PageServer:
        """Open the port.

        Raises:
            SocketInUseError: it cannot be opened.
        """
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_PAGE_CONNECTIONS,
            timeout_keep_alive=5,
        )
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family)
        except OSError as error:
            raise SocketInUseError(
                f"the page cannot be served at {host}:{port}.", fix="name another address with --page"
            ) from error
        server = _Server(config)
        task = asyncio.create_task(server.serve([listening]), name="page")
        bound = listening.getsockname()
        _log.info("the page of the queue is at http://%s:%d/", bound[0], bound[1])
        return cls(server, task, f"{bound[0]}:{bound[1]}")

    async def close(self) -> None:
        """Close the port; answers under way are finished."""
        self._server.should_exit = True
        await asyncio.gather(self._task, return_exceptions=True)


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Signals are the agent's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


async def _answer(send: _Send, status: int, kind: str, body: bytes, *, head: bool) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", f"max-age={int(PAGE_KEPT_S)}".encode()),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
