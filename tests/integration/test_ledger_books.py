"""Books of two and three gateways, real SQLite, real signatures: exchange, forks, restores, disputes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.ledger.books import LedgerBooks, Signing
from agent.ledger.sync import Round, sync_from
from agent.state import StateFile, forget_site
from agent.state.ledger_store import LedgerStore, LogLine
from federation.errors import LedgerError, LedgerLockedError
from federation.fairshare.usage import Usage
from federation.ledger.chain import Head
from federation.ledger.disputes import Resolution, SignedStatement, sign_resolution
from federation.ledger.exchange import Countersignature
from federation.ledger.form import decode, digest, encode
from federation.ledger.items import Evidence, Item
from federation.ledger.merge import books_of, view
from federation.ledger.receipt import Receipt
from federation.ledger.signing import DONOR, KeyOfSite, Keys, public_of, sign
from federation.ledger.writing import Statement
from federation.limits import ARREARS_S, RECEIPT_PAGE
from federation.policy.policy import Policy, PurposeRule

T = TypeVar("T")
START_S = 1_800_000_000
POLICY = Policy(
    name="lab", version=1, effective_at_s=START_S, digest="ab" * 32, accounts={}, classes={},
    purposes={"research": PurposeRule("research", 1000, ("*",))}, device_classes={"h100": 2500},
)  # fmt: skip


def _key(site: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(digest(site.encode()))


KEYS = Keys(
    {site: (KeyOfSite(public_of(_key(site))),) for site in ("north", "south", "west")},
    auditors={"auditor": public_of(_key("auditor"))},
)


class Gateway:
    """A gateway's books in a file of their own, and the face that others ask: values, no wire."""

    def __init__(self, site: str, folder: Path, clock: Callable[[], float], sites: Keys = KEYS) -> None:
        self.site, self.path, self.clock, self.keys = site, folder / f"{site}.sqlite3", clock, sites
        self.monotonic_s = 0.0

    async def open(self, *, confirmed: bool = True) -> None:
        self.file = await StateFile.open(self.path)
        self.books = await LedgerBooks.of(
            LedgerStore(self.file), Signing(self.site, _key(self.site)), keys=lambda: self.keys,
            policies=lambda: {POLICY.digest: POLICY}, clock=self.clock, monotonic=lambda: self.monotonic_s,
        )  # fmt: skip
        if confirmed:
            await self.books.confirm_own(None, None)

    async def close(self) -> None:
        await self.file.close()

    async def lend(self, lease_id: str = "lease-1", *, to_s: int = 600, **changes: object) -> None:
        given: dict[str, object] = {
            "lease_id": lease_id, "borrower": "south", "account": "/south/nlp", "purpose": "research",
            "device": ("gpu01/cuda:0",), "device_class": "h100", "from_s": START_S, "busy_ms": to_s * 1000,
            **changes,
        }  # fmt: skip
        await self.books.append(Statement(to_s=START_S + to_s, **given), POLICY)  # type: ignore[arg-type]

    async def sync(self, peer: Face, **options: object) -> Round:
        return await sync_from(peer, self.books, now=self.clock, **options)  # type: ignore[arg-type]


class Face:
    """What one gateway's peer sees of another; ``caller`` is as a certificate would say."""

    def __init__(self, of: Gateway, caller: str) -> None:
        self.of, self.caller, self.asked = of, caller, 0

    @property
    def site(self) -> str:
        return self.of.site

    async def heads(self) -> Mapping[str, Head]:
        return await self.of.books.heads()

    async def page(self, donor: str, after_position: int, limit: int) -> list[Item]:
        self.asked += 1
        return await self.of.books.page(donor, after_position, limit)

    async def countersign(self, signatures: list[Countersignature]) -> int:
        return await self.of.books.take_countersignatures(self.caller, signatures)

    async def signatures(self, donor: str, positions: Sequence[int]) -> list[Countersignature]:
        items = [(at, await self.of.books.store.item(donor, at)) for at in positions]
        return [
            Countersignature(donor, at, item.borrower_signature)
            for at, item in items
            if item is not None and item.borrower_signature
        ]

    async def evidence(self) -> list[Evidence]:
        return await self.of.books.store.evidence()

    async def statements(self) -> list[tuple[str, SignedStatement]]:
        return await self.of.books.store.statements()


