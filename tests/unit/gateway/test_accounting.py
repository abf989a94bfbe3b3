"""Receipts of a donor's leases, in real books on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.gateway.accounting import Accounting
from agent.gateway.core.book import Book, Lease, LeaseState, Terms
from agent.gateway.core.fleet import DeviceRef
from agent.gateway.core.request import LeaseRequest
from agent.gateway.core.state import State
from agent.gateway.metering import Meters, Use
from agent.ledger.books import LedgerBooks, Signing
from agent.state import SiteStore, StateFile
from agent.state.ledger_store import LedgerStore
from agent.state.records import SiteLeaseRecord
from federation.ledger.form import decode
from federation.ledger.receipt import Receipt
from federation.ledger.signing import KeyOfSite, Keys
from federation.policy.policy import AccountRule, ClassRule, Policy, PurposeRule
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

POLICY = Policy(
    name="north",
    version=1,
    effective_at_s=0,
    digest="ab" * 32,
    accounts={"/uni-b": AccountRule("/uni-b", 1, (), ("uni-b",), {}, True)},
    classes={"student": ClassRule("student", 0, ())},
    purposes={"safety": PurposeRule("safety", 500, ("*",))},
    device_classes={"cpu": 250},
)
REQUEST = LeaseRequest(
    id="r1",
    borrower_site="uni-b",
    borrower_node="b1",
    model="llama",
    image_id="a" * 64,
    total_bytes=10,
    account="/uni-b/lab",
    purpose="safety",
)
LEASE = Lease(
    id="lease1",
    offer_id="o1",
    request=REQUEST,
    devices=(DeviceRef("n1", "cpu0"),),
    state=LeaseState.COMMITTED,
    deadline_s=2000.0,
    terms=Terms(min_runtime_s=900.0),
    granted_at_s=1000.0,
)
RECORD = SiteLeaseRecord(
    id="lease1",
    side="lent",
    model="llama",
    image_id=ImageId(b"\xaa" * 32),
    total_bytes=10,
    borrower_site="uni-b",
    borrower_node="b1",
    donor_site="uni-a",
    node="n1",
    device="cpu0",
    state="committed",
    created_at=1.0,
    deadline_s=2000.0,
    ttl_s=600.0,
    boot_id="boot",
)
KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()


class Bench:
    """One donor's accounting over a state file."""

    def __init__(self, books: LedgerBooks, store: SiteStore) -> None:
        self.books = books
        self.store = store
        self.state = State()
        self.now_s = 1000.0
        self.policy: Policy | None = POLICY
        self.policies = {POLICY.digest: POLICY}
        self.receipted: list[tuple[str, int]] = []
        self.accounting = self.new()

    def new(self) -> Accounting:
        return Accounting(
            self.books,
            policy=lambda: self.policy,
            policies=lambda: self.policies,
            state=lambda: self.state,
            idle=lambda: ("cpu",),
            receipted=lambda lease_id, msgs: self.receipted.append((lease_id, msgs)),
            clock=lambda: self.now_s,
            unix_s=lambda: 1_700_000_000 + self.now_s,
        )

    async def save(self, lease: Lease) -> None:
        entry = self.accounting.entry(lease)
        await self.store.put_lease(replace(RECORD, id=lease.id, state=str(lease.state)), entry)
        if entry is not None:
            self.accounting.entered(lease)
        leases = {} if lease.state is LeaseState.ENDED else {lease.id: lease}
        others = {key: one for key, one in self.state.book.leases.items() if key != lease.id}
        self.state = replace(self.state, book=Book(leases=others | leases))

    async def receipts(self) -> list[Receipt]:
        return [decode(one.body) for one in await self.books.page("uni-a", 0)]


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], object]:
    """Open books of uni-a in one file, again and again."""

    @asynccontextmanager
    async def of() -> AsyncIterator[Bench]:
        file = await StateFile.open(tmp_path / "state.sqlite3")
        keys = Keys({site: (KeyOfSite(PUBLIC),) for site in ("uni-a", "uni-b")})
        books = await LedgerBooks.of(
            LedgerStore(file),
            Signing("uni-a", KEY),
            keys=lambda: keys,
            policies=lambda: {POLICY.digest: POLICY},
        )
        await books.confirm_own(None, None)  # another gateway has said that it knows no more
        bench = Bench(books, await SiteStore.of(file))
        try:
            yield bench
        finally:
            await bench.accounting.close()
            await file.close()

    return of


