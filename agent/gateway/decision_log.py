"""What a donor decided, on its way into the books: written soon, in order, beside the decisions themselves.

Rules: nobody waits for the disk; what could not be written is tried again until it is, in the order in which
it was decided; while the disk does not take it, at most ``MAX_LOG_LINES_WAITING`` lines wait, and what comes
then is lost, and said to be. ``close`` writes what waits. A line that cannot be made is a defect that is
logged: no decision fails for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from agent.errors import StateError
from agent.gateway.core.events import Decision
from agent.gateway.core.journal import decision_bytes
from agent.limits import (
    LOG_AGAIN_S,
    MAX_LOG_LINE_BYTES,
    MAX_LOG_LINES_AT_ONCE,
    MAX_LOG_LINES_WAITING,
)
from agent.state.ledger_store import LogLine
from federation.ledger.request import SignedRequest

_log = logging.getLogger(__name__)


class DecisionLog:
    """The lines of one donor that wait to be written.

    Args:
        write: writes lines, all or none; raises StateError.
    """

    def __init__(self, write: Callable[[Sequence[LogLine]], Awaitable[None]]) -> None:
        self._write = write
        self._lines: deque[LogLine] = deque()
        self._news, self._stop = asyncio.Event(), asyncio.Event()
        self._lost = 0
        self._fault = ""
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._writing = asyncio.create_task(self._write_always(), name="journal")

    async def close(self) -> None:
        """Write what waits, and stop; what the disk does not take now is lost."""
        self._stop.set()
        self._news.set()
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        while self._lines and await self._written():
            pass
        if self._lines:
            _log.error("%d lines of the journal could not be written", len(self._lines))

    def decided(self, decision: Decision) -> None:
        """Keep a decision, soon; those of the last moment before a kill may be lost."""
        try:
            body = line_of(decision)
        except Exception:  # noqa: BLE001 - what was decided is carried out, whatever its record is like
            _log.exception("a decision (%s) cannot be written down", decision.kind)
            return
        self._keep(LogLine(decision.unix_s, decision.kind, body))

    def asked(self, at_s: int, request: SignedRequest) -> None:
        """Keep a request as it was signed."""
        fields = {"body": request.body.decode(), "signature": request.signature.hex()}
        self._keep(LogLine(at_s, "request", json.dumps(fields, sort_keys=True).encode()))

    def _keep(self, line: LogLine) -> None:
        if len(self._lines) < MAX_LOG_LINES_WAITING:
            self._lines.append(line)
            self._news.set()
            return
        if not self._lost:
            _log.error("the journal cannot be written; what is decided from now on is lost for auditors")
        self._lost += 1

    async def _write_always(self) -> None:
        while not self._stop.is_set():
            await self._news.wait()
            self._news.clear()
            while self._lines:
                if not await self._written() and await self._stopped_within(LOG_AGAIN_S):
                    return

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _written(self) -> bool:
        """Write the first lines; whether they are."""
        first = list(islice(self._lines, MAX_LOG_LINES_AT_ONCE))
        try:
            await self._write(first)
        except StateError as error:
            if error.message != self._fault:
                _log.error("the journal cannot be written, and is tried again: %s", error.message)
            self._fault = error.message
            return False
        except Exception:  # noqa: BLE001 - these lines would be tried for ever, and all others wait for them
            _log.exception("%d lines of the journal are lost by a defect", len(first))
        self._fault = ""
        for _ in first:
            self._lines.popleft()
        if self._lost:
            _log.error("the journal is written again; %d lines are lost", self._lost)
            self._lost = 0
        return True


def line_of(decision: Decision) -> bytes:
    """Return a decision as a line of the journal: what people look for, and all that replays it.

    An event that would make the line too long stands there by its digest.
    """
    whole = json.loads(decision_bytes(decision))
    fields = {
        "request": decision.request_id,
        "borrower": decision.borrower_site,
        "account": decision.account,
        "lease": decision.lease_id,
        "devices": decision.devices,
        "code": decision.code,
        "reasons": [{"code": one.code, "sentence": one.sentence()} for one in decision.reasons],
        "policy": decision.policy,
        "ledger": decision.ledger,
        "decision": whole,
    }
    line = _bytes(fields)
    if len(line) > MAX_LOG_LINE_BYTES:
        event = hashlib.sha256(_bytes(whole[_EVENT])).hexdigest()
        whole[_EVENT] = [whole[_EVENT][0], {"sha256": event}]
        line = _bytes(fields)
    return line


_EVENT = 2  # after the class's name and the kind


def _bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