class World:
    """Three gateways and one clock."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now_s = folder, float(START_S + 30 * 86400)
        self.north, self.south, self.west = (self.make(site) for site in ("north", "south", "west"))

    def make(self, site: str) -> Gateway:
        return Gateway(site, self.folder, lambda: self.now_s)


def run(folder: Path, work: Callable[[World], Awaitable[T]]) -> T:
    """Run a story of three gateways."""

    async def story() -> T:
        world = World(folder)
        gateways = [world.north, world.south, world.west]
        for each in gateways:
            await each.open()
        try:
            return await work(world)
        finally:
            for each in gateways:
                await each.close()

    return asyncio.run(story())


def right(_: Receipt) -> int | None:
    """A borrower that finds every receipt right."""
    return None


def test_a_round_brings_receipts_and_takes_signatures(tmp_path: Path) -> None:
    """The borrower pulls, checks, countersigns; a third site pulls both signatures from either."""

    async def story(world: World) -> None:
        for at in (1, 2, 3):
            await world.north.lend(to_s=600 * at, final=at == 3)
        done = await world.south.sync(Face(world.north, "south"), judge=right)
        assert (done.receipts, done.signed, done.refused, done.evidence) == (3, 1, {}, 0)
        (line,) = await world.north.books.store.leases()
        assert (line.signed_seq, line.unsigned_since_s) == (3, None)
        assert (await world.west.sync(Face(world.south, "west"))).receipts == 3
        assert await world.west.books.heads() == await world.north.books.heads()
        item = await world.west.books.store.item("north", 3)
        assert item is not None
        assert item.borrower_signature
        again = await world.south.sync(Face(world.north, "south"), judge=right)
        assert (again.receipts, again.signed) == (0, 0)

    run(tmp_path, story)


def test_what_ranking_reads_is_the_same_everywhere(tmp_path: Path) -> None:
    """Digest, use, open leases and holdings, whoever was asked in whatever order (I1)."""

    async def story(world: World) -> None:
        await world.north.lend("a", to_s=600)
        await world.north.lend("a", to_s=1500, final=True)
        await world.north.lend("b", from_s=START_S + 1500, to_s=2000, busy_ms=400_000)
        await world.west.lend("c", to_s=900, account="/south/vision")
        await world.south.sync(Face(world.north, "south"))
        await world.south.sync(Face(world.west, "south"))
        await world.west.sync(Face(world.south, "west"))
        await world.north.sync(Face(world.west, "north"))
        seen = [await one.books.standings() for one in (world.north, world.south, world.west)]
        assert len({one.digest for one in seen}) == 1
        assert seen[0].usage == seen[1].usage == seen[2].usage
        assert seen[0].held == seen[1].held == seen[2].held == {"/south/nlp": 1, "/south/vision": 1}
        assert _total(seen[0].usage) == (1500 + 400 + 900) * 2500
        assert seen[1].heard_at["north"] == world.now_s

    run(tmp_path, story)


def test_use_is_the_same_however_often_it_was_read(tmp_path: Path) -> None:
    """Receipt by receipt, page by page, after a cut, or once from the table: one value (I1)."""

    async def story(world: World) -> None:
        items = _chain(60)
        for at in range(0, 60, 7):
            await world.south.books.import_page("north", items[at : at + 7])
            await world.south.books.store.usage()
            await world.west.books.import_page("north", items[at : at + 7])
        often, once = await world.south.books.store.usage(), await world.west.books.store.usage()
        assert often == once
        assert _total(once) == 6 * 1_500_000
        assert await world.south.books.store.usage_of("north") == once
        assert await world.south.books.store.usage_of("west") == Usage()
        await world.south.books.import_page("north", _chain(60, parts_at=31)[30:])
        assert _total(await world.south.books.store.usage()) == 3 * 1_500_000

    run(tmp_path, story)


def test_a_long_chain_comes_in_pages(tmp_path: Path) -> None:
    """More receipts than a page has; the books afterwards are what the pure rules say of them."""

    async def story(world: World) -> None:
        items = _chain(RECEIPT_PAGE * 2 + 5)
        for at in range(0, len(items), RECEIPT_PAGE):
            outcome = await world.north.books.import_page("north", items[at : at + RECEIPT_PAGE])
            assert outcome.refusal is None
        face = Face(world.north, "south")
        assert (await world.south.sync(face)).receipts == len(items)
        assert face.asked == 3
        expected = view(books_of(items, KEYS), world.south.books.facts())
        assert await world.south.books.heads() == expected.heads
        verdict = await world.south.books.verify_all()
        assert verdict["north"].refusal is None
        assert verdict["north"].chain.head == expected.heads["north"]

    run(tmp_path, story)


def test_a_second_history_is_found_by_whoever_hears_both(tmp_path: Path) -> None:
    """Kept with both items at the lowest position that differs, told on, and nothing after it counts."""

    async def story(world: World) -> None:
        one, other = _chain(40), _chain(40, parts_at=17)
        await world.south.books.import_page("north", one)
        await world.west.books.import_page("north", other[:30])
        done = await world.south.sync(Face(world.west, "south"))
        assert done.evidence == 0  # the peer knows less: nothing to pull, heads differ in length
        done = await world.west.sync(Face(world.south, "west"))
        assert done.refused["north"].code == "previous"
        (evidence,) = await world.west.books.store.evidence()
        assert (evidence.kind, evidence.position) == ("position", 17)
        assert {decode(two.body).egress_bytes for two in (evidence.first, evidence.second)} == {17, 1017}
        assert (await world.west.books.heads())["north"].position == 16
        await world.south.sync(Face(world.west, "south"))
        assert await world.south.books.store.evidence() == [evidence]
        seen = [await gateway.books.standings() for gateway in (world.south, world.west)]
        assert seen[0].digest == seen[1].digest
        assert seen[0].usage == seen[1].usage
        outcome = await world.south.books.import_page("north", one[16:])
        assert outcome.refusal is not None
        assert outcome.refusal.code == "forked"

    run(tmp_path, story)


def test_heads_that_differ_at_one_position_are_settled(tmp_path: Path) -> None:
    """Equal length, other digest: found by the one that asks."""

    async def story(world: World) -> None:
        await world.south.books.import_page("north", _chain(8))
        await world.west.books.import_page("north", _chain(8, parts_at=1))
        assert (await world.south.sync(Face(world.west, "south"))).evidence == 1
        assert (await world.south.books.heads()) == {}

    run(tmp_path, story)


def test_a_lying_peer_changes_nothing(tmp_path: Path) -> None:
    """Invented heads, forged receipts, other donors' receipts: refused, and other chains go on."""

    class Liar(Face):
        async def heads(self) -> Mapping[str, Head]:
            return {**await super().heads(), "west": Head(9, b"x" * 32), "nobody": Head(5, b"y" * 32)}

        async def page(self, donor: str, after_position: int, limit: int) -> list[Item]:
            if donor == "west":
                forged = replace(decode(_chain(1)[0].body), donor="west", position=after_position + 1)
                body = encode(forged)
                return [Item(body, sign(_key("south"), DONOR, body))]
            return await super().page(donor, after_position, limit)

    async def story(world: World) -> None:
        await world.north.lend()
        await world.west.lend()
        await world.south.sync(Face(world.west, "south"))
        before = (await world.south.books.heads())["west"]
        done = await world.south.sync(Liar(world.north, "south"))
        assert done.refused["west"].code == "signature"
        assert (done.receipts, done.evidence) == (1, 0)
        assert (await world.south.books.heads())["west"] == before
        assert await world.south.books.store.evidence() == []

    run(tmp_path, story)


