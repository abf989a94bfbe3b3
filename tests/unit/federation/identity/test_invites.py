"""Invites: their text, every damage to it, what they hide, and the proof of their secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import traceback
from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationError, FederationInputError, InviteError
from federation.identity.authority import SiteAuthority
from federation.identity.invite import Invite, decode
from federation.identity.proof import NONCE_BYTES, Transcript, derive, proof_key, prove, verify
from federation.limits import MAX_INVITE_CHARS, MAX_REGISTRY_SOURCES, MAX_SOURCE_CHARS

SITE = SiteAuthority.create("uni-a.example", now_s=1_800_000_000.0)
SECRET = bytes(range(100, 116))
INVITE = Invite(
    site="uni-a",
    trust_domain="uni-a.example",
    node="gpu07",
    address="gw.uni-a.example:7444",
    token_id=b"\x01\x02\x03\x04\x05\x06\x07\x08",
    authority_pem=SITE.certificate_pem,
    registry_pin=hashlib.sha256(b"root").digest(),
    registry_sources=("https://registry.example/pyrdma", "/srv/registry"),
    secret=SECRET,
)
TEXT = INVITE.encode()


def refusal(text: str) -> InviteError:
    """The error with which a text is refused; nothing of the secret stands in it."""
    with pytest.raises(InviteError) as caught:
        decode(text)
    shown = "".join(traceback.format_exception(caught.value))
    assert TEXT.rpartition(".")[2] not in shown
    assert SECRET.hex() not in shown
    return caught.value


def written(fields: dict[str, object], *, secret: bytes = SECRET, **json_options: object) -> str:
    """An invite's text of these fields, its check right, as another program might write it."""
    options: dict[str, object] = {"sort_keys": True, "separators": (",", ":")} | json_options
    plain = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    tag = hmac.new(derive(secret, b"pyrdma-invite-v1"), plain, hashlib.sha256).hexdigest()[:16]
    payload = json.dumps(fields | {"check": tag}, **options).encode()  # type: ignore[arg-type]
    return ".".join(
        (
            "pyrdma1",
            base64.urlsafe_b64encode(payload).decode().rstrip("="),
            base64.b32encode(secret).decode().rstrip("=").lower(),
        )
    )


def fields_of(text: str) -> dict[str, object]:
    """The payload of an invite's text, without its check."""
    payload = text.split(".")[1]
    fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    del fields["check"]
    return fields


def test_an_invite_survives_its_text() -> None:
    """What is read is what was written, white space around it aside."""
    assert decode(TEXT) == INVITE
    assert decode(f"\n {TEXT}\r\n") == INVITE
    assert written(fields_of(TEXT)) == TEXT


@given(
    node=st.from_regex(r"[a-z][a-z0-9-]{0,30}[a-z0-9]", fullmatch=True).filter(lambda text: text != "join"),
    token_id=st.binary(min_size=8, max_size=8),
    secret=st.binary(min_size=16, max_size=16),
    pin=st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)),
    sources=st.lists(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1),
        max_size=MAX_REGISTRY_SOURCES,
    ),
)
def test_every_invite_survives_its_text(
    node: str, token_id: bytes, secret: bytes, pin: bytes, sources: list[str]
) -> None:
    """Encoding and decoding are inverse."""
    invite = replace(
        INVITE, node=node, token_id=token_id, secret=secret, registry_pin=pin, registry_sources=tuple(sources)
    )
    assert decode(invite.encode()) == invite


def test_the_largest_invite_can_be_read() -> None:
    """The longest names and sources fit the limit."""
    domain = ".".join("a" * 90) + "b"
    pem = SiteAuthority.create(domain, now_s=0).certificate_pem
    largest = replace(
        INVITE,
        site="s" * 63,
        trust_domain=domain,
        node="n" * 63,
        authority_pem=pem,
        registry_sources=('"' * MAX_SOURCE_CHARS,) * MAX_REGISTRY_SOURCES,
    )
    assert decode(largest.encode()) == largest


