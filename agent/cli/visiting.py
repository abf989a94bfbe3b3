"""``run`` and ``whoami`` with a token, on a machine without an agent."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from agent.cli.output import talk
from agent.cli.run import follow, show_granted
from agent.daemon.relay import HOST, Relay
from agent.errors import PeerNodeError, Reported
from agent.local.people_views import Wanted, WhoAmIView
from agent.local.visitor import VisitorClient, read_token


async def visit(file: Path, wanted: Wanted, *, timeout_s: float, as_json: bool) -> None:
    """Run a model under a token, print its endpoint, and keep it until Ctrl-C or its end.

    Raises:
        PeerNodeError: the lease has ended without this process asking for it.
        Error, FederationError: it could not be started.
    """
    token = read_token(file)
    async with VisitorClient(token) as client:
        granted, notes = await follow(client.run(wanted, timeout_s=timeout_s), wanted.model, quiet=as_json)
        lease_id = granted.lease.id
        relay = await Relay.open(lambda: client.connect(lease_id))
        try:
            here = f"http://{HOST}:{relay.port}/v1"
            lease = replace(granted.lease, port=relay.port, donor=granted.lease.donor or token.site)
            show_granted(replace(granted, lease=lease, endpoint=here), notes, as_json=as_json)
            talk("The key is shown only now. The lease lasts as long as this command: Ctrl-C ends it.")
            reason = await client.attend(lease_id)
            raise PeerNodeError(f"the lease has ended: {reason}", fix="run it again")
        finally:
            await relay.close()
            with contextlib.suppress(*Reported):
                await client.stop(lease_id)


async def ask_who(file: Path) -> WhoAmIView:
    """Return who a token is for its gateway."""
    async with VisitorClient(read_token(file)) as client:
        return await client.whoami()
