"""Sessions of tokens at a gateway: a nonce, a proof, then a pass for a while.

Rules: who calls before the proof is counted by address, and hears a nonce and nothing else; a nonce is good
once, for a minute, with the caller's own. A refusal is logged with what it was, never with what was sent.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

from agent.errors import BusyError, TokenError
from agent.limits import (
    CHALLENGE_LIFE_S,
    MAX_CHALLENGES,
    MAX_SESSIONS_PER_TOKEN,
    MAX_VISITOR_ADDRESSES,
    SESSION_LIFE_S,
    VISITOR_BURST,
    VISITOR_BURST_ALL,
    VISITOR_PER_S,
    VISITOR_PER_S_ALL,
)
from agent.people.model import Who
from agent.people.passes import Passes
from agent.people.token_text import TOKEN_ID_BYTES
from agent.people.tokens import Tokens
from agent.site.rates import Rate, Rates, counted_address
from federation.errors import FederationInputError
from federation.identity.proof import NONCE_BYTES

_log = logging.getLogger(__name__)


class Sessions:
    """The sessions of one gateway.

    Args:
        tokens: who may open one.
        monotonic: a clock that is never set.
    """

    def __init__(self, tokens: Tokens, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._monotonic = monotonic
        self._passes = Passes(SESSION_LIFE_S, MAX_SESSIONS_PER_TOKEN)
        self._challenges: dict[bytes, tuple[bytes, float]] = {}
        self._rates = Rates(
            Rate(VISITOR_BURST, VISITOR_PER_S),
            Rate(VISITOR_BURST_ALL, VISITOR_PER_S_ALL),
            callers=MAX_VISITOR_ADDRESSES,
        )

    def challenge(self, client_nonce: bytes, address: str) -> bytes:
        """Return a nonce for one proof.

        Raises:
            BusyError: too many calls.
            FederationInputError: the caller's nonce is none.
        """
        self._count(address)
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
        return nonce

    async def open(
        self, token_id: bytes, client_nonce: bytes, server_nonce: bytes, *, proof: bytes, address: str
    ) -> str:
        """Return a session's pass.

        Raises:
            BusyError: too many calls, or sessions of this token.
            TokenError: the token was not proven, or is good no more.
        """
        self._count(address)
        asked_with, ends_s = self._challenges.pop(server_nonce, (b"", 0.0))
        try:
            if len(token_id) != TOKEN_ID_BYTES or not asked_with or asked_with != client_nonce:
                raise TokenError("the site asked for no such proof.", fix="try again")
            if self._monotonic() >= ends_s:
                raise TokenError("the proof came too late.", fix="try again")
            who = await self._tokens.admit(
                token_id, client_nonce=client_nonce, server_nonce=server_nonce, said=proof
            )
        except TokenError as error:
            _log.warning("refused a session from %s: %s", address, error.message)
            raise
        return self._passes.issue(who, self._monotonic())

    def who(self, session: str) -> Who:
        """Return whose session it is. Raises NotAllowedError."""
        return self._passes.who(session, self._monotonic())

    def end_all(self, token: str) -> None:
        """End the sessions of a token."""
        self._passes.strike_all(Who(None, token).key)

    def _count(self, address: str) -> None:
        if not self._rates.allow(counted_address(address), self._monotonic()):
            raise BusyError("too many sessions were opened in a short time.", fix="wait a minute")
