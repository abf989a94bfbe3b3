"""The story of the demo: what is started, asked, compared and broken, in order."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.demo import asking, dramas
from agent.demo.dramas import Cast
from agent.demo.federation import DemoFederation, shortened
from agent.demo.models import generate_llama
from agent.demo.nodes import DemoNode
from agent.demo.sharing import share
from agent.demo.show import Stage, Timeline, rate
from agent.errors import NodeError
from agent.local.views import AHEAD_PHASES, GrantedView, ProgressView
from agent.text import format_size
from pyrdma.limits import MIB

REAL: Final = "minilm"
LARGE: Final = "llama"
BASELINE_DEADLINE_S: Final = 300.0
MIN_DRAMA_BYTES: Final = 192 * MIB
"""Pieces enough that a source which lies is asked for three of them before another has brought the rest."""
_SLACK_BYTES: Final = 256 * MIB
"""Beside the images: extents are 64 MiB, so an image may leave most of one empty."""


@dataclass(frozen=True, slots=True)
class Start:
    """One warm start and what it answered."""

    name: str
    model: str
    granted: GrantedView
    first_answer_s: float
    answer_s: float
    answer: Any

    def document(self) -> dict[str, Any]:
        """Return the start as the demo's JSON has it."""
        start = self.granted.start
        phases = {name: round(seconds, 4) for name, seconds in self._phases()}
        return {
            "name": self.name,
            "model": self.model,
            "lane": start.lane,
            "bytes": start.bytes,
            "verified": start.verified,
            "pull_s": round(start.pull_s, 4),
            "first_answer_s": round(self.first_answer_s, 4),
            "phases": {"pull": round(start.pull_s, 4), **phases, "answer": round(self.answer_s, 4)},
        }

    def _phases(self) -> list[tuple[str, float]]:
        # What the spare runner did before the lease is no part of the start; "ready" sums up the others.
        left_out = (*AHEAD_PHASES, "ready")
        return [(one.name, one.seconds) for one in self.granted.start.phases if one.name not in left_out]

    def ahead(self) -> str:
        """Say what the spare runner had done before the lease."""
        done = {one.name: one.seconds for one in self.granted.start.phases}
        return ", ".join(f"{name} {done[name]:.1f} s" for name in AHEAD_PHASES if name in done)

    def timeline(self) -> Timeline:
        """Return where its seconds went."""
        start = self.granted.start
        phases = self._phases()
        named = [one for one in phases if one[0] == "connect"]
        named += [("pull + verify", start.pull_s)] if start.pull_s else []
        named += [one for one in phases if one[0] != "connect"]
        rest_s = self.first_answer_s - self.answer_s - sum(seconds for _, seconds in named)
        named += [("agent", max(0.0, rest_s)), ("first answer", self.answer_s)]
        moved = (
            f"{format_size(start.bytes)} over {start.lane}, {rate(start.bytes, start.pull_s)}"
            if start.bytes
            else "nothing moved"
        )
        return Timeline(f"{self.model}, {self.name}", tuple(named), moved)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fresh process that loads from disk."""

    model: str
    phases: dict[str, float]
    answer: Any
    cold: bool

    @property
    def seconds(self) -> float:
        """From the process's first line to the first answer."""
        return sum(self.phases.values())

    def timeline(self) -> Timeline:
        """Return where its seconds went."""
        named = {"import": "import", "load": "load from disk", "answer": "first answer"}
        phases = tuple((named[name], seconds) for name, seconds in self.phases.items())
        kind = "cold file" if self.cold else "page cache"
        return Timeline(f"{self.model}, fresh process, {kind}", phases, "what people do today")


