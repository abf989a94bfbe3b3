"""What this node shows to others, as it stands now: its key and certificate, and the CAs that it accepts."""

from __future__ import annotations

from dataclasses import dataclass

from agent.site.home import SiteHome
from agent.site.trust import Trust
from federation.identity.shape import read_certificate


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a node shows (PEM), and what its server's handshake accepts (PEM, the CAs of all members)."""

    key: bytes
    certificate: bytes
    roots: bytes


class Keyring:
    """The credentials of one node; ``current`` may be called from any thread."""

    def __init__(self, home: SiteHome, trust: Trust) -> None:
        self._home = home
        self._trust = trust
        self._key = home.node_key_pem
        self._certificate = home.certificate_pem

    def current(self) -> Credentials:
        """Return what holds now."""
        return Credentials(self._key, self._certificate, self._trust.roots)

    def replace(self, certificate: bytes) -> None:
        """Keep and show a new certificate (PEM) of the same key.

        Raises:
            StateError, IdentityError: it cannot be kept, or is not this node's; the old one stays.
        """
        self._home.replace_certificate(certificate)
        self._certificate = certificate

    def validity(self) -> tuple[float, float]:
        """Return from when until when the certificate holds, in Unix time."""
        certificate = read_certificate(self._certificate)
        return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
