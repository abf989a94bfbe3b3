"""A real agent process (real state, sockets, weight cache, UCX) whose runners are ``stand_in_runner``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from agent.daemon.config import ServeConfig
from agent.daemon.serve import serve
from agent.errors import RunnerError, UnsupportedModelError
from agent.launch import RunnerProcess, start_runner
from agent.logs import log_to
from agent.paths import Paths
from agent.rpc.peer import PeerClient
from pyrdma.cache.client import CacheClient, CacheConfig
from pyrdma.errors import Error
from pyrdma.limits import MIB


class StandInLauncher:
    """Starts stand-ins; a file ``broken`` in the state directory makes every start fail."""

    def __init__(self, state: Path) -> None:
        self._broken = state / "broken"

    async def spawn(self, gpus: str = "") -> RunnerProcess:
        if self._broken.exists():
            raise RunnerError("no engine here.", fix="install one")
        return await start_runner([sys.executable, str(Path(__file__).with_name("stand_in_runner.py"))])

    async def check(self, folder: Path) -> str:
        if "Converted" in (folder / "config.json").read_text():
            raise UnsupportedModelError("Its weights need conversion.", fix="convert it")
        return "checked by a stand-in"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--memory-mib", type=int, default=256)
    parser.add_argument("--spares", type=int, default=1)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--devices", type=int, default=0)
    parser.add_argument("--grace", type=float, default=1.0)
    parser.add_argument("--quiet", type=float, default=0.5)
    options = parser.parse_args()
    log_to()
    paths = Paths(options.state, options.run or options.state / "run")
    cache = CacheConfig(memory_bytes=options.memory_mib * MIB, prefault=False)
    await serve(
        ServeConfig(
            paths,
            options.name,
            options.spares,
            donates=True,
            lease_ttl_s=600.0,
            mdns=(),
            devices=options.devices,
            grace_s=options.grace,
            quiet_s=options.quiet,
        ),
        start_cache=lambda: CacheClient.start(cache),
        launcher=StandInLauncher(options.state),
        peers=[PeerClient(address) for address in options.peer],
    )


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Error as error:
        print(f"{error.code}: {error.message} FIX {error.fix}", file=sys.stderr)
        sys.exit(1)
