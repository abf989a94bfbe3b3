"""Pulls between weight caches that are processes, and what a cache has of an image afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

from pyrdma.attach import receive_attachment
from pyrdma.cache.client import PullSource
from pyrdma.errors import LocalError
from pyrdma.wire import Channel

PIECES = 6


async def granted(name: str, source: Any, image_id: Any, puller: Any) -> PullSource:
    """Let one cache pull from another."""
    return PullSource(name, await source.open_source(image_id, await puller.lane_address()))


async def worker_pid(cache: Any) -> int:
    """The process of a cache's lane worker."""
    (worker,) = (await cache.status()).workers
    return int(worker.pid)


async def content_of(cache: Any, manifest: Any) -> bytes:
    """The image as a process that attaches to it reads it."""
    parcel = await cache.attach(manifest.image_id)
    channel, theirs = Channel.pair()
    await asyncio.to_thread(parcel.send_to, Channel(theirs))
    attachment = await asyncio.to_thread(receive_attachment, channel, 10)
    try:
        assert attachment.manifest == manifest
        return bytes(attachment.buffer)
    finally:
        attachment.close()
        channel.close()
        theirs.close()


async def idle_again(source: Any, manifest: Any, wait_until: Any) -> None:
    """Wait until no session holds the image, by dropping it."""

    async def dropped() -> bool:
        try:
            await source.drop(manifest.image_id)
        except LocalError as error:
            return "not in this node" in error.message
        return True

    await wait_until(dropped, "for the source's sessions to end")
