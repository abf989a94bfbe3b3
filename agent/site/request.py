"""A site's request to its consortium, made from what its gateway has."""

from __future__ import annotations

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
    authority, models = home.site_authority(), home.models_key()
    public = models.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    document = SiteDocument(
        site=config.site,
        trust_domain=config.trust_domain,
        authorities=(authority.certificate_pem.decode(),),
        gateways=(GatewayAddress(config.node, config.address),),
        models_key=public.decode(),
        region=config.region,
    )
    return encode_request(make_request(document, [key_from_pem(authority.key_pem)], models))
