"""What a model's name means for a site: its own word first, then the registry's, then other sites'."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from agent.daemon.reports import ReportedImage, SiteSummary
from agent.errors import AmbiguousModelError, PeerNodeError, RequestError, UnknownModelError
from agent.gateway.naming import Meant, Naming
from agent.gateway.neighbours import Neighbours, split_site
from agent.resolve import ModelRef, Offer, parse_ref
from agent.site.trust import Trust
from federation.errors import NotAdmittedError
from federation.registry.membership import Membership, ModelBinding
from pyrdma.image.manifest import ImageId

pytestmark = pytest.mark.asyncio

ONE, TWO = ImageId(b"\x01" * 32), ImageId(b"\x02" * 32)


@dataclass
class Peer:
    """Another site that answers how it is."""

    site: str

    async def describe(self) -> SiteSummary:
        return SiteSummary(self.site, "1", 1, 0, 1, 1, 0.0)


@dataclass
class Lender:
    """Another site's gateway: what it has by name and by id, or why it does not answer."""

    address: str
    has: dict[str, ImageId] = field(default_factory=dict)
    fault: Exception | None = None
    lies: bool = False
    asked: list[ModelRef] = field(default_factory=list)

    async def find(self, ref: ModelRef) -> Offer | None:
        self.asked.append(ref)
        if self.fault is not None:
            raise self.fault
        if self.lies:
            return Offer(self.address, TWO, 20, "g0")
        image = self.has.get(ref.name) if ref.image_id is None else ref.image_id
        if image is None or image not in self.has.values():
            return None
        return Offer(self.address, image, 20, "g0")


@dataclass
class Catalogue:
    """What the gateway's own node knows."""

    names: dict[str, ImageId]

    async def bound(self, ref: ModelRef) -> ImageId | None:
        if ref.image_id is not None:
            return ref.image_id if ref.image_id in self.names.values() else None
        return self.names.get(ref.name)

    async def manifest_of(self, image_id: ImageId) -> Any:
        @dataclass
        class Layout:
            total_bytes: int = 5

        @dataclass
        class Manifest:
            layout: Layout

        return Manifest(Layout())


class Bench:
    """uni-a, which knows uni-b and uni-c."""

    def __init__(self, trust: Trust) -> None:
        self.lenders = {name: Lender(name) for name in ("uni-b", "uni-c")}
        self.reported: dict[str, tuple[ReportedImage, ...]] = {}
        self.catalogue: Any = Catalogue({})
        self.trust = trust

        def reach(site: str) -> Any:
            return Peer(site), self.lenders[site]

        self.neighbours = Neighbours(trust, reach, time.monotonic)
        self.neighbours.learn()
        self.naming = Naming("uni-a", self.catalogue, lambda: self.reported, trust, self.neighbours)

    async def means(self, text: str) -> Meant:
        return await self.naming.resolve(parse_ref(text))

    @property
    def asked(self) -> int:
        return sum(len(one.asked) for one in self.lenders.values())


@pytest_asyncio.fixture
async def bench(trust: Trust, membership: Callable[..., Membership]) -> Bench:
    models = {"uni-b/signed": ModelBinding(ONE.hex(), 10)}
    trust.learn(membership("uni-a", "uni-b", "uni-c", models=models))
    made = Bench(trust)
    await made.neighbours.ask_all()
    return made


async def test_a_bare_name_is_the_gateways_own_first(bench: Bench) -> None:
    """Whatever nodes and other sites call by it; with its own site before it, it is the same name."""
    bench.catalogue.names["m"] = ONE
    bench.reported["a1"] = (ReportedImage(TWO, 20, True, ("m",)),)
    bench.lenders["uni-b"].has["m"] = TWO
    assert await bench.means("m") == Meant(ONE, 5)
    assert await bench.means("uni-a/m") == Meant(ONE, 5)
    assert await bench.means(f"m@{TWO.hex()}") == Meant(TWO, 20)
    assert bench.asked == 0


async def test_then_its_nodes_and_they_must_agree(bench: Bench) -> None:
    """Two that mean different images by one name: the caller chooses, never the order of reports."""
    bench.reported["a2"] = (ReportedImage(TWO, 20, False, ("m",)),)
    assert await bench.means("m") == Meant(TWO, 20)
    bench.reported["a1"] = (ReportedImage(ONE, 10, True, ("other", "m")),)
    with pytest.raises(AmbiguousModelError) as caught:
        await bench.means("m")
    assert ONE.hex() in caught.value.fix
    assert await bench.means(f"m@{ONE.hex()}") == Meant(ONE, 10)
    assert bench.asked == 0


