"""What the registry says of one site: its trust domain, its CAs, its gateways, its keys beside TLS.

A document is JSON. What this module writes is canonical: sorted keys, no blanks, ASCII, so that equal
documents are equal bytes. What it reads is held to types and bounds; unknown keys are passed over, since a
newer minor version may add some, and another ``schema`` is refused. It does not judge certificates: that is
for a clock and ``federation.identity``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from federation.errors import FederationInputError
from federation.identity.names import check_address, check_label, check_node, check_trust_domain
from federation.limits import (
    MAX_AUTHORITIES_PER_SITE,
    MAX_CERTIFICATE_PEM_BYTES,
    MAX_FORMER_RECEIPTS_KEYS,
    MAX_GATEWAYS,
    MAX_KEY_PEM_CHARS,
    MAX_REGION_CHARS,
    MAX_SITE_DOCUMENT_BYTES,
    MAX_UNIX_TIME_S,
)

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a gateway of a site listens: its node's name and ``HOST:PORT``."""

    node: str
    address: str


@dataclass(frozen=True, slots=True)
class FormerKey:
    """A receipts key that was replaced: what it signed counts up to ``until_s``, in Unix time."""

    key: str
    until_s: int


@dataclass(frozen=True, slots=True)
class SiteDocument:
    """One site.

    Args:
        site: its name in the consortium.
        trust_domain: the name below which its nodes are.
        authorities: one or two CA certificates, PEM; two while one takes over from the other.
        gateways: one to four, in the order in which they are dialled.
        models_key: the Ed25519 public key, PEM, that signs the site's list of models.
        region: for people and for the choice of donors; may be empty.
        receipts_key: the Ed25519 public key, PEM, that signs the site's requests and receipts; empty in
            documents of before there were any: such a site neither lends nor borrows under a policy.
        former_receipts_keys: those before it, as the consortium's signers noted them, oldest first.
    """

    site: str
    trust_domain: str
    authorities: tuple[str, ...]
    gateways: tuple[GatewayAddress, ...]
    models_key: str
    region: str
    receipts_key: str = ""
    former_receipts_keys: tuple[FormerKey, ...] = ()


def site_path(site: str) -> str:
    """Return the path of a site's document among the registry's targets."""
    return f"sites/{site}/site.json"


def encode_site(document: SiteDocument) -> bytes:
    """Return the document's one form as bytes.

    Raises:
        FederationInputError: a field is outside its bounds.
    """
    check_document(document)
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "site": document.site,
        "trust_domain": document.trust_domain,
        "authorities": list(document.authorities),
        "gateways": [{"node": one.node, "address": one.address} for one in document.gateways],
        "models_key": document.models_key,
        "region": document.region,
    }
    if document.receipts_key:
        fields["receipts_key"] = document.receipts_key
    if document.former_receipts_keys:
        former = document.former_receipts_keys
        fields["former_receipts_keys"] = [{"key": one.key, "until_s": one.until_s} for one in former]
    return canonical(fields)


def decode_site(data: bytes) -> SiteDocument:
    """Return the document that the bytes hold.

    Raises:
        FederationInputError: they hold none, or one of another schema.
    """
    fields = parse_object(data, max_bytes=MAX_SITE_DOCUMENT_BYTES, what="a site's document")
    if fields.get("schema") != SCHEMA or isinstance(fields["schema"], bool):
        raise FederationInputError(
            f"a site's document has a schema that this version does not know; it knows {SCHEMA}.",
            fix="upgrade pyrdma-agent",
        )
    gateways = _list(fields, "gateways", MAX_GATEWAYS)
    if not all(isinstance(one, dict) for one in gateways):
        raise _wrong("gateways")
    document = SiteDocument(
        site=_text(fields, "site"),
        trust_domain=_text(fields, "trust_domain"),
        authorities=tuple(_strings(fields, "authorities", MAX_AUTHORITIES_PER_SITE)),
        gateways=tuple(GatewayAddress(_text(one, "node"), _text(one, "address")) for one in gateways),
        models_key=_text(fields, "models_key"),
        region=_text(fields, "region"),
        receipts_key=_text(fields, "receipts_key") if "receipts_key" in fields else "",
        former_receipts_keys=_former(fields),
    )
    check_document(document)
    return document


