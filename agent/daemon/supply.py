"""Makes an image resident: from memory, else from its folder, else from every peer that holds it.

Rules: two starts of one image wait for one supply, two pulls take turns on the one lane; whatever the way,
the image's id decides what is accepted; a folder that changed since its publication counts as not there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.daemon.parts import Lender
from agent.daemon.transfers import Transfers, source_view
from agent.errors import PeerNodeError, RequestError, UnknownModelError
from agent.limits import LANE_TRIES, MIN_PULL_BYTES_PER_S, SOURCE_SLACK_S
from agent.local.views import NoteView, ProgressView, SourceView
from agent.resolve import ModelRef, Offer, choose
from agent.text import format_size
from federation.errors import FederationError
from pyrdma.cache.client import Progress, PullSource
from pyrdma.errors import Error, LaneError, LocalError, NoSourceError
from pyrdma.image.manifest import ImageId, Manifest

_log = logging.getLogger(__name__)
Emit = Callable[[NoteView | ProgressView], None]


@dataclass(frozen=True, slots=True)
class Supplied:
    """How an image came into memory; ``lane`` is ``resident`` when nothing moved."""

    lane: str
    bytes: int = 0
    pull_s: float = 0.0
    verify_s: float = 0.0
    sources: tuple[SourceView, ...] = ()
    connect_s: float = 0.0
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A peer that has an image, and what people call it."""

    peer: Lender
    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """An image that a reference stands for, and the peers that have it.

    ``most_bytes`` is the size that was claimed for it, by which it was admitted; 0: nobody claimed any.
    """

    image_id: ImageId
    holders: tuple[Holder, ...]
    most_bytes: int = 0

    def check(self, manifest: Manifest) -> None:
        """Raise RequestError when the image is larger than was claimed."""
        total_bytes = manifest.layout.total_bytes
        if 0 < self.most_bytes < total_bytes:
            raise RequestError(
                f"the image {self.image_id.short()} has {format_size(total_bytes)}, and was asked for with "
                f"{format_size(self.most_bytes)}.",
                fix="ask anew with its real size",
            )


