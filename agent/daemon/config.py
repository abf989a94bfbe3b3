"""What an operator decides about one agent."""

from __future__ import annotations

from dataclasses import dataclass

from agent.paths import Paths


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Where the node lives, what it calls itself, how many warm runners it keeps."""

    paths: Paths
    name: str
    spares: int