def check_document(document: SiteDocument) -> None:
    """Refuse a document with a field outside its bounds.

    Raises:
        FederationInputError: it has one.
    """
    check_label(document.site, "site")
    check_trust_domain(document.trust_domain)
    if not 1 <= len(document.authorities) <= MAX_AUTHORITIES_PER_SITE:
        raise _wrong("authorities")
    if not 1 <= len(document.gateways) <= MAX_GATEWAYS:
        raise _wrong("gateways")
    for gateway in document.gateways:
        check_node(gateway.node)
        check_address(gateway.address)
    if len(set(document.authorities)) < len(document.authorities):
        raise _wrong("authorities")
    if len({gateway.node for gateway in document.gateways}) < len(document.gateways):
        raise _wrong("gateways")
    if len({gateway.address for gateway in document.gateways}) < len(document.gateways):
        raise _wrong("gateways")
    if not all(_is_pem(pem, MAX_CERTIFICATE_PEM_BYTES) for pem in document.authorities):
        raise _wrong("authorities")
    if not _is_pem(document.models_key, MAX_KEY_PEM_CHARS):
        raise _wrong("models_key")
    if document.receipts_key and not _is_pem(document.receipts_key, MAX_KEY_PEM_CHARS):
        raise _wrong("receipts_key")
    former = document.former_receipts_keys
    if len(former) > MAX_FORMER_RECEIPTS_KEYS or not all(
        _is_pem(one.key, MAX_KEY_PEM_CHARS) and 0 <= one.until_s <= MAX_UNIX_TIME_S for one in former
    ):
        raise _wrong("former_receipts_keys")
    region = document.region
    if len(region) > MAX_REGION_CHARS or not (region.isascii() and (region.isprintable() or not region)):
        raise _wrong("region")


def canonical(fields: dict[str, Any]) -> bytes:
    """Return an object's one form as bytes: sorted keys, no blanks, ASCII."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def parse_object(data: bytes, *, max_bytes: int, what: str) -> dict[str, Any]:
    """Return the JSON object that the bytes hold; no key twice, no number that JSON does not have.

    Raises:
        FederationInputError: they hold none, or are too many.
    """
    if len(data) > max_bytes:
        raise FederationInputError(f"{what} has at most {max_bytes} bytes.")
    try:
        fields = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FederationInputError(f"{what} is a JSON object with each key once.") from error
    if not isinstance(fields, dict):
        raise FederationInputError(f"{what} is a JSON object with each key once.")
    return fields


def _is_pem(text: str, most: int) -> bool:
    return text.startswith("-----BEGIN ") and len(text) <= most and text.isascii()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise _wrong(key)
    return value


def _list(fields: dict[str, Any], key: str, most: int) -> list[Any]:
    value = fields.get(key)
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise _wrong(key)
    return value


def _former(fields: dict[str, Any]) -> tuple[FormerKey, ...]:
    if "former_receipts_keys" not in fields:
        return ()
    listed = _list(fields, "former_receipts_keys", MAX_FORMER_RECEIPTS_KEYS)
    if not all(isinstance(one, dict) and type(one.get("until_s")) is int for one in listed):
        raise _wrong("former_receipts_keys")
    return tuple(FormerKey(_text(one, "key"), one["until_s"]) for one in listed)


def _strings(fields: dict[str, Any], key: str, most: int) -> list[str]:
    value = _list(fields, key, most)
    if not all(isinstance(one, str) for one in value):
        raise _wrong(key)
    return value


def _wrong(key: str) -> FederationInputError:
    return FederationInputError(
        f"the field {key} of a site's document is missing, has another type, repeats itself or is too long.",
        fix="make the request again with pyrdma-agent init",
    )
