"""Who calls, and which accounts of the site are theirs: a people file as values, and the one mapping. Pure.

Rules: a caller is what the kernel or a token's proof says, never what it says itself; nobody has an account
that no line gives, except the agent's own user and root, who keep the file and may use whatever the site may.
A line gives accounts one by one, or with ``/*`` all that are below one. The line of a user decides the
default; the lines of its groups add accounts, and give the default in the file's order if no other line does.
A token has the account that it was made for, unless the file has a line for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.errors import AccountError
from federation.fairshare.accounts import check_account, is_within

BELOW: Final = "/*"
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who calls.

    Args:
        uid: the user of the calling process; ``None`` for a token.
        name: the user's or the token's name; empty for a user that this machine has no name for.
        gids: the user's groups.
        groups: the names of these, where they have one.
        owner: whether it is the agent's own user, or root.
        account: of a token: the account that it was made for.
    """

    uid: int | None
    name: str
    gids: tuple[int, ...] = ()
    groups: tuple[str, ...] = ()
    owner: bool = False
    account: str = ""

    @property
    def key(self) -> str:
        """What a lease's record remembers its user by; it stays when the name changes."""
        return f"token:{self.name}" if self.uid is None else f"uid:{self.uid}"


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of a people file: the account that is charged unless another is named, and all that may be.

    ``accounts`` are paths, or paths with ``/*`` behind them for what is below; the default is among them.
    """

    default: str
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class People:
    """A people file: lines by user (name or number), by group (name or number), by token.

    ``site`` is the account of the site itself, such as ``/eth``.
    """

    site: str
    users: Mapping[str, Grant] = field(default_factory=dict)
    groups: Mapping[str, Grant] = field(default_factory=dict)
    tokens: Mapping[str, Grant] = field(default_factory=dict)

    def patterns(self) -> tuple[str, ...]:
        """Return every account that a line gives, once, in the file's order."""
        lines = (*self.users.values(), *self.groups.values(), *self.tokens.values())
        return tuple(dict.fromkeys(pattern for line in lines for pattern in line.accounts))


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a caller may use: the default, empty if there is none, and all patterns."""

    default: str
    allowed: tuple[str, ...]

    def may_use(self, account: str) -> bool:
        """Say whether an account is the caller's to name."""
        return any(matches(pattern, account) for pattern in self.allowed)


def accounts_of(who: Who, people: People) -> Accounts:
    """Return the accounts of a caller."""
    if who.uid is None:
        made_for = Grant(who.account, (who.account,) if who.account else ())
        lines = [people.tokens.get(who.name, made_for)]
    else:
        users = dict.fromkeys((who.name, str(who.uid)))
        lines = [people.users[one] for one in users if one in people.users]
        groups = {*who.groups, *map(str, who.gids)}
        lines += [line for group, line in people.groups.items() if group in groups]
    allowed = [pattern for line in lines for pattern in line.accounts]
    default = lines[0].default if lines else ""
    if who.owner:
        default = default or people.site
        allowed += [people.site, people.site + BELOW, *people.patterns()]
    return Accounts(default, tuple(dict.fromkeys(allowed)))


def choose(accounts: Accounts, wanted: str) -> str:
    """Return the account that is charged: the one named, or the default.

    Raises:
        AccountError: the caller has no account, or may not use this one.
        FederationInputError: the text is no account.
    """
    if not accounts.allowed:
        raise AccountError(
            "you have no account at this site.", fix="ask its operator for a line in the people file"
        )
    if not wanted:
        return accounts.default
    if accounts.may_use(check_account(wanted)):
        return wanted
    raise AccountError(f"the account {wanted} is not yours to use.", fix=_meant(accounts, wanted))


def matches(pattern: str, account: str) -> bool:
    """Say whether a pattern of a line means an account."""
    if pattern.endswith(BELOW):
        above = pattern.removesuffix(BELOW)
        return account != above and is_within(account, above)
    return account == pattern


def _meant(accounts: Accounts, wanted: str) -> str:
    near = difflib.get_close_matches(
        wanted, [one for one in accounts.allowed if not one.endswith(BELOW)], n=1
    )
    shown = ", ".join(accounts.allowed[:_SHOWN]) + (", ..." if len(accounts.allowed) > _SHOWN else "")
    return f"{f'did you mean {near[0]}? ' if near else ''}yours are: {shown}"