def test_a_restored_database_is_locked_until_it_is_whole_again(tmp_path: Path) -> None:
    """R21: yesterday's file, one contact: nothing is signed before our own receipts are back."""

    async def story(world: World) -> None:
        await world.north.lend(to_s=600)
        await world.south.sync(Face(world.north, "south"), judge=right)
        await world.north.close()
        backup = shutil.copy(world.north.path, tmp_path / "yesterday")
        await world.north.open()
        await world.north.sync(Face(world.south, "north"))
        for at in (2, 3, 4):
            await world.north.lend(to_s=600 * at)
        await world.south.sync(Face(world.north, "south"), judge=right)
        newest = (await world.north.books.heads())["north"]

        await world.north.close()
        shutil.copy(backup, world.north.path)
        await world.north.open(confirmed=False)
        assert (await world.north.books.heads())["north"].position == 1
        with pytest.raises(LedgerLockedError):
            await world.north.lend(to_s=3000)  # unconfirmed: others have signed something of this chain

        class Mute(Face):
            async def page(self, donor: str, after_position: int, limit: int) -> list[Item]:
                wanted = await super().page(donor, after_position, limit)
                return wanted if limit == 1 else []

        await world.north.sync(Mute(world.south, "north"))
        assert world.north.books.own.state == "locked"
        world.north.monotonic_s = 1e6
        world.now_s += 1e6
        with pytest.raises(LedgerLockedError):
            await world.north.lend(to_s=3000)

        await world.north.sync(Face(world.south, "north"))
        assert world.north.books.own.state == "open"
        assert (await world.north.books.heads())["north"] == newest
        await world.north.lend(to_s=3000)
        done = await world.south.sync(Face(world.north, "south"))
        assert (done.receipts, done.refused, done.evidence) == (1, {}, 0)

    run(tmp_path, story)


