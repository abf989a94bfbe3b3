"""A real agent process in a site, whose runners are the stand-ins of ``tests/integration/agent``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from agent.daemon.config import ServeConfig
from agent.daemon.serve import serve
from agent.errors import Reported, RunnerError
from agent.launch import RunnerProcess, start_runner
from agent.logs import log_to
from agent.paths import Paths
from pyrdma.cache.client import CacheClient, CacheConfig
from pyrdma.limits import MIB

STAND_IN = Path(__file__).parent.parent / "agent" / "stand_in_runner.py"


class StandInLauncher:
    """Starts stand-ins; a file ``broken`` in the state directory makes every start fail."""

    def __init__(self, state: Path) -> None:
        self._broken = state / "broken"

    async def spawn(self, gpus: str = "") -> RunnerProcess:
        if self._broken.exists():
            raise RunnerError("no engine here.", fix="install one")
        return await start_runner([sys.executable, str(STAND_IN)])

    async def check(self, folder: Path) -> str:
        return ""


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--memory-mib", type=int, default=256)
    parser.add_argument("--spares", type=int, default=1)
    parser.add_argument("--lease-ttl", type=float, default=600.0)
    parser.add_argument("--no-donate", action="store_true")
    parser.add_argument("--interface", default="lo")
    parser.add_argument("--mdns", action="append", default=[])
    parser.add_argument("--devices", type=int, default=0)
    parser.add_argument("--visitors", default="")
    options = parser.parse_args()
    log_to()
    cache = CacheConfig(
        memory_bytes=options.memory_mib * MIB, interfaces=(options.interface,), prefault=False
    )
    await serve(
        ServeConfig(
            paths=Paths(options.state, options.state / "run"),
            name=options.state.name,
            spares=options.spares,
            donates=not options.no_donate,
            lease_ttl_s=options.lease_ttl,
            mdns=tuple(options.mdns),
            visitors=options.visitors,
            devices=options.devices,
        ),
        start_cache=lambda: CacheClient.start(cache),
        launcher=StandInLauncher(options.state),
        peers=[],
    )


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Reported as error:
        print(f"{error.code}: {error.message} FIX {error.fix}", file=sys.stderr)
        sys.exit(1)
