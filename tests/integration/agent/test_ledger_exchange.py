"""Books exchanged between gateways over real mutual TLS: real files, real signatures, hostile answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from agent.daemon.lending import NothingLent
from agent.errors import PeerNodeError
from agent.ledger.books import Judge, LedgerBooks, Signing
from agent.ledger.carbon import read_carbon, write_carbon
from agent.ledger.exchange import LedgerExchange
from agent.ledger.judging import BorrowedTime, judge_of
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.ledger import LedgerClient, LedgerDesk
from agent.rpc.network import Channels, bind_network, network_server
from agent.rpc.pyrdma_pb2_grpc import SiteServicer, SiteStub, add_SiteServicer_to_server
from agent.rpc.site import SiteService
from agent.site.home import SiteConfig, SiteHome
from agent.site.keyring import Keyring
from agent.site.request import public_pem
from agent.site.trust import Target, Trust
from agent.state import StateFile
from agent.state.ledger_store import LedgerStore
from federation.identity.names import NodeIdentity
from federation.ledger.carbon import HOUR_S, CarbonSeries, sign_carbon
from federation.ledger.chain import Head
from federation.ledger.exchange import Countersignature
from federation.ledger.form import decode, encode
from federation.ledger.items import Item
from federation.ledger.receipt import Receipt
from federation.ledger.signing import DONOR, Keys, keys_of, sign
from federation.ledger.writing import Statement
from federation.limits import RECEIPT_PAGE
from federation.policy.policy import Policy, PurposeRule
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.membership import Membership

pytestmark = pytest.mark.asyncio

SITES = ("north", "south", "west")
START_S = int(time.time()) - 7200
POLICY = Policy(
    name="lab",
    version=1,
    effective_at_s=START_S,
    digest="ab" * 32,
    accounts={},
    classes={},
    purposes={"research": PurposeRule("research", 1000, ("*",))},
    device_classes={"h100": 2500},
)


class Gateway:
    """A gateway with a site's files, a port and books of its own."""

    def __init__(self, site: str, folder: Path) -> None:
        self.site = site
        self.config = SiteConfig(
            site=site,
            trust_domain=f"{site}.example",
            node="gw",
            role="gateway",
            address="127.0.0.1:7443",
            listen="127.0.0.1:7443",
            gateway_node="gw",
            gateway_address="127.0.0.1:7443",
            join_address="127.0.0.1:7444",
            join_listen="127.0.0.1:7444",
        )
        self.folder = folder / site
        self.folder.mkdir()
        self.home = SiteHome(self.folder / "site")
        self.home.create_gateway(self.config, now_s=time.time())
        self.trust = Trust(self.config, self.home.authority_pem, lambda _: True)
        self.keyring = Keyring(self.home, self.trust)
        self.channels = Channels(self.keyring.current)
        self.key = self.home.receipts_key()
        self.borrowed: dict[tuple[str, str], BorrowedTime] = {}
        self.port, self.changes = 0, 0
        self.servicer: SiteServicer | None = None

    @property
    def document(self) -> SiteDocument:
        """Its entry in the registry."""
        return SiteDocument(
            self.site,
            f"{self.site}.example",
            (self.home.authority_pem.decode(),),
            (GatewayAddress("gw", "127.0.0.1:7443"),),
            public_pem(self.home.models_key()),
            "",
            public_pem(self.key),
        )

    def keys(self) -> Keys:
        """The keys that the registry names."""
        assert self.trust.membership is not None
        return keys_of(self.trust.membership)

    async def open(self, ending: AsyncExitStack) -> None:
        """Open the books and the port."""
        file = await StateFile.open(self.folder / "state.sqlite3")
        ending.push_async_callback(file.close)
        self.books = await LedgerBooks.of(
            LedgerStore(file),
            Signing(self.site, self.key),
            keys=self.keys,
            policies=lambda: {POLICY.digest: POLICY},
        )
        server = network_server(IdentityInterceptor(self.trust.admit))
        desk = LedgerDesk(self.books, self.trust.site_name, lambda: read_carbon(self.folder))
        service = self.servicer or SiteService(NothingLent("gw"), None, desk)  # type: ignore[arg-type]
        add_SiteServicer_to_server(service, server)  # type: ignore[no-untyped-call]
        self.port = bind_network(server, "127.0.0.1:0", self.keyring.current)
        await server.start()
        ending.push_async_callback(server.stop, None)
        ending.push_async_callback(self.channels.close)

    def stub(self, of: Gateway) -> SiteStub:
        """Return what calls another gateway as this one."""
        identity = NodeIdentity(f"{of.site}.example", "gw")
        target = Target(f"127.0.0.1:{of.port}", identity, of.home.authority_pem)
        return SiteStub(self.channels.to(target))  # type: ignore[no-untyped-call]

    def peer(self, of: Gateway) -> LedgerClient:
        """Return another gateway's books as this one asks for them."""
        return LedgerClient(of.site, lambda: self.stub(of))

    def exchange(self, *others: Gateway) -> LedgerExchange:
        """Return an exchange with these others."""
        peers = [self.peer(one) for one in others]

        async def judge() -> Judge:
            policies = {POLICY.digest: POLICY}
            return judge_of(self.borrowed, policies, since_s=0.0, now_s=time.time())

        def changed() -> None:
            self.changes += 1

        return LedgerExchange(self.books, lambda: peers, judge, changed)

    async def lend(self, lease_id: str, *, busy_s: int = 600, final: bool = False, at_s: int = 0) -> None:
        """Write a receipt of a lease that south has."""
        statement = Statement(
            lease_id=lease_id,
            borrower="south",
            account="/south/nlp",
            purpose="research",
            device=(f"gpu01/{lease_id}",),
            device_class="h100",
            from_s=START_S + at_s,
            to_s=START_S + at_s + busy_s,
            busy_ms=busy_s * 1000,
            final=final,
        )
        await self.books.append(statement, POLICY)