def test_a_lost_disk_looks_like_a_new_site_and_waits_as_well(tmp_path: Path) -> None:
    """R20: all receipts come back from the counterpart before the first one is signed."""

    async def story(world: World) -> None:
        await world.north.lend(to_s=600)
        await world.south.sync(Face(world.north, "south"), judge=right)
        await world.north.close()
        world.north.path.unlink()
        await world.north.open(confirmed=False)
        with pytest.raises(LedgerLockedError):
            await world.north.lend(to_s=1200)
        await world.north.sync(Face(world.south, "north"))
        await world.north.lend(to_s=1200)
        assert (await world.north.books.heads())["north"].position == 2

    run(tmp_path, story)


@pytest.mark.parametrize("jump_s", [601.0, 10 * 365 * 86400.0, -601.0, -10 * 365 * 86400.0])
def test_a_clock_that_jumps_signs_nothing(tmp_path: Path, jump_s: float) -> None:
    """R11: forward or back; when it is right again the next receipt says all."""

    async def story(world: World) -> None:
        await world.north.lend(to_s=600)
        world.now_s += jump_s
        with pytest.raises(LedgerLockedError, match="clock"):
            await world.north.lend(to_s=1200)
        world.now_s -= jump_s
        await world.north.lend(to_s=1800)
        assert (await world.south.sync(Face(world.north, "south"))).receipts == 2

    run(tmp_path, story)


def test_what_lies_ahead_is_taken_when_its_time_has_come(tmp_path: Path) -> None:
    """R11: a reader whose clock is behind parks it, accuses nobody, and catches up."""

    async def story(world: World) -> None:
        await world.north.lend(to_s=600)
        await world.north.lend(to_s=86400)
        world.now_s = START_S + 3600.0
        done = await world.south.sync(Face(world.north, "south"))
        assert (done.receipts, done.parked["north"].code, done.refused, done.evidence) == (1, "future", {}, 0)
        world.now_s = START_S + 2 * 86400.0
        assert (await world.south.sync(Face(world.north, "south"))).receipts == 1

    run(tmp_path, story)


