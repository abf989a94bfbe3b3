"""The one form of a receipt as bytes, its parser, and its digest.

The form is JSON: one object, keys in alphabetical order, no blanks, ASCII, integers without sign, fraction or
leading zeros, digests as 64 lower-case hexadecimal digits. Any JSON reader reads it; equal receipts are equal
bytes. The parser takes exactly that form and nothing else, by one regular expression over the bytes: it is
the grammar, and it leaves no room for a second spelling. What a field may hold:

=================  =========================================================================
donor, borrower    a site's name, one DNS label
account            ``/institution[/group[/project]]``, labels as well
purpose            a label
device             ``NODE/DEVICE`` in strictly rising order, separated by commas, at most 16
device_class       lower-case letters, digits, ``.``, ``_``, ``-``; at most 64
lease_id           letters, digits, ``_``, ``-``; at most 64
policy, previous   64 hexadecimal digits
numbers            0 to 10^15 - 1; ``position`` and ``seq`` from 1; ``energy_wh`` may be ``null``
final, refunded    ``true`` or ``false``
=================  =========================================================================

A receipt's digest is the SHA-256 of these bytes. What its fields mean together: ``federation.ledger.chain``.
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import Final

from federation.errors import ReceiptError
from federation.ledger.receipt import Receipt
from federation.limits import MAX_RECEIPT_BYTES, MAX_RECEIPT_DEVICES

ZERO_DIGEST: Final = bytes(32)
"""What the first receipt of a chain names as the one before it."""

LABEL: Final = r"[a-z0-9][a-z0-9-]{0,62}+(?<!-)"  # possessive: nothing here is ever tried twice
ACCOUNT: Final = rf"(?:/{LABEL}){{1,3}}"
NUMBER: Final = r"(?>0|[1-9][0-9]{0,14}+)"
COUNT: Final = r"[1-9][0-9]{0,14}+"
HEX32: Final = r"[0-9a-f]{64}"
ID: Final = r"[A-Za-z0-9_-]{1,64}+"
_DEVICE: Final = rf"{LABEL}/[A-Za-z0-9][A-Za-z0-9:._-]{{0,63}}+"
_CLASS: Final = r"[a-z0-9][a-z0-9._-]{0,63}+"
_FLAG: Final = "true|false"

_FORM: Final = re.compile(
    rf'{{"account":"({ACCOUNT})","borrower":"({LABEL})","busy_ms":({NUMBER}),"charge_msgs":({NUMBER}),'
    rf'"device":"({_DEVICE}(?:,{_DEVICE})*)","device_class":"({_CLASS})","discount_ms":({NUMBER}),'
    rf'"donor":"({LABEL})","egress_bytes":({NUMBER}),"energy_wh":(null|{NUMBER}),"final":({_FLAG}),'
    rf'"from_s":({NUMBER}),"lease_id":"({ID})","policy":"({HEX32})","position":({COUNT}),'
    rf'"previous":"({HEX32})","purpose":"({LABEL})","refunded":({_FLAG}),"seq":({COUNT}),'
    rf'"to_s":({NUMBER})}}',
    re.ASCII,
)


def encode(receipt: Receipt) -> bytes:
    """Return a receipt's one form.

    Raises:
        ReceiptError: a field is outside what the form can hold.
    """
    body = _text(receipt).encode("utf-8", "replace")
    if decode(body) != receipt:
        raise _none()
    return body


def decode(body: bytes) -> Receipt:
    """Return the receipt that the bytes hold.

    Raises:
        ReceiptError: they are not a receipt in its one form.
    """
    text = _fields(body)
    return Receipt(
        donor=text[7],
        borrower=text[1],
        position=int(text[14]),
        previous=bytes.fromhex(text[15]),
        lease_id=text[12],
        seq=int(text[18]),
        account=text[0],
        purpose=text[16],
        device=text[4],
        device_class=text[5],
        from_s=int(text[11]),
        to_s=int(text[19]),
        busy_ms=int(text[2]),
        charge_msgs=int(text[3]),
        discount_ms=int(text[6]),
        energy_wh=None if text[9] == "null" else int(text[9]),
        egress_bytes=int(text[8]),
        final=text[10] == "true",
        refunded=text[17] == "true",
        policy=text[13],
    )


def parties(body: bytes) -> tuple[str, str, int]:
    """Return a receipt's donor, its borrower, and when it ends: all that a check of signatures needs.

    Raises:
        ReceiptError: the bytes are not a receipt in its one form.
    """
    text = _fields(body)
    return text[7], text[1], int(text[19])


def digest(body: bytes) -> bytes:
    """Return the digest by which the next receipt of the chain names this one."""
    return hashlib.sha256(body).digest()


def devices_of(receipt: Receipt) -> list[str]:
    """Return the names of a receipt's devices, ``NODE/DEVICE``."""
    return receipt.device.split(",")


def _fields(body: bytes) -> tuple[str, ...]:
    if len(body) > MAX_RECEIPT_BYTES:
        raise ReceiptError(f"a receipt has at most {MAX_RECEIPT_BYTES} bytes.")
    try:
        found = _FORM.fullmatch(body.decode("ascii"))
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise _none()
    text: tuple[str, ...] = found.groups()
    _check_devices(text[4])
    return text


def _check_devices(device: str) -> None:
    if "," not in device:
        return
    names = device.split(",")
    if len(names) > MAX_RECEIPT_DEVICES or any(a >= b for a, b in pairwise(names)):
        raise _none()


def _text(one: Receipt) -> str:
    energy = "null" if one.energy_wh is None else str(int(one.energy_wh))
    return (
        f'{{"account":"{one.account}","borrower":"{one.borrower}","busy_ms":{one.busy_ms},'
        f'"charge_msgs":{one.charge_msgs},"device":"{one.device}","device_class":"{one.device_class}",'
        f'"discount_ms":{one.discount_ms},"donor":"{one.donor}","egress_bytes":{one.egress_bytes},'
        f'"energy_wh":{energy},"final":{"true" if one.final else "false"},"from_s":{one.from_s},'
        f'"lease_id":"{one.lease_id}","policy":"{one.policy}","position":{one.position},'
        f'"previous":"{one.previous.hex()}","purpose":"{one.purpose}",'
        f'"refunded":{"true" if one.refunded else "false"},"seq":{one.seq},"to_s":{one.to_s}}}'
    )


def _none() -> ReceiptError:
    return ReceiptError(
        "this is not a receipt in its one form.", fix="compare both sides' versions of pyrdma-agent"
    )
