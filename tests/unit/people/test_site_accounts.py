"""Which accounts a gateway lets its nodes name, and what it says that they have used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agent.daemon.faces import Wish
from agent.errors import AccountError
from agent.gateway.account_usage import LeaseUsage, LedgerUsage, receipt_line
from agent.gateway.accounts import SiteAccounts
from agent.local.people_views import AccountUsageView, UsageView
from agent.state import SiteLeaseRecord, SiteStore, StateFile
from federation.errors import FederationInputError
from federation.fairshare.standing import Standing
from federation.ledger.standing import LeaseLine
from federation.policy.policy import AccountRule, Policy
from pyrdma.image.manifest import ImageId


def rule(path: str, *sites: str, weight: int = 1, classes: tuple[str, ...] = ()) -> AccountRule:
    return AccountRule(path, weight, classes, sites, {}, open=True)


POLICY = Policy(
    "c",
    1,
    0,
    "00",
    {one.path: one for one in (rule("/eth", "eth", weight=3), rule("/lab", "eth"), rule("/south", "south"))},
    {},
    {},
    {},
)


class NoBooks:
    async def usage(self, accounts: tuple[str, ...]) -> UsageView:
        return UsageView(tuple(map(AccountUsageView, accounts)), "nothing")


def accounts(policy: Policy | None = POLICY) -> SiteAccounts:
    return SiteAccounts("eth", lambda: policy, NoBooks())


def test_a_node_may_name_what_its_site_may_speak_for() -> None:
    """Its own tree always, sponsored accounts by the policy; without a word it is the site."""
    assert accounts().checked(Wish("m")).account == "/eth"
    assert accounts(None).checked(Wish("m", account="/eth/a/b")).account == "/eth/a/b"
    assert accounts().checked(Wish("m", account="/lab/x")).account == "/lab/x"


@pytest.mark.parametrize("account", ["/south", "/south/a", "/ethx", "/other"])
def test_a_node_may_not_name_another_institutions(account: str) -> None:
    """Whatever its people file says; nor may it look at their use."""
    with pytest.raises(AccountError, match=f"eth may not speak for the account {account}"):
        accounts().checked(Wish("m", account=account))
    with pytest.raises(AccountError):
        asyncio.run(accounts().usage((account,)))


def test_without_a_policy_nobody_is_sponsored() -> None:
    """The site's own name is all that is known then."""
    with pytest.raises(AccountError):
        accounts(None).checked(Wish("m", account="/lab/x"))
    with pytest.raises(FederationInputError):
        accounts(None).checked(Wish("m", account="eth"))


def test_the_list_of_leases_counts_what_is_open_and_what_was(tmp_path: Path) -> None:
    """With what is below an account, and nothing beside it or of another site."""

    async def work() -> UsageView:
        file = await StateFile.open(tmp_path / "agent.sqlite3")
        try:
            store = await SiteStore.of(file)
            one = SiteLeaseRecord(
                id="a",
                side="lent",
                model="m",
                image_id=ImageId(bytes(32)),
                total_bytes=1,
                borrower_site="eth",
                borrower_node="n1",
                donor_site="eth",
                node="n1",
                device="cpu0",
                state="ended",
                created_at=100.0,
                deadline_s=0.0,
                ttl_s=1.0,
                boot_id="b",
                ended_at=160.0,
                account="/eth/a",
            )
            await store.put_lease(one)
            await store.put_lease(replace(one, id="b", account="/eth/a/x", ended_at=None, state="active"))
            await store.put_lease(replace(one, id="c", account="/eth/ab"))
            await store.put_lease(replace(one, id="d", borrower_site="south"))
            assert await store.lease_times("eth", "/eth/a", now_s=200.0) == (1, 160.0)
            return await LeaseUsage("eth", store).usage(("/eth/ab", "/eth/none"))
        finally:
            await file.close()

    said = asyncio.run(work())
    assert said.accounts == (
        AccountUsageView("/eth/ab", charged_msgs=60_000),
        AccountUsageView("/eth/none"),
    )


LINE = LeaseLine(
    donor="uni-a",
    lease_id="l",
    position=4,
    seq=3,
    borrower="eth",
    account="/eth",
    purpose="",
    device="n1/gpu0",
    device_class="gpu",
    from_s=100,
    to_s=700,
    busy_ms=600_000,
    charge_msgs=600_000,
    final=False,
    refunded=False,
    signed_seq=2,
    unsigned_since_s=700,
)


@pytest.mark.parametrize(
    ("line", "now_s", "state"),
    [
        (LINE, 800, "to be countersigned"),
        (LINE, 100_000, "unilateral"),
        (replace(LINE, signed_seq=3, unsigned_since_s=None), 800, "signed by both"),
        (replace(LINE, refunded=True), 800, "refunded"),
    ],
)
def test_a_receipt_says_whether_both_sides_have_signed_it(line: LeaseLine, now_s: int, state: str) -> None:
    """And when the borrower has let its time pass."""
    assert receipt_line(line, now_s).state == state


def test_use_is_what_the_order_of_requests_sees() -> None:
    """Decayed use, share, and part of what everybody used come from the standing."""

    class Leases:
        async def lease_times(self, borrower_site: str, account: str, *, now_s: float) -> tuple[int, float]:
            return 2, 9.0

    class Receipts:
        async def leases(self, *, account: str, limit: int) -> list[LeaseLine]:
            return [LINE]

    standing = Standing(1, POLICY, {"/eth": 30 << 40, "/lab": 10 << 40}, {"/eth": 77})
    books = LedgerUsage(lambda: standing, Receipts(), Leases(), "eth")
    (row,) = asyncio.run(books.usage(("/eth",))).accounts
    assert (row.decayed_msgs, row.charged_msgs, row.leases) == (30, 77, 2)
    assert (row.due_permille, row.delivered_permille) == (600, 750)
    assert [one.lease_id for one in row.receipts] == ["l"]
    without = LedgerUsage(lambda: None, Receipts(), Leases(), "eth")
    assert asyncio.run(without.usage(("/eth",))).accounts[0].charged_msgs == 9000
