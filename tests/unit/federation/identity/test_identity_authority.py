"""A site's CA: what it makes, what it signs and what it refuses; and what others accept as a site's CA."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.errors import EnrolmentError, FederationInputError, IdentityError
from federation.identity.authority import SiteAuthority, make_csr
from federation.identity.binding import check_authority
from federation.identity.keys import key_from_pem, key_to_pem, new_key, spki_sha256
from federation.identity.names import NodeIdentity
from federation.identity.shape import authority_extensions, authority_name, node_names
from federation.limits import AUTHORITY_CERTIFICATE_S, CLOCK_SKEW_S, MAX_REQUEST_BYTES, NODE_CERTIFICATE_S

DNS, URI = x509.DNSName, x509.UniformResourceIdentifier


def request(names, key=None, *, subject=(), extra=(), attribute: bool = False) -> bytes:
    """A certificate request for these names, and for whatever else."""
    key = key or new_key()
    draft = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(list(subject)))
    if names is not None:
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for value in extra:
        draft = draft.add_extension(value, critical=True)
    if attribute:
        draft = draft.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"open sesame")
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return draft.sign(key, algorithm).public_bytes(Encoding.DER)


def test_a_sites_ca_has_the_one_shape(shop) -> None:
    """P-256, path length 0, critical constraints to its names, a year at most; everybody accepts it."""
    site = SiteAuthority.create("uni-a.example", now_s=shop.now_s)
    found = check_authority(site.certificate_pem, "uni-a.example", now_s=shop.now_s)
    constraints = found.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [DNS("uni-a.example"), URI("uni-a.example")]
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert found.not_valid_after_utc - found.not_valid_before_utc <= timedelta(days=365, seconds=CLOCK_SKEW_S)


def test_a_ca_is_loaded_from_its_two_texts(shop) -> None:
    """What was written is read again, and signs as before."""
    site = SiteAuthority.load(shop.a.key_pem, shop.a.certificate_pem)
    assert (site.trust_domain, site.certificate) == ("uni-a.example", shop.a.certificate)
    assert shop.binding.identify(shop.issue(site), now_s=shop.now_s) == shop.node
    assert "KEY" not in repr(site)


def test_a_ca_is_not_loaded_from_texts_that_do_not_belong_together(shop) -> None:
    """Another site's key, a node's certificate or a key of another kind: refused."""
    with pytest.raises(IdentityError, match="not of the CA's key"):
        SiteAuthority.load(shop.b.key_pem, shop.a.certificate_pem)
    with pytest.raises(IdentityError, match="not that of a site's CA"):
        SiteAuthority.load(shop.a.key_pem, shop.issue())
    with pytest.raises(IdentityError, match="P-256"):
        SiteAuthority.load(key_to_pem(ec.generate_private_key(ec.SECP384R1())), shop.a.certificate_pem)
    with pytest.raises(IdentityError, match="no private key"):
        SiteAuthority.load(b"", shop.a.certificate_pem)


def test_a_key_survives_its_text_and_is_named_by_its_public_part() -> None:
    """PEM and back is the same key; its name is that of the public key, alike on both sides."""
    key = new_key()
    again = key_from_pem(key_to_pem(key))
    assert again.private_numbers() == key.private_numbers()
    assert spki_sha256(again.public_key()) == spki_sha256(key.public_key())
    assert spki_sha256(new_key().public_key()) != spki_sha256(key.public_key())


def test_a_nodes_certificate_says_that_node_and_no_more(shop) -> None:
    """Two names, no subject, both purposes, no right to sign, a day, and a serial of its own."""
    leaf = x509.load_pem_x509_certificate(shop.issue())
    assert leaf.subject == x509.Name([])
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == node_names(shop.node)
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert len(leaf.extensions) == 5
    assert leaf.not_valid_before_utc.timestamp() == shop.now_s - CLOCK_SKEW_S
    assert leaf.not_valid_after_utc.timestamp() == shop.now_s + NODE_CERTIFICATE_S
    assert x509.load_pem_x509_certificate(shop.issue()).serial_number != leaf.serial_number


def test_a_certificate_is_for_the_key_that_asked(shop) -> None:
    """The request's key is the certificate's."""
    key = new_key()
    pem = shop.a.issue(make_csr(key, shop.node), shop.node, now_s=shop.now_s)
    assert x509.load_pem_x509_certificate(pem).public_key() == key.public_key()


OWN = [DNS("gpu07.uni-a.example"), URI("spiffe://uni-a.example/node/gpu07")]
LIES = {
    "another node": request([DNS("gpu08.uni-a.example"), URI("spiffe://uni-a.example/node/gpu08")]),
    "another site": request([DNS("gpu07.uni-b.example"), URI("spiffe://uni-b.example/node/gpu07")]),
    "other's URI": request([OWN[0], URI("spiffe://uni-b.example/node/gpu07")]),
    "one more name": request([*OWN, DNS("join.uni-a.example")]),
    "one name less": request(OWN[:1]),
    "other order": request(OWN[::-1]),
    "no names": request(None),
    "a subject": request(OWN, subject=[x509.NameAttribute(NameOID.COMMON_NAME, "gpu08.uni-a.example")]),
    "a CA": request(OWN, extra=[x509.BasicConstraints(ca=True, path_length=None)]),
    "a purpose": request(OWN, extra=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])]),
    "an attribute": request(OWN, attribute=True),
    "ed25519": request(OWN, ed25519.Ed25519PrivateKey.generate()),
    "rsa": request(OWN, rsa.generate_private_key(65537, 2048)),
    "p384": request(OWN, ec.generate_private_key(ec.SECP384R1())),
    "too long": request([*OWN, *(DNS(f"n{at}.uni-a.example") for at in range(200))]),
    "nothing": b"",
    "text": b"-----BEGIN CERTIFICATE REQUEST-----",
    "more behind": make_csr(new_key(), NodeIdentity("uni-a.example", "gpu07")) + b"\0",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_request_that_is_not_exactly_the_nodes_is_refused(shop, lie: str) -> None:
    """Nothing is corrected, nothing issued: one node's names with a P-256 key, or a refusal."""
    with pytest.raises(IdentityError, match="certificate request") as caught:
        shop.a.issue(LIES[lie], shop.node, now_s=shop.now_s)
    wanted = {"ed25519": "P-256", "rsa": "P-256", "p384": "P-256", "too long": str(MAX_REQUEST_BYTES)}
    assert wanted.get(lie, "") in caught.value.message


