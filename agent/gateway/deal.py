"""One offer on its way to a lease: what its donor says, held to what was asked of it.

Rules: nothing that a donor says after it has accepted reaches the borrower before the lease is in the books;
a donor accepts once, and grants the lease that it accepted, with the image that was asked for. What it says
may be another site's: it is checked, and made safe to print, before anybody here sees it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from agent.daemon.faces import Donor, Emit, OfferRequest
from agent.errors import PeerNodeError
from agent.limits import MAX_EVENTS_HELD, MAX_ID_CHARS, MAX_KEY_CHARS, MAX_NAME_CHARS, MAX_REASON_BYTES
from agent.local.views import AcceptedView, GrantedView, NoteView, RunEvent
from agent.text import printable

_FIX = "tell the operator of that site; run the model elsewhere meanwhile"


class Deal:
    """One commit.

    Args:
        donor: whose offer it is.
        request: what it was asked for.
        accept: writes an accepted lease down.
        emit: told what whoever wants the lease may see.
    """

    def __init__(
        self,
        donor: Donor,
        request: OfferRequest,
        accept: Callable[[AcceptedView], Awaitable[None]],
        emit: Emit,
    ) -> None:
        self._donor = donor
        self._request = request
        self._accept = accept
        self._emit = emit
        self._held: deque[RunEvent] | None = None
        self._committing: asyncio.Task[GrantedView] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._lease_id = ""

    async def take(self, offer_id: str) -> GrantedView:
        """Commit the offer and wait until the model answers.

        Raises:
            PeerNodeError: the donor did not keep to its offer.
            Error, FederationError: what the commit, or writing it down, raised.
        """
        committing = self._committing = asyncio.create_task(self._donor.commit(offer_id, self._hear))
        try:
            await asyncio.wait((committing,))
            if self._writing is not None:
                await self._writing
            if committing.cancelled():
                raise PeerNodeError(f"{self._donor.site} called the start off.", fix="try again")
            return self._checked(committing.result())
        finally:
            under_way = [one for one in (committing, self._writing) if one is not None]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _hear(self, event: RunEvent) -> None:
        match event:
            case AcceptedView():
                if self._lease_id:
                    raise self._broken("accepts one offer twice")
                accepted = self._checked_accepted(event)
                self._lease_id = accepted.lease_id
                self._held = deque(maxlen=MAX_EVENTS_HELD)
                self._writing = asyncio.create_task(self._write_down(accepted))
                return
            case NoteView(text):
                event = NoteView(printable(text, MAX_REASON_BYTES))
            case _:
                pass
        if self._held is not None:
            self._held.append(event)
        else:
            self._emit(event)

    async def _write_down(self, accepted: AcceptedView) -> None:
        try:
            await self._accept(accepted)
            held, self._held = self._held or (), None
            for event in (accepted, *held):
                self._emit(event)
        except Exception:
            if self._committing is not None:
                self._committing.cancel()
            raise

    def _checked_accepted(self, accepted: AcceptedView) -> AcceptedView:
        lease_id = accepted.lease_id
        if not 0 < len(lease_id) <= MAX_ID_CHARS or not (lease_id.isascii() and lease_id.isalnum()):
            raise self._broken("sends what is no lease's id")
        # The site is known by its certificate, whatever it calls itself.
        return replace(accepted, site=self._donor.site, node=printable(accepted.node, MAX_NAME_CHARS))

    def _checked(self, granted: GrantedView) -> GrantedView:
        if not self._lease_id or granted.lease.id != self._lease_id:
            raise self._broken("grants a lease that it has not accepted")
        if granted.lease.image_id != self._request.image_id.hex():
            raise self._broken("starts another image than the one that was asked for")
        key = granted.api_key
        if not 0 < len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
            raise self._broken("sends what is no key")
        return granted

    def _broken(self, what: str) -> PeerNodeError:
        return PeerNodeError(f"{self._donor.site} {what}.", fix=_FIX)
