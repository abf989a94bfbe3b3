"""What makes a gateway share fairly, put together: policy, books, receipts, ranking, exchange, clock.

It joins parts that do not know each other, and carries what one says to the donor's rules as events. It
decides nothing: who is next is ``agent.gateway.core.leases``', what counts as use is ``federation.ledger``'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.daemon.faces import OfferRequest, Refusal
from agent.gateway.accounting import Accounting
from agent.gateway.core.events import ClockRead, PolicyChanged, Receipted, StandingChanged
from agent.gateway.core.placement import CarbonPreference
from agent.gateway.core.request import NO_PURPOSE
from agent.gateway.decision_log import DecisionLog
from agent.gateway.donor import LocalDonor
from agent.gateway.neighbours import Neighbours
from agent.gateway.ranking import Ranking
from agent.gateway.signed_requests import KnownRequests, default_purpose, signed
from agent.gateway.view import device_counts
from agent.ledger.books import Judge, LedgerBooks, Signing
from agent.ledger.exchange import ExchangePeer, LedgerExchange
from agent.ledger.judging import BorrowedTime, judge_of
from agent.limits import CLOCK_READ_EVERY_S
from agent.site.policy_in_force import InForce
from agent.site.policy_watch import PolicyWatch
from agent.site.trust import Trust
from agent.state import SiteStore, StateFile
from agent.state.ledger_store import LedgerStore
from federation.errors import ReceiptError
from federation.fairshare.standing import Standing
from federation.ledger.signing import Keys, keys_of
from federation.policy.policy import Policy
from federation.registry.membership import Membership

_log = logging.getLogger(__name__)
_NOBODY = Keys({})


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gateway's fairness is made of from outside.

    Args:
        site: this one's name.
        folder: the agent's state directory.
        file: the state file.
        store: the gateway's books of leases.
        key: the site's receipts key.
        trust: what the registry says.
        neighbours: the other sites.
        peer: returns another gateway's books, by site.
        clock: of leases, s.
    """

    site: str
    folder: Path
    file: StateFile
    store: SiteStore
    key: Ed25519PrivateKey
    trust: Trust
    neighbours: Neighbours
    peer: Callable[[str], ExchangePeer]
    clock: Callable[[], float]