def test_a_receipt_and_a_change_of_its_lease_are_one_transaction(tmp_path: Path) -> None:
    """Both are there, or neither; after a failure the chain goes on where it was."""

    async def story(world: World) -> None:
        statement = Statement(
            lease_id="l", borrower="south", account="/south", purpose="research", device=("a/0",),
            device_class="h100", from_s=START_S, to_s=START_S + 60, busy_ms=60_000,
        )  # fmt: skip

        def fail(db: object) -> None:
            world.north.books.append_in(db, statement, POLICY)  # type: ignore[arg-type]
            raise LedgerError("the lease could not be changed.")

        with pytest.raises(LedgerError, match="could not be changed"):
            await world.north.file.write(fail)
        assert await world.north.books.heads() == {}
        for position in (1, 2):
            await world.north.file.write(lambda db: world.north.books.append_in(db, statement, POLICY))
            assert (await world.north.books.heads())["north"].position == position
            with pytest.raises(LedgerError, match="could not be changed"):
                await world.north.file.write(fail)
        assert (await world.south.sync(Face(world.north, "south"))).receipts == 2

    run(tmp_path, story)


def test_books_go_on_after_a_restart(tmp_path: Path) -> None:
    """Chain, devices, counters: the next receipt follows the last one of the process before."""

    async def story(world: World) -> None:
        await world.west.lend(to_s=600)
        await world.west.lend("other", to_s=600, device=("gpu01/cuda:1",), final=True)
        await world.west.close()
        await world.west.open()
        await world.west.lend(to_s=1200)
        with pytest.raises(LedgerError, match="last receipt"):
            await world.west.lend("other", to_s=700, device=("gpu01/cuda:1",))
        with pytest.raises(LedgerError, match="still served"):
            await world.west.lend("third", from_s=START_S + 1100, to_s=1300, busy_ms=0)
        outcome = await world.south.books.import_page("west", await world.west.books.page("west", 0))
        assert outcome.refusal is None

    run(tmp_path, story)


def test_a_borrower_that_does_not_sign_gets_no_new_leases(tmp_path: Path) -> None:
    """After a day; the charge stands all the time, and one signature ends it."""

    async def story(world: World) -> None:
        await world.north.lend(to_s=600)
        await world.north.lend(to_s=1200)
        world.now_s = START_S + 600 + ARREARS_S + 1.0
        seen = await world.north.books.standings()
        assert seen.arrears == {"south"}
        assert _total(seen.usage) == 1200 * 2500
        await world.south.sync(Face(world.north, "south"), judge=right)
        assert (await world.north.books.standings()).arrears == frozenset()

    run(tmp_path, story)


def test_signatures_count_only_from_their_borrower(tmp_path: Path) -> None:
    """Another site's, or a wrong one, changes nothing."""

    async def story(world: World) -> None:
        await world.north.lend()
        item = await world.north.books.store.item("north", 1)
        assert item is not None
        wrong = Countersignature("north", 1, sign(_key("west"), DONOR, item.body))
        for caller, given in (("south", wrong), ("west", wrong), ("south", replace(wrong, position=9))):
            assert await world.north.books.take_countersignatures(caller, [given]) == 0
        assert await world.north.books.unsigned_of("south")

    run(tmp_path, story)


def test_a_signature_reaches_those_who_had_the_receipt_before(tmp_path: Path) -> None:
    """A third site that pulled early asks for it later, from whoever has it; a false one is passed over."""

    class Forger(Face):
        async def signatures(self, donor: str, positions: Sequence[int]) -> list[Countersignature]:
            return [Countersignature(donor, at, bytes(64)) for at in positions]

    async def story(world: World) -> None:
        await world.north.lend()
        await world.west.sync(Face(world.north, "west"))
        assert len(await world.west.books.store.all_unsigned()) == 1
        await world.south.sync(Face(world.north, "south"), judge=right)
        await world.west.sync(Forger(world.north, "west"))
        assert len(await world.west.books.store.all_unsigned()) == 1
        await world.west.sync(Face(world.south, "west"))
        assert await world.west.books.store.all_unsigned() == []

    run(tmp_path, story)