async def test_only_then_other_sites_are_asked_and_they_must_agree(bench: Bench) -> None:
    """One site's word is enough where no other contradicts it."""
    bench.lenders["uni-c"].has["m"] = TWO
    assert await bench.means("m") == Meant(TWO, 20)
    bench.lenders["uni-b"].has["m"] = ONE
    with pytest.raises(AmbiguousModelError):
        await bench.means("m")
    assert await bench.means(f"m@{ONE.hex()}") == Meant(ONE, 20)


async def test_a_name_that_nobody_knows_is_unknown_and_says_who_was_silent(bench: Bench) -> None:
    """A site that left the registry in this moment is silent too: it does not fail the question."""
    bench.lenders["uni-b"].fault = PeerNodeError("the peer uni-b is not reachable.")
    bench.lenders["uni-c"].fault = NotAdmittedError("the site uni-c is not in the registry.")
    with pytest.raises(UnknownModelError, match="Not reachable: uni-b, uni-c"):
        await bench.means("m")
    bench.lenders["uni-c"].fault = None
    bench.lenders["uni-c"].has["m"] = TWO
    assert await bench.means("m") == Meant(TWO, 20)


async def test_a_sites_name_is_what_its_signed_list_says(bench: Bench) -> None:
    """Its gateway is not even asked, and could not say otherwise; nor could this site's own names."""
    bench.catalogue.names["signed"] = TWO
    bench.lenders["uni-b"].has["signed"] = TWO
    assert await bench.means("uni-b/signed") == Meant(ONE, 10)
    assert await bench.means(f"uni-b/signed@{ONE.hex()}") == Meant(ONE, 10)
    assert bench.asked == 0


async def test_a_name_that_is_not_signed_yet_is_asked_of_its_own_site_alone(bench: Bench) -> None:
    """And that is said to whoever asked; an id needs no such word."""
    bench.lenders["uni-b"].has["new"] = TWO
    bench.lenders["uni-c"].has["new"] = ONE
    meant = await bench.means("uni-b/new")
    assert (meant.image_id, meant.total_bytes) == (TWO, 20)
    assert meant.note == "uni-b/new is not in uni-b's signed list yet; its gateway says what it is"
    assert await bench.means(f"uni-b/new@{TWO.hex()}") == Meant(TWO, 20)
    assert bench.lenders["uni-c"].asked == []
    assert bench.lenders["uni-b"].asked[0] == ModelRef("new", None), "its own names have no site before them"


async def test_another_image_than_the_one_asked_for_is_no_answer(bench: Bench) -> None:
    """A site that answers an id with its favourite image has answered nothing."""
    bench.lenders["uni-b"].lies = True
    with pytest.raises(UnknownModelError, match="uni-b has no model"):
        await bench.means(f"uni-b/m@{ONE.hex()}")
    bench.lenders["uni-c"].has["m"] = ONE
    assert await bench.means(f"m@{ONE.hex()}") == Meant(ONE, 20)


async def test_a_site_that_nobody_admitted_has_no_names(bench: Bench) -> None:
    """The registry decides who is a site; one that does not answer is said by name."""
    with pytest.raises(NotAdmittedError, match="no site uni-z"):
        await bench.means("uni-z/m")
    bench.lenders["uni-b"].fault = PeerNodeError("the peer uni-b is not reachable.")
    with pytest.raises(PeerNodeError, match="uni-b"):
        await bench.means("uni-b/m")
    with pytest.raises(UnknownModelError):
        await bench.means("uni-c/m")


async def test_a_gateway_that_donates_nothing_knows_its_nodes_names(bench: Bench) -> None:
    """It has no names of its own."""
    naming = Naming("uni-a", None, lambda: bench.reported, bench.trust, bench.neighbours)
    bench.reported["a1"] = (ReportedImage(ONE, 10, True, ("m",)),)
    assert await naming.resolve(parse_ref("m")) == Meant(ONE, 10)


async def test_a_site_without_a_model_is_no_name() -> None:
    """``split_site`` divides at the slash, and takes our own site away."""
    assert split_site("m", "uni-a") == ("", "m")
    assert split_site("uni-a/m", "uni-a") == ("", "m")
    assert split_site("uni-b/m", "uni-a") == ("uni-b", "m")
    with pytest.raises(RequestError):
        split_site("uni-b/", "uni-a")
