"""How a site takes in a node: an invite is made, and used once, by whoever proves its secret.

Rules: nothing is said before the proof but a nonce and the time; a nonce is good once, for a minute; the
decision, the certificate and the membership are one transaction, so that an answer that was lost can be asked
for again and none is given twice. Whoever calls is counted, and a refusal is logged with what it was. The
rule itself is ``federation.identity.admission``'s; here are the secrets, the clocks and the books.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent.errors import BusyError, RequestError
from agent.limits import (
    CHALLENGE_LIFE_S,
    ENROL_BURST,
    ENROL_BURST_ALL,
    ENROL_PER_S,
    ENROL_PER_S_ALL,
    MAX_CHALLENGES,
    MAX_ENROL_ADDRESSES,
    MAX_INVITE_LIFETIME_S,
)
from agent.site.config import SiteConfig
from agent.site.rates import Rate, Rates, counted_address
from agent.state.records import MemberRecord
from agent.state.site_store import Redemption, SiteStore
from agent.text import printable
from federation.errors import EnrolmentError, FederationError, FederationInputError
from federation.identity.admission import InviteRecord, admit
from federation.identity.authority import SiteAuthority
from federation.identity.binding import times
from federation.identity.invite import SECRET_BYTES, TOKEN_ID_BYTES, Invite
from federation.identity.keys import spki_sha256
from federation.identity.names import NodeIdentity, check_node
from federation.identity.proof import NONCE_BYTES, Transcript, proof_key, verify
from federation.identity.shape import read_certificate
from federation.limits import MAX_LABEL_CHARS, MAX_REQUEST_BYTES

_log = logging.getLogger(__name__)
_AGAIN = "join again: pyrdma-agent join --invite-file FILE"


@dataclass(frozen=True, slots=True)
class JoinAttempt:
    """What a node sends that wants to join; all of it is a stranger's."""

    token_id: bytes
    node: str
    client_nonce: bytes
    server_nonce: bytes
    csr: bytes
    proof: bytes = field(repr=False)


