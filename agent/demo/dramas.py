"""Two small dramas, named as such: a source that lies, and a source that is killed in mid-pull."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.demo.damage import flip_a_bit_in_each_piece
from agent.demo.models import generate_llama
from agent.demo.nodes import DemoNode
from agent.demo.show import Stage, rate
from agent.errors import NodeError
from agent.local.views import GrantedView, ProgressView, SourceView
from agent.text import format_size

KILL_AT: Final = 0.15
"""Of the bytes; early enough that the source is still needed when it dies."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The nodes of the demo: three gateways and a second node of south."""

    north: DemoNode
    south: DemoNode
    south_second: DemoNode
    west: DemoNode


async def liar(stage: Stage, folder: Path, cast: Cast, nbytes: int) -> None:
    """One of two sources holds damaged memory; it is named and dropped, the start succeeds.

    Raises:
        NodeError: it was not found out.
    """
    stage.say()
    stage.say(
        "Drama 1: one of two sites that hold a model has failing memory (a bit in each piece turned over)."
    )
    await _publish_on_both(stage, folder / "drama-1", "drama-1", cast, nbytes, seed=2)
    flipped = flip_a_bit_in_each_piece(await cast.west.cache_pid())
    stage.say(f"  west holds {flipped} damaged pieces and does not know it")
    granted = await _start(stage, cast, "drama-1", kill_west=False)
    dropped = _source(granted, "west")
    if dropped.state != "dropped" or dropped.bytes:
        raise NodeError("the source with damaged memory was not dropped.")
    stage.say(f"  dropped: west, {dropped.reason}; none of its bytes was used")
    stage.say(_outcome(granted))


async def killed_source(stage: Stage, folder: Path, cast: Cast, nbytes: int) -> None:
    """One of two sources is killed in mid-pull; its finished pieces are kept, the other brings the rest.

    Raises:
        NodeError: the pull did not survive it.
    """
    stage.say()
    stage.say("Drama 2: one of two sites that hold a model is killed in mid-pull.")
    await _publish_on_both(stage, folder / "drama-2", "drama-2", cast, nbytes, seed=3)
    granted = await _start(stage, cast, "drama-2", kill_west=True)
    dropped = _source(granted, "west")
    kept = f"{format_size(dropped.bytes)} that it had sent were kept"
    if dropped.state == "dropped":
        stage.say(f"  dropped: west, {dropped.reason}; {kept}")
    else:
        stage.say(f"  the pull was over before the source's death was noticed; {kept}")
    stage.say(_outcome(granted))


async def _publish_on_both(
    stage: Stage, model: Path, name: str, cast: Cast, nbytes: int, *, seed: int
) -> None:
    stage.hint(f"publishing {name}, {format_size(nbytes)}, in north and in west ...")
    await asyncio.to_thread(generate_llama, model, nbytes, seed)
    await asyncio.gather(*(node.publish(model, name, lambda _: None) for node in (cast.north, cast.west)))


async def _start(stage: Stage, cast: Cast, model: str, *, kill_west: bool) -> GrantedView:
    await cast.south.spare_ready()
    killed = False
    with stage.bar(model) as bar:

        def on_event(event: object) -> None:
            nonlocal killed
            if not isinstance(event, ProgressView):
                return
            bar.show(event)
            if kill_west and not killed and event.done_bytes >= KILL_AT * event.total_bytes:
                killed = True
                cast.west.kill()
                bar.note(f"  killed west at {event.done_bytes / event.total_bytes:.0%}")

        granted = await cast.north.run(model, on_event, site="south", node=cast.south.name)
    await cast.north.stop_lease(granted.lease.id)
    return granted


def _source(granted: GrantedView, name: str) -> SourceView:
    for source in granted.start.sources:
        if source.name == name:
            return source
    raise NodeError(f"{name} was not among the sources of {granted.lease.model}.")


def _outcome(granted: GrantedView) -> str:
    start = granted.start
    speed = rate(start.bytes, start.pull_s)
    size = format_size(start.bytes)
    return f"  {granted.lease.model} answers: {size} over {start.lane}, {speed}, every piece verified"
