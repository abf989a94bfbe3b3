"""The weight-cache process: ``python -m pyrdma.cache --control-fd N --memory BYTES --interface IFACE``.

Started by its owner, ends with it. Never imports torch, numpy or UCX: 30 MiB beside the weights.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pyrdma.cache.messages import grant_from_json, grant_to_json, status_to_json
from pyrdma.cache.service import CacheService
from pyrdma.errors import ChannelError, Error, LaneError, LocalError
from pyrdma.image import ImageId, Manifest
from pyrdma.limits import MAX_MANIFEST_BYTES
from pyrdma.memory import ExtentPool, read_bulk, sealed_bytes
from pyrdma.pull.engine import Progress, PullSource
from pyrdma.sandbox import die_with_parent
from pyrdma.wire import Channel, Message

PROGRESS_EVERY_S: Final = 0.05
"""Reports of one call are at least this far apart; the last one always goes out."""


class _Server:
    """Calls from the owner's channel to the service."""

    def __init__(self, channel: Channel, service: CacheService) -> None:
        self._channel = channel
        self._service = service
        self._calls: set[asyncio.Task[None]] = set()
        self._pulls: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Answer calls until the owner's end is closed."""
        with contextlib.suppress(ChannelError):
            while True:
                message, fds = await self._channel.arecv()
                if message["op"] == "cancel":
                    self._cancel(message["id"])
                    continue
                call = asyncio.create_task(self._answer(message, fds))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
                if message["op"] == "pull":
                    self._pulls[message["id"]] = call
                    call.add_done_callback(functools.partial(self._forget_pull, message["id"]))
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _cancel(self, name: int) -> None:
        """Stop a pull; what it has proven stays. A publication is not stopped: a thread fills its memory."""
        if name in self._pulls:
            self._pulls[name].cancel()

    def _forget_pull(self, name: int, _: asyncio.Task[None]) -> None:
        del self._pulls[name]

    async def _answer(self, message: Message, fds: list[int]) -> None:
        name = message["id"]
        try:
            result, sent = await self._perform(name, message, fds)
            await self._channel.asend({"id": name, "result": result}, sent)
            for fd in sent:
                os.close(fd)
        except ChannelError:
            pass  # the owner is gone; run() sees it too
        except Error as error:
            await self._tell_error(name, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the owner must not wait for an answer for ever
            await self._tell_error(name, LocalError(f"the weight cache failed ({error})."))

    async def _tell_error(self, name: int, error: Error) -> None:
        told = {"code": error.code, "message": error.message, "fix": error.fix}
        with contextlib.suppress(ChannelError):
            await self._channel.asend({"id": name, "error": told})

    async def _perform(self, name: int, message: Message, fds: list[int]) -> tuple[Any, list[int]]:
        service = self._service
        match message["op"]:
            case "status":
                return None, [sealed_bytes("status", json.dumps(status_to_json(service.status())).encode())]
            case "publish":
                manifest = await service.publish(Path(message["folder"]), self._reporter(name))
                return None, [sealed_bytes("manifest", manifest.encode())]
            case "lane_address":
                return (await service.lane()).address.hex(), []
            case "open_source":
                image_id, peer = ImageId.fromhex(message["image"]), bytes.fromhex(message["peer"])
                grant = await service.open_source(image_id, peer, metered=message["metered"])
                return grant_to_json(grant), []
            case "egress":
                return await service.egress(message["bytes_per_s"], message["until_bytes"]), []
            case "close_source":
                await service.close_source(message["session"])
                return None, []
            case "pull":
                manifest = Manifest.decode(read_bulk(fds[0], MAX_MANIFEST_BYTES))
                sources = [
                    PullSource(one["name"], grant_from_json(one["grant"])) for one in message["sources"]
                ]
                return asdict(await service.pull(manifest, sources, self._reporter(name))), []
            case "attach":
                parts = service.attach(ImageId.fromhex(message["image"]))
                pin, manifest_fd = parts[0][1][:2]
                try:
                    for part, held in parts:
                        await self._channel.asend({"id": name, "part": part}, held)
                finally:
                    os.close(pin)
                    os.close(manifest_fd)
                return None, []
            case "drop":
                service.drop(ImageId.fromhex(message["image"]))
                return None, []
            case "lend":
                status = status_to_json(await service.lend(message["nbytes"]))
                return None, [sealed_bytes("status", json.dumps(status).encode())]
            case other:
                raise LocalError(f"the weight cache knows no operation {other!r}.")

    def _reporter(self, name: int) -> Callable[[Progress], None]:
        last_s = 0.0
        told: tuple[str, ...] = ()

        def report(progress: Progress) -> None:
            nonlocal last_s, told
            now_s = time.monotonic()
            states = tuple(source.state for source in progress.sources)
            whole = progress.done_bytes >= progress.total_bytes
            if whole or states != told or now_s - last_s >= PROGRESS_EVERY_S:
                last_s, told = now_s, states
                # A reader that does not keep up misses a report, never a result.
                self._start(self._channel.asend({"id": name, "progress": asdict(progress)}))

        return report

    def _start(self, work: Awaitable[None]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(ChannelError):
                await work

        task = asyncio.create_task(quietly())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


async def _warm_lane(service: CacheService) -> None:
    with contextlib.suppress(LaneError):
        await service.lane()


def _fault_in_all(pool: ExtentPool, stop: threading.Event) -> None:
    with contextlib.suppress(LocalError):
        while not stop.is_set() and pool.fault_in_one():
            pass


async def _serve(options: argparse.Namespace) -> None:
    pool = ExtentPool(options.memory)
    service = CacheService(pool, options.interface, threads=max(1, min(4, (os.cpu_count() or 2) - 1)))
    channel = Channel.from_fd(options.control_fd)
    stop = threading.Event()
    faulting = threading.Thread(target=_fault_in_all, args=(pool, stop), daemon=True, name="fault-in")
    if options.prefault:
        faulting.start()
    await channel.asend({"op": "ready"})
    # Ahead of the first pull, which would wait a second for it. Without UCX the first use says so.
    warming = asyncio.create_task(_warm_lane(service))
    try:
        await _Server(channel, service).run()
    finally:
        stop.set()
        warming.cancel()
        await service.close()


def main() -> int:
    """Run the weight cache until its owner's end of the channel closes."""
    parser = argparse.ArgumentParser(prog="pyrdma-cache")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--prefault", action="store_true")
    options = parser.parse_args()
    die_with_parent()
    asyncio.run(_serve(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