async def test_a_lease_is_in_the_books_from_its_grant_to_its_end(opened: Callable[[], object]) -> None:
    """A first receipt that charges nothing, a last one that charges what the policy says of all its time."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
        bench.now_s += 100.0
        await bench.accounting._write_due()
        await bench.save(replace(LEASE, state=LeaseState.ENDED, reason="given back"))
        first, last = await bench.receipts()
        assert (first.seq, first.charge_msgs, first.final, first.device) == (1, 0, False, "n1/cpu0")
        assert (last.seq, last.busy_ms, last.final, last.account) == (2, 100_000, True, "/uni-b/lab")
        assert last.charge_msgs == 100_000 * 250 // 1000 * 500 // 1000
        assert bench.receipted == [("lease1", 0)], "the ledger knows of it: no charge at admission any more"


async def test_a_lease_that_its_donor_ended_early_charges_nothing(opened: Callable[[], object]) -> None:
    """Its guest lost the work: the receipt says that it is refunded."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
        bench.now_s += 100.0
        await bench.save(replace(LEASE, state=LeaseState.ENDED, reason="reclaimed", refunded=True))
        last = (await bench.receipts())[-1]
        assert (last.refunded, last.charge_msgs, last.busy_ms) == (True, 0, 100_000)


async def test_without_a_policy_nothing_is_charged(opened: Callable[[], object]) -> None:
    """There is no table of charges, so there is no receipt, then or later."""
    async with opened() as bench:  # type: ignore[attr-defined]
        bench.policy = None
        await bench.save(LEASE)
        bench.policy = POLICY
        await bench.save(replace(LEASE, state=LeaseState.ENDED, reason="given back"))
        assert await bench.receipts() == []


async def test_a_lease_without_a_policy_stays_without_receipts(opened: Callable[[], object]) -> None:
    """A policy that comes into force while it runs does not price it afterwards, renewed or not."""
    async with opened() as bench:  # type: ignore[attr-defined]
        bench.policy = None
        await bench.save(LEASE)
        bench.policy = POLICY
        await bench.save(replace(LEASE, deadline_s=3000.0))
        await bench.save(replace(LEASE, state=LeaseState.ACTIVE))
        bench.now_s += 700.0
        await bench.accounting._write_due()
        await bench.save(replace(LEASE, state=LeaseState.ENDED))
        assert await bench.receipts() == []


async def test_a_lease_that_waits_for_its_devices_is_not_charged(opened: Callable[[], object]) -> None:
    """Its receipts begin when it has them; one that never has them has none."""
    async with opened() as bench:  # type: ignore[attr-defined]
        waiting = replace(LEASE, state=LeaseState.WAITING)
        await bench.save(waiting)
        assert await bench.receipts() == []
        bench.now_s += 90.0
        await bench.save(replace(LEASE, granted_at_s=bench.now_s))
        bench.now_s += 10.0
        await bench.save(replace(LEASE, granted_at_s=bench.now_s - 10.0, state=LeaseState.ENDED))
        first, last = await bench.receipts()
        assert (first.from_s, last.busy_ms) == (1_700_001_090, 10_000)
        await bench.save(replace(waiting, id="lease2"))
        await bench.save(replace(waiting, id="lease2", state=LeaseState.ENDED))
        assert len(await bench.receipts()) == 2


async def test_a_lease_that_could_not_be_written_down_leaves_nothing(opened: Callable[[], object]) -> None:
    """It was never granted: nothing is kept of it for ever, and nobody is charged."""
    async with opened() as bench:  # type: ignore[attr-defined]
        assert bench.accounting.entry(LEASE) is not None
        bench.now_s += 600.0
        await bench.accounting._write_due()
        bench.accounting.measured(LEASE.id, Use(energy_wh=7))
        assert (bench.accounting._uses, bench.accounting._due_s) == ({}, {})
        assert await bench.receipts() == []


async def test_a_first_receipt_that_was_refused_follows_soon(opened: Callable[[], object]) -> None:
    """Others must hear of the lease long before its next receipt is due."""
    async with opened() as bench:  # type: ignore[attr-defined]
        assert bench.accounting.entry(LEASE) is not None
        bench.state = State(book=Book(leases={LEASE.id: LEASE}))
        bench.now_s += 10.0
        await bench.accounting._write_due()
        (first,) = await bench.receipts()
        assert (first.seq, first.busy_ms, first.final) == (1, 10_000, False)
        bench.now_s += 10.0
        await bench.accounting._write_due()
        assert len(await bench.receipts()) == 1, "the next one has its usual time"


