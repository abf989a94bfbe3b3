"""Which node a certificate proves: leaf shapes under every kind of CA, signers, times, hostile bytes."""

from __future__ import annotations

import base64
import ipaddress
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from federation.errors import IdentityError
from federation.identity.authority import SiteAuthority
from federation.identity.binding import Binding
from federation.identity.keys import key_from_pem, new_key, spki_sha256
from federation.identity.names import NodeIdentity
from federation.identity.shape import AUTHORITY_CONSTRAINTS, AUTHORITY_USAGE, authority_name, node_names
from federation.limits import CLOCK_SKEW_S, MAX_CERTIFICATE_PEM_BYTES, NODE_CERTIFICATE_S

DNS, URI = x509.DNSName, x509.UniformResourceIdentifier
OWN_DNS, OTHER_DNS = DNS("gpu07.uni-a.example"), DNS("gpu07.uni-b.example")
OWN_URI, OTHER_URI = URI("spiffe://uni-a.example/node/gpu07"), URI("spiffe://uni-b.example/node/gpu07")

SHAPES = {
    "own DNS and URI": [OWN_DNS, OWN_URI],
    "other's URI": [OWN_DNS, OTHER_URI],
    "two URIs": [OWN_DNS, OWN_URI, OTHER_URI],
    "confusable host": [OWN_DNS, URI("spiffe://uni-b.example.uni-a.example/node/gpu07")],
    "userinfo host": [OWN_DNS, URI("spiffe://uni-a.example@uni-b.example/node/gpu07")],
    "other's DNS": [OTHER_DNS, OWN_URI],
    "other's both": [OTHER_DNS, OTHER_URI],
    "DNS alone": [OWN_DNS],
    "URI alone": [OWN_URI],
    "two DNS names": [OWN_DNS, OTHER_DNS, OWN_URI],
    "wrong order": [OWN_URI, OWN_DNS],
    "an address as well": [OWN_DNS, OWN_URI, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
    "mail as well": [OWN_DNS, OWN_URI, x509.RFC822Name("root@uni-a.example")],
    "wildcard": [DNS("*.uni-a.example"), URI("spiffe://uni-a.example/node/*")],
    "upper case": [DNS("GPU07.uni-a.example"), URI("spiffe://uni-a.example/node/GPU07")],
    "absolute name": [DNS("gpu07.uni-a.example."), URI("spiffe://uni-a.example./node/gpu07")],
    "port": [OWN_DNS, URI("spiffe://uni-a.example:443/node/gpu07")],
    "query": [OWN_DNS, URI("spiffe://uni-a.example/node/gpu07?x")],
    "fragment": [OWN_DNS, URI("spiffe://uni-a.example/node/gpu07#x")],
    "deeper path": [OWN_DNS, URI("spiffe://uni-a.example/node/gpu07/x")],
    "line end": [OWN_DNS, URI("spiffe://uni-a.example/node/gpu07\n")],
    "percent": [OWN_DNS, URI("spiffe://uni-a.example/node/gpu0%37")],
    "another scheme": [OWN_DNS, URI("https://uni-a.example/node/gpu07")],
    "two labels": [DNS("rack1.gpu07.uni-a.example"), URI("spiffe://uni-a.example/node/rack1.gpu07")],
    "the enrolment port": [DNS("join.uni-a.example"), URI("spiffe://uni-a.example/node/join")],
}
CONSTRAINTS = {
    "none": None,
    "DNS": [DNS("uni-a.example")],
    "URI": [URI("uni-a.example")],
    "DNS and URI": [DNS("uni-a.example"), URI("uni-a.example")],
}


def refusal(shop, pem: bytes, now_s: float | None = None) -> str:
    """The sentence with which a certificate is refused."""
    with pytest.raises(IdentityError) as caught:
        shop.binding.identify(pem, now_s=shop.now_s if now_s is None else now_s)
    return caught.value.message


@pytest.mark.parametrize("kind", CONSTRAINTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_shape_of_leaf_alone_is_a_node(shop, make_authority, shape: str, kind: str) -> None:
    """Whatever constraints the CA certificate of the site's key has, the leaf's own shape decides."""
    key = key_from_pem(shop.a.key_pem)
    permitted = CONSTRAINTS[kind]
    constraints = [] if permitted is None else [(x509.NameConstraints(permitted, None), True)]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    extensions = [(AUTHORITY_CONSTRAINTS, True), (AUTHORITY_USAGE, True), *constraints, (identifier, False)]
    authority = make_authority(key, shop.a.certificate.subject, extensions)
    leaf = shop.forge(SHAPES[shape], issuer=authority.subject)
    x509.load_pem_x509_certificate(leaf).verify_directly_issued_by(authority)
    if shape == "own DNS and URI":
        assert shop.binding.identify(leaf, now_s=shop.now_s) == shop.node
    else:
        refusal(shop, leaf)
    if kind == "DNS and URI":
        Binding({"uni-a.example": [authority]})
    else:
        with pytest.raises(IdentityError, match="constraints to its trust domain"):
            Binding({"uni-a.example": [authority]})


def _edits(text: str) -> st.SearchStrategy[str]:
    characters = st.sampled_from("abgux0789-./:@?#%* \n\0AZ")
    places = st.integers(0, len(text))
    inserted = st.builds(lambda at, c: text[:at] + c + text[at:], places, characters)
    removed = st.builds(lambda at: text[:at] + text[at + 1 :], places)
    changed = st.builds(lambda at, c: text[:at] + c + text[at + 1 :], places, characters)
    return st.one_of(st.just(text), inserted, removed, changed, st.just(text.upper()))


_TEXTS = [OWN_DNS.value, OTHER_DNS.value, OWN_URI.value, OTHER_URI.value]
_NAMES = st.one_of(
    *(st.builds(DNS, _edits(text)) for text in _TEXTS[:2]),
    *(st.builds(URI, _edits(text)) for text in _TEXTS[2:]),
    st.builds(DNS, st.sampled_from(_TEXTS[2:])),
    st.builds(URI, st.sampled_from(_TEXTS[:2])),
    st.builds(x509.RFC822Name, st.sampled_from(_TEXTS[:2])),
    st.builds(x509.IPAddress, st.ip_addresses()),
    st.just(x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4"))),
    st.just(x509.DirectoryName(authority_name("uni-a.example"))),
)
_PAIRS = st.tuples(
    st.one_of(*(st.builds(DNS, _edits(text)) for text in _TEXTS[:2])),
    st.one_of(*(st.builds(URI, _edits(text)) for text in _TEXTS[2:])),
).map(list)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the parser's, about names that no one should write
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.one_of(_PAIRS, st.lists(_NAMES, min_size=1, max_size=3)),
    rogue=st.booleans(),
    claim=st.booleans(),
)
@example(names=[OWN_DNS, OWN_URI], rogue=False, claim=True)
@example(names=[OWN_DNS, OWN_URI], rogue=True, claim=True)
@example(names=[OTHER_DNS, OTHER_URI], rogue=True, claim=False)
def test_no_variant_of_the_names_makes_another_node(shop, names, rogue: bool, claim: bool) -> None:
    """A site signs what it likes: what passes is a node of its own, named exactly so, and nothing else."""
    signer = shop.b if rogue else shop.a
    leaf = shop.forge(names, signer=signer, claimed=shop.a if claim else signer)
    try:
        found = shop.binding.identify(leaf, now_s=shop.now_s)
    except IdentityError:
        assert signer is shop.b or names != [OWN_DNS, OWN_URI]
        return
    assert found.trust_domain == signer.trust_domain
    assert names == list(node_names(found))


@pytest.mark.parametrize("claimed", ["b", "a"])
def test_another_sites_ca_cannot_name_our_node(shop, claimed: str) -> None:
    """Signed by site B, under its own name or under A's: refused, though both CAs are known."""
    leaf = shop.forge(signer=shop.b, claimed=getattr(shop, claimed))
    assert "not issued by its site's CA" in refusal(shop, leaf)


def test_a_ca_below_a_sites_ca_signs_no_nodes(shop, make_authority) -> None:
    """A leaf of a sub-CA is refused: the site's CA signs directly, or not at all."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sub")])
    make_authority(
        key,
        name,
        [(AUTHORITY_CONSTRAINTS, True)],
        signing_key=key_from_pem(shop.a.key_pem),
        issuer=shop.a.certificate.subject,
    )
    for issuer in (name, shop.a.certificate.subject):
        assert "not issued by its site's CA" in refusal(shop, shop.forge(signing_key=key, issuer=issuer))


def test_a_ca_is_no_node(shop) -> None:
    """Neither a site's own CA certificate nor a leaf that may sign is taken for a node's."""
    refusal(shop, shop.a.certificate_pem)
    for length in (None, 0):
        mark = x509.BasicConstraints(ca=True, path_length=length)
        leaf = shop.forge(replace={x509.BasicConstraints: (mark, True)})
        assert refusal(shop, leaf) == "the certificate is a CA's, and a CA is no node."
    refusal(shop, shop.forge(replace={x509.KeyUsage: (AUTHORITY_USAGE, True)}))


def test_the_enrolment_ports_certificate_is_no_node(shop) -> None:
    """It serves TLS under its own name, and identifies nobody."""
    _, pem = shop.a.issue_join(now_s=shop.now_s)
    refusal(shop, pem)


@pytest.mark.parametrize(
    "kind",
    [
        x509.SubjectAlternativeName,
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.AuthorityKeyIdentifier,
    ],
)
def test_no_part_of_the_shape_may_be_missing(shop, kind: type[x509.ExtensionType]) -> None:
    """Each extension of a node's certificate is needed."""
    assert "lacks an extension" in refusal(shop, shop.forge(replace={kind: None}))


@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
def test_a_node_both_calls_and_answers(shop, purpose: x509.ObjectIdentifier) -> None:
    """A certificate for one of the two alone is refused."""
    half = x509.ExtendedKeyUsage([purpose])
    assert "calls and answers" in refusal(shop, shop.forge(replace={x509.ExtendedKeyUsage: (half, False)}))


def test_what_a_newer_site_adds_is_tolerated_unless_critical(shop) -> None:
    """An unknown extension passes, an unknown critical one does not."""
    new = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    assert shop.binding.identify(shop.forge(extra=[(new, False)]), now_s=shop.now_s) == shop.node
    assert "critical" in refusal(shop, shop.forge(extra=[(new, True)]))


@pytest.mark.parametrize(
    "make",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=["ed25519", "rsa", "p384", "k256"],
)
def test_a_nodes_key_is_p256(shop, make) -> None:
    """Keys of other kinds are refused, even where the site's CA signed them."""
    assert "P-256" in refusal(shop, shop.forge(key=make().public_key()))


def test_a_changed_copy_of_a_certificate_is_the_same_node(shop) -> None:
    """Another signature over the same content has another fingerprint; node and key are the same."""
    leaf = x509.load_pem_x509_certificate(shop.issue())
    r, s = decode_dss_signature(leaf.signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    content = (
        leaf.tbs_certificate_bytes
        + bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
        + _der(0x03, b"\0" + encode_dss_signature(r, order - s))
    )
    copy = x509.load_der_x509_certificate(_der(0x30, content))
    assert copy.fingerprint(leaf.signature_hash_algorithm) != leaf.fingerprint(leaf.signature_hash_algorithm)
    assert spki_sha256(copy.public_key()) == spki_sha256(leaf.public_key())
    pem = copy.public_bytes(Encoding.PEM)
    assert shop.binding.identify(pem, now_s=shop.now_s) == shop.node


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(length)]) + length + content


def test_a_certificate_counts_within_its_times_and_a_skew_around_them(shop) -> None:
    """Half a minute of clock difference is tolerated on either side, a second more is not."""
    leaf = shop.forge(begins_s=shop.now_s, ends_s=shop.now_s + 3600)
    for inside in (-CLOCK_SKEW_S, 0, 3600 + CLOCK_SKEW_S):
        assert shop.binding.identify(leaf, now_s=shop.now_s + inside) == shop.node
    assert "not valid yet" in refusal(shop, leaf, shop.now_s - CLOCK_SKEW_S - 1)
    assert "has expired" in refusal(shop, leaf, shop.now_s + 3600 + CLOCK_SKEW_S + 1)


def test_a_life_of_more_than_a_day_is_refused(shop) -> None:
    """However careless a site's CA is, a stolen key of one of its nodes is good for a day."""
    ends_s = shop.now_s + NODE_CERTIFICATE_S + CLOCK_SKEW_S
    assert shop.binding.identify(shop.forge(ends_s=ends_s), now_s=shop.now_s) == shop.node
    assert "longer than a day" in refusal(shop, shop.forge(ends_s=ends_s + 1))


def test_nothing_is_valid_under_a_ca_past_its_end(shop) -> None:
    """A leaf's own time does not count once its CA's is over."""
    site = SiteAuthority.create("uni-c.example", now_s=shop.now_s, lifetime_s=3600)
    binding = Binding({"uni-c.example": [site.certificate]})
    who = NodeIdentity("uni-c.example", "n1")
    later_s = shop.now_s + 3600 + CLOCK_SKEW_S + 1
    leaf = shop.forge(list(node_names(who)), signer=site, ends_s=later_s + 600)
    assert binding.identify(leaf, now_s=shop.now_s) == who
    with pytest.raises(IdentityError, match="past its end"):
        binding.identify(leaf, now_s=later_s)


def test_an_unknown_trust_domain_is_named(shop) -> None:
    """A site that is not known here is refused, and the sentence says which."""
    site = SiteAuthority.create("uni-x.example", now_s=shop.now_s)
    leaf = shop.issue(site, NodeIdentity("uni-x.example", "n1"))
    assert refusal(shop, leaf) == "no site known here has the trust domain uni-x.example."
    with pytest.raises(IdentityError):
        Binding({}).identify(shop.issue(), now_s=shop.now_s)


def test_two_cas_of_a_site_overlap(shop) -> None:
    """While a CA takes over from another, nodes of both are known; a third CA is too many."""
    first, second, third = (SiteAuthority.create("uni-a.example", now_s=shop.now_s) for _ in range(3))
    binding = Binding({"uni-a.example": [first.certificate, second.certificate_pem]})
    for site in (first, second):
        assert binding.identify(shop.issue(site), now_s=shop.now_s) == shop.node
    with pytest.raises(IdentityError, match="not issued by its site's CA"):
        binding.identify(shop.issue(third), now_s=shop.now_s)
    with pytest.raises(IdentityError, match="more than 2"):
        Binding({"uni-a.example": [first.certificate, second.certificate, third.certificate]})


def test_one_key_may_have_an_old_and_a_new_ca_certificate(shop, make_authority) -> None:
    """A CA that was renewed with its key vouches on, in whichever order its certificates stand."""
    key = key_from_pem(shop.a.key_pem)
    extensions = [(one.value, one.critical) for one in shop.a.certificate.extensions]
    name = shop.a.certificate.subject
    ended = make_authority(key, name, extensions, ends_s=shop.now_s - 3600)
    for certificates in ([ended, shop.a.certificate], [shop.a.certificate, ended]):
        binding = Binding({"uni-a.example": certificates})
        assert binding.identify(shop.issue(), now_s=shop.now_s) == shop.node


def test_a_ca_counts_for_the_trust_domain_that_it_is_made_for_alone(shop) -> None:
    """B's CA certificate under A's trust domain is refused when it is learnt."""
    with pytest.raises(IdentityError, match=r"uni-a\.example"):
        Binding({"uni-a.example": [shop.b.certificate]})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pem: b"",
        lambda pem: pem + pem,
        lambda pem: b"hello\n" + pem,
        lambda pem: pem + b"\xff",
        lambda pem: pem.replace(b"CERTIFICATE", b"CERTIFICATE REQUEST"),
        lambda pem: pem[: len(pem) // 2],
        lambda pem: pem + b" " * MAX_CERTIFICATE_PEM_BYTES,
    ],
    ids=["nothing", "two", "text before", "not ASCII", "a request", "half", "too long"],
)
def test_a_text_is_one_certificate_of_bounded_size(shop, spoil) -> None:
    """Anything but exactly one certificate is refused."""
    refusal(shop, spoil(shop.issue()))


@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # the parser's, about certificates that no one should write
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), value=st.integers(0, 255), cut=st.booleans())
def test_damaged_bytes_are_refused_and_nothing_else_happens(shop, at: int, value: int, cut: bool) -> None:
    """A changed or cut certificate raises IdentityError, unless the change leaves the same node."""
    leaf = x509.load_pem_x509_certificate(shop.forge())
    der = bytearray(leaf.public_bytes(Encoding.DER))
    at %= len(der)
    der[at:] = b"" if cut else bytes([value]) + der[at + 1 :]
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(der)) + b"-----END CERTIFICATE-----\n"
    with suppress(IdentityError):
        assert shop.binding.identify(pem, now_s=shop.now_s) == shop.node
        assert bytes(der) == leaf.public_bytes(Encoding.DER)
