"""Tokens and their sessions: what is written, what is kept, and what it takes to be believed."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BusyError, NotAllowedError, RequestError, TokenError
from agent.limits import CHALLENGE_LIFE_S, MAX_TOKEN_LIFETIME_S, SESSION_LIFE_S, VISITOR_BURST
from agent.people.model import Who
from agent.people.sessions import Sessions
from agent.people.token_text import Token, decode, proof, session_key
from agent.people.tokens import Tokens
from agent.site.config import SiteConfig
from agent.state import StateFile
from agent.state.token_store import TokenStore
from federation.errors import FederationInputError
from federation.identity.authority import SiteAuthority

T = TypeVar("T")
AUTHORITY = SiteAuthority.create("eth.example", now_s=time.time())
OTHER = SiteAuthority.create("eth.example", now_s=time.time())
TOKEN = Token(
    "eth", "eth.example", "laptop", "gw.eth.example:7445", AUTHORITY.certificate_pem, b"\1" * 8, b"\2" * 16
)
CONFIG = SiteConfig(
    site="eth",
    trust_domain="eth.example",
    node="g1",
    role="gateway",
    address="gw.eth.example:7443",
    listen="[::]:7443",
    gateway_node="g1",
    gateway_address="gw.eth.example:7443",
    join_address="gw.eth.example:7444",
    join_listen="[::]:7444",
)


class Bench:
    """A gateway's tokens and sessions, with clocks that a test sets."""

    def __init__(self, file: StateFile) -> None:
        self.now_s = 1000.0
        self.tokens = Tokens(
            TokenStore(file), CONFIG, AUTHORITY.certificate_pem, TOKEN.address, clock=lambda: self.now_s
        )
        self.sessions = Sessions(self.tokens, monotonic=lambda: self.now_s)

    async def create(
        self, name: str = "laptop", account: str = "/eth/a", lifetime_s: float = 86400.0
    ) -> Token:
        return decode((await self.tokens.create(name, account, lifetime_s)).text)

    async def open(self, token: Token, *, secret: bytes | None = None, address: str = "192.0.2.1") -> str:
        nonce = secrets.token_bytes(32)
        site_nonce = self.sessions.challenge(nonce, address)
        said = prove(token, nonce, site_nonce, secret)
        return await self.sessions.open(token.token_id, nonce, site_nonce, proof=said, address=address)


def prove(token: Token, nonce: bytes, site_nonce: bytes, secret: bytes | None = None) -> bytes:
    return proof(
        session_key(secret or token.secret),
        authority_pem=token.authority_pem,
        token_id=token.token_id,
        client_nonce=nonce,
        server_nonce=site_nonce,
    )


def bench(tmp_path: Path, work: Callable[[Bench], Awaitable[T]]) -> T:
    async def run() -> T:
        file = await StateFile.open(tmp_path / "agent.sqlite3")
        try:
            return await work(Bench(file))
        finally:
            await file.close()

    return asyncio.run(run())


def test_a_token_is_read_as_it_was_written() -> None:
    """White space around it does not count."""
    assert decode(f"\n {TOKEN.encode()} \n") == TOKEN
    assert "020202" not in repr(TOKEN)
    assert repr(TOKEN.secret) not in repr(TOKEN)


@given(st.data())
def test_a_changed_character_is_noticed(data: st.DataObject) -> None:
    """Wherever it is: before anything is sent."""
    text = TOKEN.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda one: one != text[at] and not one.isspace()))
    with pytest.raises(TokenError):
        decode(text[:at] + other + text[at + 1 :])


def test_there_is_one_way_to_write_a_token() -> None:
    """The same words with other spaces between them are refused: what was checked is what was written."""
    form, payload, secret = TOKEN.encode().split(".")
    spaced = json.dumps(json.loads(base64.urlsafe_b64decode(payload + "==="))).encode()
    with pytest.raises(TokenError, match="one way"):
        decode(f"{form}.{base64.urlsafe_b64encode(spaced).decode().rstrip('=')}.{secret}")


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_is_a_token_by_chance(payload: str, rest: str) -> None:
    """Each is refused with a sentence, never with another exception."""
    for text in (payload, f"pyrdma-token1.{payload}.{rest}", f"pyrdma-token1.{payload}.{'a' * 26}"):
        with pytest.raises(TokenError):
            decode(text)


@pytest.mark.parametrize(
    "change",
    [
        {"address": "0.0.0.0:1"},
        {"site": "E"},
        {"name": "../x"},
        {"trust_domain": "other.example"},
        {"authority": "no certificate"},
        {"token_id": "zz"},
        {"token_id": "00"},
        {"more": "x"},
    ],
)
def test_what_cannot_be_in_a_token_is_refused_even_when_it_is_signed(change: dict[str, str]) -> None:
    """The check covers a mistake on the way; a holder of the secret could write anything."""
    _, payload, secret = TOKEN.encode().split(".")
    fields = json.loads(base64.urlsafe_b64decode(payload + "=="))
    fields.pop("check")
    from agent.people import token_text

    fields |= change
    fields["check"] = token_text._checked(fields, TOKEN.secret)
    packed = base64.urlsafe_b64encode(token_text._canonical(fields)).decode().rstrip("=")
    with pytest.raises(TokenError):
        decode(f"pyrdma-token1.{packed}.{secret}")