def test_a_dispute_ranks_lower_until_an_auditor_has_signed(tmp_path: Path) -> None:
    """Both figures travel; the receipt stays, what ranks is the lower one, then the auditor's."""

    async def story(world: World) -> None:
        await world.north.lend(to_s=600, final=True)
        done = await world.south.sync(Face(world.north, "south"), judge=lambda receipt: 1000)
        assert done.signed == 0
        await world.north.sync(Face(world.south, "north"))
        seen = await world.north.books.standings()
        assert _total(seen.usage) == 1000
        (line,) = await world.north.books.store.leases()
        assert (line.charge_msgs, line.signed_seq) == (600 * 2500, 0)
        assert len(await world.north.books.store.all_unsigned()) == 1
        assert await world.north.books.store.unanswered() == [], "who disputes owes no signature"
        resolution = Resolution(
            donor="north", lease_id="lease-1", charge_msgs=5000, auditor="auditor", reason="", at_s=START_S
        )
        forged = sign_resolution(_key("south"), resolution)
        assert not await world.north.books.import_statement("resolution", forged)
        good = sign_resolution(_key("auditor"), resolution)
        assert await world.north.books.import_statement("resolution", good)
        await world.west.sync(Face(world.north, "west"))
        for gateway in (world.north, world.west):
            seen = await gateway.books.standings()
            assert _total(seen.usage) == 5000

    run(tmp_path, story)


def test_a_node_that_leaves_its_site_forgets_its_books(tmp_path: Path) -> None:
    """Another consortium's donors may have the same names."""

    async def story(world: World) -> None:
        await world.north.lend()
        await forget_site(world.north.file)
        assert await world.north.books.heads() == {}
        assert (await world.north.books.standings()).usage == Usage()

    run(tmp_path, story)


def test_the_log_keeps_the_newest_lines(tmp_path: Path) -> None:
    """In order, page by page."""

    async def story(world: World) -> None:
        store = world.north.books.store
        await store.log([LogLine(at, "decision", b"{}") for at in range(2500)])
        first = await store.logged(0)
        assert [line.at_s for _, line in first] == list(range(RECEIPT_PAGE))
        last = await store.logged(first[-1][0], limit=5000)
        assert (last[0][1].at_s, len(last)) == (RECEIPT_PAGE, 1500)

    run(tmp_path, story)


def test_a_damaged_receipt_on_disk_is_found(tmp_path: Path) -> None:
    """``verify`` reads everything anew and says where it ends."""

    async def story(world: World) -> None:
        await world.south.books.import_page("north", _chain(20))
        await world.south.file.write(
            lambda db: db.execute(
                "UPDATE ledger_receipts SET body ="
                " CAST(replace(body, '\"egress_bytes\":7', '\"egress_bytes\":8') AS BLOB)"
            )
        )
        outcome = (await world.south.books.verify_all())["north"]
        assert outcome.refusal is not None
        assert (outcome.refusal.code, outcome.chain.head.position) == ("signature", 6)

    run(tmp_path, story)


def _total(usage: Usage) -> int:
    return sum(usage.ever.values())


def _chain(length: int, *, parts_at: int | None = None) -> list[Item]:
    """Return north's chain, in leases of ten receipts; a second history from ``parts_at`` on."""
    previous, items = bytes(32), list[Item]()
    for at in range(1, length + 1):
        lease, seq = (at - 1) // 10, (at - 1) % 10 + 1
        from_s = START_S + lease * 600
        receipt = Receipt(
            donor="north", borrower="south", position=at, previous=previous, lease_id=f"lease-{lease}",
            seq=seq, account="/south/nlp", purpose="research", device="gpu01/cuda:0", device_class="h100",
            from_s=from_s, to_s=from_s + 60 * seq, busy_ms=60_000 * seq,
            charge_msgs=150_000 * seq, discount_ms=0,
            energy_wh=None, egress_bytes=at + (1000 if parts_at is not None and at >= parts_at else 0),
            final=seq == 10, refunded=False, policy=POLICY.digest,
        )  # fmt: skip
        body = encode(receipt)
        previous = digest(body)
        items.append(Item(body, sign(_key("north"), DONOR, body)))
    return items
