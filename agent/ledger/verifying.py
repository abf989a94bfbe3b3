"""A chain checked anew from its first receipt: signatures in processes, rules in order here."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from agent.ledger.checking import SignatureChecks
from agent.state.ledger_store import LedgerStore
from federation.ledger.accept import Held, Outcome, accept_page
from federation.ledger.chain import Chain, Facts
from federation.ledger.items import Item
from federation.limits import RECEIPT_PAGE

PAGES_AHEAD: Final = 4
"""Pages in work at once: enough that no core waits, few enough that memory stays small."""

NOTHING_HELD: Final = Held(lambda _: None, lambda *_: None)
"""For a chain that is read in order from one source, where nothing can be held twice."""


async def verify_chain(store: LedgerStore, donor: str, checks: SignatureChecks, facts: Facts) -> Outcome:
    """Check one donor's whole chain; return the outcome of its last page, or of the first refused one."""
    outcome = Outcome(Chain(donor), ())
    work: deque[tuple[list[Item], asyncio.Task[bytes]]] = deque()
    after, more = 0, True
    try:
        while more or work:
            while more and len(work) < PAGES_AHEAD:
                items = await store.page(donor, after)
                more = len(items) == RECEIPT_PAGE
                if items:
                    after += len(items)
                    work.append((items, asyncio.create_task(checks.check(items))))
            if not work:
                break
            items, task = work.popleft()
            outcome = accept_page(outcome.chain, items, await task, facts, NOTHING_HELD)
            if outcome.refusal is not None:
                break
    finally:
        for _, task in work:
            task.cancel()
    return outcome
