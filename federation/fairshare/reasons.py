"""Why a request waits or is refused: values in the order of FAIRNESS' list, each with what would change it.

Rules: of several reasons that hold the first in ``ORDER`` decides, and is named first. A reason is true
when it is made: whoever takes it away in a copy gets another outcome (I15). On the wire a reason is a flat
table of texts and whole numbers; what comes from there is bounded and printable, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Final, TypeGuard

from federation.errors import FederationInputError
from federation.limits import MAX_REASON_CHARS, MAX_REASON_NUMBER


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The request, the node or the policy cannot be used as it is."""

    code: ClassVar[str] = "misconfigured"
    why: str
    change: str

    def sentence(self) -> str:
        """Say why."""
        return self.why


@dataclass(frozen=True, slots=True)
class NotPermitted:
    """A rule of the policy says no; ``rule`` is its id."""

    code: ClassVar[str] = "not-permitted"
    rule: str
    why: str
    change: str

    def sentence(self) -> str:
        """Say why."""
        return self.why


@dataclass(frozen=True, slots=True)
class NoMatchingDevice:
    """The donor has no device that would ever do; ``wanted`` says what is asked for."""

    code: ClassVar[str] = "no-matching-device"
    wanted: str

    def sentence(self) -> str:
        """Say why."""
        return f"this donor has no device for it: {self.wanted}."

    @property
    def change(self) -> str:
        """What would change it."""
        return "ask another donor, or for less"


@dataclass(frozen=True, slots=True)
class ExceedsLimit:
    """More is asked for than the policy lets anyone have; ``what`` names it."""

    code: ClassVar[str] = "exceeds-limit"
    what: str
    asked: int
    limit: int

    def sentence(self) -> str:
        """Say why."""
        return f"{self.asked} {self.what} are asked for, and {self.limit} are the most."

    @property
    def change(self) -> str:
        """What would change it."""
        return f"ask for {self.limit} {self.what} or fewer"


@dataclass(frozen=True, slots=True)
class DonorPaused:
    """The donor lends nothing at the moment; ``left_s`` 0: nobody knows until when."""

    code: ClassVar[str] = "donor-paused"
    why: str
    left_s: int = 0

    def sentence(self) -> str:
        """Say why."""
        return self.why

    @property
    def change(self) -> str:
        """What would change it."""
        return f"it lends again in {self.left_s} s" if self.left_s else "wait, or ask another donor"


@dataclass(frozen=True, slots=True)
class EgressExhausted:
    """The site that would send the image has sent all that it may today."""

    code: ClassVar[str] = "egress-exhausted"
    site: str
    limit_bytes: int
    renews_in_s: int

    def sentence(self) -> str:
        """Say why."""
        return f"{self.site} has sent the {self.limit_bytes} bytes that it sends to others in a day."

    @property
    def change(self) -> str:
        """What would change it."""
        return f"wait {self.renews_in_s} s, or use a donor that has the image"


@dataclass(frozen=True, slots=True)
class OverShareCap:
    """The account, or one above it, holds as much as it may while another would fit."""

    code: ClassVar[str] = "over-share-cap"
    account: str
    held: int
    cap: int
    unheard: int = 0
    older: int = 0

    def sentence(self) -> str:
        """Say why."""
        more = f", and other donors may have given it {self.unheard} by now" if self.unheard else ""
        older = f" Its older request for {self.older} comes first." if self.older else ""
        most = f"while others wait, {self.cap} are the most."
        return f"{self.account} holds {self.held} devices{more}; {most}{older}"

    @property
    def change(self) -> str:
        """What would change it."""
        if self.older:
            return "give devices back, withdraw the older request, or wait until nobody else fits"
        return "give a device back, or wait until nobody else fits"


@dataclass(frozen=True, slots=True)
class Reserved:
    """Devices are free, and kept for classes of accounts that have fewer than their reserve.

    Args:
        classes: these, separated by commas.
        kept: devices that are kept.
    """

    code: ClassVar[str] = "reserved"
    classes: str
    kept: int

    def sentence(self) -> str:
        """Say why."""
        return f"{self.kept} free devices are kept for accounts of {self.classes}."

    @property
    def change(self) -> str:
        """What would change it."""
        return "ask for an instant lease, or wait for a device that is not kept"


