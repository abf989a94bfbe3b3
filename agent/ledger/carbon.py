"""Carbon series of this site and of others: from a file of hours, signed, kept, and told to other gateways.

A file has a line for each hour, ``TIME,GRAMS``, such as ``2026-03-01T14:00Z,312``: the hour's first moment
and grams of CO2 equivalent per kWh; blank lines and those that begin with ``#`` are passed over. Hours in
between that are missing have no figure. What is signed lies in the state directory, and is sent as it is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.errors import RequestError, StateError
from federation.errors import FederationInputError, ReceiptError
from federation.ledger.carbon import HOUR_S, CarbonSeries, SignedCarbon, carbon_of, open_carbon
from federation.ledger.signing import Keys
from federation.limits import MAX_CARBON_BYTES, MAX_CARBON_HOURS
from federation.registry.documents import parse_object
from federation.registry.files import read_file, write_file

_FILE: Final = "carbon.json"
MAX_CARBON_FILE_BYTES: Final = 64 << 10


def read_hours(text: str, site: str, source: str, *, now_s: float) -> CarbonSeries:
    """Return the series of a file.

    Raises:
        RequestError: a line is none, or the hours are too many or in no order.
    """
    hours: dict[int, int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line and not line.startswith("#"):
            at_s, grams = _hour(line, number)
            if hours and at_s <= max(hours):
                raise RequestError(f"line {number}: the hours rise, and none stands twice.")
            hours[at_s] = grams
    if not hours:
        raise RequestError("the file has no hours.", fix="write lines such as 2026-03-01T14:00Z,312")
    from_s, last_s = min(hours), max(hours)
    count = (last_s - from_s) // HOUR_S + 1
    if count > MAX_CARBON_HOURS:
        raise RequestError(f"a series has at most {MAX_CARBON_HOURS} hours from its first to its last.")
    figures = tuple(hours.get(from_s + at * HOUR_S) for at in range(count))
    return CarbonSeries(site=site, from_s=from_s, g_per_kwh=figures, source=source, made_at_s=int(now_s))


def write_carbon(folder: Path, signed: SignedCarbon) -> None:
    """Keep this site's series; the running gateway sends it from then on.

    Raises:
        StateError: it cannot be written.
    """
    fields = {"body": signed.body.decode("ascii"), "signature": base64.b64encode(signed.signature).decode()}
    try:
        write_file(folder / _FILE, json.dumps(fields).encode(), mode=0o600)
    except OSError as error:
        raise StateError(
            f"{folder / _FILE} cannot be written: {error.strerror or error}.", fix="free space on its disk"
        ) from error


def read_carbon(folder: Path) -> SignedCarbon | None:
    """Return this site's series as it is sent; ``None`` without one, and where what lies there is damaged."""
    try:
        data = read_file(folder / _FILE, max_bytes=2 * MAX_CARBON_BYTES)
        fields = parse_object(data, max_bytes=2 * MAX_CARBON_BYTES, what=_FILE)
        return SignedCarbon(str(fields["body"]).encode("ascii"), base64.b64decode(str(fields["signature"])))
    except (OSError, FederationInputError, KeyError, ValueError):
        return None


class CarbonTable:
    """The series of other sites, one each: the latest that its site has signed."""

    def __init__(self) -> None:
        self._known: dict[str, CarbonSeries] = {}

    def take(self, site: str, signed: SignedCarbon, keys: Keys) -> None:
        """Take what a site sends over its own connection; one that is older changes nothing.

        Raises:
            ReceiptError: it is none, not this site's, or not signed by it.
        """
        series = open_carbon(signed, keys)
        if series.site != site:
            raise ReceiptError(f"it is the carbon series of {series.site}.")
        before = self._known.get(site)
        if before is None or series.made_at_s > before.made_at_s:
            self._known[site] = series

    def grams(self, now_s: float) -> Mapping[str, int]:
        """Return grams per kWh of the present hour by site, where there is a figure."""
        found = {site: carbon_of(series, int(now_s)) for site, series in self._known.items()}
        return {site: grams for site, grams in found.items() if grams is not None}


def _hour(line: str, number: int) -> tuple[int, int]:
    when, comma, figure = line.partition(",")
    try:
        moment = datetime.fromisoformat(when.strip())
        grams = int(figure)
    except ValueError:
        comma = ""
    if not comma or moment.tzinfo is None or moment.timestamp() % HOUR_S:
        raise RequestError(
            f"line {number} is no hour and a whole number of grams.",
            fix="write lines such as 2026-03-01T14:00Z,312",
        )
    return int(moment.astimezone(UTC).timestamp()), grams
