"""What this node lets its peers read: images in memory, for as long as the peer's call lasts.

An image on its way here is lent as well, piece by piece as it is proven; but it is offered by a gateway to
its own nodes alone: two nodes that wait for each other's pieces would wait for ever.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

from agent.daemon.cache_keeper import CacheKeeper
from agent.daemon.catalogue import Catalogue
from agent.errors import BusyError, UnknownModelError
from agent.limits import MAX_OPEN_SOURCES
from agent.resolve import ModelRef
from pyrdma.cache.client import SourceGrant
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId, Manifest

_log = logging.getLogger(__name__)


class Lending:
    """This node as its peers see it.

    Args:
        name: what it calls itself.
        forwards: whether images on their way here are offered.
    """

    def __init__(self, name: str, catalogue: Catalogue, keeper: CacheKeeper, *, forwards: bool) -> None:
        self.name = name
        self._forwards = forwards
        self._catalogue = catalogue
        self._keeper = keeper
        self._open = 0

    async def find_image(self, ref: ModelRef | None, image_id: ImageId | None) -> tuple[ImageId, int] | None:
        """Return the image that is asked for by name or id, if it can be pulled from here, and its bytes.

        What this node would have to read from disk or a peer first is not offered.
        """
        wanted = image_id
        if ref is not None:
            bound = await self._catalogue.bound(ModelRef(ref.name, None))
            if bound is None or (image_id is not None and bound != image_id):
                return None
            wanted = bound
        if wanted is None:
            return None
        there = self._catalogue.can_be_pulled if self._forwards else self._catalogue.in_memory
        if not await there(wanted):
            return None
        manifest = await self._catalogue.known_manifest(wanted)
        return None if manifest is None else (wanted, manifest.layout.total_bytes)

    async def manifest_of(self, image_id: ImageId) -> Manifest:
        """Return a known image's manifest. Raises UnknownModelError."""
        return await self._catalogue.manifest_of(image_id)

    async def lend(
        self, image_id: ImageId, peer_address: bytes, *, metered: bool = False
    ) -> AsyncGenerator[SourceGrant, None]:
        """Yield one grant; the source closes when the iterator does. ``metered``: to another site.

        Raises:
            UnknownModelError: the image is neither in memory here nor on its way.
            BusyError: too many sources are open.
        """
        if not await self._catalogue.can_be_pulled(image_id):
            raise UnknownModelError(f"the image {image_id.short()} is not in this node's memory.")
        if self._open >= MAX_OPEN_SOURCES:
            raise BusyError(
                f"this node serves {MAX_OPEN_SOURCES} pulls already.", fix="try again when one has ended"
            )
        self._open += 1
        try:
            cache = self._keeper.cache
            grant = await cache.open_source(image_id, peer_address, metered=metered)
            try:
                yield grant
            finally:
                with contextlib.suppress(Error):  # a cache that died has closed it already
                    await cache.close_source(grant.session)
        finally:
            self._open -= 1


class NothingLent:
    """A node that donates no memory, as its peers see it."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def find_image(self, ref: ModelRef | None, image_id: ImageId | None) -> tuple[ImageId, int] | None:
        """Return nothing."""
        del ref, image_id
        return None

    async def manifest_of(self, image_id: ImageId) -> Manifest:
        """Raise UnknownModelError."""
        raise UnknownModelError(f"{self.name} holds no images, so not {image_id.short()} either.")

    async def lend(self, image_id: ImageId, peer_address: bytes) -> AsyncGenerator[SourceGrant, None]:
        """Raise UnknownModelError."""
        del peer_address
        grants: tuple[SourceGrant, ...] = ()
        for grant in grants:
            yield grant
        raise UnknownModelError(f"{self.name} holds no images, so not {image_id.short()} either.")
