"""The act on sharing: two institutions want one device, its owner takes it back, and anyone checks the books.

Everything is done by the commands that people use; what they print is what is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.demo.dramas import Cast
from agent.demo.federation import DemoFederation
from agent.demo.nodes import DemoNode
from agent.demo.show import Stage
from agent.errors import NodeError
from agent.local.client import AgentClient
from agent.local.queue_views import QueueView
from agent.local.views import GrantedView, WaitingView
from agent.text import format_duration

DEADLINE_S: Final = 120.0
_POLL_S: Final = 0.1
_OWNERS_JOB: Final = ("sh", "-c", "echo the owner trains on $PYRDMA_DEVICES")
_POLICY: Final = """\
# yaml-language-server: $schema=../policies/policy.schema.json
kind: consortium
version: 1
name: demo
effective_at: {effective_at}
accounts:
  north: {{weight: 1, open: true}}
  south: {{weight: 1, open: true}}
  west: {{weight: 2, open: true}}
purposes:
  research: {{factor: 1, claimants: [any]}}
  safety: {{factor: 0.5, claimants: [/west/lab]}}
device_classes:
  cpu: 0.01
lend:
  grace: 3s
  instant_grace: 1s
"""


@dataclass(frozen=True, slots=True)
class Shared:
    """How it went.

    Args:
        reclaim_s: from the owner's command until its job was done, which takes no time.
        waited_s: how long west's request waited for its turn.
        receipts: in north's books.
        problems: that the audit found.
    """

    reclaim_s: float
    waited_s: float
    receipts: int
    problems: int

    def document(self) -> dict[str, Any]:
        """Return it as the demo's JSON has it."""
        return {
            "reclaim_s": round(self.reclaim_s, 3),
            "waited_s": round(self.waited_s, 3),
            "problems": self.problems,
        }


async def share(stage: Stage, folder: Path, federation: DemoFederation, cast: Cast, model: str) -> Shared:
    """Play it.

    Raises:
        NodeError: it did not go as it must.
    """
    north, south, west = cast.north, cast.south, cast.west
    stage.say()
    stage.say("Fair share: two institutions want north's one device, and its owner wants it back.")
    await _publish_policy(folder, federation)
    await asyncio.gather(*(_refresh(node) for node in (north, south, west)))
    queue = await _queue(north)
    if not queue.consortium:
        raise NodeError("the policy is not in force.")
    stage.say(f"  policy version {queue.policy_version} is in force: west is due twice as much as south")

    held = await south.run(model, lambda _: None, site="north")
    stage.say("  south has the device; west asks for it:")
    begun = time.perf_counter()
    async with _waiting(west, model) as (places, wests):
        place = (await _next(places)).place
        why = place.reasons[0]
        stage.say(f"    waiting at north, place {place.position} of {place.waiting}: {why.sentence}")
        stage.say(f"    what would change it: {why.change}")
        taken = time.perf_counter()
        said = await federation.run(["mine", *north.directories, "--", *_OWNERS_JOB])
        reclaim_s = time.perf_counter() - taken
        stage.say("  north's owner: pyrdma-agent mine -- COMMAND")
        stage.say(f"    {said.strip()}, {reclaim_s:.1f} s after it was asked; guests have 3 s of grace")
        ended = await _ended(south, held.lease.id)
        stage.say(f"    south's lease has ended: {ended}")
        granted = await asyncio.wait_for(wests, DEADLINE_S)
    waited_s = time.perf_counter() - begun
    stage.say(f"  the owner is done, it is west's turn: granted after {format_duration(waited_s)}")
    await west.stop_lease(granted.lease.id)
    receipts, problems = await _audit(stage, folder, federation, cast)
    return Shared(reclaim_s, waited_s, receipts, problems)


async def _publish_policy(folder: Path, federation: DemoFederation) -> None:
    begins = time.gmtime(int(time.time()) // 600 * 600)
    policy = folder / "policy.yaml"
    policy.write_text(_POLICY.format(effective_at=time.strftime("%Y-%m-%dT%H:%MZ", begins)))
    await federation.publish_policy(policy)


@contextlib.asynccontextmanager
async def _waiting(
    node: DemoNode, model: str
) -> AsyncIterator[tuple[asyncio.Queue[WaitingView], asyncio.Task[GrantedView]]]:
    places: asyncio.Queue[WaitingView] = asyncio.Queue()

    def on_event(event: object) -> None:
        if isinstance(event, WaitingView):
            places.put_nowait(event)

    asking = asyncio.create_task(
        node.run(model, on_event, site="north", account="/west/lab", purpose="safety")
    )
    try:
        yield places, asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _next(places: asyncio.Queue[WaitingView]) -> WaitingView:
    async with asyncio.timeout(DEADLINE_S):
        return await places.get()


async def _ended(node: DemoNode, lease_id: str) -> str:
    async with asyncio.timeout(DEADLINE_S), AgentClient(node.paths) as client:
        while True:
            for one in await client.leases(include_ended=True):
                if one.id == lease_id and one.state == "ended":
                    return one.reason
            await asyncio.sleep(_POLL_S)


async def _audit(stage: Stage, folder: Path, federation: DemoFederation, cast: Cast) -> tuple[int, int]:
    """Have both sides sign, then give the books to somebody who is no member."""
    for node in (cast.south, cast.west, cast.north):
        await _refresh(node)
    export = folder / "north.export"
    await federation.run(["ledger", "export", str(export), *cast.north.directories])
    said = json.loads(await federation.run(["audit", str(export), "--root", federation.pin, "--json"]))
    problems = len(said["problems"])
    receipts = int(said["counts"]["receipts"])
    stage.say("  anyone with the registry's pin: pyrdma-agent audit north.export --root PIN")
    stage.say(f"    {receipts} receipts, {problems} problems: charges counted again, both signatures checked")
    return receipts, problems


async def _refresh(node: DemoNode) -> None:
    async with AgentClient(node.paths, change=True) as client:
        await client.refresh()


async def _queue(node: DemoNode) -> QueueView:
    async with AgentClient(node.paths) as client:
        return await client.queue()
