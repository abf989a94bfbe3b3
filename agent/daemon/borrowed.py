"""Leases that this node uses and another one runs: a port here, kept alive until somebody ends them.

Rules: a lease is in the books from the moment its donor has committed it; its time is counted on this node's
clock from before each question, so that it never believes longer in a lease than its donor; when it ends,
wherever, its port here closes with the reason written down; when the agent stops, its leases are given back.
A lease under notice is listed as ending, and as active again when its donor says that it goes on, or renews
it past its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from agent.daemon.clocks import boot_time_s
from agent.daemon.faces import Broker, Emit, LeaseNotice, Wish
from agent.daemon.lease_views import view_of, whose
from agent.daemon.leases import Leases
from agent.daemon.pipes import Pipe
from agent.daemon.relay import HOST, Relay
from agent.errors import PeerNodeError, StateError, StoppingError, UnknownLeaseError
from agent.gateway.borrowing import Borrowed, Expired, Wait, next_action, renewal_failed, renewed
from agent.limits import ATTEND_AGAIN_S, GIVE_BACK_S, KILL_SLACK_S, NOTICE_AGAIN_S, PEER_CALL_S
from agent.local.views import AcceptedView, GrantedView, RunEvent
from agent.resolve import ModelRef, parse_ref
from agent.state import LeaseRecord, Store
from federation.errors import FederationError
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId

_log = logging.getLogger(__name__)
_NOT_KNOWN_YET: Final = ImageId(bytes(32))
"""Stands in the books until the donor has said which image a name is."""
_UNKNOWN: Final = "its donor no longer knows it"


@dataclass(slots=True)
class _Open:
    """A borrowed lease that has not ended; without a record when it runs on this very node."""

    clock: Borrowed
    record: LeaseRecord | None
    account: str
    who: str
    over: asyncio.Event
    reason: str = ""
    notice: LeaseNotice | None = None
    """What its donor said last of its end; ``None``: it does not end."""
    ends_s: float = 0.0
    """When that is."""
    noted_s: float = 0.0
    """When that was written down last."""
    noting: asyncio.TimerHandle | None = None
    relay: Relay | None = None
    tending: asyncio.Task[None] | None = None


class BorrowedLeases:
    """What this node has borrowed.

    Args:
        store: the books.
        broker: what gets, renews and ends leases for this node.
        here: this node as ``SITE/NODE``.
        running: the leases that run on this very node; bytes of one of them need no way through the broker.
    """

    def __init__(self, store: Store, broker: Broker, here: str, running: Leases | None) -> None:
        self._store = store
        self._broker = broker
        self._here = here
        self._running = running
        self._open: dict[str, _Open] = {}
        self._ending: dict[str, asyncio.Task[str]] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def count(self) -> int:
        """How many have not ended, but for those that run here."""
        return sum(lease.record is not None for lease in self._open.values())

    def whose(self, lease_id: str) -> str | None:
        """Return the user of this node whose a lease is, or nothing if it is not open here."""
        lease = self._open.get(lease_id)
        return None if lease is None else lease.who

    async def run(self, wish: Wish, emit: Emit, who: str = "") -> GrantedView:
        """Borrow a lease and open a port for it; return the port's endpoint and the lease's key.

        Args:
            wish: what is wanted, under which account.
            emit: told how far it is.
            who: whose it is, of this node's people.

        Raises:
            Error, FederationError: nobody grants it, or it ended before it answered.
        """
        ref = parse_ref(wish.model)
        self._refuse_when_stopping()
        asked_s = boot_time_s()
        accepted: list[str] = []
        writing: list[asyncio.Task[None]] = []

        def on_event(event: RunEvent) -> None:
            if isinstance(event, AcceptedView):
                if accepted:
                    self._begin_end(accepted[-1], "its donor failed; another one was taken", tell=False)
                record = self._enter(ref, event, asked_s, wish.account, who)
                accepted.append(event.lease_id)
                if record is not None:
                    writing.append(asyncio.create_task(self._store.put_lease(record)))
            emit(event)

        try:
            granted = await self._broker.borrow(wish, on_event)
            await asyncio.gather(*writing)
            if granted.lease.id not in accepted[-1:]:
                raise PeerNodeError("a lease was granted that no donor had accepted.", fix="try again")
            return await self._use(granted)
        except BaseException as error:
            called_off = "the request was called off"
            reason = error.message if isinstance(error, Error | FederationError) else called_off
            ends = [self._begin_end(lease_id, reason) for lease_id in accepted]
            done = asyncio.gather(*(one for one in ends if one is not None), *writing, return_exceptions=True)
            await asyncio.shield(done)
            raise

    async def until_end(self, lease_id: str) -> str:
        """Wait until a lease has ended; return why. Raises UnknownLeaseError."""
        lease = self._known(lease_id)
        await lease.over.wait()
        return lease.reason

    async def connect(self, lease_id: str) -> Pipe:
        """Open a connection to a lease's runner. Raises Error, FederationError, OSError."""
        self._known(lease_id)
        return await self._broker.connect(lease_id)

    async def stop(self, lease_id: str, reason: str) -> str | None:
        """Give a lease back; return why it ended, or nothing if this node has not borrowed it."""
        ending = self._begin_end(lease_id, reason)
        return None if ending is None else await asyncio.shield(ending)

    async def close(self) -> None:
        """Give everything back and borrow nothing more."""
        self._stopping = True
        for lease_id in list(self._open):
            self._begin_end(lease_id, "the borrower's agent stopped")
        await asyncio.gather(*self._ending.values())

    async def give_back_old(self, records: list[LeaseRecord]) -> None:
        """Give back what an agent before this one had borrowed; its ports went with it."""
        reason = "the borrower's agent was started again"
        await asyncio.gather(*(self._tell_donor(record.id, reason) for record in records))

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise StoppingError("the agent is about to end.", fix="start it again with: pyrdma-agent serve")

    def _enter(
        self, ref: ModelRef, accepted: AcceptedView, asked_s: float, account: str, who: str
    ) -> LeaseRecord | None:
        self._refuse_when_stopping()
        lease_id, here = accepted.lease_id, f"{accepted.site}/{accepted.node}" == self._here
        runs_here = self._running is not None and self._running.runs(lease_id)
        if lease_id in self._open or lease_id in self._ending or (runs_here and not here):
            raise PeerNodeError(f"{accepted.site} names a lease that is another one.", fix="try again")
        # Here it stands as a lease that runs here.
        record = None if here else replace(_first_record(ref, accepted), account=account, who=who)
        clock = Borrowed(lease_id, accepted.site, asked_s, accepted.ttl_s)
        lease = _Open(clock, record, account, who, asyncio.Event())
        lease.tending = asyncio.create_task(self._tend(lease), name=f"borrowed-{lease_id}")
        self._open[lease_id] = lease
        return record

    async def _use(self, granted: GrantedView) -> GrantedView:
        lease_id = granted.lease.id
        lease = self._known(lease_id)
        if lease.record is None and self._running is not None:
            return await self._running.give_port(whose(granted, lease.account, lease.who))
        relay = await Relay.open(lambda: self._broker.connect(lease_id))
        if lease_id not in self._open:
            await relay.close()
        lease = self._known(lease_id)
        assert lease.record is not None, "a lease that does not run here has a record"
        lease.relay = relay
        lease.record = replace(
            lease.record,
            image_id=ImageId.parse(granted.lease.image_id),
            state="ending" if lease.notice is not None else "active",
            reason=lease.notice.reason if lease.notice is not None else "",
            port=relay.port,
            key_digest=hashlib.sha256(granted.api_key.encode()).digest(),
        )
        await self._store.put_lease(lease.record)
        endpoint = f"http://{HOST}:{relay.port}/v1"
        return replace(granted, lease=view_of(lease.record, None), endpoint=endpoint)

    def _known(self, lease_id: str) -> _Open:
        lease = self._open.get(lease_id)
        if lease is None:
            raise UnknownLeaseError(f"the lease {lease_id[:32]!r} ended before it could be used.")
        return lease

    # --- while it lasts -----------------------------------------------------------------------------------

    async def _tend(self, lease: _Open) -> None:
        lease_id = lease.clock.lease_id
        attending = asyncio.create_task(self._attend(lease))
        keeping = asyncio.create_task(self._keep_alive(lease))
        try:
            await asyncio.wait((attending, keeping), return_when=asyncio.FIRST_COMPLETED)
            if not attending.done() and keeping.result() == _UNKNOWN:
                await asyncio.wait((attending,), timeout=2 * ATTEND_AGAIN_S)  # it may hear why
            reason = attending.result() if attending.done() else keeping.result()
        except Exception:  # noqa: BLE001 - a lease that nobody tends would keep its port for ever
            _log.exception("lease %s: a defect", lease_id)
            reason = "a defect of the borrower's agent"
        finally:
            attending.cancel()
            keeping.cancel()
            await asyncio.gather(attending, keeping, return_exceptions=True)
        self._begin_end(lease_id, reason, tell=False)

    async def _attend(self, lease: _Open) -> str:
        lease_id = lease.clock.lease_id
        while True:
            try:
                return await self._broker.attend(lease_id, partial(self._heed, lease))
            except UnknownLeaseError:
                return _UNKNOWN
            except (Error, FederationError) as error:
                _log.info("lease %s is not attended for a moment: %s", lease_id, error.message)
            await asyncio.sleep(ATTEND_AGAIN_S)

    def _heed(self, lease: _Open, notice: LeaseNotice | None) -> None:
        now_s = boot_time_s()
        lease.notice, lease.ends_s = notice, now_s + (notice.left_s if notice is not None else 0.0)
        pause_s = lease.noted_s + NOTICE_AGAIN_S - now_s
        if lease.noting is None and pause_s > 0:
            # A donor that says so without end must not fill the log and the disk; the last word counts.
            lease.noting = asyncio.get_running_loop().call_later(pause_s, self._note_news, lease)
        elif lease.noting is None:
            self._note_news(lease)

    def _goes_on(self, lease: _Open) -> None:
        # A donor whose word was lost tells of an end that is called off by renewing past it.
        if lease.notice is not None and boot_time_s() > lease.ends_s + KILL_SLACK_S:
            self._heed(lease, None)

    def _note_news(self, lease: _Open) -> None:
        # It answers until its end; whoever uses it can see why it will not for longer.
        lease.noting, lease.noted_s = None, boot_time_s()
        lease_id, notice, record = lease.clock.lease_id, lease.notice, lease.record
        if notice is not None:
            left_s = max(0.0, lease.ends_s - lease.noted_s)
            _log.warning("lease %s ends in %.0f s: %s", lease_id, left_s, notice.reason)
            self._note(lease, "ending", notice.reason)
        elif record is not None and record.state == "ending":
            _log.info("lease %s goes on after all", lease_id)
            self._note(lease, "active" if record.port is not None else "warming", "")

    def _note(self, lease: _Open, state: str, reason: str) -> None:
        if lease.record is not None and lease.clock.lease_id in self._open:
            lease.record = replace(lease.record, state=state, reason=reason)
            writing = asyncio.create_task(self._write(lease.record))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)

    async def _write(self, record: LeaseRecord) -> None:
        try:
            await self._store.put_lease(record)
        except StateError as error:
            _log.error("lease %s is %s, not so on disk: %s", record.id, record.state, error.message)

    async def _keep_alive(self, lease: _Open) -> str:
        lease_id, asked = lease.clock.lease_id, False
        while True:
            now_s = boot_time_s()
            action = next_action(lease.clock, now_s)
            if isinstance(action, Wait):
                await asyncio.sleep(action.until_s - now_s)
                continue
            # Other donors may have failed for longer than this lease lives: it is asked once all the same.
            if isinstance(action, Expired) and asked:
                return "its time was over: its donor could not be reached"
            left_s = PEER_CALL_S if isinstance(action, Expired) else lease.clock.deadline_s - now_s
            asked = True
            try:
                async with asyncio.timeout(left_s):
                    ttl_s = await self._broker.renew(lease_id)
                lease.clock = renewed(lease.clock, now_s, ttl_s)
                self._goes_on(lease)
            except UnknownLeaseError:
                return _UNKNOWN
            except (Error, FederationError, TimeoutError) as error:
                _log.warning("lease %s could not be renewed: %s", lease_id, error)
                lease.clock = renewal_failed(lease.clock, boot_time_s())

    # --- how it ends --------------------------------------------------------------------------------------

    def _begin_end(self, lease_id: str, reason: str, *, tell: bool = True) -> asyncio.Task[str] | None:
        # Who asks for the end of a lease that is ending already waits for the same end.
        lease = self._open.pop(lease_id, None)
        if lease is not None:
            ending = asyncio.create_task(self._undo(lease, reason, tell=tell), name=f"end-{lease_id}")
            self._ending[lease_id] = ending
            ending.add_done_callback(lambda _: self._ending.pop(lease_id, None))
        return self._ending.get(lease_id)

    async def _undo(self, lease: _Open, reason: str, *, tell: bool) -> str:
        lease_id = lease.clock.lease_id
        if lease.noting is not None:
            lease.noting.cancel()
        if lease.tending is not None:
            lease.tending.cancel()
            await asyncio.wait((lease.tending,))
        if lease.relay is not None:
            await lease.relay.close()
        if tell:
            reason = await self._tell_donor(lease_id, reason)
        if lease.record is not None:
            await asyncio.gather(*self._writing)
            await self._write(
                replace(lease.record, state="ended", ended_at=time.time(), reason=reason, port=None)
            )
        _log.info("the borrowed lease %s has ended: %s", lease_id, reason)
        lease.reason = reason
        lease.over.set()
        return reason

    async def _tell_donor(self, lease_id: str, reason: str) -> str:
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                return await self._broker.release(lease_id, reason)
        except UnknownLeaseError:
            return reason
        except (Error, FederationError, TimeoutError) as error:
            # Its donor ends it by its time; nothing of it is left here.
            _log.warning("lease %s could not be given back: %s", lease_id, error)
            return reason


def _first_record(ref: ModelRef, accepted: AcceptedView) -> LeaseRecord:
    return LeaseRecord(
        id=accepted.lease_id,
        model=ref.name,
        image_id=ref.image_id or _NOT_KNOWN_YET,
        state="warming",
        created_at=time.time(),
        ended_at=None,
        reason="",
        port=None,
        key_digest=b"",
        donor=f"{accepted.site}/{accepted.node}",
    )