World = dict[str, Gateway]


@asynccontextmanager
async def world(folder: Path, **servicers: SiteServicer) -> AsyncIterator[World]:
    """Three members of one consortium; a gateway may answer with a servicer of the test's own."""
    made = {site: Gateway(site, folder) for site in SITES}
    membership = Membership(
        "lab", 1, time.time(), time.time() + 3600, tuple(one.document for one in made.values()), {}, {}
    )
    async with AsyncExitStack() as ending, asyncio.timeout(100):
        for one in made.values():
            one.trust.learn(membership)
            one.servicer = servicers.get(one.site)
            await one.open(ending)
            await one.books.confirm_own(None, None)  # another one has said that it knows no chain of ours
        yield made


def borrow(gateway: Gateway, donor: str, lease_id: str, *, seconds: float = 600) -> None:
    """Note a lease as its borrower had it."""
    gateway.borrowed[donor, lease_id] = BorrowedTime("/south/nlp", "research", START_S, START_S + seconds)


async def refusal(call: Awaitable[Any]) -> grpc.StatusCode:
    """Return the status that a call is refused with."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_receipts_and_signatures_reach_everybody(tmp_path: Path) -> None:
    """From north to its borrower, whose signature goes back; west hears of both from whichever it asks."""
    async with world(tmp_path) as at:
        north, south, west = at["north"], at["south"], at["west"]
        await north.lend("one")
        borrow(south, "north", "one", seconds=1200)
        await west.exchange(north).ask_all()
        assert [one.unsigned_since_s is None for one in await west.books.store.leases()] == [False]
        await south.exchange(north).ask_all()
        (line,) = await north.books.store.leases()
        assert (line.signed_seq, line.unsigned_since_s) == (1, None)
        await west.exchange(south).ask_all()
        (line,) = await west.books.store.leases()
        assert line.signed_seq == 1, "the signature came after the receipt"
        await north.lend("one", busy_s=1200, final=True)
        await west.exchange(north, south).ask_all()
        assert (await west.books.heads())["north"].position == 2
        await south.exchange(north).ask_all()
        await west.exchange(south).ask_all()
        digests = {(await one.books.standings()).digest for one in at.values()}
        assert len(digests) == 1
        assert [one.signed_seq for one in await west.books.store.leases()] == [2]
        heard = (await south.books.standings()).heard_at
        assert heard["north"] > time.time() - 60


async def test_a_chain_longer_than_a_page_comes_whole(tmp_path: Path) -> None:
    """Below the limit of a message, checked in processes of their own."""
    async with world(tmp_path) as at:
        north, west = at["north"], at["west"]
        for number in range(RECEIPT_PAGE + 30):
            await north.lend(f"l{number}", busy_s=60, final=True)
        await west.exchange(north).ask_all()
        assert (await west.books.heads()) == (await north.books.heads())


async def test_a_wrong_charge_is_disputed_and_everybody_hears_of_it(tmp_path: Path) -> None:
    """The borrower's figure is the time that it had; an invented lease is worth nothing."""
    async with world(tmp_path) as at:
        north, south, west = at["north"], at["south"], at["west"]
        await north.lend("long", busy_s=3600)
        await north.lend("invented", busy_s=600)
        borrow(south, "north", "long", seconds=540)
        await south.exchange(north).ask_all()
        await west.exchange(south).ask_all()
        statements = await west.books.store.statements()
        assert [kind for kind, _ in statements] == ["dispute", "dispute"]
        assert all(one.signed_seq == 0 for one in await north.books.store.leases())
        used = (await west.books.standings()).usage.ever_by_node()["/south/nlp"]
        assert used == (540 + 60) * 2500


