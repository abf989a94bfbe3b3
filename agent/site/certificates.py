"""Certificates while a site runs: who gets a new one, when to ask for it, and that of the enrolment port.

Rules: a node gets one for its own name only, and only while it is a member; nobody's consent is needed beyond
its present certificate. It asks at half of the old one's life, spread by a tenth, so that a rack that joined
in one minute does not come back in one minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.site.config import SiteConfig
from agent.state.site_store import SiteStore
from federation.errors import IdentityError
from federation.identity.authority import SiteAuthority
from federation.identity.binding import times
from federation.identity.names import NodeIdentity
from federation.identity.shape import read_certificate

_HALF: Final = 0.5
_SPREAD: Final = 0.1


async def renew(
    csr: bytes,
    who: NodeIdentity,
    *,
    config: SiteConfig,
    store: SiteStore,
    authority: SiteAuthority,
    now_s: float,
) -> bytes:
    """Return a new certificate (PEM) for the node that asks; ``who`` is what its present one proves.

    Raises:
        IdentityError: it is no member, or the request (PKCS #10, DER) is not exactly its own.
        EnrolmentError: the CA has ended.
        StateError: the books cannot be written.
    """
    gateway = who == config.identity
    if who.trust_domain != config.trust_domain or not (gateway or store.is_member(who.node)):
        raise _no_member(who, config)
    certificate = authority.issue(csr, who, now_s=now_s)
    _, ends_s = times(read_certificate(certificate))
    # Anew, in the transaction: it may have been put out since.
    if not gateway and not await store.renewed(who.node, certificate_not_after=ends_s):
        raise _no_member(who, config)
    return certificate


def next_renewal_s(begins_s: float, ends_s: float, *, jitter: float) -> float:
    """Return when to renew a certificate that holds from then to then, all in Unix time.

    Args:
        begins_s: its first moment.
        ends_s: its last.
        jitter: between -1 and 1, drawn by the caller.
    """
    return begins_s + (ends_s - begins_s) * (_HALF + _SPREAD * jitter)


class JoinCertificate:
    """The enrolment port's key and certificate, made anew at half of its life."""

    def __init__(self, authority: SiteAuthority, clock: Callable[[], float]) -> None:
        self._authority = authority
        self._clock = clock
        self._shown = authority.issue_join(now_s=clock())

    def current(self) -> tuple[bytes, bytes]:
        """Return key and certificate, both PEM.

        Raises:
            EnrolmentError: the CA has ended, and the last certificate is past its half.
        """
        now_s = self._clock()
        if now_s >= next_renewal_s(*times(read_certificate(self._shown[1])), jitter=0.0):
            self._shown = self._authority.issue_join(now_s=now_s)
        return self._shown


def _no_member(who: NodeIdentity, config: SiteConfig) -> IdentityError:
    return IdentityError(f"{who.dns} is no member of {config.site}.", fix="join it again, with a new invite")
