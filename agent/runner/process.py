"""The life of a runner behind its sandbox: warm up, wait for one lease, map, bind, serve, end.

Messages on the control channel: ``ready`` goes out when all is warm; one ``assign`` with the listening socket
comes in, the image after it; ``phase`` goes out for each step, then ``serving``, or ``failed`` and exit
status 1. After ``drain`` it takes no new request and ends with the last open one; ``undrain`` before that is
answered by ``serving``, and it goes on. The process ends when the channel ends, on SIGTERM, and after its one
lease.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import uvicorn

from agent.runner import adapter
from agent.runner.app import Gate, build_app
from agent.runner.engine import TransformersEngine
from agent.runner.limits import GRACE_S
from agent.runner.warm import warm_up
from pyrdma import sandbox
from pyrdma.attach import receive_attachment
from pyrdma.errors import ChannelError, LocalError
from pyrdma.staging import Staging
from pyrdma.wire import Channel


@dataclass(frozen=True, slots=True)
class Lease:
    """What ``assign`` says."""

    model: str
    api_key: str
    listener: socket.socket


class Phases:
    """Seconds of each step since the one before it, told to the channel as they end."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._begin = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """Close a step."""
        now = time.monotonic()
        seconds = now - self._last
        self._last = now
        self.seconds[f"{name}_s"] = seconds
        self._channel.send({"op": "phase", "name": name, "seconds": seconds})

    def finish(self) -> None:
        """Say that requests are answered from now on."""
        ready = {**self.seconds, "ready_s": time.monotonic() - self._begin}
        self._channel.send({"op": "serving", "phases": ready})


def live(channel: Channel, started: float, *, gpu: bool = False) -> None:
    """Run a runner's life; return when its lease has ended.

    Args:
        channel: the control channel.
        started: when the process began to import, on the monotonic clock.
        gpu: whether it computes on a GPU.

    Raises:
        LocalError: CUDA does not start.
        ChannelError: the control channel ended.
        BindingError: the image cannot be served.
    """
    imported = time.monotonic()
    adapter.quiet()
    device = _cuda() if gpu else torch.device("cpu")
    staging = Staging(device) if gpu else None
    warm_up(device)
    sandbox.forbid_dumps()  # CUDA has its threads; from now on there are a key and weights to see
    seconds = {"import_s": imported - started, "warm_s": time.monotonic() - imported}
    channel.send({"op": "ready", "phases": seconds})
    lease = _receive_lease(channel)
    phases = Phases(channel)
    attachment = receive_attachment(channel)
    phases.end("map")
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        engine = TransformersEngine.bind(
            lease.model,
            attachment,
            folder=Path(folder),
            device=device,
            staging=staging,
            on_phase=phases.end,
        )
    asyncio.run(_serve(engine, lease, channel=channel, phases=phases))


def _cuda() -> torch.device:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().partition("\n")[0]
        raise LocalError(
            f"CUDA does not start on this node's GPU ({why}).",
            fix="see what nvidia-smi says, and whether this torch is built for its driver",
        ) from error
    return torch.device("cuda")


def _receive_lease(channel: Channel) -> Lease:
    message, fds = channel.recv()
    model, key = message.get("model"), message.get("api_key")
    if (
        message.get("op") != "assign"
        or not isinstance(model, str)
        or not isinstance(key, str)
        or len(fds) != 1
    ):
        for fd in fds:
            os.close(fd)
        raise ChannelError("the agent sent a runner something else than a lease.")
    return Lease(model, key, socket.socket(fileno=fds[0]))


async def _serve(engine: TransformersEngine, lease: Lease, *, channel: Channel, phases: Phases) -> None:
    gate = build_app(engine, lease.api_key)
    config = uvicorn.Config(
        gate,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(GRACE_S),
    )
    server = _Server(config, phases)
    serving = asyncio.create_task(server.serve(sockets=[lease.listener]))
    control = asyncio.create_task(_until_over(channel, gate))
    await asyncio.wait({serving, control}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    control.cancel()


async def _until_over(channel: Channel, gate: Gate) -> None:
    """Return when the lease is to end: drained after a notice, told anything else, or without a channel."""
    drained = asyncio.create_task(gate.drained.wait())
    said = asyncio.create_task(channel.arecv())
    try:
        while True:
            await asyncio.wait({drained, said}, return_when=asyncio.FIRST_COMPLETED)
            if gate.drained.is_set() or said.exception() is not None:
                return  # what came after its last request came too late
            message, _ = said.result()
            match message:
                case {"op": "drain", "left_s": int() | float() as left_s}:
                    gate.drain(left_s)
                case {"op": "undrain"}:
                    gate.undrain()
                    await channel.asend({"op": "serving"})
                case _:
                    return
            said = asyncio.create_task(channel.arecv())
    except ChannelError:
        return
    finally:
        for task in (drained, said):
            task.cancel()
        await asyncio.gather(drained, said, return_exceptions=True)


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Tells the channel when it accepts connections."""

    def __init__(self, config: uvicorn.Config, phases: Phases) -> None:
        super().__init__(config)
        self._phases = phases

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._phases.finish()
