"""Passes: what somebody gets who has shown who it is, and shows again with each call. Time comes in.

For processes of this machine, given at the door; for tokens, as sessions. Rules: a pass is 32 random bytes
under a random name; here only its digest is kept, compared in constant time, and neither is ever logged. It
means whoever it was given to, whatever is said beside it. It ends when it is struck, and after its life
anyway; one user or token has few at once, and all together have a bound.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from agent.errors import BusyError, NotAllowedError
from agent.limits import MAX_PASSES, MAX_PASSES_PER_USER, PASS_LIFE_S
from agent.people.model import Who

MAX_PASS_CHARS: Final = 128
_NAME_BYTES: Final = 8
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Given:
    who: Who
    digest: bytes = field(repr=False)
    ends_s: float


class Passes:
    """The passes that are good now.

    Args:
        life_s: of one pass.
        each: how many one user or token has at once.
    """

    def __init__(self, life_s: float = PASS_LIFE_S, each: int = MAX_PASSES_PER_USER) -> None:
        self._life_s = life_s
        self._each = each
        self._given: dict[str, _Given] = {}
        self._nothing = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).digest()

    def __len__(self) -> int:
        return len(self._given)

    def issue(self, who: Who, now_s: float) -> str:
        """Return a new pass.

        Raises:
            BusyError: this user or token, or all together, have as many as there may be.
        """
        self._forget_old(now_s)
        theirs = sum(one.who.key == who.key for one in self._given.values())
        if theirs >= self._each or len(self._given) >= MAX_PASSES:
            raise BusyError("too many commands talk to this agent at once.", fix="try again in a moment")
        name, secret = secrets.token_hex(_NAME_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
        self._given[name] = _Given(who, _digest(secret), now_s + self._life_s)
        return f"{name}.{secret}"

    def strike(self, text: str) -> None:
        """End a pass; one that has ended is no error."""
        self._given.pop(text.partition(".")[0], None)

    def strike_all(self, key: str) -> None:
        """End every pass of a user or token, by its key."""
        for name in [name for name, one in self._given.items() if one.who.key == key]:
            del self._given[name]

    def who(self, text: str, now_s: float) -> Who:
        """Return whose pass it is.

        Raises:
            NotAllowedError: it is none, or none any more; which, is not said.
        """
        name, _, secret = text[:MAX_PASS_CHARS].partition(".")
        given = self._given.get(name)
        same = hmac.compare_digest(self._nothing if given is None else given.digest, _digest(secret))
        if given is None or not same or now_s >= given.ends_s:
            raise NotAllowedError(
                "this call needs a pass, and the one shown is none.", fix="run pyrdma-agent; it asks for one"
            )
        return given.who

    def _forget_old(self, now_s: float) -> None:
        for name in [name for name, one in self._given.items() if now_s >= one.ends_s]:
            del self._given[name]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
