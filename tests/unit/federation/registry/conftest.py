"""A consortium with real keys and real signatures in a folder, and a client that reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from federation.identity.authority import SiteAuthority
from federation.identity.keys import key_from_pem
from federation.registry.client import RegistryClient
from federation.registry.documents import GatewayAddress, SiteDocument
from federation.registry.marks import MemoryMarks
from federation.registry.membership import ModelBinding
from federation.registry.models import sign_models
from federation.registry.repository import Consortium
from federation.registry.request import SiteRequest, make_request
from federation.registry.signing import RoleKeys
from federation.registry.tuf_api import CryptoSigner, Signer

NOW = 1_800_000_000.0


@dataclass
class Site:
    """A site with its keys."""

    name: str
    authority: SiteAuthority
    models_key: Ed25519PrivateKey
    document: SiteDocument
    receipts_key: Ed25519PrivateKey | None = None

    def request(self) -> SiteRequest:
        keys = [key_from_pem(self.authority.key_pem)]
        return make_request(self.document, keys, self.models_key, self.receipts_key)

    def change_receipts_key(self) -> str:
        """Take another receipts key; return its public half as it stands in the document."""
        self.receipts_key = Ed25519PrivateKey.generate()
        pem = public_pem(self.receipts_key)
        self.document = replace(self.document, receipts_key=pem)
        return pem

    def models(self, *names: str, version: int = 1, now_s: float = NOW) -> bytes:
        bindings = {name: ModelBinding("ab" * 32, 1000) for name in names}
        return sign_models(self.models_key, self.name, bindings, version=version, now_s=now_s)


def public_pem(key: Ed25519PrivateKey) -> str:
    """Return a key's public half as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def new_site(name: str, *, trust_domain: str = "", now_s: float = NOW) -> Site:
    """Return a new site."""
    domain = trust_domain or f"{name}.example"
    authority = SiteAuthority.create(domain, now_s=now_s)
    key = Ed25519PrivateKey.generate()
    pem = public_pem(key)
    gateways = (GatewayAddress("gpu01", f"gpu01.{domain}:7443"),)
    authorities = (authority.certificate_pem.decode(),)
    return Site(name, authority, key, SiteDocument(name, domain, authorities, gateways, pem, "north"))


@dataclass
class World:
    """A consortium and whoever reads it; root and membership take 2 of 3 keys."""

    base: Path
    root: list[CryptoSigner] = field(
        default_factory=lambda: [CryptoSigner.generate_ed25519() for _ in range(3)]
    )
    members: list[CryptoSigner] = field(
        default_factory=lambda: [CryptoSigner.generate_ed25519() for _ in range(3)]
    )
    online: CryptoSigner = field(default_factory=CryptoSigner.generate_ed25519)

    def __post_init__(self) -> None:
        self.folder = self.base / "registry"
        self.consortium = Consortium.init(
            self.folder,
            "lab",
            root=RoleKeys(tuple(self.root), 2),
            membership=RoleKeys(tuple(self.members), 2),
            online=self.online,
            now_s=NOW,
        )
        self.clients = 0

    @property
    def signers(self) -> tuple[Signer, ...]:
        return (*self.members[:2], self.online)

    def admit(self, name: str, *, now_s: float = NOW) -> Site:
        site = new_site(name, now_s=now_s)
        assert self.consortium.admit(site.request(), self.signers, now_s=now_s)
        return site

    def publish(self, *models: bytes, now_s: float = NOW) -> None:
        self.consortium.publish((self.online,), now_s=now_s, models=models)

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.folder, self.base / name))

    def client(
        self,
        *sources: Path | str,
        marks: MemoryMarks | None = None,
        cache: Path | None = None,
        pin: bytes = b"",
    ) -> RegistryClient:
        self.clients += 1
        places: Sequence[Path | str] = sources or (self.folder,)
        return RegistryClient(
            cache or self.base / f"cache-{self.clients}",
            root_pin=pin or self.consortium.root_pin,
            sources=[str(place) for place in places],
            marks=marks if marks is not None else MemoryMarks(),
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A consortium without sites."""
    return World(tmp_path)


@pytest.fixture
def make_site() -> Callable[..., Site]:
    """What makes a site that is no member yet."""
    return new_site
