"""The gateway's own memory as the site's way to images elsewhere: only it crosses to other sites.

What a node of the site is to run, or another site asks of one of its nodes, comes into the gateway's memory
first, and is forwarded from there piece by piece while it comes. So the way between sites is taken once. What
nobody waits for any more before its first piece is called off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from agent.daemon.host import Host
from agent.daemon.reports import ReportedImage
from agent.daemon.supply import Found
from agent.errors import RequestError, UnknownModelError
from agent.local.views import NoteView, ProgressView
from agent.resolve import ModelRef
from federation.errors import FederationError
from pyrdma.cache.client import SourceGrant
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId, Manifest

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Coming:
    """An image on its way; ``news`` is set, and made anew, with each step of it."""

    task: asyncio.Task[None]
    news: asyncio.Event
    waiting: int = 0


class Forwarding:
    """What brings images into the gateway's memory for others.

    Args:
        host: the gateway's own donation; ``None`` where it has none.
    """

    def __init__(self, host: Host | None) -> None:
        self._host = host
        self._coming: dict[ImageId, _Coming] = {}

    async def close(self) -> None:
        """Call off what is on its way."""
        tasks = [one.task for one in self._coming.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def on_its_way(self, image_id: ImageId, name: str) -> None:
        """Return once pieces of the image can be forwarded; what is missing comes in the background.

        Raises:
            Error: nobody has it, or there is no room for it here.
        """
        if self._host is None:
            raise RequestError(
                "the gateway of this site donates no memory, so it cannot forward images to its nodes.",
                fix="start it without --no-donate, or run the model on the gateway's own device",
            )
        if await self._host.catalogue.can_be_pulled(image_id):
            return
        coming = self._coming.get(image_id) or self._begin(self._host, image_id, name)
        coming.waiting += 1
        begun = False
        try:
            while not begun:
                news = coming.news
                begun = await self._host.catalogue.can_be_pulled(image_id)
                if coming.task.done():
                    coming.task.result()
                    return
                if not begun:
                    await _either(coming.task, news)
        finally:
            coming.waiting -= 1
            if not begun and not coming.waiting:
                self._coming.pop(image_id, None)
                coming.task.cancel()

    def _begin(self, host: Host, image_id: ImageId, name: str) -> _Coming:
        def on_event(event: NoteView | ProgressView) -> None:
            if isinstance(event, ProgressView):
                coming.news.set()
                coming.news = asyncio.Event()

        def over(task: asyncio.Task[None]) -> None:
            if self._coming.get(image_id) is coming:
                del self._coming[image_id]
            if not task.cancelled():
                task.exception()  # whoever still waits hears of it; if nobody does, the log has it

        task = asyncio.create_task(_bring(host, image_id, name, on_event), name=f"bring-{image_id.short()}")
        coming = self._coming[image_id] = _Coming(task, asyncio.Event())
        task.add_done_callback(over)
        return coming


async def _bring(
    host: Host, image_id: ImageId, name: str, on_event: Callable[[NoteView | ProgressView], None]
) -> None:
    kept_as = f"image-{image_id.short()}"
    try:
        await host.supply.provide(name, Found(image_id, ()), on_event, remember_as=kept_as)
    except (Error, FederationError) as error:
        _log.warning("%s could not be brought here to be forwarded: %s", name, error.message)
        raise


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait until the task has ended or the event is set."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


class SiteLending:
    """What this site lends to others: what its gateway holds, and, through it, what its nodes hold.

    Args:
        site: its name.
        host: the gateway's own donation.
        forwarding: what brings images of its nodes here.
        reported: the images of its nodes.
        admit: raises where nothing more may leave the site of an image of so many bytes.
    """

    def __init__(
        self,
        site: str,
        host: Host | None,
        forwarding: Forwarding,
        reported: Callable[[], dict[str, tuple[ReportedImage, ...]]],
        admit: Callable[[int], Awaitable[None]],
    ) -> None:
        self.name = site
        self._admit = admit
        self._host = host
        self._forwarding = forwarding
        self._reported = reported

    async def find_image(self, ref: ModelRef | None, image_id: ImageId | None) -> tuple[ImageId, int] | None:
        """Return the image that is asked for, if it is whole in this site, and its size in bytes.

        What was published on the gateway counts, even if its folder would have to be read again. One on
        its way here from elsewhere does not: two sites that wait for each other would wait for ever.
        """
        if ref is None and image_id is None:
            return None
        if self._host is not None:
            catalogue = self._host.catalogue
            wanted = await catalogue.bound(ModelRef(ref.name, None)) if ref is not None else image_id
            if wanted is not None and (image_id is None or wanted == image_id):
                manifest = await catalogue.known_manifest(wanted)
                here = await catalogue.in_memory(wanted) or await catalogue.folders_of(wanted)
                if manifest is not None and here:
                    return wanted, manifest.layout.total_bytes
        for images in self._reported().values():
            for image in images:
                named = ref is None or ref.name in image.names
                if image.whole and named and image_id in (None, image.image_id):
                    return image.image_id, image.total_bytes
        return None

    async def manifest_of(self, image_id: ImageId) -> Manifest:
        """Return the manifest of an image of this site."""
        if self._host is None:
            raise UnknownModelError(f"the gateway of {self.name} holds no images.")
        known = await self._host.catalogue.known_manifest(image_id)
        if known is None:
            await self._fetch(image_id)
        return await self._host.catalogue.manifest_of(image_id)

    async def lend(self, image_id: ImageId, peer_address: bytes) -> AsyncGenerator[SourceGrant, None]:
        """Yield one grant; the source closes when the iterator does. What is sent counts as egress.

        Raises:
            UnknownModelError: this site does not hold the image.
            BusyError: too many sources are open, or the site has sent all that it may today.
        """
        if self._host is None:
            raise UnknownModelError(f"the gateway of {self.name} holds no images.")
        await self._fetch(image_id, self._admit)
        async with aclosing(self._host.lending.lend(image_id, peer_address, metered=True)) as grants:
            async for grant in grants:
                yield grant

    async def _fetch(self, image_id: ImageId, admit: Callable[[int], Awaitable[None]] | None = None) -> None:
        found = await self.find_image(None, image_id)
        if found is None:
            raise UnknownModelError(f"{self.name} does not hold the image {image_id.short()}.")
        if admit is not None:
            await admit(found[1])
        await self._forwarding.on_its_way(image_id, f"image-{image_id.short()}")
