"""How two gateways bring their books together: what each asks of the other, as values and pure plans.

Each side pulls: it compares heads, asks for pages of receipts after its own position, checks everything, and
sends back its signatures. Heads are claims; only receipts that their donor signed change anything. Where two
sides hold different receipts for one position, the lowest such position is found by halving, since everything
before it is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from federation.errors import ReceiptError
from federation.ledger.chain import Head
from federation.ledger.disputes import SignedStatement
from federation.ledger.items import Evidence, Item
from federation.limits import MAX_LEDGER_HEADS


@dataclass(frozen=True, slots=True)
class Countersignature:
    """A borrower's signature on the receipt at a position of a donor's chain."""

    donor: str
    position: int
    signature: bytes


class LedgerPeer(Protocol):
    """Another gateway's books, as this one may ask for them; every call may raise what the wire raises."""

    @property
    def site(self) -> str:
        """The peer's site, as its certificate says."""
        ...

    async def heads(self) -> Mapping[str, Head]:
        """Return how far it knows each donor's chain."""
        ...

    async def page(self, donor: str, after_position: int, limit: int) -> list[Item]:
        """Return receipts of a donor after a position, in order, at most ``limit``."""
        ...

    async def signatures(self, donor: str, positions: Sequence[int]) -> list[Countersignature]:
        """Return borrowers' signatures that it has on receipts of a donor, at most ``RECEIPT_PAGE``."""
        ...

    async def countersign(self, signatures: list[Countersignature]) -> int:
        """Give it our signatures on receipts that charge us; return how many were new to it."""
        ...

    async def evidence(self) -> list[Evidence]:
        """Return the contradictions that it knows."""
        ...

    async def statements(self) -> list[tuple[str, SignedStatement]]:
        """Return the disputes and resolutions that it knows, each with its kind."""
        ...


@dataclass(frozen=True, slots=True)
class Pull:
    """Ask for a donor's receipts after a position."""

    donor: str
    after: int
    upto: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Both hold the donor's receipt at this position; ask for it, in case the two differ."""

    donor: str
    position: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one round asks of a peer."""

    pulls: tuple[Pull, ...]
    compares: tuple[Compare, ...]


def plan_round(
    ours: Mapping[str, Head], theirs: Mapping[str, Head], forked: Mapping[str, int], known: frozenset[str]
) -> Plan:
    """Return what to ask of a peer, by donor.

    Args:
        ours: how far chains are known here.
        theirs: how far the peer says that it knows them.
        forked: from which position on a donor's chain counts for nothing here.
        known: the sites of the registry; others have no keys, so nothing of theirs can be taken.

    Raises:
        ReceiptError: the peer names more donors than there can be.
    """
    if len(theirs) > MAX_LEDGER_HEADS:
        raise ReceiptError(f"a peer names more than {MAX_LEDGER_HEADS} heads.")
    pulls, compares = [], []
    for donor, their in sorted(theirs.items()):
        our = ours.get(donor, Head())
        if donor not in known:
            continue
        end = forked.get(donor)
        if their.position > our.position:
            if end is None or our.position + 1 < end:
                pulls.append(Pull(donor, our.position, their.position))
        elif their.position == our.position and their.digest != our.digest and end is None:
            compares.append(Compare(donor, our.position))
    return Plan(tuple(pulls), tuple(compares))


def halve(low: int, high: int) -> int | None:
    """Return the position to compare next, between one that agrees and one that differs; ``None``: found.

    ``high`` is then the lowest that differs. Position 0 agrees always.
    """
    return (low + high) // 2 if high - low > 1 else None
