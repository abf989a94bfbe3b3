"""A site's tokens: made, listed, revoked, and proven by whoever opens a session with one.

Rules: a token is for one account and has an end; its text is shown once, and what is kept of its secret is
the key that it is proven with. A session is a pass as the door's, for the token instead of a user. Nothing is
said before the proof but a nonce; an unknown token costs as much time as a wrong proof, and looks like one.
Revoking ends the sessions at once.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

from agent.errors import RequestError, TokenError
from agent.limits import MAX_TOKEN_LIFETIME_S
from agent.local.people_views import NewTokenView, TokenView
from agent.people.model import Who
from agent.people.token_text import (
    SECRET_BYTES,
    TOKEN_ID_BYTES,
    Token,
    check_token_name,
    proof,
    session_key,
)
from agent.site.config import SiteConfig
from agent.state.records import TokenRecord
from agent.state.token_store import TokenStore

_log = logging.getLogger(__name__)
_NEW: Final = "ask the site for a new one: pyrdma-agent token create NAME"


class Tokens:
    """The tokens of one site, at its gateway.

    Args:
        store: where they are kept.
        config: the gateway's place.
        authority_pem: the site's CA certificate.
        address: where the gateway takes laptops; empty: nowhere.
        clock: Unix time.
    """

    def __init__(
        self,
        store: TokenStore,
        config: SiteConfig,
        authority_pem: bytes,
        address: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._config = config
        self._authority_pem = authority_pem
        self._address = address
        self._clock = clock
        self._nobodys_key = secrets.token_bytes(32)
        self.on_revoked: Callable[[str], None] = lambda _name: None
        """Told of a token that was revoked."""

    async def create(self, name: str, account: str, lifetime_s: float) -> NewTokenView:
        """Return a new token. It is kept nowhere as a whole.

        Raises:
            RequestError, FederationInputError: the name or the lifetime cannot be, or no laptop could come.
            StateError: the books cannot be written.
        """
        check_token_name(name)
        if not self._address:
            raise RequestError(
                "this gateway takes no laptops.",
                fix="start it with: pyrdma-agent serve --visitors HOST:PORT; then create the token",
            )
        if not 0 < lifetime_s <= MAX_TOKEN_LIFETIME_S:
            raise RequestError(
                f"a token lives at most {MAX_TOKEN_LIFETIME_S / 86400:.0f} days.", fix="give --expires as 30d"
            )
        token_id, secret = secrets.token_bytes(TOKEN_ID_BYTES), secrets.token_bytes(SECRET_BYTES)
        now_s = self._clock()
        record = TokenRecord(token_id, session_key(secret), name, account, now_s, now_s + lifetime_s, None)
        await self._store.add(record, now_s=now_s)
        config = self._config
        token = Token(
            site=config.site,
            trust_domain=config.trust_domain,
            name=name,
            address=self._address,
            authority_pem=self._authority_pem,
            token_id=token_id,
            secret=secret,
        )
        return NewTokenView(token.encode(), record.expires_at)

    async def list(self) -> tuple[TokenView, ...]:
        """Return the tokens that may be used."""
        return tuple(
            TokenView(one.name, one.account, one.created_at, one.expires_at, one.used_at)
            for one in await self._store.list(now_s=self._clock())
        )

    async def revoke(self, name: str) -> tuple[TokenView, ...]:
        """End a token and its sessions; return those that are left.

        Raises:
            RequestError: there is none of this name.
        """
        if not await self._store.remove(check_token_name(name)):
            raise RequestError(f"there is no token {name}.", fix="see them with: pyrdma-agent token list")
        self.on_revoked(name)
        return await self.list()

    async def admit(self, token_id: bytes, *, client_nonce: bytes, server_nonce: bytes, said: bytes) -> Who:
        """Return who has proven a token.

        Raises:
            TokenError: no such token, a wrong proof, or its time is over; the first two look alike.
        """
        record = await self._store.get(token_id)
        expected = proof(
            self._nobodys_key if record is None else record.key,
            authority_pem=self._authority_pem,
            token_id=token_id,
            client_nonce=client_nonce,
            server_nonce=server_nonce,
        )
        if not hmac.compare_digest(expected, said) or record is None:
            raise TokenError("the site has no such token, or its secret was not proven.", fix=_NEW)
        now_s = self._clock()
        if now_s >= record.expires_at:
            raise TokenError("the token's time is over.", fix=_NEW)
        await self._store.used(token_id, now_s=now_s)
        return Who(None, record.name, account=record.account)