def test_a_request_is_signed_by_its_own_key(shop) -> None:
    """Somebody else's public key cannot be asked a certificate for."""
    der = bytearray(make_csr(new_key(), shop.node))
    ours = x509.load_der_x509_csr(bytes(der))
    other = new_key().public_key().public_numbers()
    mine = ours.public_key().public_numbers()
    old = mine.x.to_bytes(32, "big") + mine.y.to_bytes(32, "big")
    new = other.x.to_bytes(32, "big") + other.y.to_bytes(32, "big")
    assert old in bytes(der)
    with pytest.raises(IdentityError, match="not signed by its own key"):
        shop.a.issue(bytes(der).replace(old, new), shop.node, now_s=shop.now_s)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_request_is_refused_and_nothing_else_happens(shop, at: int, value: int, cut: bool) -> None:
    """It raises IdentityError, or gets what the whole one gets: a signature may name unused bits."""
    key = new_key()
    whole = make_csr(key, shop.node)
    at %= len(whole)
    der = whole[:at] + (b"" if cut else bytes([value]) + whole[at + 1 :])
    with suppress(IdentityError):
        issued = x509.load_pem_x509_certificate(shop.a.issue(der, shop.node, now_s=shop.now_s))
        assert issued.public_key() == key.public_key()
        assert len(der) == len(whole)


def test_a_site_issues_below_its_own_trust_domain_and_never_the_enrolment_ports_name(shop) -> None:
    """Another site's node, and a node called join, are refused before the request is looked at."""
    for identity in (NodeIdentity("uni-b.example", "gpu07"), NodeIdentity("uni-a.example", "join")):
        with pytest.raises(FederationInputError):
            shop.issue(shop.a, identity)


@pytest.mark.parametrize("lifetime_s", [0.0, -1.0, NODE_CERTIFICATE_S + 1, float("nan")])
def test_a_lifetime_has_a_bound(shop, lifetime_s: float) -> None:
    """No node's certificate for more than a day, and none for no time."""
    with pytest.raises(FederationInputError):
        shop.issue(lifetime_s=lifetime_s)


def test_a_ca_is_made_for_a_trust_domain_and_a_year_at_most(shop) -> None:
    """Other names and longer lives are refused."""
    with pytest.raises(FederationInputError):
        SiteAuthority.create("example", now_s=shop.now_s)
    with pytest.raises(FederationInputError):
        SiteAuthority.create("uni-a.example", now_s=shop.now_s, lifetime_s=AUTHORITY_CERTIFICATE_S + 1)


def test_no_certificate_outlives_the_ca(shop) -> None:
    """Near the CA's end a certificate ends with it; after it nothing is signed."""
    site = SiteAuthority.create("uni-a.example", now_s=shop.now_s, lifetime_s=3600)
    leaf = x509.load_pem_x509_certificate(shop.issue(site))
    assert leaf.not_valid_after_utc == site.certificate.not_valid_after_utc
    for now_s in (shop.now_s + 3600, shop.now_s - CLOCK_SKEW_S - 1):
        with pytest.raises(EnrolmentError, match="signs nothing"):
            shop.issue(site, now_s=now_s)
        with pytest.raises(EnrolmentError, match="signs nothing"):
            site.issue_join(now_s=now_s)


def test_the_enrolment_port_has_a_key_and_a_name_of_its_own(shop) -> None:
    """``join.TRUST-DOMAIN``, for servers alone, no node's URI, and another key each time."""
    key_pem, pem = shop.a.issue_join(now_s=shop.now_s)
    leaf = x509.load_pem_x509_certificate(pem)
    assert leaf.public_key() == key_from_pem(key_pem).public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [DNS("join.uni-a.example")]
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert shop.a.issue_join(now_s=shop.now_s)[0] != key_pem


