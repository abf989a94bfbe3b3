"""Whether a donor may write on at its own chain: a database from a backup must not sign a second history.

Rules: after a start our chain is ``unconfirmed``: nothing is signed until another gateway has said how far it
knows our chain, or two intervals have passed without any answer. That holds for an empty chain too: a disk
that was lost looks like a site that never lent. Only who has no other site to ask, and no countersignature
that says otherwise, writes at once. A receipt of ours that others hold and we do not makes the chain
``locked``, however long nobody answers: it is proof, since only we can have signed it. What is missing is
pulled back from whoever holds it, and then the chain is ``open``. A mere claim to be ahead locks nothing.

A clock that has jumped stops the pen as well: what is signed with a wrong time cannot be taken back, and
nobody takes what lies ahead of his own clock, nor anything after it in the chain.

Waiting loses nothing: receipts are cumulative, and the next one says all that was not said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from federation.errors import ReceiptError
from federation.ledger.chain import Head
from federation.ledger.form import decode
from federation.ledger.items import UNILATERAL, Item, check_item
from federation.ledger.signing import Keys
from federation.limits import LEDGER_CLOCK_JUMP_S, LEDGER_UNCONFIRMED_S

OwnState = Literal["open", "unconfirmed", "locked"]


@dataclass(frozen=True, slots=True)
class OwnChain:
    """How sure we are of our own chain.

    Args:
        since_s: when it began to be so, on a clock that only goes forward.
        remembered: another site had countersigned something of it when we started.
        position: how far others prove that it goes, while ``locked``.
    """

    state: OwnState
    since_s: float
    remembered: bool
    position: int = 0


def begin(*, remembered: bool, now_s: float) -> OwnChain:
    """Return the state after a start; ``remembered``: another site has countersigned something of it."""
    return OwnChain("unconfirmed", now_s, remembered)


def heard(
    own: OwnChain, head: Head, theirs: Head | None, proof: Item | None, keys: Keys, *, donor: str
) -> OwnChain:
    """Return the state after a peer has said how far it knows our chain.

    Args:
        own: the state before.
        head: of our chain as we hold it.
        theirs: of our chain as the peer says; ``None``: it knows none.
        proof: the receipt of ours after our head, if the peer gave one.
        keys: of all sites.
        donor: our site.
    """
    ahead = proven_position(proof, keys, donor=donor)
    if ahead > head.position:
        return replace(own, state="locked", position=max(own.position, ahead))
    if own.state == "locked" and head.position < own.position:
        return own
    claimed = theirs.position if theirs is not None else 0
    if own.state != "open" and claimed > head.position:
        return own  # it says that it is ahead and shows nothing: neither believed nor taken for an answer
    return replace(own, state="open", position=0)


def proven_position(proof: Item | None, keys: Keys, *, donor: str) -> int:
    """Return the position of a receipt if it is ours and signed by us; 0 if it is not."""
    if proof is None or check_item(proof, keys) < UNILATERAL:
        return 0
    try:
        receipt = decode(proof.body)
    except ReceiptError:
        return 0
    return receipt.position if receipt.donor == donor else 0


def may_write(own: OwnChain, now_s: float, *, alone: bool) -> bool:
    """Say whether the next receipt may be signed; ``alone``: the registry names no other site."""
    if own.state == "unconfirmed":
        return (alone and not own.remembered) or now_s - own.since_s >= LEDGER_UNCONFIRMED_S
    return own.state == "open"


def clock_moved_s(anchor_s: float, *, unix_s: float, forward_s: float) -> int:
    """Return by how much the clock has jumped since the start, if that is too much to sign by; else 0.

    Args:
        anchor_s: what ``unix_s - forward_s`` was at the start.
        unix_s: what the clock says.
        forward_s: a clock that only goes forward, also while the machine sleeps.
    """
    moved_s = int(unix_s - forward_s - anchor_s)
    return moved_s if abs(moved_s) > LEDGER_CLOCK_JUMP_S else 0
