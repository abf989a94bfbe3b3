"""A gateway's fairness put together: real policies, books and donor; what comes in, goes on, is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from waiting import until

from agent.daemon.faces import LeaseOffer, OfferRequest, Refusal
from agent.daemon.reports import Report, ReportedDevice
from agent.gateway.core.law import Law
from agent.gateway.donor import LocalDonor
from agent.gateway.fairness import Fairness, Parts
from agent.gateway.neighbours import Neighbours
from agent.gateway.signed_requests import default_purpose, signed
from agent.site.policy_watch import OVERLAY_FILE
from agent.site.request import public_pem
from agent.site.trust import Trust
from agent.state import SiteStore, StateFile
from agent.state.ledger_store import LogLine
from federation.ledger.writing import Statement
from federation.limits import ARREARS_S
from federation.registry.membership import Membership, PolicyText
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

POLICY = """\
version: {version}
name: c
effective_at: {at}
accounts:
  uni-a: {{weight: 1, open: true}}
  uni-b: {{weight: {weight}, open: true}}
purposes:
  safety: {{factor: 0.5, claimants: [/uni-a]}}
  research: {{claimants: [any]}}
device_classes:
  cpu: 0.5
"""
KEYS = {site: Ed25519PrivateKey.generate() for site in ("uni-a", "uni-b")}
REQUEST = OfferRequest(
    request_id="r1",
    model="uni-a/m",
    image_id=ImageId(b"\x07" * 32),
    total_bytes=10,
    devices=1,
    node="",
    borrower_node="b1",
    account="/uni-b/lab",
    purpose="research",
)
REPORT = Report("n1:7443", (ReportedDevice("cpu0", "cpu", 100),), (), (), 1, 0.0, donating=True)


def asked(request_id: str = "r1", site: str = "uni-b") -> OfferRequest:
    """A request as its site signs it."""
    request = replace(REQUEST, request_id=request_id, account=f"/{site}/lab")
    return signed(request, site, KEYS[site], int(time.time()))


def version(number: int, *, weight: int = 1) -> PolicyText:
    """A version of the policy that is in force."""
    at = datetime.fromtimestamp(1_700_000_400, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = POLICY.format(version=number, at=at, weight=weight).encode()
    return PolicyText(number, 1_700_000_400, data, sha256(data).hexdigest())


class Site:
    """Uni-a's gateway without its network."""

    def __init__(self, file: StateFile, fairness: Fairness, donor: LocalDonor, trust: Trust) -> None:
        self.file = file
        self.fairness = fairness
        self.donor = donor
        self.trust = trust
        self.consortium: Callable[..., Membership] = lambda: None  # type: ignore[assignment,return-value]

    async def ask(self, request: OfferRequest, site: str = "uni-b") -> object:
        return await self.donor.ask_offer(request, site)

    async def close(self) -> None:
        await self.donor.close()
        await self.fairness.close()

    async def lines(self, kind: str) -> list[LogLine]:
        return [one for _, one in await self.fairness.books.store.logged(0) if one.kind == kind]


Opened = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path, trust: Trust, membership: Callable[..., Membership]) -> Opened:
    """Open a gateway of uni-a in a consortium with some versions of a policy."""

    def consortium(*versions: PolicyText) -> Membership:
        of = membership("uni-a", "uni-b")
        sites = tuple(replace(one, receipts_key=public_pem(KEYS[one.site])) for one in of.sites)
        return replace(of, sites=sites, policies=versions)

    @asynccontextmanager
    async def opening(*versions: PolicyText) -> AsyncIterator[Site]:
        trust.learn(consortium(*versions))
        file = await StateFile.open(tmp_path / "state.sqlite3")
        books = await SiteStore.of(file)
        nobody: Any = None
        neighbours = Neighbours(trust, lambda site: nobody, time.monotonic)
        fairness = await Fairness.of(
            Parts(
                site="uni-a",
                folder=tmp_path,
                file=file,
                store=books,
                key=KEYS["uni-a"],
                trust=trust,
                neighbours=neighbours,
                peer=lambda site: nobody,
                clock=time.monotonic,
            )
        )

        async def prepare(*_: object) -> None:
            return None

        donor = LocalDonor(
            "uni-a",
            host=lambda node: nobody,
            prepare=prepare,
            books=books,
            boot_id="boot",
            clock=time.monotonic,
            lease_ttl_s=60.0,
            record=fairness.record,
            law=Law("uni-a"),
            known=lambda image_id: (),
        )
        donor.keep_books(fairness.accounting, fairness.refuses)
        site = Site(file, fairness, donor, trust)
        site.consortium = consortium
        await donor.start()
        await fairness.start(donor)
        await donor.heard("n1", REPORT)
        try:
            yield site
        finally:
            await site.close()
            await file.close()
            left = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
            assert left == [], "a closed gateway has left tasks behind"

    return opening


