"""The worker that asks: a dead, a silent and a returning agent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.errors import UnreachableError
from federation.errors import FederationError
from tui.polling import Polling
from tui.source import Answer

GONE = "no agent answers."


@dataclass
class Told:
    """What the worker told, in order."""

    all: list[Answer | str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, what: Answer | str) -> None:
        """Note it."""
        self.all.append(what)
        self.news.set()

    async def next(self) -> Answer | str:
        """Return what is told next."""
        self.news.clear()
        async with asyncio.timeout(10.0):
            await self.news.wait()
        return self.all[-1]


@pytest.fixture
def told() -> Told:
    """A notebook."""
    return Told()


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_one_connection_serves_while_all_is_well(fake_agent: Any, told: Told, answer: Answer) -> None:
    """It is opened once and asked again and again."""
    task = asyncio.create_task(Polling(fake_agent.open, interval_s=0.01).run(told.take, told.take))
    assert [await told.next() for _ in range(3)] == [answer] * 3
    assert fake_agent.opened == 1
    await _stop(task)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error", [UnreachableError(GONE), FederationError(GONE), OSError("no agent answers")]
)
async def test_after_a_fault_it_opens_the_agent_anew(
    fake_agent: Any, told: Told, answer: Answer, error: Exception
) -> None:
    """Whoever's error it was; the sentence is told, and so is the answer when there is one again."""
    task = asyncio.create_task(Polling(fake_agent.open, interval_s=0.01).run(told.take, told.take))
    assert await told.next() == answer
    fake_agent.fault = error
    assert [await told.next() for _ in range(3)] == [GONE] * 3
    assert fake_agent.opened == 1
    fake_agent.fault = None
    assert await told.next() == answer
    assert fake_agent.opened == 2
    await _stop(task)


@pytest.mark.asyncio
async def test_a_silent_agent_is_given_up_and_asked_again(
    fake_agent: Any, told: Told, answer: Answer
) -> None:
    """It accepted the question and never answers: after four intervals that is a fault."""
    fake_agent.silent = True
    task = asyncio.create_task(Polling(fake_agent.open, interval_s=0.02).run(told.take, told.take))
    assert await told.next() == "it did not answer within 0.1 s."
    fake_agent.silent = False
    assert await told.next() == answer
    assert fake_agent.opened == 2
    await _stop(task)


@pytest.mark.asyncio
async def test_a_defect_of_ours_is_not_taken_for_a_dead_agent(fake_agent: Any, told: Told) -> None:
    """It ends the worker, and so is seen."""
    fake_agent.fault = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        await Polling(fake_agent.open, interval_s=0.01).run(told.take, told.take)
    assert told.all == []
