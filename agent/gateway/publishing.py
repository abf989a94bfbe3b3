"""What a gateway shows of its queue: to its own people all of it, to anybody what may be published.

It remembers waits and reclaims of the last week; how much may be said of them is ``agent.openness``'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import islice

from agent.daemon.reports import Report
from agent.errors import StateError
from agent.gateway.core.book import Lease
from agent.gateway.core.change import Change
from agent.gateway.core.eta import eta_of
from agent.gateway.core.events import Tick
from agent.gateway.core.places import place_of
from agent.gateway.core.queue import Wish
from agent.gateway.core.request import Place, account_of
from agent.gateway.core.state import State
from agent.gateway.core.supply import Supply
from agent.gateway.view import device_counts, place_view
from agent.limits import MAX_NODES, MAX_QUEUE_LISTED
from agent.local.queue_views import (
    QueueView,
    ReclaimsView,
    ShareView,
    TermsView,
    WaitCellView,
    WaitingRequestView,
)
from agent.openness.history import History
from agent.openness.statistics import (
    KEPT_S,
    Reclaim,
    Wait,
    WaitCell,
    band_of,
    reclaims_in_all,
    waits_by_band,
    waits_by_class,
)
from federation.fairshare.accounts import institution
from federation.fairshare.line import Waiting

_log = logging.getLogger(__name__)


class Publishing:
    """One gateway's.

    Args:
        site: its name.
        state: returns what its donor decides from.
        history: the last week.
        clock: of leases, s.
    """

    def __init__(
        self, site: str, state: Callable[[], State], history: History, clock: Callable[[], float]
    ) -> None:
        self._site = site
        self._state = state
        self._history = history
        self._clock = clock
        self._reclaims: dict[str, dict[str, int]] = {}
        """By node, how often each of its devices had gone back when it last reported."""
        self._writing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until everything is written down."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    def granted(self, lease: Lease, waited_s: float) -> None:
        """Remember how long a request waited that was granted."""
        state, account = self._state(), account_of(lease.request)
        heard = state.fleet.nodes.get(lease.device.node)
        devices = heard.report.devices if heard is not None else ()
        device_class = next((one.device_class for one in devices if one.id == lease.device.device), "cpu")
        standing = state.law.standing
        band = band_of(*standing.share(account)) if standing is not None else band_of(1, 1)
        wait = Wait(time.time(), waited_s, device_class, band, lease.request.classes)
        self._write(self._history.add_wait(wait))

    def heard(self, node: str, report: Report) -> None:
        """Remember the reclaims that a node reports; those before its first report are not known."""
        known = self._reclaims.get(node, {})
        self._reclaims[node] = {one.id: one.reclaims for one in report.devices}
        if len(self._reclaims) > MAX_NODES:
            present = self._state().fleet.nodes
            self._reclaims = {name: of for name, of in self._reclaims.items() if name in present}
        for one in report.devices:
            if one.id in known and one.reclaims > known[one.id]:
                self._write(self._history.add_reclaim(Reclaim(time.time(), one.last_reclaim_s)))

    async def view(self) -> QueueView:
        """Return the queue as it stands."""
        since_s = time.time() - KEPT_S
        waits = await self._history.waits(since_s)
        reclaims = reclaims_in_all(await self._history.reclaims(since_s))
        state, now_s = self._state(), self._clock()
        law = state.law
        policy, standing, lend = law.policy, law.standing, law.lend
        reserved = [one.name for one in policy.classes.values() if one.reserve_permille] if policy else []
        return QueueView(
            site=self._site,
            consortium=policy.name if policy is not None else "",
            policy_version=policy.version if policy is not None else 0,
            policy_digest=policy.digest if policy is not None else "",
            books_age_s=float(standing.oldest_head_age_s) if standing is not None else None,
            stale=standing is not None and standing.stale,
            requests=_requests(state, now_s),
            devices=device_counts(state, now_s),
            waits=tuple(map(_cell, waits_by_band(waits))),
            reserved_waits=tuple(map(_cell, waits_by_class(waits, reserved))),
            reclaims=ReclaimsView(reclaims.reclaims, reclaims.p50_s, reclaims.longest_s),
            shares=_shares(state),
            terms=TermsView(
                lend.grace_s,
                lend.instant_grace_s,
                lend.min_runtime_s,
                lend.max_duration_s,
                lend.to,
                lend.hours,
            ),
        )

    def _write(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(_noted(work))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


async def _noted(work: Coroutine[object, object, None]) -> None:
    try:
        await work
    except StateError as error:
        _log.error("a figure of the queue's page could not be written: %s", error.message)


def _requests(state: State, now_s: float) -> tuple[WaitingRequestView, ...]:
    look = Change(state, Tick(now_s))  # nothing is changed in it
    supply = Supply(look)
    return tuple(
        WaitingRequestView(
            request_id=waiting.id,
            borrower=f"{waiting.site}/{waiting.wish.request.borrower_node}",
            account=waiting.account,
            purpose=waiting.wish.request.purpose,
            model=waiting.wish.request.model,
            devices=waiting.devices,
            instant=waiting.wish.request.instant,
            waited_s=max(0.0, now_s - waiting.wish.since_s),
            place=place_view(_place(look, waiting, supply)),
        )
        for waiting in islice(state.queue.walk(supply.deficits), MAX_QUEUE_LISTED)
    )


def _place(look: Change, waiting: Waiting[Wish], supply: Supply) -> Place:
    place = place_of(look, waiting, supply)
    return replace(place, eta_s=eta_of(look, supply, waiting, place.ahead))


def _shares(state: State) -> tuple[ShareView, ...]:
    """Return what each institution of the policy is due, and got of all decayed use."""
    standing = state.law.standing
    if standing is None:
        return ()
    roots = [path for path in standing.policy.accounts if path == f"/{institution(path)}"]
    used = sum(standing.usage.get(one, 0) for one in roots)
    shares = []
    for one in roots:
        part, whole = standing.share(one)
        delivered = standing.usage.get(one, 0) * 1000 // used if used else 0
        shares.append(ShareView(one, part * 1000 // whole if whole else 0, delivered))
    return tuple(shares)


def _cell(cell: WaitCell) -> WaitCellView:
    return WaitCellView(cell.group, cell.device_class, cell.requests, cell.p50_s, cell.p90_s)
