"""Leases that this node uses and another one runs: a port here, kept alive until somebody ends them.

Rules: a lease is in the books from the moment its donor has committed it; its time is counted on this node's
clock from before each question, so that it never believes longer in a lease than its donor; when it ends,
wherever, its port here closes with the reason written down; when the agent stops, its leases are given back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass, replace
from typing import Final

from agent.daemon.faces import Broker, Emit, Wish
from agent.daemon.leases import Leases, view_of
from agent.daemon.relay import HOST, Relay
from agent.errors import StateError, StoppingError, UnknownLeaseError
from agent.gateway.borrowing import Borrowed, Expired, Wait, next_action, renewal_failed, renewed
from agent.limits import ATTEND_AGAIN_S, GIVE_BACK_S
from agent.local.views import AcceptedView, GrantedView, RunEvent
from agent.resolve import ModelRef, parse_ref
from agent.state import LeaseRecord, Store
from federation.errors import FederationError
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId

_log = logging.getLogger(__name__)
_NOT_KNOWN_YET: Final = ImageId(bytes(32))
"""Stands in the books until the donor has said which image a name is."""


def boot_time_s() -> float:
    """Return the clock of leases: it goes on while the machine sleeps, and nobody can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class _Open:
    """A borrowed lease that has not ended; without a record when it runs on this very node."""

    clock: Borrowed
    record: LeaseRecord | None
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
        self._stopping = False

    @property
    def count(self) -> int:
        """How many have not ended, but for those that run here."""
        return sum(lease.record is not None for lease in self._open.values())

    async def run(self, wish: Wish, emit: Emit) -> GrantedView:
        """Borrow a lease and open a port for it; return the port's endpoint and the lease's key.

        Raises:
            Error, FederationError: nobody grants it, or it ended before it answered.
        """
        if self._stopping:
            raise StoppingError("the agent is about to end.", fix="start it again with: pyrdma-agent serve")
        ref = parse_ref(wish.model)
        asked_s = boot_time_s()
        accepted: list[str] = []
        writing: list[asyncio.Task[None]] = []

        def on_event(event: RunEvent) -> None:
            if isinstance(event, AcceptedView):
                accepted.append(event.lease_id)
                clock = Borrowed(event.lease_id, event.site, asked_s, event.ttl_s)
                lease = self._open[event.lease_id] = _Open(clock, self._first_record(ref, event))
                lease.tending = asyncio.create_task(self._tend(lease), name=f"borrowed-{event.lease_id}")
                if lease.record is not None:
                    writing.append(asyncio.create_task(self._store.put_lease(lease.record)))
            emit(event)

        try:
            granted = await self._broker.borrow(wish, on_event)
            await asyncio.gather(*writing)
            return await self._use(granted)
        except BaseException as error:
            called_off = "the request was called off"
            reason = error.message if isinstance(error, Error | FederationError) else called_off
            await asyncio.gather(*writing, return_exceptions=True)
            for lease_id in accepted:
                await asyncio.shield(asyncio.create_task(self._give_back(lease_id, reason)))
            raise

    async def stop(self, lease_id: str, reason: str) -> str | None:
        """Give a lease back; return why it ended, or nothing if this node has not borrowed it."""
        if lease_id not in self._open:
            return None
        return await self._give_back(lease_id, reason)

    async def close(self) -> None:
        """Give everything back and borrow nothing more."""
        self._stopping = True
        reason = "the borrower's agent stopped"
        await asyncio.gather(*(self._give_back(one, reason) for one in list(self._open)))

    async def give_back_old(self, records: list[LeaseRecord]) -> None:
        """Give back what an agent before this one had borrowed; its ports went with it."""
        for record in records:
            await self._tell_donor(record.id, "the borrower's agent was started again")

    def _first_record(self, ref: ModelRef, accepted: AcceptedView) -> LeaseRecord | None:
        donor = f"{accepted.site}/{accepted.node}"
        if donor == self._here:
            return None  # it stands in the books as a lease that runs here
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
            donor=donor,
        )

    async def _use(self, granted: GrantedView) -> GrantedView:
        lease_id = granted.lease.id
        lease = self._open.get(lease_id)
        if lease is None:
            raise UnknownLeaseError(f"the lease {lease_id[:32]!r} ended before it could be used.")
        if lease.record is None and self._running is not None:
            return await self._running.give_port(granted)
        assert lease.record is not None, "a lease that does not run here has a record"
        lease.relay = await Relay.open(lambda: self._broker.connect(lease_id))
        lease.record = replace(
            lease.record,
            image_id=ImageId.parse(granted.lease.image_id),
            state="active",
            port=lease.relay.port,
            key_digest=hashlib.sha256(granted.api_key.encode()).digest(),
        )
        await self._store.put_lease(lease.record)
        endpoint = f"http://{HOST}:{lease.relay.port}/v1"
        return replace(granted, lease=view_of(lease.record, None), endpoint=endpoint)

    # --- while it lasts -----------------------------------------------------------------------------------

    async def _tend(self, lease: _Open) -> None:
        lease_id = lease.clock.lease_id
        watching = [
            asyncio.create_task(self._attend(lease_id)),
            asyncio.create_task(self._keep_alive(lease)),
        ]
        try:
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            await self._end(lease_id, done.pop().result())
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _attend(self, lease_id: str) -> str:
        while True:
            try:
                return await self._broker.attend(lease_id)
            except UnknownLeaseError:
                return "its donor no longer knows it"
            except (Error, FederationError) as error:
                _log.info("lease %s is not attended for a moment: %s", lease_id, error.message)
            await asyncio.sleep(ATTEND_AGAIN_S)

    async def _keep_alive(self, lease: _Open) -> str:
        while True:
            now_s = boot_time_s()
            action = next_action(lease.clock, now_s)
            if isinstance(action, Expired):
                return "its time was over: its donor could not be reached"
            if isinstance(action, Wait):
                await asyncio.sleep(action.until_s - now_s)
                continue
            try:
                ttl_s = await self._broker.renew(lease.clock.lease_id)
                lease.clock = renewed(lease.clock, now_s, ttl_s)
            except UnknownLeaseError:
                return "its donor no longer knows it"
            except (Error, FederationError) as error:
                _log.warning("lease %s could not be renewed: %s", lease.clock.lease_id, error.message)
                lease.clock = renewal_failed(lease.clock, boot_time_s())

    # --- how it ends --------------------------------------------------------------------------------------

    async def _give_back(self, lease_id: str, reason: str) -> str:
        reason = await self._tell_donor(lease_id, reason)
        await self._end(lease_id, reason)
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

    async def _end(self, lease_id: str, reason: str) -> None:
        lease = self._open.pop(lease_id, None)
        if lease is None:
            return
        if lease.tending is not None and lease.tending is not asyncio.current_task():
            lease.tending.cancel()
        if lease.relay is not None:
            await lease.relay.close()
        if lease.record is not None:
            ended = replace(lease.record, state="ended", ended_at=time.time(), reason=reason, port=None)
            try:
                await self._store.put_lease(ended)
            except StateError as error:
                _log.error("lease %s has ended, its record could not be written: %s", lease_id, error.message)
        _log.info("the borrowed lease %s has ended: %s", lease_id, reason)
