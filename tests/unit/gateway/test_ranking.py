"""What a donor ranks by, from real books on disk: the age of books, leases elsewhere, splits, arrears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import StateError
from agent.gateway.ranking import ACTIVE_S, BELIEVED_RECEIPTS, Ranking, books_age_s
from agent.ledger.books import LedgerBooks, Signing
from agent.state import StateFile
from agent.state.ledger_rows import DonorRow
from agent.state.ledger_store import LedgerStore
from federation.fairshare.decay import EPOCH_S
from federation.fairshare.freshness import FRESH_S
from federation.fairshare.standing import Standing
from federation.ledger.chain import Head
from federation.ledger.items import Item
from federation.ledger.signing import KeyOfSite, Keys
from federation.ledger.writing import Statement
from federation.limits import ARREARS_S, RECEIPT_INTERVAL_S
from federation.policy.policy import AccountRule, Policy

pytestmark = pytest.mark.asyncio

NOW_S = 1_700_000_000 // EPOCH_S * EPOCH_S
POLICY = Policy(
    name="c",
    version=1,
    effective_at_s=0,
    digest="ab" * 32,
    accounts={f"/uni-{one}": AccountRule(f"/uni-{one}", 1, (), (f"uni-{one}",), {}, True) for one in "abc"},
    classes={},
    purposes={},
    device_classes={"cpu": 1000},
)
SITES = ("uni-a", "uni-b", "uni-c")
PRIVATE = {site: Ed25519PrivateKey.generate() for site in SITES}
KEYS = Keys({site: (KeyOfSite(key.public_key().public_bytes_raw()),) for site, key in PRIVATE.items()})


def row(donor: str, *, to_s: int, heard_at: float = 0.0, forked_at: int | None = None) -> DonorRow:
    """A donor's chain as the books know it."""
    return DonorRow(1, donor, Head(), to_s, forked_at, heard_at)


class Site:
    """The books of one site, ranked at a time that only the test moves."""

    def __init__(self, name: str, file: StateFile, books: LedgerBooks) -> None:
        self.name = name
        self.file = file
        self.books = books
        self.policy: Policy | None = POLICY
        self.standings: list[Standing] = []
        self.ranking = Ranking(
            books,
            policy=lambda: self.policy,
            donated=lambda: {"cpu": 4},
            changed=self._changed,
            unix_s=lambda: NOW[0],
        )

    async def _changed(self, standing: Standing) -> None:
        self.standings.append(standing)

    async def rank(self) -> Standing:
        await self.ranking.now()
        return self.standings[-1]

    async def lend(
        self, lease_id: str, borrower: str, *, from_s: int, to_s: int, final: bool = False
    ) -> None:
        await self.books.append(
            Statement(
                lease_id=lease_id,
                borrower=borrower,
                account=f"/{borrower}",
                purpose="none",
                device=(f"n1/{lease_id}",),
                device_class="cpu",
                from_s=from_s,
                to_s=to_s,
                busy_ms=(to_s - from_s) * 1000,
                final=final,
            ),
            POLICY,
        )

    async def pull(self, other: Site) -> None:
        items: list[Item] = await other.books.page(other.name, 0)
        await self.books.import_page(other.name, items)


NOW = [float(NOW_S)]


@asynccontextmanager
async def site(folder: Path, name: str) -> AsyncIterator[Site]:
    """Open one site's books."""
    NOW[0] = float(NOW_S)
    file = await StateFile.open(folder / f"{name}.sqlite3")
    books = await LedgerBooks.of(
        LedgerStore(file),
        Signing(name, PRIVATE[name]),
        keys=lambda: KEYS,
        policies=lambda: {POLICY.digest: POLICY},
        clock=lambda: NOW[0],
        monotonic=lambda: NOW[0],
    )
    await books.confirm_own(None, None)
    one = Site(name, file, books)
    try:
        yield one
    finally:
        await one.ranking.close()
        await file.close()


async def test_books_are_as_old_as_the_donor_heard_of_longest_ago() -> None:
    """Of others that have signed lately; one that contradicted itself, or left, makes nobody's books old."""
    others = {"uni-b", "uni-c"}
    assert books_age_s([], others, NOW_S) == 0
    fresh = row("uni-b", to_s=NOW_S - 900, heard_at=NOW_S - 10)
    assert books_age_s([fresh], others, NOW_S) == 10
    assert books_age_s([fresh, row("uni-c", to_s=NOW_S - 700)], others, NOW_S) == 700
    for ignored in (
        row("uni-c", to_s=NOW_S - 700, forked_at=3),
        row("uni-z", to_s=NOW_S - 700),
        row("uni-c", to_s=NOW_S - ACTIVE_S - 1),
    ):
        assert books_age_s([fresh, ignored], others, NOW_S) == 10
    ahead = row("uni-c", to_s=NOW_S + 50, heard_at=NOW_S + 60)
    assert books_age_s([ahead], others, NOW_S) == 0, "a clock that was set back makes no book older than none"