async def test_a_donor_decides_by_the_policy_and_the_ranking_from_the_start(opened: Opened) -> None:
    """And by the time of day; a new version is gone over to when the registry names it."""
    async with opened(version(1)) as site:
        law = site.donor.state.law
        assert (law.policy.version, abs(law.unix_s - time.time()) < 60) == (1, True)
        await site.fairness.ranking.now()
        assert site.donor.state.law.standing.donated["cpu"] == 1
        site.trust.learn(site.consortium(version(1), version(2, weight=3)))
        site.fairness.learn()
        await until(lambda: site.donor.state.law.policy.version == 2)
        await until(lambda: site.donor.state.law.standing.share("/uni-b") == (3, 4))


async def test_without_a_policy_nobody_signs_anything(opened: Opened) -> None:
    """Whoever asks first goes first, as before there were policies."""
    async with opened() as site:
        assert isinstance(await site.ask(REQUEST), LeaseOffer)
        assert await site.lines("request") == []


async def test_a_request_of_another_site_is_signed_and_kept_once(opened: Opened) -> None:
    """What nobody signed is not looked at; what is asked again is one request for an auditor."""
    async with opened(version(1)) as site:
        refusal = await site.ask(REQUEST)
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.terminal) == ("unsigned", True)
        assert site.donor.state.book.offers == {}
        request = asked()
        for _ in range(3):
            assert isinstance(await site.ask(request), LeaseOffer)
        await site.close()
        (line,) = await site.lines("request")
        assert json.loads(json.loads(line.body)["body"])["id"] == "r1"
        (offered,) = await site.lines("offer")
        assert json.loads(offered.body)["account"] == "/uni-b/lab"


async def test_a_site_needs_nobodys_leave_for_its_own_devices(opened: Opened) -> None:
    """A registry that names another key, and a site's own debts, keep others away, never its own people."""
    async with opened(version(1)) as site:
        for name in ("uni-a", "uni-b"):
            await site.fairness.books.confirm_own(None, None)
            await site.fairness.books.append(
                Statement(
                    lease_id=f"old-{name}",
                    borrower=name,
                    account=f"/{name}",
                    purpose="none",
                    device=(f"n9/{name}",),
                    device_class="cpu",
                    from_s=int(time.time()) - ARREARS_S - 200,
                    to_s=int(time.time()) - ARREARS_S - 100,
                    busy_ms=100_000,
                    final=True,
                ),
                site.fairness.base,
            )
        await site.fairness.ranking.now()
        assert site.fairness.ranking.arrears == {"uni-a", "uni-b"}
        refusal = await site.ask(asked())
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.terminal) == ("arrears", False)
        for own in (replace(REQUEST, account="/uni-a"), asked("r2", "uni-a")):
            offer = await site.ask(own, "uni-a")
            assert isinstance(offer, LeaseOffer)
            await site.donor.release(offer.offer_id, "not wanted", "uni-a")


async def test_a_site_signs_with_the_key_that_the_registry_names_now(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is signed with another one counts from when the registry says so, and the old one no more."""
    async with opened(version(1)) as site:
        old = asked("r1")
        monkeypatch.setitem(KEYS, "uni-b", Ed25519PrivateKey.generate())
        new = asked("r2")
        assert isinstance(await site.ask(new), Refusal)
        site.trust.learn(site.consortium(version(1)))
        assert isinstance(await site.ask(new), LeaseOffer)
        assert isinstance(await site.ask(old), Refusal)


async def test_a_site_that_does_not_lend_lends_to_nobody_and_still_ranks(
    opened: Opened, tmp_path: Path
) -> None:
    """An overlay that cannot be read is no reason to lend on terms that its owner did not write."""
    (tmp_path / OVERLAY_FILE).write_text("kind: overlay\nversion: what\n")
    async with opened(version(1)) as site:
        assert site.fairness.base is not None
        assert site.donor.state.law.lend.to == ()
        refusal = await site.ask(asked())
        assert isinstance(refusal, Refusal)
        await site.fairness.ranking.now()
        assert site.donor.state.law.standing is not None


async def test_what_is_decided_last_is_kept_too(opened: Opened) -> None:
    """Closing writes down what was decided until then."""
    async with opened(version(1)) as site:
        for at in range(50):
            await site.ask(asked(f"r{at}"))
        await site.close()
        places = await site.lines("place")
        assert len(places) == 49
        assert json.loads(places[0].body)["reasons"]


async def test_the_time_of_day_is_read_on_after_a_defect(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of lending must not go by an old clock for ever."""
    monkeypatch.setattr("agent.gateway.fairness.CLOCK_READ_EVERY_S", 0.01)
    async with opened(version(1)):
        read = time.localtime
        calls: list[int] = []

        def failing(*_: object) -> time.struct_time:
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("a defect")
            return read()

        monkeypatch.setattr(time, "localtime", failing)
        await until(lambda: len(calls) >= 3)
        monkeypatch.setattr(time, "localtime", read)


async def test_the_purpose_of_who_names_none_is_one_that_anybody_may_claim(opened: Opened) -> None:
    """It stands in the signed request, so that it is known what was asked."""
    assert default_purpose(None) == ""
    async with opened(version(1)) as site:
        request = site.fairness.signed(replace(REQUEST, purpose="", account="/uni-a"))
        assert (request.purpose, len(request.signature)) == ("research", 64)
        assert isinstance(await site.ask(request, "uni-a"), LeaseOffer)
        await site.close()
        assert len(await site.lines("request")) == 1, "an auditor sees the site's own requests as well"