class _KeysOf:
    """The sites' keys as the registry has them, made anew when it has changed: each request asks for them."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._membership: Membership | None = None
        self._keys = _NOBODY

    def __call__(self) -> Keys:
        known = self._trust.membership
        if known is not self._membership:
            self._keys = _NOBODY if known is None else keys_of(known)
            self._membership = known
        return self._keys


class Fairness:
    """One gateway's. Made by ``of``; ``start`` needs its donor."""

    def __init__(self, parts: Parts, books: LedgerBooks, watch: PolicyWatch) -> None:
        self._parts = parts
        self.books = books
        self.watch = watch
        self._requests = KnownRequests(lambda: books.keys, time.time)
        self._log = DecisionLog(books.store.log)
        self.record = self._log.decided
        """Keeps a decision for the books."""
        self._applying: set[asyncio.Future[object]] = set()
        self._clock: asyncio.Task[None] | None = None
        self._donor: LocalDonor | None = None
        self.ranking = Ranking(books, policy=lambda: self.base, donated=self._donated, changed=self._ranked)
        self.accounting = Accounting(
            books,
            policy=lambda: self.base,
            policies=watch.policies,
            state=lambda: self._lender.state,
            idle=self._idle,
            receipted=self._receipted,
            clock=parts.clock,
        )
        self.exchange = LedgerExchange(books, self._peers, self._judge, self.ranking.soon)

    @classmethod
    async def of(cls, parts: Parts) -> Fairness:
        """Return a gateway's fairness; raises StateError when the books cannot be read."""
        made: list[Fairness] = []

        def changed(now: InForce) -> None:
            if made:
                made[0].go_by(now)

        watch = PolicyWatch(parts.folder, parts.site, changed)

        books = await LedgerBooks.of(
            LedgerStore(parts.file),
            Signing(parts.site, parts.key),
            keys=_KeysOf(parts.trust),
            policies=watch.policies,
        )
        made.append(cls(parts, books, watch))
        return made[0]

    @property
    def policy(self) -> Policy | None:
        """What this site decides by, its overlay in it."""
        return _deciding(self.watch.now)

    @property
    def base(self) -> Policy | None:
        """The version in force as all sites have it: it ranks and prices."""
        return self.watch.now.base

    async def start(self, donor: LocalDonor) -> None:
        """Begin, once the donor has taken over its leases."""
        self._donor = donor
        await self._read_clock()
        await self.watch.start(self._parts.trust.membership)
        await donor.apply(partial(PolicyChanged, self.policy))
        await self.accounting.start()
        self.ranking.start()
        self.exchange.start()
        self._log.start()
        self._clock = asyncio.create_task(self._read_clock_always(), name="clock")

    def learn(self) -> None:
        """Take over what the registry says now."""
        self.watch.learn(self._parts.trust.membership)

    async def refresh(self) -> None:
        """Look at the policy's files, exchange books with every gateway that answers, and rank, now."""
        await self.watch.look()
        await self.exchange.ask_all()
        await self.ranking.now()

    async def close(self) -> None:
        """Stop; what was decided until now is written down."""
        await self.exchange.close()
        await self.ranking.close()
        await self.accounting.close()
        await self.watch.close()
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
        await asyncio.gather(*self._applying, return_exceptions=True)
        await self._log.close()

    # --- for the donor and the broker ---------------------------------------------------------------------

    def refuses(self, request: OfferRequest, site: str) -> Refusal | None:
        """Return why a request is not even looked at: nobody has signed it, or its site owes signatures.

        A site's own devices are its own, whatever the registry says of its key, and whoever it owes.
        """
        if self.base is None:
            return None
        own = site == self._parts.site
        try:
            first = self._requests.check(request, site)
        except ReceiptError as error:
            if own:
                return None
            return Refusal("unsigned", error.message, error.fix or "ask anew", terminal=True)
        if first is not None:
            self._log.asked(request.asked_at_s, first)
        if site in self.ranking.arrears and not own:
            return Refusal(
                "arrears",
                f"{site} has let receipts stand for more than a day without its signature.",
                "let its gateway reach the donors; it signs by itself",
                terminal=False,
            )
        return None

    def carbon(self) -> CarbonPreference:
        """Return how much other sites' carbon counts among offers now, as the policy says."""
        weight = 0 if self.base is None else self.base.carbon.weight_permille
        return CarbonPreference(weight, self.exchange.carbon.grams(time.time()) if weight else {})

    def signed(self, request: OfferRequest) -> OfferRequest:
        """Return a request of this site with a purpose and its signature.

        Raises:
            ReceiptError: it is outside its bounds.
        """
        purpose = request.purpose or default_purpose(self.base)
        return signed(replace(request, purpose=purpose), self._parts.site, self._parts.key, int(time.time()))

    # --- within -------------------------------------------------------------------------------------------

    @property
    def _lender(self) -> LocalDonor:
        assert self._donor is not None, "it was started"
        return self._donor

    def go_by(self, now: InForce) -> None:
        """Have the donor decide by what is in force now."""
        if self._donor is not None:
            self._apply(self._donor.apply(partial(PolicyChanged, _deciding(now))))
            self.ranking.soon()

    async def _ranked(self, standing: Standing) -> None:
        await self._lender.apply(partial(StandingChanged, standing))

    def _receipted(self, lease_id: str, charge_msgs: int) -> None:
        self._apply(self._lender.apply(partial(Receipted, lease_id, charge_msgs)))
        self.ranking.soon()

    def _apply(self, applying: Awaitable[object]) -> None:
        task = asyncio.ensure_future(applying)
        self._applying.add(task)
        task.add_done_callback(self._applying.discard)
        task.add_done_callback(_told)

    def _donated(self) -> Mapping[str, int]:
        counts: dict[str, int] = {}
        for device_class, lent, _ in self._devices():
            counts[device_class] = counts.get(device_class, 0) + lent
        return counts

    def _idle(self) -> Iterable[str]:
        return {device_class for device_class, lent, used in self._devices() if lent > used}

    def _devices(self) -> Iterable[tuple[str, int, int]]:
        for own in device_counts(self._lender.state, self._parts.clock()):
            yield own.device_class, own.lent, own.used
        for one in self._parts.neighbours.ready():
            if one.summary is not None:
                for count in one.summary.by_class:
                    yield count.device_class, count.lent, count.used

    def _peers(self) -> Iterable[ExchangePeer]:
        return [self._parts.peer(one.document.site) for one in self._parts.neighbours.ready()]

    async def _judge(self) -> Judge:
        site = self._parts.site
        now_s = time.time()
        records = await self._parts.store.leases(include_ended=True)
        ours = [one for one in records if one.borrower_site == site]
        borrowed = {
            (one.donor_site, one.id.rpartition("/")[2]): BorrowedTime(
                one.account, one.purpose or NO_PURPOSE, one.created_at, one.ended_at
            )
            for one in ours
        }
        since_s = min((one.created_at for one in ours), default=now_s)
        return judge_of(borrowed, self.watch.policies(), since_s=since_s, now_s=now_s)

    async def _read_clock(self) -> None:
        local = time.localtime()
        await self._lender.apply(partial(ClockRead, int(time.time()), local.tm_gmtoff))

    async def _read_clock_always(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_READ_EVERY_S)
            try:
                await self._read_clock()
            except Exception:  # noqa: BLE001 - hours of lending would go by an old clock for ever
                _log.exception("the time of day met a defect; it is read again")


def _deciding(now: InForce) -> Policy | None:
    """Return what the donor decides by: where it lends nothing, a policy under which it lends to nobody."""
    policy = now.policy or now.base
    if policy is None or now.lends:
        return policy
    return replace(policy, lend=replace(policy.lend, to=()))


def _told(task: asyncio.Future[object]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("an event of fair share met a defect", exc_info=task.exception())