class Story:
    """The demo's parts in order. Nodes are put into ``nodes`` as they start, for whoever ends them."""

    def __init__(
        self, stage: Stage, folder: Path, minilm: Path, size_bytes: int, nodes: list[DemoNode]
    ) -> None:
        self._stage = stage
        self._folder = folder
        self._minilm = minilm
        self._llama = folder / LARGE
        self._size_bytes = size_bytes
        self._drama_bytes = max(MIN_DRAMA_BYTES, size_bytes // 4)
        self._nodes = nodes
        self._federation = DemoFederation(folder)

    async def tell(self) -> dict[str, Any]:
        """Play it; return the demo's JSON."""
        stage = self._stage
        stage.hint(f"generating a Llama-shaped checkpoint of {format_size(self._size_bytes)} ...")
        await asyncio.to_thread(generate_llama, self._llama, self._size_bytes, 1)
        baselines = await self._baselines()
        cast = await self._found_sites()
        await self._publish(cast.north)
        starts = [
            await self._start(cast.north, name, model, node)
            for model in (REAL, LARGE)
            for name, node in (
                ("cross-site", cast.south),
                ("in-site", cast.south_second),
                ("resident", cast.south_second),
            )
        ]
        equal = self._compare(baselines, starts)
        stage.say()
        for model in (REAL, LARGE):
            timelines = [one.timeline() for one in baselines if one.model == model]
            stage.timelines([*timelines, *(one.timeline() for one in starts if one.model == model)])
            stage.say()
        stage.say(f"Done ahead of each warm start, by a spare runner that stood by: {starts[0].ahead()}.")
        stage.say(f"answers equal those of transformers loading from disk: {'yes' if equal else 'NO'}")
        shared = await share(stage, self._folder, self._federation, cast, REAL)
        await dramas.liar(stage, self._folder, cast, self._drama_bytes)
        await dramas.killed_source(stage, self._folder, cast, self._drama_bytes)
        large = [one for one in baselines if one.model == LARGE]
        return {
            "schema": 1,
            "starts": [one.document() for one in starts],
            "baseline": {
                "cold_s": round(next(one.seconds for one in large if one.cold), 3),
                "page_cache_s": round(next(one.seconds for one in large if not one.cold), 3),
            },
            "answers_equal": equal,
            "receipts": shared.receipts,
            "fair_share": shared.document(),
        }

    async def _baselines(self) -> list[Baseline]:
        found = []
        for model, kind, folder in (
            (REAL, "embeddings", self._minilm),
            (LARGE, "completion", self._llama),
        ):
            for cold in (True, False):
                where = "a cold file" if cold else "the page cache"
                self._stage.hint(f"baseline: {model} in a fresh process, from {where} ...")
                found.append(await asyncio.to_thread(_baseline, model, kind, folder, cold))
        return found

    async def _found_sites(self) -> Cast:
        weights = self._size_bytes + 2 * self._drama_bytes + 128 * MIB + _SLACK_BYTES
        dramas_only = 2 * self._drama_bytes + _SLACK_BYTES
        cast = Cast(
            north=DemoNode("north-1", self._folder, weights),
            south=DemoNode("south-1", self._folder, weights),
            south_second=DemoNode("south-2", self._folder, weights - 2 * self._drama_bytes),
            west=DemoNode("west-1", self._folder, dramas_only),
        )
        self._nodes += [cast.north, cast.south, cast.south_second, cast.west]
        federation = self._federation
        self._stage.hint("three institutions: a registry, their CAs, admission, and a node that joins ...")
        await federation.begin()
        for site, gateway, spares in (
            ("north", cast.north, 0),
            ("south", cast.south, 1),
            ("west", cast.west, 0),
        ):
            await federation.found(site, gateway)
            gateway.launch(spares=spares)
        await asyncio.gather(cast.north.ready(), cast.south.ready(), cast.west.ready())
        begun = time.perf_counter()
        await federation.join(cast.south, cast.south_second)
        joined_s = time.perf_counter() - begun
        cast.south_second.launch(spares=1)
        await cast.south_second.ready()
        await asyncio.gather(
            cast.north.sees("south", "west"), cast.south.sees("north", "west"), cast.south.has_node("south-2")
        )
        self._stage.say("the consortium, as made by these commands (and `serve` on each node):")
        for command in federation.commands:
            self._stage.say(f"  {shortened(command, self._folder)}")
        self._stage.say(f"south-2 joined in {joined_s:.1f} s, invite and all")
        self._stage.say()
        return cast

    async def _publish(self, north: DemoNode) -> None:
        for model, folder in ((REAL, self._minilm), (LARGE, self._llama)):
            with self._stage.bar(f"publish {model}") as bar:
                published = await north.publish(folder, model, bar.show)
            self._stage.say(
                f"north publishes {model}: {format_size(published.total_bytes)} in {published.pieces} pieces,"
                f" image {published.image_id[:12]}"
            )
        await asyncio.gather(*(node.memory_ready() for node in self._nodes))

    async def _start(self, borrower: DemoNode, name: str, model: str, runs_on: DemoNode) -> Start:
        await runs_on.spare_ready()
        site = runs_on.name.partition("-")[0]
        with self._stage.bar(f"{name} {model}") as bar:

            def on_event(event: object) -> None:
                if isinstance(event, ProgressView):
                    bar.show(event)

            begun = time.perf_counter()
            granted = await borrower.run(model, on_event, site=site, node=runs_on.name)
        ask = asking.embeddings if model == REAL else asking.completion
        asked = time.perf_counter()
        answer = await asyncio.to_thread(ask, granted.endpoint, granted.api_key, model)
        ended = time.perf_counter()
        await borrower.stop_lease(granted.lease.id)
        return Start(name, model, granted, ended - begun, ended - asked, answer)

    def _compare(self, baselines: list[Baseline], starts: list[Start]) -> bool:
        truth = {one.model: one.answer for one in baselines}
        return all(
            asking.same_embeddings(truth[REAL], one.answer)
            if one.model == REAL
            else truth[LARGE] == one.answer
            for one in starts
        )


def _baseline(model: str, kind: str, folder: Path, cold: bool) -> Baseline:
    for file in folder.glob("*.safetensors"):
        _prepare(file, cold=cold)
    command = [sys.executable, "-m", "agent.demo.baseline", kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BASELINE_DEADLINE_S, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise NodeError(f"the baseline of {model} failed: {' '.join(last)}")
    told = json.loads(done.stdout)
    return Baseline(model, told["phases"], told["answer"], cold)


def _prepare(file: Path, *, cold: bool) -> None:

    with file.open("rb", buffering=0) as opened:
        if cold:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while opened.read(16 * MIB):
                pass
