"""The page of a gateway over HTTP/1.1. It takes nothing in.

Rules: a connection is one request, without a body, and its answer; it lasts ``PAGE_CALL_S`` at most, however
slowly the other side speaks or listens, and there are ``MAX_PAGE_CONNECTIONS``: whoever comes then is hung up
on. Closing waits for nobody. It is off unless the operator names an address; TLS is for a proxy before it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus

from agent.errors import SocketInUseError
from agent.limits import MAX_PAGE_CONNECTIONS, MAX_PAGE_HEAD_BYTES, PAGE_CALL_S, PAGE_KEPT_S
from agent.openness.page import NOT_UNDERSTOOD, Answer, Page

_log = logging.getLogger(__name__)


class PageServer:
    """A running page. Made by ``start``, ended by ``close``."""

    def __init__(self, page: Page, call_s: float) -> None:
        self._page = page
        self._call_s = call_s
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.address = ""
        """Where it listens."""

    @classmethod
    async def start(cls, page: Page, host: str, port: int, *, call_s: float = PAGE_CALL_S) -> PageServer:
        """Open the port; ``call_s`` is how long a connection lasts at most.

        Raises:
            SocketInUseError: it cannot be opened.
        """
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family)
        except OSError as error:
            raise SocketInUseError(
                f"the page cannot be served at {host}:{port}.", fix="name another address with --page"
            ) from error
        made = cls(page, call_s)
        made._server = await asyncio.start_server(made._came, sock=listening, limit=MAX_PAGE_HEAD_BYTES)
        bound = listening.getsockname()
        made.address = f"{bound[0]}:{bound[1]}"
        _log.info("the page of the queue is at http://%s/", made.address)
        return made

    async def close(self) -> None:
        """Close the port, and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for task, writer in list(self._open.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_PAGE_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="page")
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._call_s):
                method, answer = await self._answered(reader)
                writer.write(_bytes(answer, head=method == "HEAD"))
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError):
            pass  # whoever asked has gone, or takes too long
        finally:
            writer.transport.abort()

    async def _answered(self, reader: asyncio.StreamReader) -> tuple[str, Answer]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return "", NOT_UNDERSTOOD
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", NOT_UNDERSTOOD
        return words[0], await self._page.answer(words[0], words[1].partition("?")[0])


def _bytes(answer: Answer, *, head: bool) -> bytes:
    lines = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"content-type: {answer.kind}",
        f"content-length: {len(answer.body)}",
        f"cache-control: max-age={int(PAGE_KEPT_S) if answer.status == HTTPStatus.OK else 0}",
        "content-security-policy: default-src 'none'; style-src 'unsafe-inline'",
        "x-content-type-options: nosniff",
        "connection: close",
    )
    said = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return said if head else said + answer.body