class Supply:
    """The ways by which images come into this node's memory.

    Args:
        lenders: returns whom to ask now; a gateway's change with the consortium.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        keeper: CacheKeeper,
        transfers: Transfers,
        lenders: Callable[[], Sequence[Lender]],
    ) -> None:
        self._catalogue = catalogue
        self._keeper = keeper
        self._transfers = transfers
        self._lenders = lenders
        self._locks: WeakValueDictionary[ImageId, asyncio.Lock] = WeakValueDictionary()
        self._lane_turn = asyncio.Lock()

    async def resolve(self, ref: ModelRef) -> Found:
        """Return what the reference stands for; peers are asked only when this node does not know it.

        Raises:
            UnknownModelError, AmbiguousModelError: see ``agent.resolve``.
        """
        local = await self._catalogue.bound(ref)
        if local is not None:
            return Found(local, ())
        offers, unreachable = await self._ask(ref)
        image_id = choose(ref, None, [offer for _, offer in offers], unreachable=unreachable)
        return Found(image_id, _holders([one for one in offers if one[1].image_id == image_id]))

    async def provide(self, name: str, found: Found, emit: Emit, *, remember_as: str = "") -> Supplied:
        """Bring the image into memory, whole and verified.

        Args:
            name: what people call it.
            found: the image and who has it, if that is known already.
            emit: told how far it is.
            remember_as: the name that it is bound to here if it comes from peers; by default ``name``.
                Another site's word must never decide what a name means here.

        Raises:
            NoSourceError, UnknownModelError, BudgetError: no way is left.
            RequestError: it is larger than was claimed.
        """
        known = await self._catalogue.known_manifest(found.image_id)
        if known is not None:
            found.check(known)
        lock = self._locks.setdefault(found.image_id, asyncio.Lock())
        async with lock:
            if await self._catalogue.in_memory(found.image_id):
                return Supplied("resident", verified=True)
            supplied = await self._move(name, found, remember_as or name, emit)
            # The cache's own word, after the fact: every piece of it is proven.
            return replace(supplied, verified=await self._catalogue.in_memory(found.image_id))

    async def _move(self, name: str, found: Found, remember_as: str, emit: Emit) -> Supplied:
        for folder in await self._catalogue.folders_of(found.image_id):
            supplied = await self._from_folder(name, found.image_id, folder, emit)
            if supplied is not None:
                return supplied
        return await self._from_peers(name, found, remember_as, emit)

    async def _from_folder(self, name: str, image_id: ImageId, folder: Path, emit: Emit) -> Supplied | None:
        begun = time.monotonic()
        try:
            with self._transfers.record(name, image_id.hex(), "publish", emit) as on_progress:
                manifest = await self._keeper.cache.publish(folder, on_progress)
        except LocalError:
            raise
        except Error as error:
            emit(NoteView(f"the folder {folder} cannot be read again: {error.message}"))
            return None
        if manifest.image_id == image_id:
            total = manifest.layout.total_bytes
            return Supplied("disk", total, time.monotonic() - begun)
        emit(NoteView(f"the folder {folder} has changed since {name} was published; it is not used"))
        await self._keeper.cache.drop(manifest.image_id)
        return None

    async def _from_peers(self, name: str, found: Found, remember_as: str, emit: Emit) -> Supplied:
        begun = time.monotonic()
        holders = found.holders
        if not holders:
            offers, unreachable = await self._ask(ModelRef("", found.image_id))
            holders = _holders(offers)
            if not holders:
                silent = f" Not reachable: {', '.join(unreachable)}." if unreachable else ""
                raise UnknownModelError(
                    f"the image of {name} is neither in memory, nor in its folder, nor at a peer.{silent}",
                    fix="publish it again with: pyrdma-agent publish FOLDER --name NAME",
                )
        manifest = await self._manifest(found.image_id, [holder.peer for holder in holders])
        found.check(manifest)
        if self._lane_turn.locked():
            emit(NoteView(f"{name} waits until another pull of this node has ended"))
        # Sources are opened when it is our turn: one that is not asked for anything ends its session.
        with self._catalogue.arriving(manifest):
            supplied = await self._take_turns(name, manifest, holders, begun, emit)
            await self._catalogue.remember_pulled(remember_as, manifest)
        return supplied

    async def _take_turns(
        self, name: str, manifest: Manifest, holders: Sequence[Holder], begun: float, emit: Emit
    ) -> Supplied:
        async with self._lane_turn:
            for _ in range(LANE_TRIES - 1):
                try:
                    return await self._pull(name, manifest, holders, begun, emit)
                except LaneError as error:
                    emit(NoteView(f"{error.message} It is started again; finished pieces are kept."))
            return await self._pull(name, manifest, holders, begun, emit)

    async def _pull(
        self, name: str, manifest: Manifest, holders: Sequence[Holder], begun: float, emit: Emit
    ) -> Supplied:
        image_id = manifest.image_id
        limit_s = SOURCE_SLACK_S + manifest.layout.total_bytes / MIN_PULL_BYTES_PER_S
        # Asked for anew at each try: a lane worker that was started again has another address.
        address = await self._keeper.cache.lane_address()
        async with AsyncExitStack() as open_sources:
            sources = []
            refusals = []
            for holder in holders:
                try:
                    grant = await open_sources.enter_async_context(
                        holder.peer.open_source(image_id, address, limit_s)
                    )
                    sources.append(PullSource(name=holder.name, grant=grant))
                except (PeerNodeError, FederationError) as error:
                    refusals.append(error.message)
                    emit(NoteView(error.message))
            if not sources:
                raise NoSourceError(f"no peer lends {name}: {' '.join(refusals)}", fix="try again later")
            with self._transfers.record(name, image_id.hex(), "pull", emit) as on_progress:
                connect_s = time.monotonic() - begun
                report = await self._keeper.cache.pull(manifest, sources, on_progress)
                # The last word on each source comes with the report.
                total = manifest.layout.total_bytes
                on_progress(Progress(total, total, report.lane, report.sources))
        _log.info("pulled %s over %s: %d bytes in %.2f s", name, report.lane, report.bytes, report.seconds)
        return Supplied(
            lane=report.lane,
            bytes=report.bytes,
            pull_s=report.seconds,
            connect_s=connect_s,
            verify_s=report.verify_s,
            sources=tuple(map(source_view, report.sources)),
        )

    async def _manifest(self, image_id: ImageId, peers: Sequence[Lender]) -> Manifest:
        known = await self._catalogue.known_manifest(image_id)
        if known is not None:
            return known
        faults = []
        for peer in peers:
            try:
                return await peer.manifest(image_id)
            except (Error, FederationError) as error:
                faults.append(error.message)
        raise NoSourceError(f"no peer gave the manifest: {' '.join(faults)}", fix="try again later")

    async def _ask(self, ref: ModelRef) -> tuple[list[tuple[Lender, Offer]], list[str]]:
        lenders = self._lenders()
        answers = await asyncio.gather(*(lender.find(ref) for lender in lenders), return_exceptions=True)
        offers, unreachable = [], []
        for peer, answer in zip(lenders, answers, strict=True):
            if isinstance(answer, Offer):
                offers.append((peer, answer))
            elif isinstance(answer, Error | FederationError):
                unreachable.append(peer.address)
                _log.warning("%s", answer.message)
            elif answer is not None:
                raise answer
        return offers, unreachable


def _holders(offers: Sequence[tuple[Lender, Offer]]) -> tuple[Holder, ...]:
    # What a node calls itself is its own word: two that say the same are told apart by address.
    said = Counter(offer.node for _, offer in offers)
    return tuple(Holder(peer, o.node if said[o.node] == 1 and o.node else peer.address) for peer, o in offers)
