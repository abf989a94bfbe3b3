"""A gateway's enrolment port and nothing else, as a process: ``python enrolment_stand_in.py STATE [dies]``.

With ``dies`` the process is killed when a join is in the books and before anybody is told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from agent.rpc.enrolment import EnrolmentService, enrolment_credentials, start_enrolment_server
from agent.site.enrolment import Enrolment
from agent.site.home import SiteHome
from agent.state import Redemption, SiteStore, StateFile
from agent.state.site_store import Decide


class DyingStore(SiteStore):
    """A store whose process does not live to see what it has done."""

    async def redeem(self, token_id: bytes, decide: Decide) -> Redemption:
        await super().redeem(token_id, decide)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody comes here")


async def main(state: Path, *, dies: bool) -> None:
    home = SiteHome(state / "site")
    config, authority = home.load(), home.site_authority()
    file = await StateFile.open(state / "agent.sqlite3")
    store = await (DyingStore if dies else SiteStore).of(file)
    service = EnrolmentService(Enrolment(store, authority, config), config)
    server = await start_enrolment_server(config, service, enrolment_credentials(authority))
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), dies=sys.argv[2:] == ["dies"]))
