"""What an operator decides about one agent."""

from __future__ import annotations

from dataclasses import dataclass

from agent.paths import Paths


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The options of ``serve``; ``peers`` are gRPC addresses of other nodes' Node services."""

    paths: Paths
    name: str
    peers: tuple[str, ...] = ()
    spares: int = 1