def test_whoever_proves_a_token_is_the_token_with_its_account(tmp_path: Path) -> None:
    """A session is good until its life is over, and no longer."""

    async def work(made: Bench) -> None:
        session = await made.open(await made.create())
        assert made.sessions.who(session) == Who(None, "laptop", account="/eth/a")
        assert (await made.tokens.list())[0].used_at == made.now_s
        made.now_s += SESSION_LIFE_S
        with pytest.raises(NotAllowedError):
            made.sessions.who(session)

    bench(tmp_path, work)


def test_a_proof_is_good_for_nothing_else(tmp_path: Path) -> None:
    """Another secret, token, nonce or CA; a second use; one that comes late."""

    async def work(made: Bench) -> None:
        token = await made.create()
        other = await made.create("other", "/eth/b")
        with pytest.raises(TokenError) as wrong:
            await made.open(token, secret=other.secret)
        nobodys = replace(token, token_id=b"\7" * 8)
        with pytest.raises(TokenError) as unknown:
            await made.open(nobodys)
        assert wrong.value.message == unknown.value.message
        nonce = secrets.token_bytes(32)
        site_nonce = made.sessions.challenge(nonce, "192.0.2.1")
        said = prove(token, nonce, site_nonce)
        with pytest.raises(TokenError):
            await made.sessions.open(
                token.token_id, secrets.token_bytes(32), site_nonce, proof=said, address="192.0.2.1"
            )
        mine = secrets.token_bytes(32)
        theirs = made.sessions.challenge(nonce, "192.0.2.1")
        with pytest.raises(TokenError):  # a nonce that was given to another caller
            await made.sessions.open(
                token.token_id, mine, theirs, proof=prove(token, mine, theirs), address="192.0.2.1"
            )
        with pytest.raises(TokenError):  # the nonce was used up by the attempt before
            await made.sessions.open(token.token_id, nonce, site_nonce, proof=said, address="192.0.2.1")
        elsewhere = replace(token, authority_pem=OTHER.certificate_pem)
        with pytest.raises(TokenError):
            await made.open(elsewhere)
        site_nonce = made.sessions.challenge(nonce, "192.0.2.1")
        made.now_s += CHALLENGE_LIFE_S
        with pytest.raises(TokenError, match="too late"):
            await made.sessions.open(
                token.token_id, nonce, site_nonce, proof=prove(token, nonce, site_nonce), address="192.0.2.1"
            )

    bench(tmp_path, work)


def test_a_revoked_token_and_one_whose_time_is_over_open_nothing(tmp_path: Path) -> None:
    """Whoever watches is told of a revocation; the name is free again."""

    async def work(made: Bench) -> None:
        told: list[str] = []
        made.tokens.on_revoked = told.append
        token, short = await made.create(), await made.create("short", lifetime_s=60.0)
        session = await made.open(token)
        assert [one.name for one in await made.tokens.revoke("laptop")] == ["short"]
        assert told == ["laptop"]
        with pytest.raises(TokenError):
            await made.open(token)
        made.sessions.end_all("laptop")
        with pytest.raises(NotAllowedError):
            made.sessions.who(session)
        made.now_s += 60.0
        with pytest.raises(TokenError, match="time is over"):
            await made.open(short)
        assert await made.tokens.list() == ()
        with pytest.raises(RequestError, match="no token laptop"):
            await made.tokens.revoke("laptop")

    bench(tmp_path, work)


def test_tokens_have_one_name_each_and_an_end(tmp_path: Path) -> None:
    """And where no laptop could come, none is made."""

    async def work(made: Bench) -> None:
        await made.create()
        with pytest.raises(RequestError, match="there is a token laptop already"):
            await made.create()
        with pytest.raises(RequestError, match="at most 366 days"):
            await made.create("x", lifetime_s=MAX_TOKEN_LIFETIME_S + 1)
        with pytest.raises(RequestError):
            await made.create("x", lifetime_s=float("nan"))
        with pytest.raises(FederationInputError):
            await made.create("no name")
        closed = Tokens(TokenStore.__new__(TokenStore), CONFIG, AUTHORITY.certificate_pem, "")
        with pytest.raises(RequestError, match="takes no laptops"):
            await closed.create("x", "/eth", 60.0)

    bench(tmp_path, work)


def test_guesses_are_counted_by_address(tmp_path: Path) -> None:
    """One address is stopped, another goes on."""

    async def work(made: Bench) -> None:
        token = await made.create()
        for _ in range(VISITOR_BURST // 2):
            with pytest.raises(TokenError):
                await made.open(token, secret=b"\3" * 16, address="192.0.2.7")
        with pytest.raises(BusyError):
            await made.open(token, address="192.0.2.7")
        assert await made.open(token, address="192.0.2.8")

    bench(tmp_path, work)


def test_the_state_file_holds_no_secret_of_a_token(tmp_path: Path) -> None:
    """Neither as bytes nor as text; the log has none either."""

    async def work(made: Bench) -> Token:
        token = await made.create()
        await made.open(token)
        return token

    token = bench(tmp_path, work)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("agent.sqlite3*"))
    assert token.secret not in stored
    assert token.encode().rpartition(".")[2].encode() not in stored
