"""Small signed statements other than receipts: their one form as bytes, and what reads it back.

The form is canonical JSON: one object, sorted keys, no blanks, ASCII. What is read is written again and must
be the same bytes, so each statement has one form only. Used by requests, disputes, resolutions and carbon
series.
"""

from __future__ import annotations

import re
from typing import Any, Final

from federation.errors import FederationInputError, ReceiptError
from federation.ledger.form import ACCOUNT, HEX32, ID, LABEL
from federation.registry.documents import canonical, parse_object

LABEL_FORM: Final = re.compile(LABEL)
ACCOUNT_FORM: Final = re.compile(ACCOUNT)
ID_FORM: Final = re.compile(ID)
HEX32_FORM: Final = re.compile(HEX32)
_MAX_NUMBER: Final = 10**15


def write(fields: dict[str, Any]) -> bytes:
    """Return an object's one form."""
    return canonical(fields)


def read(body: bytes, keys: frozenset[str], *, max_bytes: int, what: str) -> dict[str, Any]:
    """Return the object with exactly these keys that the bytes hold in their one form.

    Raises:
        ReceiptError: they do not.
    """
    try:
        fields = parse_object(body, max_bytes=max_bytes, what=what)
        same = canonical(fields) == body
    except (FederationInputError, ValueError) as error:
        raise wrong(what) from error
    if not same or fields.keys() != keys:
        raise wrong(what)
    return fields


def text(fields: dict[str, Any], key: str, form: re.Pattern[str], what: str) -> str:
    """Return a text field of a form."""
    value = fields[key]
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise wrong(what, key)
    return value


def number(fields: dict[str, Any], key: str, what: str, *, least: int = 0, most: int = _MAX_NUMBER) -> int:
    """Return a whole number within bounds."""
    value = fields[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise wrong(what, key)
    return value


def free_text(fields: dict[str, Any], key: str, what: str, *, most: int) -> str:
    """Return a text of printable ASCII."""
    value = fields[key]
    if not isinstance(value, str) or len(value) > most or not value.isascii():
        raise wrong(what, key)
    if value and not value.isprintable():
        raise wrong(what, key)
    return value


def wrong(what: str, key: str = "") -> ReceiptError:
    """Return the refusal of a statement."""
    field = f": its field {key} cannot be used" if key else ""
    return ReceiptError(f"this is not {what} in its one form{field}.")
