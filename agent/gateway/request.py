"""What a borrower asks of a donor, and the two answers of a rule: a device, or a refusal with its reason.

Texts in these values come from other sites; they are checked for length and form where they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.gateway.fleet import DeviceRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A wish for one lease.

    Args:
        id: the borrower's own id; asking again with the same one is the same request.
        borrower_site: who asks, as its certificate says.
        borrower_node: for which of its nodes.
        model: the name to serve it under.
        image_id: the image, 64 hexadecimal digits.
        total_bytes: what the image takes in the device's memory.
        devices: how many devices.
        node: the one node of the donor that will do, or ``None`` for any.
        account: who is to be charged, ``/institution/group/project``.
        purpose: what it is for.
    """

    id: str
    borrower_site: str
    borrower_node: str
    model: str
    image_id: str
    total_bytes: int
    devices: int = 1
    node: str | None = None
    account: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """The rule gives this device; ``warm``: the image is whole in that node's memory."""

    device: DeviceRef
    warm: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer is no.

    Args:
        code: a stable word for programs.
        sentence: one sentence that says why.
        fix: what the borrower can do about it.
        terminal: whether asking this donor the same again is of no use.
    """

    code: str
    sentence: str
    fix: str
    terminal: bool
