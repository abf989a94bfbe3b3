"""What the terminal UI asks of an agent: four questions, answered with the values of the local API.

Rules: nothing here changes anything; the UI knows no other way to the agent. ``AgentClient`` is a source,
and so is whatever gives fixed values in a test.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from agent.local.federation_views import FederationView
from agent.local.views import LeaseView, StatusView, TransferView


class Source(Protocol):
    """An agent that can be asked; each question may raise one of ``agent.errors.Reported``."""

    async def status(self) -> StatusView:
        """Return the node at a glance."""
        ...

    async def federation(self) -> FederationView:
        """Return the node's place in its site and consortium."""
        ...

    async def transfers(self) -> tuple[TransferView, ...]:
        """Return transfers, running ones first."""
        ...

    async def leases(self) -> tuple[LeaseView, ...]:
        """Return the leases of this node that run."""
        ...


OpenSource = Callable[[], AbstractAsyncContextManager[Source]]
"""Opens a source; may raise one of ``agent.errors.Reported`` when there is nothing to open."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one round of questions brought."""

    status: StatusView
    federation: FederationView
    transfers: tuple[TransferView, ...]
    leases: tuple[LeaseView, ...]


async def ask(source: Source) -> Answer:
    """Ask all four questions, one after the other, so that a failed round leaves none open.

    Raises:
        agent.errors.Reported: one of them failed; the answer is whole or there is none.
    """
    return Answer(
        await source.status(), await source.federation(), await source.transfers(), await source.leases()
    )