def test_every_changed_character_is_noticed() -> None:
    """At each place, other characters, one less and one more are refused, never taken for an invite."""
    for at in range(len(TEXT)):
        old = TEXT[at]
        others = {"A" if old != "A" else "B", "a" if old != "a" else "b", ".", "-", "=", " ", "é", "\0"} - {
            old
        }
        for changed in (*others, "", old + old):
            text = TEXT[:at] + changed + TEXT[at + 1 :]
            if text.strip() != TEXT:
                refusal(text)


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_a_refusal(text: str) -> None:
    """Free text, as it is and in each part of an invite, is refused."""
    form, payload, secret = TEXT.split(".")
    for damaged in (
        text,
        f"{text}.{payload}.{secret}",
        f"{form}.{text}.{secret}",
        f"{form}.{payload}.{text}",
    ):
        if damaged.strip() != TEXT:
            refusal(damaged)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_no_payload_makes_anything_but_a_refusal(value: object) -> None:
    """Any JSON is refused, in the payload's place or in that of one of its values."""
    payload = base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    refusal(f"pyrdma1.{payload}.{TEXT.rpartition('.')[2]}")
    might_be_meant = {
        "node": isinstance(value, str) and value.isascii() and value.replace("-", "a").isalnum(),
        "registry_sources": isinstance(value, list) and all(isinstance(one, str) for one in value),
    }
    for key, might_be in might_be_meant.items():
        if not might_be:
            refusal(written(fields_of(TEXT) | {key: value}))


def test_a_deep_payload_is_refused() -> None:
    """Nesting that no parser follows, and nesting that it just follows, end in a refusal."""
    for depth in (12_000, 990, 960, 900, 500):
        payload = base64.urlsafe_b64encode(b'{"a":' + b"[" * depth + b"]" * depth + b"}").decode().rstrip("=")
        if len(payload) < MAX_INVITE_CHARS:
            refusal(f"pyrdma1.{payload}.{TEXT.rpartition('.')[2]}")


def _without(key: str) -> dict[str, object]:
    return {name: value for name, value in fields_of(TEXT).items() if name != key}


_OTHER_CA = SiteAuthority.create("uni-b.example", now_s=0).certificate_pem.decode()


_REFUSALS = [
    ("", "is no invite"),
    ("x" * (MAX_INVITE_CHARS + 1), f"more than {MAX_INVITE_CHARS} characters"),
    ("pyrdma2" + TEXT[7:], "a form that this agent does not know"),
    ("pyrdma2.anything", "a form that this agent does not know"),
    (TEXT.rpartition(".")[0], "three parts"),
    (TEXT + ".x", "three parts"),
    (TEXT[:-1], "26 letters and digits"),
    (TEXT.upper().replace("PYRDMA", "pyrdma"), "26 letters and digits"),
    ("pyrdma1.!!!!." + TEXT.rpartition(".")[2], "cannot be read"),
    ("pyrdma1.W10." + TEXT.rpartition(".")[2], "cannot be read"),
    ("pyrdma1.e30." + TEXT.rpartition(".")[2], "a character was lost or changed"),
    (TEXT[:-26] + "b" * 25 + "a", "a character was lost or changed"),
    (written(fields_of(TEXT) | {"colour": "blue"}), "more than this agent knows"),
    (written(_without("address")), "lacks address"),
    (written(fields_of(TEXT) | {"node": 7}), "neither text nor a list"),
    (written(fields_of(TEXT) | {"node": ["gpu07"]}), "a list where a text belongs"),
    (written(fields_of(TEXT) | {"registry_sources": "x"}), "a list where a text belongs"),
    (written(fields_of(TEXT) | {"node": "join"}), "no node may be called join"),
    (written(fields_of(TEXT) | {"node": "GPU"}), "a node's name"),
    (written(fields_of(TEXT) | {"site": "uni a"}), "a site's name"),
    (written(fields_of(TEXT) | {"trust_domain": "uni-a"}), "a trust domain"),
    (written(fields_of(TEXT) | {"address": "gw"}), "an address is"),
    (written(fields_of(TEXT) | {"token_id": "01"}), "an id of 8 bytes"),
    (written(fields_of(TEXT) | {"token_id": "x"}), "hexadecimal"),
    (written(fields_of(TEXT) | {"token_id": "01 02 03 04 05 06 07 08"}), "the one way"),
    (written(fields_of(TEXT) | {"registry_pin": "00" * 31}), "registry pin"),
    (written(fields_of(TEXT) | {"registry_sources": ["x"] * 9}), "at most 8 places"),
    (written(fields_of(TEXT) | {"registry_sources": ["x\n"]}), "a place of the registry"),
    (written(fields_of(TEXT) | {"registry_sources": ["x" * 513]}), "a place of the registry"),
    (written(fields_of(TEXT) | {"authority": "x"}), "exactly one certificate"),
    (written(fields_of(TEXT) | {"authority": "é"}), "hexadecimal or ASCII"),
    (written(fields_of(TEXT) | {"authority": _OTHER_CA}), "the CA certificate of uni-a.example"),
    (written(fields_of(TEXT), indent=1), "the one way"),
    (written(fields_of(TEXT), sort_keys=False, separators=(", ", ":")), "the one way"),
]