class Enrolment:
    """A gateway's side of all joins.

    Args:
        store: the site's books.
        authority: the site's CA.
        config: the gateway's place.
        clock: Unix time.
        monotonic: a clock that is never set, for what is counted in seconds.
    """

    def __init__(
        self,
        store: SiteStore,
        authority: SiteAuthority,
        config: SiteConfig,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._authority = authority
        self._config = config
        self._clock = clock
        self._monotonic = monotonic
        self._spki = spki_sha256(authority.certificate.public_key())
        self._challenges: dict[bytes, tuple[bytes, float]] = {}
        self._rates = Rates(
            Rate(ENROL_BURST, ENROL_PER_S),
            Rate(ENROL_BURST_ALL, ENROL_PER_S_ALL),
            callers=MAX_ENROL_ADDRESSES,
        )
        self._dropped, self._said_s = 0, monotonic() - 1.0
        self._nobodys_key = secrets.token_bytes(32)

    async def invite(self, node: str, lifetime_s: float, cidr: str) -> tuple[str, float]:
        """Return a new invite for a node, and when it ends (Unix time). It is kept nowhere as a whole.

        Raises:
            RequestError, FederationInputError: the node, the lifetime or the network cannot be.
            StateError: the books cannot be written.
        """
        if check_node(node) == self._config.node:
            raise RequestError(
                f"{node} is this gateway, and is in the site already.", fix="name the node that is to join"
            )
        if not 0 < lifetime_s <= MAX_INVITE_LIFETIME_S:
            raise RequestError(
                f"an invite lives at most {MAX_INVITE_LIFETIME_S / 3600:.0f} h.", fix="give --expires as 30m"
            )
        now_s = self._clock()
        token_id, secret = secrets.token_bytes(TOKEN_ID_BYTES), secrets.token_bytes(SECRET_BYTES)
        expires_at = now_s + lifetime_s
        invite = Invite(
            site=self._config.site,
            trust_domain=self._config.trust_domain,
            node=node,
            address=self._config.join_address,
            token_id=token_id,
            authority_pem=self._authority.certificate_pem,
            registry_pin=bytes.fromhex(self._config.registry_pin),
            registry_sources=self._config.registry_sources,
            secret=secret,
        )
        record = InviteRecord(token_id, proof_key(secret), node, expires_at, None, None, cidr)
        await self._store.put_invite(record, now_s=now_s)
        return invite.encode(), expires_at

    def challenge(self, client_nonce: bytes, caller: str) -> tuple[bytes, float]:
        """Return a nonce for one proof, and this site's time.

        Raises:
            BusyError: too many calls.
            FederationInputError: the caller's nonce is none.
        """
        self._count(caller)
        if len(client_nonce) != NONCE_BYTES:
            raise FederationInputError(f"a nonce has {NONCE_BYTES} bytes.")
        now_s = self._monotonic()
        while self._challenges:
            oldest, (_, ends_s) = next(iter(self._challenges.items()))
            if now_s < ends_s and len(self._challenges) < MAX_CHALLENGES:
                break
            del self._challenges[oldest]
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._challenges[nonce] = (client_nonce, now_s + CHALLENGE_LIFE_S)
        return nonce, self._clock()

    async def join(self, attempt: JoinAttempt, caller: str) -> bytes:
        """Return the node's certificate, PEM.

        Raises:
            BusyError: too many calls.
            EnrolmentError, FederationInputError, IdentityError: the join is refused; the sentence says why.
            StateError: the books cannot be written; the invite is as it was.
        """
        self._count(caller)
        node = printable(attempt.node, MAX_LABEL_CHARS)
        try:
            certificate = await self._admitted(attempt, caller)
        except FederationError as error:
            _log.warning("refused a join as %s from %s: %s", node, caller, error.message)
            raise
        _log.info("%s has joined, from %s", node, caller)
        return certificate

    async def _admitted(self, attempt: JoinAttempt, caller: str) -> bytes:
        client_nonce, ends_s = self._challenges.pop(attempt.server_nonce, (b"", 0.0))
        if client_nonce != attempt.client_nonce or self._monotonic() >= ends_s:
            raise EnrolmentError("the site asked for no such proof, or too long ago.", fix=_AGAIN)
        if len(attempt.token_id) != TOKEN_ID_BYTES or len(attempt.csr) > MAX_REQUEST_BYTES:
            raise FederationInputError("the invite's id or the certificate request has a wrong size.")
        digest = hashlib.sha256(attempt.csr).digest()
        identity = NodeIdentity(self._config.trust_domain, check_node(attempt.node))
        transcript = Transcript(
            self._spki,
            identity.trust_domain,
            identity.node,
            attempt.client_nonce,
            attempt.server_nonce,
            digest,
        )

        def decide(record: InviteRecord | None) -> Redemption:
            # An unknown invite costs as much time as a wrong proof.
            key = self._nobodys_key if record is None else record.key
            proven = verify(key, transcript=transcript, proof=attempt.proof)
            now_s = self._clock()
            answer = admit(
                record,
                now_s=now_s,
                node=identity.node,
                csr_sha256=digest,
                proof_ok=proven,
                caller_ip=caller,
            )
            assert record is not None, "nothing is admitted without an invite"
            if answer == "repeat":
                assert record.certificate_pem is not None, "a used invite has its certificate"
                return Redemption(record.certificate_pem)
            pem = self._authority.issue(attempt.csr, identity, now_s=now_s)
            _, not_after = times(read_certificate(pem))
            return Redemption(
                pem,
                replace(record, used_csr_sha256=digest, certificate_pem=pem),
                MemberRecord(identity.node, now_s, None, not_after),
            )

        return (await self._store.redeem(attempt.token_id, decide)).certificate_pem

    def _count(self, caller: str) -> None:
        now_s = self._monotonic()
        if self._rates.allow(counted_address(caller), now_s):
            return
        self._dropped += 1
        if now_s - self._said_s >= 1.0:  # a flood must not become a flood of lines
            _log.warning(
                "too many calls on the enrolment port, %d refused; the last from %s", self._dropped, caller
            )
            self._dropped, self._said_s = 0, now_s
        raise BusyError(
            "the site has had too many joins in a short time.", fix=f"wait a minute; then {_AGAIN}"
        )