async def test_a_standing_is_made_of_all_receipts_and_of_leases_that_go_on_elsewhere(tmp_path: Path) -> None:
    """What runs at others is believed to go on for some intervals; the site's own the core counts itself."""
    async with site(tmp_path, "uni-a") as own, site(tmp_path, "uni-b") as other:
        await own.lend("own", "uni-c", from_s=NOW_S - 100, to_s=NOW_S)
        await other.lend("elsewhere", "uni-c", from_s=NOW_S - 100, to_s=NOW_S)
        await own.pull(other)
        first = await own.rank()
        assert (first.epoch, first.donated["cpu"]) == (NOW_S // EPOCH_S, 4)
        assert first.holdings["/uni-c"] == 1
        assert first.usage["/uni-c"] > 0
        assert first.ledger_digest == (await own.books.standings()).digest.hex()
        NOW[0] += RECEIPT_INTERVAL_S
        later = await own.rank()
        assert later.usage["/uni-c"] > first.usage["/uni-c"], "dead reckoning"
        NOW[0] += BELIEVED_RECEIPTS * RECEIPT_INTERVAL_S
        assert "/uni-c" not in (await own.rank()).holdings


async def test_the_split_of_fresh_books_rules_when_they_are_old(tmp_path: Path) -> None:
    """It is the one of the last fresh ranking; when the books are fresh again they rule."""
    async with site(tmp_path, "uni-a") as own, site(tmp_path, "uni-b") as other:
        await own.lend("own", "uni-c", from_s=NOW_S - 100, to_s=NOW_S, final=True)
        await other.lend("elsewhere", "uni-c", from_s=NOW_S - 100, to_s=NOW_S, final=True)
        await own.pull(other)
        assert (await own.rank()).split is None
        NOW[0] += FRESH_S + EPOCH_S
        old = await own.rank()
        assert old.stale
        assert old.split is not None
        assert (old.split.epoch, "/uni-c" in old.split.served) == (NOW_S // EPOCH_S, True)
        await own.books.store.heard("uni-b", now_s=NOW[0])
        assert not (await own.rank()).stale


async def test_who_owes_signatures_for_a_day_is_known_with_the_ranking(tmp_path: Path) -> None:
    """And is no debtor any more where there is no policy."""
    async with site(tmp_path, "uni-a") as own:
        await own.lend("own", "uni-c", from_s=NOW_S - 100, to_s=NOW_S, final=True)
        await own.rank()
        assert own.ranking.arrears == frozenset()
        NOW[0] += ARREARS_S + 1
        await own.rank()
        assert own.ranking.arrears == {"uni-c"}
        own.policy = None
        await own.ranking.now()
        assert own.ranking.arrears == frozenset()
        assert len(own.standings) == 2, "without a policy there is nothing to rank by"


async def test_an_older_ranking_never_follows_a_newer_one(tmp_path: Path) -> None:
    """Two that are wanted at once are made one after the other."""
    async with site(tmp_path, "uni-a") as own:
        running, go = 0, asyncio.Event()

        async def slow(standing: Standing) -> None:
            nonlocal running
            running += 1
            await go.wait()
            own.standings.append(standing)

        own.ranking = Ranking(
            own.books, policy=lambda: POLICY, donated=dict, changed=slow, unix_s=lambda: NOW[0]
        )
        ranking = [asyncio.create_task(own.ranking.now()) for _ in range(3)]
        for _ in range(10):
            await own.books.standings()  # the others' reads would be done by then
        assert running == 1
        go.set()
        await asyncio.gather(*ranking)
        assert len(own.standings) == 3


@pytest.mark.parametrize("fault", [StateError("the disk is gone.", fix="mend it"), ValueError("a defect")])
async def test_a_ranking_that_fails_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Whatever went wrong: a donor that ranks no more would serve an old order for ever."""
    monkeypatch.setattr("agent.gateway.ranking.RANK_SOON_S", 0.0)
    async with site(tmp_path, "uni-a") as own:
        made = asyncio.Event()
        tries = 0

        async def changed(standing: Standing) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                own.ranking.soon()
                raise fault
            made.set()

        own.ranking = Ranking(
            own.books, policy=lambda: POLICY, donated=dict, changed=changed, unix_s=lambda: NOW[0]
        )
        own.ranking.start()
        async with asyncio.timeout(5):
            await made.wait()