async def test_a_sites_carbon_series_comes_with_its_heads(tmp_path: Path) -> None:
    """Signed with its receipts key; one that another site signed is refused, and the receipts are taken."""
    async with world(tmp_path) as at:
        north, south = at["north"], at["south"]
        await north.lend("one")
        exchange = south.exchange(north)
        await exchange.ask_all()
        assert exchange.carbon.grams(time.time()) == {}
        from_s = int(time.time()) // HOUR_S * HOUR_S
        series = CarbonSeries(
            site="north", from_s=from_s, g_per_kwh=(312, 312), source="grid", made_at_s=from_s
        )
        write_carbon(north.folder, sign_carbon(north.key, series))
        await exchange.ask_all()
        assert exchange.carbon.grams(time.time()) == {"north": 312}
        later = replace(series, g_per_kwh=(1, 1), made_at_s=from_s + 1)
        write_carbon(north.folder, sign_carbon(south.key, later))
        await north.lend("two")
        await exchange.ask_all()
        assert exchange.carbon.grams(time.time()) == {"north": 312}
        assert "carbon series of north is not signed" in exchange.faults["north"]
        assert (await south.books.heads())["north"].position == 2


class Liar(SiteServicer):
    """A gateway that answers as its test says."""

    def __init__(self) -> None:
        self.heads = pb.LedgerHeadsReply()
        self.page: Callable[[pb.LedgerPageRequest], pb.LedgerPageReply] = lambda _: pb.LedgerPageReply()
        self.signatures = pb.LedgerSignaturesReply()
        self.notes = pb.LedgerNotesReply()

    async def LedgerHeads(self, request: Any, context: Any) -> pb.LedgerHeadsReply:
        return self.heads

    async def LedgerPage(self, request: pb.LedgerPageRequest, context: Any) -> pb.LedgerPageReply:
        return self.page(request)

    async def LedgerSignatures(self, request: Any, context: Any) -> pb.LedgerSignaturesReply:
        return self.signatures

    async def LedgerNotes(self, request: Any, context: Any) -> pb.LedgerNotesReply:
        return self.notes

    async def Countersign(self, request: Any, context: Any) -> pb.CountersignReply:
        return pb.CountersignReply(taken=4_000_000_000)


def claim(liar: Liar, donor: str, position: int, items: list[Item]) -> None:
    """Have a liar claim a chain and show these receipts of it."""
    head = pb.LedgerHead(donor=donor, position=position, digest=b"\1" * 32)
    liar.heads = pb.LedgerHeadsReply(heads=[head])
    message = pb.LedgerPageReply(
        items=[
            pb.LedgerItem(body=one.body, donor_signature=one.donor_signature, borrower_signature=b"")
            for one in items
        ]
    )
    liar.page = lambda request: message if not request.after else pb.LedgerPageReply()


def forged(receipt: Receipt, signer: Gateway) -> Item:
    """Return a receipt as its forger signs it."""
    body = encode(receipt)
    return Item(body, sign(signer.key, DONOR, body))


async def test_forged_pages_leave_nothing_behind(tmp_path: Path) -> None:
    """Receipts of another donor, edited ones, a gap in the chain: each is refused and the site named."""
    liar = Liar()
    async with world(tmp_path, west=liar) as at:
        north, south, west = at["north"], at["south"], at["west"]
        await north.lend("one")
        await north.lend("two")
        first, second = await north.books.page("north", 0)
        receipt = decode(first.body)
        edited = Item(first.body.replace(b"600000", b"500000"), first.donor_signature)
        for items in ([forged(receipt, west)], [edited], [second], [forged(receipt, south)]):
            claim(liar, "north", 2, items)
            exchange = south.exchange(west)
            await exchange.ask_all()
            assert "a receipt of north was not taken" in exchange.faults["west"]
            assert await south.books.heads() == {}
        claim(liar, "north", 2, [first, second])
        exchange = south.exchange(west)
        await exchange.ask_all()
        assert (await south.books.heads())["north"].position == 2
        assert exchange.faults == {}


