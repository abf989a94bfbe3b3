"""The form of a benchmark's result: one JSON object a line."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure beside the reference measured in the same run.

    ``ratio`` is value / reference; None where there is nothing to compare with.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    reference_name: str = ""
    ratio: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def emit(self) -> None:
        """Print the figure as one line of JSON."""
        line = {
            "schema": 1,
            "name": self.name,
            "value": _short(self.value),
            "unit": self.unit,
            "reference": None if self.reference is None else _short(self.reference),
            "reference_name": self.reference_name,
            "ratio": None if self.ratio is None else _short(self.ratio),
            "machine": machine(),
            "detail": self.detail,
        }
        print(json.dumps(line), flush=True)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return minimum, median and maximum, and how many there are."""
    return {
        "runs": len(values),
        "min": _short(min(values)),
        "median": _short(statistics.median(values)),
        "max": _short(max(values)),
    }


def machine() -> str:
    """Return the machine in words: processor, cores, kernel, Python."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
