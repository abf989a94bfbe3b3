"""Runs the command line, or one question to the door, as another user: ``as_user.py UID GID WORD...``.

Everything is imported before the change, since the other user may not be allowed to read it.
"""

from __future__ import annotations

import importlib
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

import rich.console  # noqa: E402, F401


def ask_door(path: str, shown: str, user_socket: str) -> int:
    """Print the pass that the door gives; with one to show, print what the user socket says to it."""
    if not shown:
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(path)
            print(door.recv(1024).decode().split()[1], flush=True)
            sys.stdin.read()  # the pass lives as long as this connection
        return 0

    import grpc

    from agent.rpc import pyrdma_pb2 as pb
    from agent.rpc.passes import with_pass
    from agent.rpc.pyrdma_pb2_grpc import OperatorStub

    async def whoami() -> str:
        async with grpc.aio.insecure_channel(f"unix:{user_socket}") as channel:
            try:
                answer = await OperatorStub(channel).WhoAmI(pb.WhoAmIRequest(), metadata=with_pass(shown))
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return str(answer.who)

    print(asyncio.run(whoami()))
    return 0


if __name__ == "__main__":
    uid, gid, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.environ["HOME"] = "/"
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    sys.exit(ask_door(*words[1:]) if words[0] == "door" else main(words))