@pytest.mark.parametrize(
    "case",
    ["long digest", "bad name", "huge position", "too many", "long body", "short signature", "unasked"],
)
async def test_an_answer_outside_the_bounds_is_none(tmp_path: Path, case: str) -> None:
    """It is the peer's fault, said once, and the books stay as they are."""
    liar = Liar()
    async with world(tmp_path, west=liar) as at:
        north, south, west = at["north"], at["south"], at["west"]
        await north.lend("one")
        item = pb.LedgerItem(body=b"x" * 100, donor_signature=b"s" * 64)
        head = pb.LedgerHead(donor="north", position=9, digest=b"\1" * 32)
        many = 1
        match case:
            case "long digest":
                head.digest += b"\1"
            case "bad name":
                head.donor = "../north"
            case "huge position":
                head.position = 1 << 40
            case "too many":
                many = RECEIPT_PAGE + 1
            case "long body":
                item.body = b"x" * 3000
            case "short signature":
                item.donor_signature = b"s"
        liar.heads = pb.LedgerHeadsReply(heads=[head])
        liar.page = lambda _: pb.LedgerPageReply(items=[item] * many)
        if case == "unasked":
            await west.exchange(north).ask_all()
            liar.heads = pb.LedgerHeadsReply(heads=[pb.LedgerHead(donor="north", digest=b"\1" * 32)])
            other = pb.Countersignature(donor="north", position=7, signature=b"s" * 64)
            liar.signatures = pb.LedgerSignaturesReply(signatures=[other])
            with pytest.raises(PeerNodeError, match="nobody asked for"):
                await south.peer(west).signatures("north", [1])
            return
        exchange = south.exchange(west)
        await exchange.ask_all()
        assert "west sent books that cannot be read" in exchange.faults["west"]
        assert await south.books.heads() == {}


async def test_a_peer_that_is_silent_or_old_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that knows no ledger is said once; the others' books are read all the same."""
    async with world(tmp_path, west=SiteServicer()) as at:
        north, south, west = at["north"], at["south"], at["west"]
        await north.lend("one")
        exchange = south.exchange(west, north)
        for _ in range(3):
            await exchange.ask_all()
        assert (await south.books.heads())["north"].position == 1
        assert set(exchange.faults) == {"west"}
        said = [one for one in caplog.records if one.levelno == logging.WARNING and "books" in one.message]
        assert len(said) == 1
        assert south.changes == 6


async def test_only_gateways_ask_and_only_within_bounds(tmp_path: Path) -> None:
    """A gateway without a ledger says so; a site signs for nobody else; too much at once is refused."""
    async with world(tmp_path) as at:
        north, south, west = at["north"], at["south"], at["west"]
        await north.lend("one")
        stub = west.stub(north)
        many = [pb.Countersignature(donor="north", position=1, signature=b"s" * 64)] * (RECEIPT_PAGE + 1)
        for call in (
            stub.Countersign(pb.CountersignRequest(signatures=many), timeout=10),
            stub.Countersign(pb.CountersignRequest(signatures=[pb.Countersignature(donor="n")]), timeout=10),
            stub.LedgerSignatures(
                pb.LedgerSignaturesRequest(donor="north", positions=range(RECEIPT_PAGE + 1)), timeout=10
            ),
            stub.LedgerSignatures(pb.LedgerSignaturesRequest(donor="north", positions=[1 << 40]), timeout=10),
            stub.LedgerPage(pb.LedgerPageRequest(donor="No!", limit=1), timeout=10),
            stub.LedgerPage(pb.LedgerPageRequest(donor="north", after=1 << 40), timeout=10),
        ):
            assert await refusal(call) is grpc.StatusCode.INVALID_ARGUMENT
        item = await north.books.store.item("north", 1)
        assert item is not None
        signature = sign(south.key, b"pyrdma receipt v1 borrower\0", item.body)
        assert await west.peer(north).countersign([Countersignature("north", 1, signature)]) == 0
        assert await south.peer(north).countersign([Countersignature("north", 1, signature)]) == 1
        assert len(await west.peer(north).page("north", 0, 5)) == 1
        assert await west.peer(north).heads() == {
            "north": Head(1, (await north.books.heads())["north"].digest)
        }


async def test_two_histories_are_told_with_both_items(tmp_path: Path) -> None:
    """Whoever hears both keeps them, and whoever asks gets them; the donor's chain ends there for all."""
    async with world(tmp_path) as at:
        north, south, west = at["north"], at["south"], at["west"]
        await north.lend("one")
        (first,) = await north.books.page("north", 0)
        other = forged(decode(first.body.replace(b'"egress_bytes":0', b'"egress_bytes":7')), north)
        assert (await south.books.import_page("north", [other])).refusal is None
        assert (await west.books.import_page("north", [first])).refusal is None
        await west.exchange(south).ask_all()
        assert len(await west.books.store.evidence()) == 1
        await south.exchange(west).ask_all()
        assert await south.books.store.evidence() == await west.books.store.evidence()
        assert await south.books.heads() == await west.books.heads() == {}
