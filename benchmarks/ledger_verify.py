"""``ledger_verify_per_s``: receipts that ``pyrdma-agent ledger verify`` checks in a second, on all cores.

Checked are both signatures, each chain, every rule and charge, from the state file of a gateway. Two of its
figures are for comparison, from the same run: what the signatures alone take on one core with the library
that is used here, and with ``cryptography``, which the rest of the agent uses.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.ledger.checking import SignatureChecks
from agent.ledger.verifying import verify_chain
from agent.state.file import StateFile
from agent.state.ledger_store import LedgerStore
from benchmarks.ledger_made import POLICY, START_S, cpu_s, donor_names, key_of, keys_for, make_chains
from benchmarks.report import Figure, spread
from federation.ledger.chain import Facts
from federation.ledger.items import COUNTERSIGNED, Item, check_items
from federation.ledger.signing import BORROWER, DONOR, Keys
from federation.limits import RECEIPT_PAGE

FLOOR_PER_S: Final = 12_000
"""What two cores must reach (the project's own limit)."""
_FACTS: Final = Facts(START_S + 10**8, {POLICY.digest: POLICY})


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark and print its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ledger_verify")
    parser.add_argument("--receipts", type=int, default=50_000)
    parser.add_argument("--donors", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    donors = donor_names(options.donors)
    chains = make_chains(donors, options.receipts // options.donors)
    keys = keys_for(donors)
    with tempfile.TemporaryDirectory(prefix="pyrdma-ledger-") as folder:
        runs = asyncio.run(_verify(Path(folder) / "state", chains, keys, options.runs))
    total = sum(len(chain) for chain in chains.values())
    sample = next(iter(chains.values()))[:2000]
    started_s = time.perf_counter()
    check_items(sample, keys)
    alone_us = (time.perf_counter() - started_s) / len(sample) * 1e6
    value = statistics.median(total / passed_s for passed_s, _ in runs)
    Figure(
        "ledger_verify_per_s",
        value,
        "receipts/s",
        FLOOR_PER_S,
        "what two cores must reach",
        value / FLOOR_PER_S,
        {
            "receipts": total,
            "signatures_a_receipt": 2,
            "seconds": spread([passed_s for passed_s, _ in runs]),
            "cpu_us_a_receipt": spread([used_s / total * 1e6 for _, used_s in runs]),
            "one_core_us": {"here": round(alone_us, 1), "cryptography": round(_cryptography_us(sample), 1)},
        },
    ).emit()


async def _verify(
    path: Path, chains: dict[str, list[Item]], keys: Keys, runs: int
) -> list[tuple[float, float]]:
    file = await StateFile.open(path)
    store = LedgerStore(file)
    try:
        for donor, items in chains.items():
            for at in range(0, len(items), RECEIPT_PAGE):
                page = items[at : at + RECEIPT_PAGE]
                found = bytes([COUNTERSIGNED]) * len(page)  # ours, just made
                await store.take(donor, page, found, _FACTS, now_s=0.0)
        took = []
        for _ in range(runs):
            started_s, used_s = time.perf_counter(), cpu_s()
            with SignatureChecks(keys) as checks:
                for donor, items in chains.items():
                    outcome = await verify_chain(store, donor, checks, _FACTS)
                    if outcome.refusal is not None or outcome.chain.head.position != len(items):
                        raise RuntimeError(f"{donor} does not verify: {outcome.refusal}")
            passed_s = time.perf_counter() - started_s
            took.append((passed_s, cpu_s() - used_s))
        return took
    finally:
        await file.close()


def _cryptography_us(sample: list[Item]) -> float:
    donor, borrower = key_of("donor-00").public_key(), key_of("borrower").public_key()
    started_s = time.perf_counter()
    for item in sample:
        donor.verify(item.donor_signature, DONOR + item.body)
        borrower.verify(item.borrower_signature, BORROWER + item.body)
    return (time.perf_counter() - started_s) / len(sample) * 1e6
