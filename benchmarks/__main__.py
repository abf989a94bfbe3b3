"""``python -m benchmarks NAME [options]``: run one benchmark, print one JSON object a figure."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "loopback",
    "resident_map",
    "disk_load",
    "cli_start",
    "agent_idle",
    "identity_check",
    "join",
    "ledger_sync",
    "ledger_verify",
    "decision",
    "reclaim",
    "relay",
    "gpu_staging",
    "replay",
    "fair_share",
)


def main() -> int:
    """Run the benchmark that the command line names."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name not in NAMES:
        print(f"usage: python -m benchmarks {{{','.join(NAMES)}}} [options]", file=sys.stderr)
        return 2
    importlib.import_module(f"benchmarks.{name}").main(sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
