"""An export of the books: a file that anybody can check, without being a member, from a pin alone.

The form is JSON lines, each canonical (sorted keys, no blanks, ASCII) with a ``type``, in this order:

==============  ============================================================================================
``export``      first: ``schema`` 1, ``site`` that made it, ``made_at_s``, the registry's ``pin`` as it knows
it ``root``        the registry's chain of roots: ``version``, ``data``
``metadata``    its newest signed files by ``role`` (``timestamp``, ``snapshot``, ``targets``, ...): ``data``
``document``    what they name by ``sha256``: sites' documents, policies, auditors: ``data``
``receipt``     ``body`` (the canonical text), ``donor_signature``, ``borrower_signature`` (hex; may be
empty), by
                donor, then by position
``set-aside``   the same, of what a donor signed after it contradicted itself
``evidence``    ``first`` and ``second``: two receipts, as above, without the borrower's signature
``dispute``     ``body``, ``signature``
``resolution``  ``body``, ``signature``
``log``         ``kind``, ``at_s``, ``body``: requests as they were signed, offers, refusals, decisions with
reasons ``end``         last: ``lines`` before it, ``sha256`` of all their bytes with their newlines
==============  ============================================================================================

Text that is not UTF-8 is kept by Python's ``surrogateescape``. An export proves what is in it, not that
nothing was left out: chains show gaps, and another site's export shows another view.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from federation.errors import ExportError
from federation.ledger.disputes import SignedStatement
from federation.ledger.items import Evidence, Item
from federation.limits import MAX_EXPORT_LINE_BYTES
from federation.registry.documents import canonical

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Header:
    """Who made an export, when (Unix time), of which registry (its pin in hex)."""

    site: str
    made_at_s: int
    pin: str


class ExportWriter:
    """Writes an export's lines in order; ``finish`` makes it whole."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._lines = 0
        self._put(
            {
                "type": "export",
                "schema": SCHEMA,
                "site": header.site,
                "made_at_s": header.made_at_s,
                "pin": header.pin,
            }
        )

    def registry(
        self, roots: Mapping[int, bytes], roles: Mapping[str, bytes], documents: Iterable[bytes]
    ) -> None:
        """Write the registry's files."""
        for version, data in sorted(roots.items()):
            self._put({"type": "root", "version": version, "data": _text(data)})
        for role, data in sorted(roles.items()):
            self._put({"type": "metadata", "role": role, "data": _text(data)})
        for data in documents:
            self._put({"type": "document", "sha256": hashlib.sha256(data).hexdigest(), "data": _text(data)})

    def receipt(self, item: Item, *, set_aside: bool = False) -> None:
        """Write one receipt."""
        self._put(
            {
                "type": "set-aside" if set_aside else "receipt",
                **_receipt(item),
                "borrower_signature": item.borrower_signature.hex(),
            }
        )

    def evidence(self, evidence: Evidence) -> None:
        """Write one contradiction."""
        first, second = _receipt(evidence.first), _receipt(evidence.second)
        self._put({"type": "evidence", "first": first, "second": second})

    def statement(self, kind: str, signed: SignedStatement) -> None:
        """Write a dispute or a resolution."""
        self._put({"type": kind, "body": _text(signed.body), "signature": signed.signature.hex()})

    def log(self, kind: str, at_s: int, body: bytes) -> None:
        """Write one line of the log."""
        self._put({"type": "log", "kind": kind, "at_s": at_s, "body": _text(body)})

    def finish(self) -> int:
        """Write the last line; return how many there are in all."""
        lines = self._lines
        self._put({"type": "end", "lines": lines, "sha256": self._digest.hexdigest()})
        return lines + 1

    def _put(self, fields: dict[str, Any]) -> None:
        line = canonical(fields) + b"\n"
        self._digest.update(line)
        self._lines += 1
        self._file.write(line)


def read_lines(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield an export's lines, the last one excepted, which is checked.

    Raises:
        ExportError: it is no export, of a newer form, cut off, or changed since it was made.
    """
    digest, count = hashlib.sha256(), 0
    while True:
        line = file.readline(MAX_EXPORT_LINE_BYTES + 1)
        if len(line) > MAX_EXPORT_LINE_BYTES or not line.endswith(b"\n"):
            raise ExportError(
                f"the export ends within line {count + 1}, or that line is too long.", fix="ask for it again"
            )
        fields = _parse(line, count + 1)
        if count == 0 and (fields["type"] != "export" or fields.get("schema") != SCHEMA):
            raise ExportError(
                f"this is no export of a ledger of form {SCHEMA}.", fix="give the file of: ledger export FILE"
            )
        if fields["type"] == "end":
            break
        digest.update(line)
        count += 1
        yield fields
    if fields.get("lines") != count or fields.get("sha256") != digest.hexdigest() or file.read(1):
        raise ExportError("the export was changed after it was made.", fix="ask for it again")


def item_in(fields: Mapping[str, Any]) -> Item:
    """Return the receipt of a line, or of one half of evidence.

    Raises:
        ExportError: it has none.
    """
    return Item(
        data_in(fields, "body"),
        _hex(fields, "donor_signature"),
        _hex(fields, "borrower_signature") if "borrower_signature" in fields else b"",
    )


def statement_in(fields: Mapping[str, Any]) -> SignedStatement:
    """Return the dispute or resolution of a line.

    Raises:
        ExportError: it has none.
    """
    return SignedStatement(data_in(fields, "body"), _hex(fields, "signature"))


def data_in(fields: Mapping[str, Any], key: str) -> bytes:
    """Return the bytes that a text of a line stands for.

    Raises:
        ExportError: it has none.
    """
    value = fields.get(key)
    if not isinstance(value, str):
        raise _wrong(key)
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise _wrong(key) from error


def _receipt(item: Item) -> dict[str, Any]:
    return {"body": _text(item.body), "donor_signature": item.donor_signature.hex()}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _hex(fields: Mapping[str, Any], key: str) -> bytes:
    value = fields.get(key)
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _raise(key)
    except ValueError as error:
        raise _wrong(key) from error


def _raise(key: str) -> bytes:
    raise _wrong(key)


def _wrong(key: str) -> ExportError:
    return ExportError(f"a line of the export has no usable field {key}.", fix="ask for it again")


def _parse(line: bytes, number: int) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"line {number} of the export is no JSON.", fix="ask for it again") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise ExportError(f"line {number} of the export has no type.", fix="ask for it again")
    return fields
