"""Decisions on their way into the journal: a real state file, a disk that fails when it is told to."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

from agent.errors import StateError
from agent.gateway.core.events import Decision, StandingChanged, Tick
from agent.gateway.decision_log import DecisionLog, line_of
from agent.limits import MAX_LOG_LINE_BYTES, MAX_LOG_LINES_WAITING
from agent.state import StateFile
from agent.state.ledger_store import LedgerStore, LogLine
from federation.fairshare.reasons import WaitingForCapacity
from federation.fairshare.standing import standing_of
from federation.ledger.request import SignedRequest
from federation.policy.policy import AccountRule, Policy

pytestmark = pytest.mark.asyncio

DECISION = Decision(
    kind="place",
    event=Tick(12.5),
    unix_s=1_700_000_000,
    request_id="r1",
    borrower_site="uni-b",
    account="/uni-b",
    lease_id="",
    devices=(),
    reasons=(WaitingForCapacity(3),),
    code="queued",
    policy="ab",
    ledger="cd",
)


class Disk:
    """A store of lines that fails, hangs, or has a defect."""

    def __init__(self, store: LedgerStore) -> None:
        self.store = store
        self.fault: Exception | None = None
        self.tries = 0
        self.go = asyncio.Event()
        self.go.set()

    async def log(self, lines: Sequence[LogLine]) -> None:
        self.tries += 1
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        await self.store.log(lines)

    async def lines(self) -> list[LogLine]:
        found: list[LogLine] = []
        after = 0
        while page := await self.store.logged(after):
            after = page[-1][0]
            found += [one for _, one in page]
        return found


@asynccontextmanager
async def journal(folder: Path) -> AsyncIterator[tuple[DecisionLog, Disk]]:
    """Open a log over a state file."""
    file = await StateFile.open(folder / "state.sqlite3")
    disk = Disk(LedgerStore(file))
    log = DecisionLog(disk.log)
    log.start()
    try:
        yield log, disk
    finally:
        await log.close()
        await file.close()


def code(line: LogLine) -> str:
    """Return a decision's code, as its line has it."""
    return str(json.loads(line.body)["code"])


async def test_what_was_decided_is_written_in_its_order(tmp_path: Path) -> None:
    """Closing writes all of it; a line says whom it is about, why, and what replays it."""
    async with journal(tmp_path) as (log, disk):
        for at in range(1200):
            log.decided(replace(DECISION, code=str(at)))
        log.asked(7, SignedRequest(b"{}", b"\x01\x02"))
        await log.close()
        *decided, asked = await disk.lines()
        assert [code(one) for one in decided] == [str(at) for at in range(1200)]
        assert (asked.kind, asked.at_s, json.loads(asked.body)) == (
            "request",
            7,
            {"body": "{}", "signature": "0102"},
        )
        fields = json.loads(decided[0].body)
        assert (fields["borrower"], fields["reasons"][0]["code"]) == ("uni-b", "waiting-for-capacity")
        assert fields["decision"][2] == ["Tick", 12.5]


async def test_closing_in_the_middle_of_a_write_loses_nothing(tmp_path: Path) -> None:
    """What is under way is waited for, what came meanwhile follows."""
    async with journal(tmp_path) as (log, disk):
        disk.go.clear()
        log.decided(DECISION)
        await until(lambda: disk.tries)
        log.decided(replace(DECISION, code="later"))
        closing = asyncio.create_task(log.close())
        await asyncio.sleep(0)
        disk.go.set()
        await closing
        assert [code(one) for one in await disk.lines()] == ["queued", "later"]


async def test_what_the_disk_does_not_take_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In its order, with one word about it however often it fails."""
    monkeypatch.setattr("agent.gateway.decision_log.LOG_AGAIN_S", 0.001)
    async with journal(tmp_path) as (log, disk):
        disk.fault = StateError("the disk is full.", fix="free space")
        log.decided(DECISION)
        await until(lambda: disk.tries >= 5)
        log.decided(replace(DECISION, code="later"))
        disk.fault = None
        await log.close()
        assert [code(one) for one in await disk.lines()] == ["queued", "later"]
        assert caplog.text.count("the disk is full") == 1


async def test_a_disk_that_fails_for_long_does_not_fill_the_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes past the bound is lost, which is said once, and how many when it works again."""
    async with journal(tmp_path) as (log, disk):
        disk.go.clear()
        for _ in range(MAX_LOG_LINES_WAITING + 3):
            log.asked(1, SignedRequest(b"{}", b""))
        disk.go.set()
        await log.close()
        assert len(await disk.lines()) == MAX_LOG_LINES_WAITING
        assert caplog.text.count("lost for auditors") == 1
        assert "3 lines are lost" in caplog.text


async def test_a_defect_of_one_line_keeps_nobody_from_deciding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Be it in making the line or in writing it: the next ones are written."""
    async with journal(tmp_path) as (log, disk):
        with caplog.at_level(logging.CRITICAL):
            log.decided(replace(DECISION, event=Tick(float("nan"))))
            disk.fault = ValueError("a defect")
            log.decided(replace(DECISION, code="spoilt"))
            await until(lambda: disk.tries)
            disk.fault = None
            log.decided(DECISION)
            await log.close()
        assert [code(one) for one in await disk.lines()] == ["queued"]


async def test_a_line_has_a_bound() -> None:
    """A decision on a ranking of thousands of accounts names that ranking by its digest."""
    accounts = {f"/uni-{at}": AccountRule(f"/uni-{at}", 1, (), (), {}, True) for at in range(3000)}
    policy = Policy(
        name="c",
        version=1,
        effective_at_s=0,
        digest="ab" * 32,
        accounts=accounts,
        classes={},
        purposes={},
        device_classes={},
    )
    event = StandingChanged(standing_of(policy, 2_833_333), 12.5)
    line = line_of(replace(DECISION, event=event))
    assert len(line) < MAX_LOG_LINE_BYTES
    name, named = json.loads(line)["decision"][2]
    assert (name, list(named)) == ("StandingChanged", ["sha256"])
    assert line == line_of(replace(DECISION, event=event))
