"""What a gateway answers on its page: ``/`` for people, ``/queue.json`` for programs; made now and then.

Rules: two paths, GET and HEAD; what is shown is made at most once in ``PAGE_KEPT_S``, however many ask, and
whether it could be made or not. How it travels is ``agent.openness.server``'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agent.limits import PAGE_KEPT_S
from agent.local.queue_views import QueueView
from agent.openness.document import public_document
from agent.openness.html import page

_log = logging.getLogger(__name__)
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    status: int
    kind: str
    body: bytes


NOT_UNDERSTOOD: Final = Answer(400, _TEXT, b"this is no request\n")
_ONLY_GET: Final = Answer(405, _TEXT, b"only GET and HEAD\n")
_NO_SUCH: Final = Answer(404, _TEXT, b"there are / and /queue.json\n")
_NOT_NOW: Final = Answer(503, _TEXT, b"the page cannot be made at the moment\n")


class Page:
    """One gateway's.

    Args:
        view: returns the site's queue as it stands.
        clock: for how long something is shown.
    """

    def __init__(self, view: Callable[[], Awaitable[QueueView]], clock: Callable[[], float]) -> None:
        self._view = view
        self._clock = clock
        self._made_at_s = float("-inf")
        self._answers: dict[str, Answer] = {}
        self._making = asyncio.Lock()

    async def answer(self, method: str, path: str) -> Answer:
        """Return what a request gets; for HEAD the same as for GET."""
        if method not in ("GET", "HEAD"):
            return _ONLY_GET
        if path not in ("/", "/queue.json"):
            return _NO_SUCH
        async with self._making:
            if self._clock() - self._made_at_s >= PAGE_KEPT_S:
                self._answers = await self._made()
                self._made_at_s = self._clock()
        return self._answers.get(path, _NOT_NOW)

    async def _made(self) -> dict[str, Answer]:
        try:
            view = await self._view()
            data = json.dumps(public_document(view), indent=2).encode() + b"\n"
            html = page(view).encode()
        except Exception:  # noqa: BLE001 - books that cannot be read now can be read again
            _log.exception("the page could not be made")
            return {}
        return {
            "/": Answer(200, "text/html; charset=utf-8", html),
            "/queue.json": Answer(200, "application/json", data),
        }
