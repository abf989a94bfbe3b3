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
from agent.demo.models import generate_llama
from agent.demo.nodes import DemoNode
from agent.demo.show import Stage, Timeline, rate
from agent.errors import NodeError
from agent.local.views import AHEAD_PHASES, GrantedView, ProgressView
from agent.text import format_size
from pyrdma.limits import MIB

REAL: Final = "minilm"
LARGE: Final = "llama"
BASELINE_DEADLINE_S: Final = 300.0
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
        self._drama_bytes = max(64 * MIB, size_bytes // 4)
        self._nodes = nodes

    async def tell(self) -> dict[str, Any]:
        """Play it; return the demo's JSON."""
        stage = self._stage
        stage.hint(f"generating a Llama-shaped checkpoint of {format_size(self._size_bytes)} ...")
        await asyncio.to_thread(generate_llama, self._llama, self._size_bytes, 1)
        baselines = await self._baselines()
        giver, taker = await self._start_nodes()
        starts = [
            await self._start(taker, "in-site", REAL),
            await self._start(taker, "resident", REAL),
            await self._start(taker, "in-site", LARGE),
            await self._start(taker, "resident", LARGE),
        ]
        equal = self._compare(baselines, starts)
        stage.say()
        for model in (REAL, LARGE):
            timelines = [one.timeline() for one in baselines if one.model == model]
            stage.timelines([*timelines, *(one.timeline() for one in starts if one.model == model)])
            stage.say()
        stage.say(f"Done ahead of each warm start, by a spare runner that stood by: {starts[0].ahead()}.")
        stage.say(f"answers equal those of transformers loading from disk: {'yes' if equal else 'NO'}")
        second = self._second
        await dramas.liar(stage, self._folder, giver, second, taker, self._drama_bytes)
        await dramas.killed_source(stage, self._folder, giver, second, taker, self._drama_bytes)
        large = [one for one in baselines if one.model == LARGE]
        return {
            "schema": 1,
            "starts": [one.document() for one in starts],
            "baseline": {
                "cold_s": round(next(one.seconds for one in large if one.cold), 3),
                "page_cache_s": round(next(one.seconds for one in large if not one.cold), 3),
            },
            "answers_equal": equal,
            "receipts": 0,
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

    async def _start_nodes(self) -> tuple[DemoNode, DemoNode]:
        weights = self._size_bytes + 2 * self._drama_bytes + 128 * MIB
        giver = DemoNode("giver", self._folder, weights + _SLACK_BYTES)
        self._second = second = DemoNode("second", self._folder, 2 * self._drama_bytes + _SLACK_BYTES)
        taker = DemoNode(
            "taker", self._folder, weights + _SLACK_BYTES, (giver.peer_address, second.peer_address)
        )
        self._nodes += [giver, second, taker]
        giver.launch(spares=0)
        taker.launch(spares=1)
        self._stage.hint(
            "starting two nodes, each an agent with a weight cache; donated memory is touched once ..."
        )
        await asyncio.gather(giver.ready(), taker.ready())
        for model, folder in ((REAL, self._minilm), (LARGE, self._llama)):
            with self._stage.bar(f"publish {model}") as bar:
                published = await giver.publish(folder, model, bar.show)
            self._stage.say(
                f"giver publishes {model}: {format_size(published.total_bytes)} in {published.pieces} pieces,"
                f" image {published.image_id[:12]}"
            )
        await asyncio.gather(giver.memory_ready(), taker.memory_ready())
        return giver, taker

    async def _start(self, taker: DemoNode, name: str, model: str) -> Start:
        await taker.spare_ready()
        with self._stage.bar(f"{name} {model}") as bar:

            def on_event(event: object) -> None:
                if isinstance(event, ProgressView):
                    bar.show(event)

            begun = time.perf_counter()
            granted = await taker.run(model, on_event)
        ask = asking.embeddings if model == REAL else asking.completion
        asked = time.perf_counter()
        answer = await asyncio.to_thread(ask, granted.endpoint, granted.api_key, model)
        ended = time.perf_counter()
        await taker.stop_lease(granted.lease.id)
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
