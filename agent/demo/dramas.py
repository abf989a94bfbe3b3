"""Two small dramas, named as such: a source that lies, and a source that is killed in mid-pull."""

from __future__ import annotations

import asyncio
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


async def liar(
    stage: Stage, folder: Path, giver: DemoNode, second: DemoNode, taker: DemoNode, nbytes: int
) -> None:
    """One of two sources holds damaged memory; it is named and dropped, the start succeeds.

    Raises:
        NodeError: it was not found out.
    """
    stage.say()
    stage.say("Drama 1: one of two sources has failing memory (a bit in each of its pieces turned over).")
    second.launch(spares=0)
    await second.ready()
    await _publish_on_both(stage, folder / "drama-1", "drama-1", giver, second, nbytes, seed=2)
    flipped = flip_a_bit_in_each_piece(await second.cache_pid())
    stage.say(f"  second holds {flipped} damaged pieces and does not know it")
    granted = await _start(stage, taker, "drama-1", None)
    dropped = _source(granted, second)
    if dropped.state != "dropped" or dropped.bytes:
        raise NodeError("the source with damaged memory was not dropped.")
    stage.say(f"  dropped: second, {dropped.reason}; none of its bytes was used")
    stage.say(_outcome(granted))


async def killed_source(
    stage: Stage, folder: Path, giver: DemoNode, second: DemoNode, taker: DemoNode, nbytes: int
) -> None:
    """One of two sources is killed in mid-pull; its finished pieces are kept, the other brings the rest.

    Raises:
        NodeError: the pull did not survive it.
    """
    stage.say()
    stage.say("Drama 2: one of two sources is killed in mid-pull.")
    await _publish_on_both(stage, folder / "drama-2", "drama-2", giver, second, nbytes, seed=3)
    granted = await _start(stage, taker, "drama-2", second)
    dropped = _source(granted, second)
    kept = f"{format_size(dropped.bytes)} that it had sent were kept"
    if dropped.state == "dropped":
        stage.say(f"  dropped: second, {dropped.reason}; {kept}")
    else:
        stage.say(f"  the pull was over before the source's death was noticed; {kept}")
    stage.say(_outcome(granted))


async def _publish_on_both(
    stage: Stage, model: Path, name: str, giver: DemoNode, second: DemoNode, nbytes: int, *, seed: int
) -> None:
    stage.hint(f"publishing {name}, {format_size(nbytes)}, on giver and on second ...")
    await asyncio.to_thread(generate_llama, model, nbytes, seed)
    await asyncio.gather(*(node.publish(model, name, lambda _: None) for node in (giver, second)))


async def _start(stage: Stage, taker: DemoNode, model: str, victim: DemoNode | None) -> GrantedView:
    await taker.spare_ready()
    killed = False
    with stage.bar(model) as bar:

        def on_event(event: object) -> None:
            nonlocal killed
            if not isinstance(event, ProgressView):
                return
            bar.show(event)
            if victim is not None and not killed and event.done_bytes >= KILL_AT * event.total_bytes:
                killed = True
                victim.kill()
                bar.note(f"  killed second at {event.done_bytes / event.total_bytes:.0%}")

        granted = await taker.run(model, on_event)
    await taker.stop_lease(granted.lease.id)
    return granted


def _source(granted: GrantedView, node: DemoNode) -> SourceView:
    for source in granted.start.sources:
        if source.name == node.name:
            return source
    raise NodeError(f"{node.name} was not among the sources of {granted.lease.model}.")


def _outcome(granted: GrantedView) -> str:
    start = granted.start
    speed = rate(start.bytes, start.pull_s)
    size = format_size(start.bytes)
    return f"  {granted.lease.model} answers: {size} over {start.lane}, {speed}, every piece verified"
