"""A site's request to its consortium, made from what its gateway has."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.site.config import SiteConfig
from agent.site.home import SiteHome
from federation.identity.keys import key_from_pem
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.request import encode_request, make_request


def site_request(home: SiteHome, config: SiteConfig) -> bytes:
    """Return the content of the file that the consortium's signers get: public keys, and proofs of them.

    Raises:
        StateError: the site's files cannot be read.
        FederationInputError: something in them cannot stand in a registry.
    """
    authority, models, receipts = home.site_authority(), home.models_key(), home.receipts_key()
    document = SiteDocument(
        site=config.site,
        trust_domain=config.trust_domain,
        authorities=(authority.certificate_pem.decode(),),
        gateways=(GatewayAddress(config.node, config.address),),
        models_key=public_pem(models),
        region=config.region,
        receipts_key=public_pem(receipts),
    )
    return encode_request(make_request(document, [key_from_pem(authority.key_pem)], models, receipts))


def public_pem(key: Ed25519PrivateKey) -> str:
    """Return a key's public half as it stands in a site's document."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
