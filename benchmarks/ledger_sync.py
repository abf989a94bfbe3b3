"""``ledger_sync_s``: how long a gateway without books takes to pull a peer's, every signature checked.

The peer answers from its own state file, without a wire between: pages of 1,000 receipts as values. What is
measured is asking, checking both signatures, every rule and charge, and writing all of it durably. The time
for 1,000,000 receipts is measured with ``--receipts 1000000``; with fewer it is projected, and said to be.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.ledger.books import LedgerBooks, Signing
from agent.ledger.sync import sync_from
from agent.state.file import StateFile
from agent.state.ledger_store import LedgerStore
from benchmarks.ledger_made import POLICY, START_S, cpu_s, donor_names, key_of, keys_for, make_chains
from benchmarks.report import Figure
from federation.ledger.chain import Facts, Head
from federation.ledger.disputes import SignedStatement
from federation.ledger.exchange import Countersignature
from federation.ledger.items import COUNTERSIGNED, Evidence, Item
from federation.ledger.signing import Keys
from federation.limits import RECEIPT_PAGE

LIMIT_S: Final = 120.0
"""1,000,000 receipts on two cores (the project's own limit)."""
FULL: Final = 1_000_000
_NOW_S: Final = float(START_S + 10**9)


class _Peer:
    """The face of books without a wire."""

    site = "donor-00"

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    async def heads(self) -> Mapping[str, Head]:
        return await self._store.heads()

    async def page(self, donor: str, after_position: int, limit: int) -> list[Item]:
        return await self._store.page(donor, after_position, limit)

    async def signatures(self, donor: str, positions: Sequence[int]) -> list[Countersignature]:  # noqa: ARG002
        return []

    async def countersign(self, signatures: list[Countersignature]) -> int:  # noqa: ARG002
        return 0

    async def evidence(self) -> list[Evidence]:
        return []

    async def statements(self) -> list[tuple[str, SignedStatement]]:
        return []


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ledger_sync")
    parser.add_argument("--receipts", type=int, default=100_000)
    parser.add_argument("--donors", type=int, default=8)
    options = parser.parse_args(arguments)
    donors = donor_names(options.donors)
    with tempfile.TemporaryDirectory(prefix="pyrdma-ledger-") as folder:
        total, took_s, used_s, size = asyncio.run(
            _sync(Path(folder), donors, options.receipts // options.donors)
        )
    full_s = took_s * FULL / total
    Figure(
        "ledger_sync_s",
        full_s,
        "s",
        LIMIT_S,
        "the limit for 1,000,000 receipts on two cores",
        full_s / LIMIT_S,
        {
            "receipts": total,
            "measured_s": round(took_s, 2),
            "projected": total != FULL,
            "receipts_per_s": round(total / took_s),
            "cpu_us_a_receipt": round(used_s / total * 1e6, 1),
            "state_file_bytes_a_receipt": round(size / total),
        },
    ).emit()


async def _sync(folder: Path, donors: list[str], receipts: int) -> tuple[int, float, float, int]:
    peer_file, file = await StateFile.open(folder / "peer"), await StateFile.open(folder / "own")
    try:
        peer, keys = LedgerStore(peer_file), keys_for(donors)
        total = 0
        for at in range(0, len(donors), 2):  # two chains at a time: a million receipts are a gigabyte
            chains = make_chains(donors[at : at + 2], receipts)
            for donor, items in chains.items():
                await _fill(peer, donor, items)
                total += len(items)
        books = await _books(LedgerStore(file), keys)
        started_s, before_s = time.perf_counter(), cpu_s()
        done = await sync_from(_Peer(peer), books, now=lambda: _NOW_S)
        took_s = time.perf_counter() - started_s
        if done.receipts != total or done.refused:
            raise RuntimeError(f"{done.receipts} of {total} receipts came: {done.refused}")
        return total, took_s, cpu_s() - before_s, (folder / "own").stat().st_size
    finally:
        await file.close()
        await peer_file.close()


async def _books(store: LedgerStore, keys: Keys) -> LedgerBooks:
    return await LedgerBooks.of(
        store,
        Signing("borrower", key_of("borrower")),
        keys=lambda: keys,
        policies=lambda: {POLICY.digest: POLICY},
        clock=lambda: _NOW_S,
    )


async def _fill(store: LedgerStore, donor: str, items: list[Item]) -> None:
    facts = Facts(int(_NOW_S), {POLICY.digest: POLICY})
    for at in range(0, len(items), RECEIPT_PAGE):
        page = items[at : at + RECEIPT_PAGE]
        outcome = await store.take(donor, page, bytes([COUNTERSIGNED]) * len(page), facts, now_s=0.0)
        if outcome.refusal is not None:
            raise RuntimeError(f"a made receipt is refused: {outcome.refusal}")
