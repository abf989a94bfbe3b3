"""The other sites of the consortium, as this gateway last heard from each.

Rules: whoever has not answered for ``SITE_SILENCE_S`` is lost, and is asked for nothing but how it is; a site
that left the registry is forgotten; a silent site holds up nobody: each is asked by itself, and those that
did not answer the last time wait for each other alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from agent.daemon.faces import SitePeer
from agent.daemon.parts import Lender
from agent.daemon.reports import SiteSummary
from agent.errors import RequestError
from agent.limits import MAX_SITE_QUESTIONS, SITE_POLL_S, SITE_SILENCE_S
from agent.local.federation_views import SiteView
from agent.site.trust import Trust
from federation.errors import FederationError, NotAdmittedError
from federation.registry.documents import SiteDocument
from pyrdma.errors import Error

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Neighbour:
    """Another site: how to speak to its gateway, and what it said last."""

    document: SiteDocument
    peer: SitePeer
    lender: Lender
    summary: SiteSummary | None = None
    heard_at_s: float | None = None
    fault: str = ""
    asking: asyncio.Task[None] | None = None


Reach = Callable[[str], tuple[SitePeer, Lender]]
"""Given a site's name, returns what speaks to its gateway."""


class Neighbours:
    """The other sites by name.

    Args:
        trust: who they are.
        reach: makes what speaks to one.
        clock: the clock of this process, in s.
    """

    def __init__(self, trust: Trust, reach: Reach, clock: Callable[[], float]) -> None:
        self._trust = trust
        self._reach = reach
        self._clock = clock
        self._known: dict[str, Neighbour] = {}
        self._asking = asyncio.Semaphore(MAX_SITE_QUESTIONS)
        self._asking_lost = asyncio.Semaphore(MAX_SITE_QUESTIONS)
        self._polling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._polling = asyncio.create_task(self._poll(), name="neighbours")

    async def close(self) -> None:
        """Stop asking."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        questions = [one.asking for one in self._known.values() if one.asking is not None]
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    def learn(self) -> None:
        """Take over which sites there are now."""
        now = {document.site: document for document in self._trust.others()}
        for gone in set(self._known) - set(now):
            question = self._known.pop(gone).asking
            if question is not None:
                question.cancel()
        for site, document in now.items():
            known = self._known.get(site)
            if known is None:
                self._known[site] = Neighbour(document, *self._reach(site))
            else:
                known.document = document

    def get(self, site: str) -> Neighbour:
        """Return a site.

        Raises:
            NotAdmittedError: the registry known here has none of this name.
        """
        known = self._known.get(site)
        if known is None:
            raise NotAdmittedError(
                f"the registry known here has no site {site}.",
                fix="see the sites with: pyrdma-agent nodes",
            )
        return known

    def said(self, site: str) -> SiteSummary | None:
        """Return what a site said of itself last; nothing of one that has said nothing, or is none."""
        known = self._known.get(site)
        return None if known is None else known.summary

    def ready(self) -> tuple[Neighbour, ...]:
        """Return the sites that answered lately, by name."""
        return tuple(self._known[name] for name in sorted(self._known) if self._is_ready(self._known[name]))

    def knocked(self, site: str) -> None:
        """Ask a site that calls here, and was silent, how it is: it is back, and wants images found there."""
        one = self._known.get(site)
        if one is not None and not self._is_ready(one):
            self._question(one)

    def silent(self) -> tuple[str, ...]:
        """Return the names of the others."""
        return tuple(name for name in sorted(self._known) if not self._is_ready(self._known[name]))

    async def ask_all(self) -> None:
        """Ask each site how it is, now."""
        await asyncio.gather(*self._questions(), return_exceptions=True)

    def views(self) -> tuple[SiteView, ...]:
        """Return what the local API shows of each."""
        return tuple(self._view(self._known[name]) for name in sorted(self._known))

    def _is_ready(self, one: Neighbour) -> bool:
        return one.heard_at_s is not None and self._clock() - one.heard_at_s <= SITE_SILENCE_S

    def _view(self, one: Neighbour) -> SiteView:
        said = one.summary or SiteSummary(one.document.site, "", 0, 0, 0, 0, 0.0)
        state = (
            "ready"
            if self._is_ready(one)
            else ("unknown" if not one.fault and one.heard_at_s is None else "lost")
        )
        return SiteView(
            name=one.document.site,
            trust_domain=one.document.trust_domain,
            local=False,
            state=state,
            fault=one.fault,
            age_s=None if one.heard_at_s is None else self._clock() - one.heard_at_s,
            address=one.document.gateways[0].address,
            devices=said.devices,
            leased=said.leased,
            idle=max(0, said.devices - said.leased),
            nodes=said.nodes,
            images=said.images,
            transfer_bytes_per_s=said.transfer_bytes_per_s,
            egress_left_permille=said.egress_left_permille,
        )

    async def _poll(self) -> None:
        while True:
            self._questions()
            await asyncio.sleep(SITE_POLL_S * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    def _questions(self) -> list[asyncio.Task[None]]:
        return [self._question(one) for one in self._known.values()]

    def _question(self, one: Neighbour) -> asyncio.Task[None]:
        # One question to each at a time: those that are under way are not asked again.
        if one.asking is None or one.asking.done():
            one.asking = asyncio.create_task(self._ask(one), name=f"ask-{one.document.site}")
        return one.asking

    async def _ask(self, one: Neighbour) -> None:
        async with self._asking_lost if one.fault else self._asking:
            try:
                one.summary = await one.peer.describe()
            except (Error, FederationError) as error:
                if error.message != one.fault:
                    _log.warning("the site %s: %s", one.document.site, error.message)
                one.fault = error.message
                return
        if one.fault:
            _log.info("the site %s answers again", one.document.site)
        one.fault = ""
        one.heard_at_s = self._clock()


def split_site(name: str, own_site: str) -> tuple[str, str]:
    """Return the site (empty for none and for our own) and the bare name of ``SITE/NAME`` or ``NAME``.

    Raises:
        RequestError: nothing stands behind the slash.
    """
    site, slash, bare = name.partition("/")
    if not slash:
        return "", name
    if not bare:
        raise RequestError(f"{name!r} names a site, but no model.", fix="write SITE/NAME")
    return ("" if site == own_site else site), bare