@pytest.mark.parametrize(("text", "sentence"), _REFUSALS, ids=[sentence for _, sentence in _REFUSALS])
def test_each_refusal_says_what_is_wrong(text: str, sentence: str) -> None:
    """The sentence names the fault, and the fix is never empty."""
    error = refusal(text)
    assert sentence in error.message
    assert error.fix


def test_an_invite_that_cannot_be_is_not_made() -> None:
    """The site's side refuses wrong parts as well, before it prints a text that nobody can read."""
    for change in (
        {"node": "join"},
        {"secret": b"short"},
        {"token_id": b""},
        {"registry_pin": b"x"},
        {"registry_sources": ("",)},
        {"authority_pem": b"x"},
        {"trust_domain": "uni-b.example"},
    ):
        with pytest.raises(FederationError):
            replace(INVITE, **change)


def test_the_secret_is_not_shown() -> None:
    """Neither repr nor str nor a format string has the secret, in any spelling."""
    for shown in (repr(INVITE), str(INVITE), f"{INVITE}", repr([INVITE])):
        assert "secret" not in shown
        for spelling in (SECRET.decode(), SECRET.hex(), TEXT.rpartition(".")[2], repr(SECRET)):
            assert spelling not in shown


def test_the_payload_alone_does_not_give_the_secret_away() -> None:
    """Two invites that differ in their secret alone have payloads that differ in their check alone."""
    other = replace(INVITE, secret=bytes(16)).encode()
    assert fields_of(other) == fields_of(TEXT)
    assert other.split(".")[1] != TEXT.split(".")[1]


TRANSCRIPT = Transcript(
    authority_spki_sha256=hashlib.sha256(b"ca").digest(),
    trust_domain="uni-a.example",
    node="gpu07",
    node_nonce=b"n" * NONCE_BYTES,
    site_nonce=b"s" * NONCE_BYTES,
    csr_sha256=hashlib.sha256(b"csr").digest(),
)
KEY = proof_key(SECRET)


def test_a_proof_is_right_for_its_key_and_transcript_alone() -> None:
    """Every other key and every other part of the transcript makes it wrong."""
    proof = prove(KEY, transcript=TRANSCRIPT)
    assert verify(KEY, transcript=TRANSCRIPT, proof=proof)
    assert not verify(proof_key(bytes(16)), transcript=TRANSCRIPT, proof=proof)
    for change in (
        {"authority_spki_sha256": bytes(32)},
        {"trust_domain": "uni-b.example"},
        {"node": "gpu08"},
        {"node_nonce": bytes(NONCE_BYTES)},
        {"site_nonce": bytes(NONCE_BYTES)},
        {"csr_sha256": bytes(32)},
    ):
        assert not verify(KEY, transcript=replace(TRANSCRIPT, **change), proof=proof), change
    for wrong in (b"", proof[:-1], proof + b"\0", bytes(32)):
        assert not verify(KEY, transcript=TRANSCRIPT, proof=wrong)


def test_a_proof_is_what_the_protocol_says() -> None:
    """HMAC-SHA256 under HKDF of the secret, over each part after its length: worked out here once more."""
    parts = [b"pyrdma-join-v1"]
    parts += [one.encode() if isinstance(one, str) else one for one in astuple(TRANSCRIPT)]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert TRANSCRIPT.encode() == message
    extracted = hmac.new(bytes(32), SECRET, hashlib.sha256).digest()
    key = hmac.new(extracted, b"pyrdma-join-v1\x01", hashlib.sha256).digest()
    assert prove(KEY, transcript=TRANSCRIPT) == hmac.new(key, message, hashlib.sha256).digest()


def test_names_cannot_move_between_parts() -> None:
    """Two transcripts whose names run together alike are still two."""
    first = replace(TRANSCRIPT, trust_domain="a.bc", node="d")
    second = replace(TRANSCRIPT, trust_domain="a.b", node="cd")
    assert first.encode() != second.encode()


@pytest.mark.parametrize("part", ["authority_spki_sha256", "node_nonce", "site_nonce", "csr_sha256"])
def test_parts_of_a_transcript_have_their_sizes(part: str) -> None:
    """A nonce or digest of another size is refused: an empty nonce would make a proof that lasts."""
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(FederationInputError):
            replace(TRANSCRIPT, **{part: wrong})
