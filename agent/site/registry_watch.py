"""Keeps the registry fresh, and says how far it may be believed.

Rules: it is read every ``REGISTRY_EVERY_S``, soon again after a failure; what was verified before goes on
while it is fresh or stale; past that only this site is trusted. A source that shows an older or another
registry is refused and said so, and ends nothing: a mirror must not be able to stop a site. An older copy in
this node's own cache does: then somebody has been at its files, and other sites are not trusted until a
source has been verified. One reading goes on at a time, even when whoever asked for it has gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from agent.limits import REGISTRY_AGAIN_S, REGISTRY_EVERY_S
from agent.local.federation_views import RegistryView
from agent.site.trust import Trust
from federation.errors import RegistryError
from federation.registry.client import RegistryClient
from federation.registry.membership import Membership, freshness
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


class RegistryWatch:
    """The registry as this node knows it.

    Args:
        client: reads it; ``None`` outside a consortium.
        trust: told what it says.
        site: this one's name.
        changed: told after each change of what is trusted.
        receipts_key: what this site signs receipts with (PEM); empty at a node that signs none.
        clock: Unix time in s.
    """

    def __init__(
        self,
        client: RegistryClient | None,
        trust: Trust,
        site: str,
        changed: Callable[[], None],
        *,
        receipts_key: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._trust = trust
        self._site = site
        self._changed = changed
        self._receipts_key = receipts_key
        self._clock = clock
        self._known: Membership | None = None
        self._fault = ""
        self._refreshed_at: float | None = None
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._reading: set[asyncio.Task[None]] = set()

    @property
    def known(self) -> Membership | None:
        """What was verified last, however old; whom to trust of it is for ``Trust``."""
        return self._known

    async def start(self) -> None:
        """Believe what was verified before, and begin to read."""
        if self._client is None:
            return
        try:
            self._known = await asyncio.to_thread(self._client.load, now_s=self._clock())
            self._refreshed_at = await asyncio.to_thread(self._client.refreshed_at_s)
        except (RegistryError, Error) as error:
            self._note(error)
        self._settle()
        self._task = asyncio.create_task(self._read_always(), name="registry")

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for reading in self._reading:
            reading.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def refresh(self) -> None:
        """Read it now.

        Raises:
            RegistryError: it cannot be read or believed; what was known before goes on as far as it may.
        """
        if self._client is None:
            return
        # A thread cannot be called off: whoever gave up waiting must not let a second one in beside it.
        reading = asyncio.create_task(self._read(self._client))
        self._reading.add(reading)
        reading.add_done_callback(self._has_read)
        await asyncio.shield(reading)

    async def _read(self, client: RegistryClient) -> None:
        async with self._turn:
            try:
                self._known = await asyncio.to_thread(client.refresh, now_s=self._clock())
                self._refreshed_at = await asyncio.to_thread(client.refreshed_at_s)
            except (RegistryError, Error) as error:
                self._note(error)
                raise
            else:
                self._fault = ""
            finally:
                self._settle()

    def _has_read(self, reading: asyncio.Task[None]) -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # whoever waits has it; if nobody does, it is in the log and in the view

    def view(self) -> RegistryView:
        """Return what the local API shows."""
        if self._client is None:
            return RegistryView("", "none", "this site belongs to no consortium", 0, None, None)
        known, refreshed_at = self._known, self._refreshed_at
        if known is None:
            return RegistryView("", "none", self._fault or "not read yet", 0, refreshed_at, None)
        return RegistryView(
            known.consortium,
            self._freshness(),
            self._fault or self._own_fault(known),
            len(known.sites),
            refreshed_at,
            known.expires_at,
        )

    def _own_fault(self, known: Membership) -> str:
        if self._site in known.faults:
            return known.faults[self._site]
        if not self._is_admitted(known):
            return f"{self._site} is not admitted yet"
        entered = known.site(self._site).receipts_key
        if self._receipts_key and entered != self._receipts_key:
            missing = "without a receipts key" if not entered else "with another receipts key"
            return (
                f"{self._site} is admitted {missing}: repeat pyrdma-agent init, and have the request admitted"
            )
        return ""

    def _is_admitted(self, known: Membership) -> bool:
        return self._site in known.faults or any(one.site == self._site for one in known.sites)

    def _freshness(self) -> str:
        if self._known is None:
            return "local"
        return freshness(self._known, self._refreshed_at or 0.0, self._clock())

    def _note(self, error: RegistryError | Error) -> None:
        if error.message != self._fault:
            _log.warning("the registry: %s", error.message)
        self._fault = error.message

    def _settle(self) -> None:
        believed = self._known if self._freshness() != "local" else None
        if believed is not self._trust.membership:
            self._trust.learn(believed)
            self._changed()

    async def _read_always(self) -> None:
        while True:
            try:
                await self.refresh()
                pause_s = REGISTRY_EVERY_S
            except (RegistryError, Error):
                pause_s = REGISTRY_AGAIN_S
            if self._known is not None and not self._is_admitted(self._known):
                pause_s = REGISTRY_AGAIN_S  # whoever waits to be admitted should not wait long to see it
            await asyncio.sleep(pause_s * random.uniform(0.9, 1.1))  # noqa: S311 - no secret
            self._settle()
