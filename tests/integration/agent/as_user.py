"""Runs the command line, or asks door and user socket, as another user: ``as_user.py UID GID WORD...``.

Everything is imported before the change, since the other user may not be allowed to read it.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import socket
import sys

import agent.cli
import agent.local
import agent.rpc
from agent.cli.main import main

for package in (agent.cli, agent.local, agent.rpc):
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in ("tui", "serve", "demo", "generate"):
            importlib.import_module(f"{package.__name__}.{module.name}")
import asyncio  # noqa: E402 - the rest that commands import when they run
import encodings.idna  # noqa: E402, F401
import pwd  # noqa: E402, F401

import grpc  # noqa: E402
import rich.console  # noqa: E402, F401

from agent.rpc import pyrdma_pb2 as pb  # noqa: E402
from agent.rpc.passes import with_pass  # noqa: E402
from agent.rpc.pyrdma_pb2_grpc import OperatorStub  # noqa: E402


def ask_door(path: str, shown: str, user_socket: str) -> int:
    """Print the pass that the door gives; with one to show, print what the user socket says to each call."""
    if not shown:
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(path)
            print(door.recv(1024).decode().split()[1], flush=True)
            sys.stdin.read()  # the pass lives as long as this connection
        return 0

    print(json.dumps(asyncio.run(every_call(user_socket, shown))))
    return 0


async def every_call(user_socket: str, shown: str) -> dict[str, str]:
    """Make each call of the service with an empty request; return how it ends, by its name."""
    ends = {}
    async with grpc.aio.insecure_channel(f"unix:{user_socket}") as channel:
        stub = OperatorStub(channel)
        for method in pb.DESCRIPTOR.services_by_name["Operator"].methods:
            request = getattr(pb, method.input_type.name)()
            call = getattr(stub, method.name)(request, metadata=with_pass(shown), timeout=20)
            try:
                answers = [one async for one in call] if method.server_streaming else [await call]
                ends[method.name] = answers[0].who if method.name == "WhoAmI" else "OK"
            except grpc.aio.AioRpcError as error:
                ends[method.name] = error.code().name
    return ends


if __name__ == "__main__":
    uid, gid, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.environ["HOME"] = "/"
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    sys.exit(ask_door(*words[1:]) if words[0] == "door" else main(words))
