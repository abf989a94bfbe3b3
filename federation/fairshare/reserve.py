"""What a donor keeps for classes of accounts: ``ceil(reserve x donated devices)`` for each class.

Rules: what is kept and idle is lent to instant leases only, which go at once. So there are always as many
devices free or lent to instant leases as classes lack together, and a request within its class's reserve
waits for an instant lease's grace and its kill at most (I10). An account draws on the reserve of one class:
of those that it is in, the one with the largest reserve, then the first by name; otherwise a lease that
ends would leave two classes short and one device free.

A change of the donated devices, of classes or of the policy may leave a reserve that is not covered:
nothing is taken from a guest for it; the next devices that become free cover it before anyone else gets
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from federation.policy.policy import PER_MILLE, Policy


def reserve_class(policy: Policy, classes: Iterable[str]) -> str | None:
    """Return the class on whose reserve an account of these classes draws; ``None``: on none."""
    with_reserve = [
        name for name in classes if name in policy.classes and policy.classes[name].reserve_permille
    ]
    return min(with_reserve, key=lambda name: (-policy.classes[name].reserve_permille, name), default=None)


def floors_of(policy: Policy, donated: int) -> dict[str, int]:
    """Return the devices that each class has reserved at a donor of so many.

    A donor of fewer than ``reserve_from`` reserves none: rounded up, they would not go round.
    """
    counted = donated if donated >= policy.caps.reserve_from else 0
    return {
        name: -(-rule.reserve_permille * counted // PER_MILLE)
        for name, rule in policy.classes.items()
        if rule.reserve_permille
    }


@dataclass(frozen=True, slots=True)
class Reserve:
    """How the reserve of a donor stands.

    Args:
        floors: devices reserved by class.
        held: devices that leases of a class's accounts hold here, instant ones included; offers as well.
        free: devices that nobody has.
        instant: devices lent to instant leases of accounts that draw on no reserve.
    """

    floors: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    free: int = 0
    instant: int = 0

    @property
    def deficits(self) -> dict[str, int]:
        """Devices that classes lack; a class that lacks none does not stand in it."""
        return {
            name: floor - self.held.get(name, 0)
            for name, floor in self.floors.items()
            if floor > self.held.get(name, 0)
        }

    @property
    def covered(self) -> bool:
        """Whether every class could have what it lacks at once."""
        return self.free + self.instant >= sum(self.deficits.values())

    def admits(self, drawing_on: str | None, devices: int, *, instant: bool) -> bool:
        """Return whether a request may have free devices, as far as the reserve is concerned.

        Args:
            drawing_on: what ``reserve_class`` says of its account.
            devices: how many it wants.
            instant: whether its lease goes at once when it is told to.
        """
        if devices > self.free:
            return False
        lacking = self.deficits
        own = min(devices, lacking.get(drawing_on, 0)) if drawing_on is not None else 0
        if own == devices:
            return True
        if instant and drawing_on is None:
            return True
        return self.free - devices + self.instant >= sum(lacking.values()) - own

    def after(self, drawing_on: str | None, devices: int, *, instant: bool) -> Reserve:
        """Return the reserve with so many devices more given; negative: given back."""
        held = dict(self.held)
        if drawing_on is not None:
            held[drawing_on] = held.get(drawing_on, 0) + devices
        lent = devices if instant and drawing_on is None else 0
        return Reserve(self.floors, held, self.free - devices, self.instant + lent)
