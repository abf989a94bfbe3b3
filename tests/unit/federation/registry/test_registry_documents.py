"""A site's document: one form on disk, strict when it is read."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationInputError
from federation.limits import MAX_SITE_DOCUMENT_BYTES
from federation.registry.documents import (
    GatewayAddress,
    SiteDocument,
    canonical,
    decode_site,
    encode_site,
    site_path,
)

PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
DOCUMENT = SiteDocument(
    "uni-a",
    "uni-a.example",
    (PEM.format("A"),),
    (GatewayAddress("gpu01", "gpu01.uni-a.example:7443"), GatewayAddress("gpu02", "[2001:db8::7]:7443")),
    KEY,
    "eu-north",
)
LABELS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z").filter(lambda text: text != "join")


def fields(**changes: Any) -> dict[str, Any]:
    """Return the document's JSON object with some fields changed; ``None`` removes one."""
    changed = {**json.loads(encode_site(DOCUMENT)), **changes}
    return {key: value for key, value in changed.items() if value is not None}


@given(
    site=LABELS,
    labels=st.lists(LABELS, min_size=1, max_size=3),
    authorities=st.lists(st.sampled_from("ABC"), min_size=1, max_size=2, unique=True),
    nodes=st.lists(LABELS, min_size=1, max_size=4, unique=True),
    region=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64),
)
def test_a_document_survives_its_bytes(
    site: str, labels: list[str], authorities: list[str], nodes: list[str], region: str
) -> None:
    """Whatever may be said is read back as it was, and equal documents are equal bytes."""
    document = SiteDocument(
        site,
        ".".join([*labels, "example"]),
        tuple(PEM.format(text) for text in authorities),
        tuple(GatewayAddress(node, f"{node}.example:{7000 + at}") for at, node in enumerate(nodes)),
        KEY,
        region,
    )
    data = encode_site(document)
    assert decode_site(data) == document
    assert encode_site(decode_site(data)) == data


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "Uni-A"},
        {"site": None},
        {"site": 7},
        {"trust_domain": "nodots"},
        {"authorities": []},
        {"authorities": [PEM.format(text) for text in "ABC"]},
        {"authorities": [PEM.format("A"), PEM.format("A")]},
        {"authorities": "-----BEGIN"},
        {"authorities": ["-----BEGIN " + "A" * 9000]},
        {"authorities": [7]},
        {"gateways": []},
        {"gateways": ["gpu01:7443"]},
        {"gateways": [{"node": "gpu01", "address": "gpu01:7443"}] * 2},
        {"gateways": [{"node": "gpu01", "address": "gpu01"}]},
        {"gateways": [{"node": "join", "address": "gpu01:7443"}]},
        {"gateways": [{"node": "gpu01", "address": "gpu01:70000"}]},
        {"gateways": [{"node": "a", "address": "x:1"}, {"node": "b", "address": "x:1"}]},
        {"gateways": [{"node": f"n{at}", "address": f"n{at}:1"} for at in range(5)]},
        {"models_key": None},
        {"models_key": "no key"},
        {"region": "\x1b[2J"},
        {"region": "r" * 65},
        {"region": None},
    ],
)
def test_a_field_outside_its_bounds_is_refused(changes: dict[str, Any]) -> None:
    """Names, numbers, types and repetitions; the same in what is written."""
    with pytest.raises(FederationInputError):
        decode_site(canonical(fields(**changes)))


@pytest.mark.parametrize("schema", [2, 0, "1", True, None, 1.5])
def test_another_schema_is_refused(schema: object) -> None:
    """With the advice to upgrade, since a newer one may have changed what the words mean."""
    with pytest.raises(FederationInputError, match="schema") as caught:
        decode_site(canonical(fields(schema=schema)))
    assert "upgrade" in caught.value.fix


def test_unknown_keys_are_passed_over() -> None:
    """A newer minor version can say more without being refused by older members."""
    assert decode_site(canonical(fields(tunnel={"key": "x"}))) == DOCUMENT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"schema":1,"schema":1}',
        b'{"schema":NaN}',
        b"[" * 100_000,
        b"{}" + b" " * MAX_SITE_DOCUMENT_BYTES,
        b'{"schema":' + b"9" * 5000 + b"}",
    ],
)
def test_bytes_that_hold_no_document_are_refused(data: bytes) -> None:
    """Neither too many, too deep, twice the same key, nor numbers that JSON lacks."""
    with pytest.raises(FederationInputError):
        decode_site(data)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """The parser says what is wrong, whatever it is given."""
    with pytest.raises(FederationInputError):
        decode_site(data)


@given(
    key=st.sampled_from(sorted(json.loads(encode_site(DOCUMENT)))),
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    ),
)
def test_no_field_raises_anything_else(key: str, value: object) -> None:
    """Any value in any field is taken or refused by name."""
    with suppress(FederationInputError):
        decode_site(json.dumps({**fields(), key: value}).encode())


def test_a_bad_document_is_not_written() -> None:
    """What no reader would take is refused where it is made."""
    with pytest.raises(FederationInputError):
        encode_site(replace(DOCUMENT, gateways=()))


def test_a_document_has_its_place() -> None:
    """The path is part of what membership signers sign."""
    assert site_path("uni-a") == "sites/uni-a/site.json"
