"""The weight cache as a process: publishing, attaching, pins, budget, death."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrdma.attach import Attachment, receive_attachment
from pyrdma.cache.client import CacheClient, CacheConfig, Parcel
from pyrdma.errors import BudgetError, ChannelError, ImageFormatError, LocalError, ManifestError
from pyrdma.image import ImageId, Manifest
from pyrdma.limits import MIB
from pyrdma.wire import Channel

UNKNOWN = ImageId(b"\x01" * 32)

HOLDER = """
import sys, time
from pyrdma.attach import receive_attachment
from pyrdma.wire import Channel
channel = Channel.from_fd(int(sys.argv[1]))
attachment = receive_attachment(channel)
channel.send({"first": attachment.buffer[0]})
channel.recv()
"""


async def attached(cache: Any, manifest: Any) -> Attachment:
    """Attach in this process."""
    parcel = await cache.attach(manifest.image_id)
    channel, theirs = Channel.pair()
    await asyncio.to_thread(parcel.send_to, Channel(theirs))
    try:
        return await asyncio.to_thread(receive_attachment, channel, 10)
    finally:
        channel.close()
        theirs.close()


def test_publishing_twice_gives_the_same_image_once(caches: Any, loop_runner: asyncio.Runner) -> None:
    """The same folder has the same id, takes its memory once, and progress ends at the whole."""

    # A second reading needs a second region until it is known to be the same image.
    async def run() -> None:
        cache = await caches.get("roomy", memory_bytes=256 * MIB)
        first = await cache.publish(caches.model, lambda _: None)
        told: list[Any] = []
        assert await cache.publish(caches.model, told.append) == first
        assert told[-1].done_bytes == told[-1].total_bytes == first.layout.total_bytes
        status = await cache.status()
        assert status.used_bytes == 128 * MIB
        (replica,) = status.replicas
        assert (replica.pieces, replica.verified_pieces, replica.attached) == (6, 6, 0)

    loop_runner.run(run())


def test_an_attachment_pins_its_image_until_it_is_closed(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """While mapped, an image cannot be dropped, and the sentence says so; afterwards it can."""

    async def run() -> None:
        cache, manifest = await caches.source("a")
        attachment = await attached(cache, manifest)
        assert (await cache.status()).replicas[0].attached == 1
        with pytest.raises(LocalError, match=r"in use by 1 process\(es\)") as caught:
            await cache.drop(manifest.image_id)
        assert "leases" in caught.value.fix
        attachment.close()
        await unpinned(cache, wait_until)
        await cache.drop(manifest.image_id)
        assert (await cache.status()).used_bytes == 0

    loop_runner.run(run())


async def unpinned(cache: Any, wait_until: Any) -> None:
    """Wait until nobody maps anything."""

    async def none() -> bool:
        return not any(one.attached for one in (await cache.status()).replicas)

    await wait_until(none, "for the pin to go")


def test_an_attachment_cannot_be_closed_under_a_tensor_or_a_view(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """Closing while something still looks at the memory is an error, not a later crash."""

    async def run() -> None:
        cache, manifest = await caches.source("a")
        attachment = await attached(cache, manifest)
        holders: list[Callable[[], object]] = [
            lambda: [attachment.buffer],  # a tensor keeps the buffer's object
            lambda: attachment.buffer[5:10],
            lambda: (ctypes.c_ubyte * 10).from_buffer(attachment.buffer),
        ]
        for holder in holders:
            held = holder()
            with pytest.raises(BufferError, match="still in use"):
                attachment.close()
            del held
        attachment.buffer[0] ^= 0xFF  # its own copy: the image stays as it is
        second = await attached(cache, manifest)
        assert second.buffer[0] == attachment.buffer[0] ^ 0xFF
        for one in (attachment, second):
            one.close()
        await unpinned(cache, wait_until)

    loop_runner.run(run())


def test_a_holder_that_is_killed_unpins(caches: Any, loop_runner: asyncio.Runner, wait_until: Any) -> None:
    """SIGKILL of the process that maps an image is as good as closing it."""

    async def run() -> None:
        cache, manifest = await caches.source("a")
        channel, theirs = Channel.pair()
        with theirs:
            command = [sys.executable, "-c", HOLDER, str(theirs.fileno())]
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
            holder = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        try:
            (await cache.attach(manifest.image_id)).send_to(channel)
            assert "first" in (await asyncio.wait_for(channel.arecv(), 20))[0]
            assert (await cache.status()).replicas[0].attached == 1
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        await unpinned(cache, wait_until)
        channel.close()

    loop_runner.run(run())


def test_a_parcel_that_is_never_sent_pins_nothing(
    count_descriptors: Any, caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """Closed by hand, or left by a caller that was cancelled: the pin goes and no descriptor stays."""

    async def run() -> None:
        cache, manifest = await caches.source("a")
        before = count_descriptors()
        parcel = await cache.attach(manifest.image_id)
        assert isinstance(parcel, Parcel)
        parcel.close()
        for turns in range(4):
            attaching = asyncio.create_task(cache.attach(manifest.image_id))
            for _ in range(turns):
                await asyncio.sleep(0)
            attaching.cancel()
            await asyncio.gather(attaching, return_exceptions=True)
        await unpinned(cache, wait_until)
        assert count_descriptors() == before

    loop_runner.run(run())


def test_a_mapping_outlives_the_cache(
    caches: Any, loop_runner: asyncio.Runner, write_model: Any, tmp_path: Path
) -> None:
    """After SIGKILL of the cache the attached image still reads right; every call is a sentence."""

    async def run() -> None:
        cache = await caches.get("victim", memory_bytes=64 * MIB)
        folder = write_model(tmp_path / "small", 5 * MIB, 8)
        manifest = await cache.publish(folder, lambda _: None)
        attachment = await attached(cache, manifest)
        os.kill(cache.pid, signal.SIGKILL)
        await asyncio.wait_for(cache.closed.wait(), 10)
        weights = (folder / "model.safetensors").read_bytes()
        body, tail = (manifest.layout.tensors[0], manifest.layout.tensors[1])
        read = b"".join(
            bytes(attachment.buffer[one.offset : one.offset + one.nbytes]) for one in (body, tail)
        )
        assert weights.endswith(read)
        with pytest.raises(ChannelError, match="not running"):
            await cache.status()
        attachment.close()

    loop_runner.run(run())


def test_an_image_larger_than_the_budget_is_refused(caches: Any, loop_runner: asyncio.Runner) -> None:
    """Publishing and pulling both say what is missing, and take nothing."""

    async def run() -> None:
        large, manifest = await caches.source("a")
        assert large is not None
        small = await caches.get("small", memory_bytes=64 * MIB)
        sentence = "an image of 83 MiB does not fit: 64 of 64 MiB donated memory are free on this node."
        with pytest.raises(BudgetError) as caught:
            await small.publish(caches.model, lambda _: None)
        assert caught.value.message == sentence
        assert "--memory" in caught.value.fix
        with pytest.raises(BudgetError) as caught:
            await small.pull(manifest, [], lambda _: None)
        assert caught.value.message == sentence
        assert (await small.status()).used_bytes == 0

    loop_runner.run(run())


def test_pre_faulting_and_a_first_image_go_together(loop_runner: asyncio.Runner, caches: Any) -> None:
    """An image that needs the whole budget is taken while the budget is still being touched."""

    async def run() -> None:
        cache = await CacheClient.start(CacheConfig(128 * MIB))
        await cache.publish(caches.model, lambda _: None)
        status = await cache.status()
        assert status.used_bytes == status.faulted_bytes == 128 * MIB
        await cache.close()

    loop_runner.run(run())


def test_an_owner_gets_the_memory_back_but_for_what_is_mapped(
    caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """What nobody maps goes at once, the rest after its end; more memory takes the image again."""

    async def run() -> None:
        cache, manifest = await caches.source("a")
        budget = (await cache.status()).budget_bytes
        attachment = await attached(cache, manifest)
        held = await cache.lend(0)
        assert [one.image_id for one in held.replicas] == [manifest.image_id]
        attachment.close()
        await unpinned(cache, wait_until)
        held = await cache.lend(0)
        assert (held.replicas, held.used_bytes, held.faulted_bytes) == ((), 0, 0)
        with pytest.raises(BudgetError):
            await cache.publish(caches.model, lambda _: None)
        await cache.lend(budget)
        assert await cache.publish(caches.model, lambda _: None) == manifest

    loop_runner.run(run())


def test_what_is_not_here_is_a_sentence(caches: Any, loop_runner: asyncio.Runner, tmp_path: Path) -> None:
    """Unknown images and folders that are no model, from every call; the cache answers afterwards."""

    async def run() -> None:
        cache = await caches.get("a")
        for call in (cache.attach(UNKNOWN), cache.open_source(UNKNOWN, b"x")):
            with pytest.raises(LocalError, match="is not whole in this node's memory"):
                await call
        with pytest.raises(LocalError, match="is not in this node's memory"):
            await cache.drop(UNKNOWN)
        await cache.close_source(5)
        with pytest.raises(ImageFormatError):
            await cache.publish(tmp_path, lambda _: None)
        with pytest.raises((ImageFormatError, LocalError)):
            await cache.publish(Path("no\0where"), lambda _: None)
        assert (await cache.status()).used_bytes == 0

    loop_runner.run(run())


def test_a_manifest_that_is_none_or_another_is_refused(caches: Any, loop_runner: asyncio.Runner) -> None:
    """Bytes that do not match the id never become an image; what came with a parcel is checked as well."""

    async def run() -> None:
        _, manifest = await caches.source("a")
        with pytest.raises(ManifestError):
            Manifest.decode(manifest.encode(), expect=UNKNOWN)
        with pytest.raises(ManifestError):
            Manifest.decode(manifest.encode()[:-1])

    loop_runner.run(run())


def test_a_parcel_with_less_memory_than_its_image_is_refused(
    count_descriptors: Any, caches: Any, loop_runner: asyncio.Runner, wait_until: Any
) -> None:
    """An attachment never reaches past what was mapped; no descriptor is left."""

    async def run() -> None:
        cache, manifest = await caches.source("a")
        parcel = await cache.attach(manifest.image_id)
        ((message, fds),) = parcel.messages
        os.close(fds.pop())
        message["extents"] -= 1
        channel, theirs = Channel.pair()
        parcel.send_to(Channel(theirs))
        before = count_descriptors()
        with pytest.raises(ChannelError, match="less memory"):
            receive_attachment(channel, 5)
        assert count_descriptors() == before
        channel.close()
        theirs.close()
        await unpinned(cache, wait_until)

    loop_runner.run(run())


def test_a_cache_imports_neither_torch_nor_numpy_nor_ucx() -> None:
    """It stays small beside the weights."""
    code = (
        "import sys, pyrdma.cache.__main__\n"
        "print([n for n in ('torch', 'numpy', 'ucxx', 'transformers') if n in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
