"""A site's carbon intensity, hour by hour, signed: a preference when offers are ranked, never a gate.

A series says grams of CO2 equivalent per kWh for whole hours from ``from_s`` on, and where the figures are
from. It is signed with the site's receipts key. Outside its hours a site has no figure, which is neither
good nor bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import ReceiptError
from federation.ledger import document
from federation.ledger.document import LABEL_FORM
from federation.ledger.signing import CARBON, Keys, sign, verifies
from federation.limits import (
    MAX_CARBON_BYTES,
    MAX_CARBON_G_PER_KWH,
    MAX_CARBON_HOURS,
    MAX_CARBON_SOURCE_CHARS,
)

HOUR_S: Final = 3600
_WHAT: Final = "a carbon series"
_KEYS: Final = frozenset({"from_s", "g_per_kwh", "made_at_s", "site", "source"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonSeries:
    """One site's series.

    Args:
        from_s: Unix time of the first hour, a multiple of 3600.
        g_per_kwh: an hour each; ``None`` where there is no figure.
        source: where the figures come from, for people.
        made_at_s: of two series the later one counts.
    """

    site: str
    from_s: int
    g_per_kwh: tuple[int | None, ...]
    source: str
    made_at_s: int


@dataclass(frozen=True, slots=True)
class SignedCarbon:
    """A series as it travels."""

    body: bytes
    signature: bytes


def sign_carbon(key: Ed25519PrivateKey, series: CarbonSeries) -> SignedCarbon:
    """Return a series signed with its site's receipts key.

    Raises:
        ReceiptError: a figure is outside its bounds.
    """
    body = document.write(
        {
            "from_s": series.from_s,
            "g_per_kwh": list(series.g_per_kwh),
            "made_at_s": series.made_at_s,
            "site": series.site,
            "source": series.source,
        }
    )
    _decode(body)
    return SignedCarbon(body, sign(key, CARBON, body))


def open_carbon(signed: SignedCarbon, keys: Keys) -> CarbonSeries:
    """Return the series in signed bytes.

    Raises:
        ReceiptError: they hold none, or its site has not signed it.
    """
    series = _decode(signed.body)
    if not verifies(keys.of(series.site, series.made_at_s), CARBON, signed.body, signed.signature):
        raise ReceiptError(f"the carbon series of {series.site} is not signed with its receipts key.")
    return series


def carbon_of(series: CarbonSeries, now_s: int) -> int | None:
    """Return the grams per kWh of the present hour; ``None`` where the series has no figure."""
    hour = (now_s - series.from_s) // HOUR_S
    return series.g_per_kwh[hour] if 0 <= hour < len(series.g_per_kwh) else None


def _decode(body: bytes) -> CarbonSeries:
    fields = document.read(body, _KEYS, max_bytes=MAX_CARBON_BYTES, what=_WHAT)
    figures = fields["g_per_kwh"]
    from_s = document.number(fields, "from_s", _WHAT)
    if not isinstance(figures, list) or not 1 <= len(figures) <= MAX_CARBON_HOURS or from_s % HOUR_S:
        raise document.wrong(_WHAT, "g_per_kwh")
    for one in figures:
        if one is not None and (
            not isinstance(one, int) or isinstance(one, bool) or not 0 <= one <= MAX_CARBON_G_PER_KWH
        ):
            raise document.wrong(_WHAT, "g_per_kwh")
    return CarbonSeries(
        site=document.text(fields, "site", LABEL_FORM, _WHAT),
        from_s=from_s,
        g_per_kwh=tuple(figures),
        source=document.free_text(fields, "source", _WHAT, most=MAX_CARBON_SOURCE_CHARS),
        made_at_s=document.number(fields, "made_at_s", _WHAT),
    )