def _changed(kind: type[x509.ExtensionType], value: x509.ExtensionType | None, *, critical: bool = True):
    """A site's extensions, one of them another, or left out."""

    def extensions(key):
        usual = authority_extensions("uni-a.example", key.public_key())
        rest = [one for one in usual if not isinstance(one[0], kind)]
        return [*rest, (value, critical)] if value is not None else rest

    return extensions


def _constraints(*permitted: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints(list(permitted), None)


_USAGE = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    False,
)
OTHER_CAS = {
    "no path length": _changed(x509.BasicConstraints, x509.BasicConstraints(True, None)),
    "path length 1": _changed(x509.BasicConstraints, x509.BasicConstraints(True, 1)),
    "no CA": _changed(x509.BasicConstraints, x509.BasicConstraints(False, None)),
    "mark not critical": _changed(x509.BasicConstraints, x509.BasicConstraints(True, 0), critical=False),
    "no constraints": _changed(x509.NameConstraints, None),
    "DNS constraint alone": _changed(x509.NameConstraints, _constraints(DNS("uni-a.example"))),
    "URI constraint alone": _changed(x509.NameConstraints, _constraints(URI("uni-a.example"))),
    "other's as well": _changed(
        x509.NameConstraints,
        _constraints(DNS("uni-a.example"), URI("uni-a.example"), URI("uni-b.example")),
    ),
    "wider": _changed(x509.NameConstraints, _constraints(DNS("example"), URI("uni-a.example"))),
    "all hosts below": _changed(
        x509.NameConstraints, _constraints(DNS("uni-a.example"), URI(".uni-a.example"))
    ),
    "constraints not critical": _changed(
        x509.NameConstraints, _constraints(DNS("uni-a.example"), URI("uni-a.example")), critical=False
    ),
    "another usage": _changed(
        x509.KeyUsage,
        x509.KeyUsage(
            **_USAGE | {"digital_signature": True},
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        ),
    ),
    "no identifier": _changed(x509.SubjectKeyIdentifier, None),
    "another key's identifier": _changed(
        x509.SubjectKeyIdentifier, x509.SubjectKeyIdentifier(b"\1" * 20), critical=False
    ),
    "more": _changed(x509.ExtendedKeyUsage, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
}


@pytest.mark.parametrize("kind", OTHER_CAS)
def test_a_ca_of_another_shape_is_refused(shop, make_authority, kind: str) -> None:
    """What a site registers as its CA has exactly our shape, or does not come in."""
    key = new_key()
    other = make_authority(key, authority_name("uni-a.example"), OTHER_CAS[kind](key))
    with pytest.raises(IdentityError, match=r"the CA certificate of uni-a\.example"):
        check_authority(other.public_bytes(Encoding.PEM), "uni-a.example", now_s=shop.now_s)


@pytest.mark.parametrize(
    "make", [lambda: ec.generate_private_key(ec.SECP384R1()), lambda: rsa.generate_private_key(65537, 2048)]
)
def test_a_cas_key_is_p256(shop, make_authority, make) -> None:
    """Keys of other kinds are refused."""
    key = make()
    usual = authority_extensions("uni-a.example", new_key().public_key())[:3]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    other = make_authority(key, authority_name("uni-a.example"), [*usual, (identifier, False)])
    with pytest.raises(IdentityError, match="P-256"):
        check_authority(other.public_bytes(Encoding.PEM), "uni-a.example", now_s=shop.now_s)


def test_a_ca_has_its_own_name_signature_and_time(shop, make_authority) -> None:
    """Another subject or signer, more than a year, or a time that is over: refused, each by name."""
    key, name = new_key(), authority_name("uni-a.example")
    usual = authority_extensions("uni-a.example", key.public_key())
    year_s = AUTHORITY_CERTIFICATE_S
    wrong = {
        "another subject": make_authority(key, authority_name("uni-b.example"), usual),
        "its own key": make_authority(key, name, usual, signing_key=new_key()),
        "more than a year": make_authority(key, name, usual, begins_s=0, ends_s=shop.now_s + year_s),
        "past its end": make_authority(key, name, usual, ends_s=shop.now_s - CLOCK_SKEW_S - 1),
        "not yet begun": make_authority(key, name, usual, begins_s=shop.now_s + CLOCK_SKEW_S + 1),
    }
    for sentence, certificate in wrong.items():
        with pytest.raises(IdentityError, match=sentence):
            check_authority(certificate.public_bytes(Encoding.PEM), "uni-a.example", now_s=shop.now_s)


def test_a_ca_of_the_longest_names_and_its_nodes_fit_the_limits(shop) -> None:
    """No site that may have its name is locked out by the size of its certificates."""
    domain = ".".join("a" * 90) + "b"
    who = NodeIdentity(domain, "n" * 63)
    site = SiteAuthority.create(domain, now_s=shop.now_s)
    check_authority(site.certificate_pem, domain, now_s=shop.now_s)
    shop.issue(site, who)
