"""Which devices an owner takes who needs some: free ones, then those whose guests lose least. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.errors import OwnedError, RequestError
from federation.fairshare.victims import Candidate, victims_for


@dataclass(frozen=True, slots=True)
class Choosable:
    """A device that may be taken.

    Args:
        id: its name.
        claimed: a command of the owner's has it already; it is taken only when it is named.
        free: its owner has it: it is there at once.
        guests: the leases on it, each with the seconds that it has run: what is lost with it.
    """

    id: str
    claimed: bool
    free: bool
    guests: Mapping[str, float]


def choose(devices: Sequence[Choosable], named: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the devices to take: the named ones, or ``count`` of all; 0 is all.

    Raises:
        RequestError: there is no such device, or there are not so many.
        OwnedError: so many are not left.
    """
    known = {one.id: one for one in devices}
    for name in named:
        if name not in known:
            raise RequestError(
                f"this node has no device {name[:32]!r}.", fix=f"it has {', '.join(known) or 'none'}"
            )
    if named:
        return tuple(dict.fromkeys(named))
    if count > len(devices):
        raise RequestError(f"this node has {len(devices)} devices, not {count}.", fix="take fewer")
    if not count:
        return tuple(known)
    left = [one for one in devices if not one.claimed]
    if count > len(left):
        raise OwnedError(
            f"{len(devices) - len(left)} of {len(devices)} devices are in use by their owner already.",
            fix="name a device with --device to share it",
        )
    free = sorted(left, key=lambda one: (bool(one.guests), not one.free, one.id))
    taken = [one.id for one in free if not one.guests][:count]
    if len(taken) < count:
        found = victims_for(_candidates(left), count=count - len(taken))
        assert found is not None, "every device that is left can be had"
        taken += sorted(found.freed)[: count - len(taken)]
    return tuple(one for one in known if one in taken)


def _candidates(devices: Sequence[Choosable]) -> list[Candidate]:
    """Return who may give way; leases that share a device, outside of a site, go together."""
    alone: dict[str, set[str]] = {}
    lost_s: dict[str, float] = {}
    for one in devices:
        shared = len(one.guests) > 1
        for lease_id, seconds in one.guests.items():
            name = one.id if shared else lease_id
            alone.setdefault(name, set()).add(one.id)
            lost_s[name] = lost_s.get(name, 0.0) + seconds if shared else seconds
    return [Candidate(name, frozenset(on), int(lost_s[name] * 1000)) for name, on in alone.items()]