async def test_what_the_ledger_refuses_for_good_is_not_tried_for_ever(
    opened: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    """A last receipt that somebody wrote before is said once."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
        over = replace(LEASE, state=LeaseState.ENDED, reason="given back")
        entry = bench.accounting.entry(over)
        await bench.store.put_lease(replace(RECORD, state="ended"), entry)
        for _ in range(3):
            await bench.accounting._write_due()
        assert caplog.text.count("has had its last receipt") == 1
        assert [one.final for one in await bench.receipts()] == [False, True]


async def test_last_receipts_that_wait_are_bounded(
    opened: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While books are locked for days, the newest are kept; the others stand at their receipt before."""
    monkeypatch.setattr("agent.gateway.accounting.MAX_LATE_RECEIPTS", 2)
    async with opened() as bench:  # type: ignore[attr-defined]
        for name in ("a", "b", "c"):
            await bench.save(replace(LEASE, id=name, devices=(DeviceRef("n1", name),)))
        for name in ("a", "b", "c"):
            bench.accounting.entry(replace(LEASE, id=name, state=LeaseState.ENDED))
        await bench.accounting._write_due()
        assert [one.lease_id for one in await bench.receipts() if one.final] == ["b", "c"]


async def test_a_policy_that_is_not_known_yet_is_waited_for(opened: Callable[[], object]) -> None:
    """A gateway that starts before it has read the registry closes receipts once it has."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
    async with opened() as bench:  # type: ignore[attr-defined]
        bench.policies = {}
        await bench.accounting.start()
        await bench.accounting._write_due()
        assert len(await bench.receipts()) == 1
        bench.policies = {POLICY.digest: POLICY}
        await bench.accounting._write_due()
        assert (await bench.receipts())[-1].final


async def test_a_lease_and_its_receipt_are_on_disk_together(opened: Callable[[], object]) -> None:
    """A receipt that cannot be written takes the lease's row with it: neither stands without the other."""
    async with opened() as bench:  # type: ignore[attr-defined]
        entry = bench.accounting.entry(LEASE)
        assert entry is not None

        def broken(db: object) -> None:
            entry(db)
            raise RuntimeError("the power fails here")

        with pytest.raises(Exception, match="the power fails here"):
            await bench.store.put_lease(RECORD, broken)
        assert await bench.receipts() == []
        assert await bench.store.leases(include_ended=True) == []


async def test_what_ended_while_nobody_counted_is_closed(opened: Callable[[], object]) -> None:
    """After a restart a lease that is not there any more gets its last receipt, for no more than before."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
    async with opened() as bench:  # type: ignore[attr-defined]
        bench.now_s += 5000.0
        await bench.accounting.start()
        await bench.accounting._write_due()
        last = (await bench.receipts())[-1]
        assert (last.seq, last.final, last.busy_ms) == (2, True, 0)


async def test_what_was_to_be_refunded_while_nobody_counted_is(opened: Callable[[], object]) -> None:
    """Its owner took it back at the moment of the restart, before its minimum time: it charges nothing."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
        bench.now_s += 700.0
        await bench.accounting._write_due()
    async with opened() as bench:  # type: ignore[attr-defined]
        over = replace(LEASE, state=LeaseState.ENDED, refunded=True)
        bench.state = State(book=Book(ended={LEASE.id: over}))
        bench.now_s += 800.0
        await bench.accounting.start()
        await bench.accounting._write_due()
        last = (await bench.receipts())[-1]
        assert (last.final, last.refunded, last.charge_msgs) == (True, True, 0)


async def test_a_lease_goes_on_in_the_books_after_a_restart(opened: Callable[[], object]) -> None:
    """Its next receipt continues the one before, with the node's own measures in it."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
    async with opened() as bench:  # type: ignore[attr-defined]
        bench.state = State(book=Book(leases={LEASE.id: LEASE}))
        bench.now_s += 700.0
        await bench.accounting.start()
        bench.accounting.measured(LEASE.id, Use(energy_wh=7, egress_bytes=99))
        bench.now_s += 700.0
        await bench.accounting._write_due()
        last = (await bench.receipts())[-1]
        assert (last.seq, last.busy_ms, last.energy_wh, last.egress_bytes) == (2, 1_400_000, 7, 99)
        first, now = bench.receipted
        assert first == ("lease1", 0), "what the books know already is charged once"
        assert now == ("lease1", last.charge_msgs)


async def test_idle_time_of_the_federation_is_counted_apart() -> None:
    """Only while a device of the same class was idle, and only from the grant on."""
    meters = Meters().sampled(("gpu",), 100.0).sampled(("gpu",), 110.0)
    meters = meters.begun("lease1", "gpu", "p").begun("lease2", "cpu", "p")
    meters = meters.sampled(("gpu",), 130.0).sampled((), 150.0)
    lease = replace(LEASE, granted_at_s=110.0)
    said = meters.statement(lease, Use(), now_s=150.0, unix_s=int(time.time()), final=False)
    assert (said.busy_ms, said.discount_ms) == (40_000, 20_000)
    other = replace(lease, id="lease2")
    assert meters.statement(other, Use(), now_s=150.0, unix_s=10**9, final=False).discount_ms == 0


async def test_books_that_are_locked_are_caught_up(opened: Callable[[], object]) -> None:
    """A lease ends all the same; its receipt follows as soon as it may be written."""
    async with opened() as bench:  # type: ignore[attr-defined]
        await bench.save(LEASE)
        over = replace(LEASE, state=LeaseState.ENDED, reason="given back")
        bench.now_s += 60.0
        assert bench.accounting.entry(over) is not None
        await bench.store.put_lease(replace(RECORD, state="ended"))  # as when the entry was refused
        assert len(await bench.receipts()) == 1
        await asyncio.gather(bench.accounting._write_due())
        assert (await bench.receipts())[-1].final