@dataclass(frozen=True, slots=True)
class LowerThan:
    """Others go first; figures are per mille of what each was due beside the other.

    Args:
        account: the account whose turn is next, where its way and ours part.
        theirs_permille, mine_permille: what it and ours have used of their due.
        ahead: requests that go first.
    """

    code: ClassVar[str] = "lower-than"
    account: str
    theirs_permille: int
    mine_permille: int
    ahead: int

    def sentence(self) -> str:
        """Say why."""
        theirs, mine = _percent(self.theirs_permille), _percent(self.mine_permille)
        return f"{self.ahead} requests go first: {self.account} has used {theirs} of its due, you {mine}."

    @property
    def change(self) -> str:
        """What would change it."""
        return "wait: use counts less with time, and their use counts against them"


@dataclass(frozen=True, slots=True)
class WaitingForReclaim:
    """Devices come free when others' grace is over."""

    code: ClassVar[str] = "waiting-for-reclaim"
    left_s: int

    def sentence(self) -> str:
        """Say why."""
        return f"devices are being freed; they are free in {self.left_s} s at the latest."

    @property
    def change(self) -> str:
        """What would change it."""
        return "wait for it"


@dataclass(frozen=True, slots=True)
class WaitingForCapacity:
    """All devices that would do are in use; ``place`` is from 1."""

    code: ClassVar[str] = "waiting-for-capacity"
    place: int

    def sentence(self) -> str:
        """Say why."""
        return f"every device that would do is in use; the request is number {self.place} in the line."

    @property
    def change(self) -> str:
        """What would change it."""
        return "wait for a lease to end, or ask for less"


@dataclass(frozen=True, slots=True)
class LedgerStale:
    """The books are old, so that the donor keeps to the split that it served before."""

    code: ClassVar[str] = "ledger-stale"
    age_s: int

    def sentence(self) -> str:
        """Say why."""
        return f"the books are {self.age_s} s old; the order is that of the last fresh ones."

    @property
    def change(self) -> str:
        """What would change it."""
        return "it changes when the donor hears from the other donors again"


Reason = (
    Misconfigured
    | NotPermitted
    | NoMatchingDevice
    | ExceedsLimit
    | DonorPaused
    | EgressExhausted
    | OverShareCap
    | Reserved
    | LowerThan
    | WaitingForReclaim
    | WaitingForCapacity
    | LedgerStale
)
ORDER: Final[tuple[type[Reason], ...]] = (
    Misconfigured,
    NotPermitted,
    NoMatchingDevice,
    ExceedsLimit,
    DonorPaused,
    EgressExhausted,
    OverShareCap,
    Reserved,
    LowerThan,
    WaitingForReclaim,
    WaitingForCapacity,
    LedgerStale,
)
"""The first that holds decides."""
_BY_CODE: Final = {kind.code: kind for kind in ORDER}


def in_order(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return reasons, the deciding one first; of several of one kind the first stays first."""
    return tuple(sorted(reasons, key=lambda one: ORDER.index(type(one))))


def to_dict(reason: Reason) -> dict[str, str | int]:
    """Return a reason as the wire has it: its code and its fields."""
    return {"code": reason.code, **{one.name: getattr(reason, one.name) for one in fields(reason)}}


def from_dict(table: Mapping[str, object]) -> Reason:
    """Return the reason that the wire names; fields that it does not have are passed over.

    Raises:
        FederationInputError: the code is unknown, or a field is missing or out of bounds.
    """
    code = table.get("code")
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    if kind is None:
        sentence = "the donor gives a reason that this version does not know."
        raise FederationInputError(sentence, fix="update this agent")
    values: dict[str, str | int] = {}
    for one in fields(kind):
        value = table.get(one.name)
        if (one.type == "str" and _is_text(value)) or (one.type == "int" and _is_number(value)):
            values[one.name] = value
        else:
            raise FederationInputError(f"the donor's reason {kind.code} has no usable {one.name}.")
    return kind(**values)  # type: ignore[arg-type]  # each was checked against the field's type


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_REASON_CHARS and value.isprintable()


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_REASON_NUMBER


def _percent(permille: int) -> str:
    return f"{(permille + 5) // 10} %"
