"""One trace, replayed under each policy with each start cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.errors import RequestError
from agent.limits import MAX_REPLAY_VARIANTS
from agent.replay.simulation import Simulation
from agent.replay.summary import Summary, summarise
from agent.replay.trace import Job
from agent.replay.world import DonorSpec, StartCost, World
from federation.policy.policy import Policy


def replay_all(
    jobs: Sequence[Job],
    donors: tuple[DonorSpec, ...],
    policies: Sequence[tuple[str, Policy]],
    starts: Sequence[StartCost],
    *,
    lag_s: float,
    patience_s: float,
    said: Callable[[str], None],
) -> tuple[Summary, ...]:
    """Return the figures of each variant: policies in their order, each with the start costs in theirs.

    Args:
        jobs: the trace, by submission; the replay ends with its last one.
        donors: who lends.
        policies: by the names that figures carry.
        starts: what a guest's start costs.
        lag_s: how old other donors' books are when they arrive.
        patience_s: how long a guest job is waited for.
        said: told of each variant before it is replayed.

    Raises:
        RequestError: there are too many variants.
    """
    variants = [(name, policy, start) for name, policy in policies for start in starts]
    if len(variants) > MAX_REPLAY_VARIANTS:
        raise RequestError(
            f"{len(variants)} variants are too many to compare.", fix=f"name at most {MAX_REPLAY_VARIANTS}"
        )
    found = []
    for name, policy, start in variants:
        said(f"replaying: {name}, {start.name} {start.seconds:g} s")
        world = World(donors=donors, start=start, lag_s=lag_s, patience_s=patience_s)
        outcome = Simulation(world, policy, span_s=jobs[-1].submit_s + 1.0).run(jobs)
        found.append(summarise(outcome, policy=name, start=start.name, start_s=start.seconds))
    return tuple(found)
