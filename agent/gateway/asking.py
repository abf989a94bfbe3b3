"""One request at several donors at once: offers as they come, and places that are kept until it is closed.

Rules: each donor is asked again and again, by a question that it may keep open, until it offers or refuses;
one that answers at once is not asked more often for that; a donor that gave a place and cannot be reached is
asked again for as long as the place lives; one that refused for now may be asked anew later; whoever closes
it gives up every place and every offer but the one that was taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Self

from agent.daemon.faces import Donor, LeaseOffer, OfferRequest, Refusal
from agent.limits import ASK_AGAIN_S, MAX_ASK_WAIT_S, PLACE_TTL_S
from agent.local.views import PlaceView
from federation.errors import FederationError
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asked:
    """One donor: the task that asks it, and what it said last."""

    donor: Donor
    task: asyncio.Task[None] | None = None
    answered: bool = False
    lasting: bool = False
    """It has refused for good."""
    offer: LeaseOffer | None = None
    place: PlaceView | None = None
    """What it said last; a donor with neither an offer nor a place has refused or failed."""


@dataclass(slots=True)
class Asking:
    """Use as an async context manager; leaving it gives up what was not taken.

    Args:
        request: what is asked, under one id at all donors.
        waits: told of a donor's name and the request's place there, each time that it says so.
        beside: runs what nobody waits for: giving up places and offers.
        release: gives up an offer or the request, by its id, at a donor, with a reason.
    """

    request: OfferRequest
    waits: Callable[[str, PlaceView], None]
    beside: Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
    release: Callable[[Donor, str, str], Coroutine[object, object, None]]
    reasons: dict[str, str] = field(default_factory=dict)
    """By site, why it does not lend; for the sentence when nobody does."""
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for site in list(self._asked):
            self.give_up(site, "the request was called off")

    @property
    def donors(self) -> tuple[Donor, ...]:
        """Those that were asked and not given up."""
        return tuple(one.donor for one in self._asked.values())

    @property
    def hopeful(self) -> bool:
        """Whether somebody may still offer."""
        return any(one.task is not None and not one.task.done() for one in self._asked.values())

    @property
    def passed(self) -> tuple[Donor, ...]:
        """Those that could not serve it, or not be reached, when they were asked; by now they may."""
        return tuple(
            one.donor
            for one in self._asked.values()
            if one.task is not None and one.task.done() and one.offer is None and not one.lasting
        )

    def ask(self, donor: Donor) -> None:
        """Ask a donor, or ask it anew."""
        asked = self._asked[donor.site] = _Asked(donor)
        asked.task = asyncio.create_task(self._keep_asking(asked), name=f"ask-{donor.site}")
        asked.task.add_done_callback(lambda _: self._news.set())

    async def offers(self, wait_s: float) -> list[tuple[Donor, LeaseOffer]]:
        """Return the open offers, once every donor has answered once and one of them has offered.

        Returns none when ``wait_s`` is over, or when nobody is left who may offer.
        """
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    self._news.clear()
                    every = self._asked.values()
                    found = [(one.donor, one.offer) for one in every if one.offer is not None]
                    if all(one.answered for one in every) and (found or not self.hopeful):
                        return found
                    await self._news.wait()
        except TimeoutError:
            return []

    def taken(self, site: str) -> None:
        """Note that a donor's offer has become a lease: there is nothing to give up there."""
        self._asked.pop(site, None)

    def give_up(self, site: str, reason: str) -> asyncio.Task[None]:
        """Give up a donor's place or offer; returns what does so."""
        return self.beside(self._give_up(self._asked.pop(site), reason))

    def fail(self, site: str, reason: str) -> None:
        """Note that a donor failed after its offer."""
        self.reasons[site] = reason
        self._asked.pop(site, None)

    async def _give_up(self, asked: _Asked, reason: str) -> None:
        if asked.task is not None and not asked.task.done():
            asked.task.cancel()
            await asyncio.wait([asked.task])
        if asked.offer is not None or asked.place is not None or not asked.answered:
            # One may be on its way to whoever no longer listens: the request's id means offer and place.
            meant = asked.offer.offer_id if asked.offer is not None else self.request.request_id
            await self.release(asked.donor, meant, reason)

    async def _keep_asking(self, asked: _Asked) -> None:
        donor, loop = asked.donor, asyncio.get_running_loop()
        heard_s, wait_s = loop.time(), 0.0
        while True:
            asked_s = loop.time()
            try:
                reply = await donor.ask_offer(self.request, wait_s)
            except (Error, FederationError) as error:
                self.reasons[donor.site] = error.message
                if asked.place is None or loop.time() - heard_s > PLACE_TTL_S:
                    asked.place, asked.answered = None, True
                    return
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            except Exception:  # noqa: BLE001 - the others' offers still count
                _log.exception("%s could not be asked, by a defect", donor.site)
                self.reasons[donor.site] = "it could not be asked, by a defect of this gateway."
                asked.place, asked.answered = None, True
                return
            took_s, heard_s = loop.time() - asked_s, loop.time()
            early, wait_s, asked.answered = wait_s > 0 and took_s < ASK_AGAIN_S, MAX_ASK_WAIT_S, True
            match reply:
                case PlaceView():
                    asked.place = reply
                    first = reply.reasons[0].sentence if reply.reasons else "every device is in use."
                    self.reasons[donor.site] = first
                    self.waits(donor.site, reply)
                    self._news.set()
                    if early:
                        await asyncio.sleep(ASK_AGAIN_S)
                case LeaseOffer():
                    asked.place, asked.offer = None, reply
                    return
                case Refusal():
                    asked.place, asked.lasting = None, reply.terminal
                    self.reasons[donor.site] = reply.sentence
                    return
