"""Which accounts a caller has, and which one is charged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AccountError
from agent.people.model import Accounts, Grant, People, Who, accounts_of, choose, matches
from federation.errors import FederationInputError

VISION = Grant("/eth/vision", ("/eth/vision", "/eth/vision/thesis"))
TEACHING = Grant("/eth/teaching", ("/eth/teaching", "/eth/teaching/*"))
SPONSORED = Grant("/lab/own", ("/lab/own",))
PEOPLE = People(
    "/eth",
    users={"alice": VISION, "1042": SPONSORED},
    groups={"students": TEACHING, "5000": SPONSORED},
    tokens={"alice-laptop": VISION},
)
LABEL = st.from_regex(r"[a-z][a-z0-9]{0,3}", fullmatch=True)
PATH = st.lists(LABEL, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("who", "default", "allowed"),
    [
        (Who(1, "alice"), "/eth/vision", ("/eth/vision", "/eth/vision/thesis")),
        (Who(1042, ""), "/lab/own", ("/lab/own",)),
        (Who(2, "bob", (5000,)), "/lab/own", ("/lab/own",)),
        (Who(2, "bob", (7,), ("students",)), "/eth/teaching", ("/eth/teaching", "/eth/teaching/*")),
        (
            Who(1, "alice", (5000,), ("x",)),
            "/eth/vision",
            ("/eth/vision", "/eth/vision/thesis", "/lab/own"),
        ),
        (Who(None, "alice-laptop"), "/eth/vision", ("/eth/vision", "/eth/vision/thesis")),
        (Who(2, "bob"), "", ()),
        (Who(None, "alice"), "", ()),
        (Who(3, "alice-laptop"), "", ()),
        (Who(4, ""), "", ()),
    ],
)
def test_a_line_gives_accounts_to_those_whom_it_names(
    who: Who, default: str, allowed: tuple[str, ...]
) -> None:
    """By name or number, by group, by token; never a token for a user of the same name, or the reverse."""
    assert accounts_of(who, PEOPLE) == Accounts(default, allowed)


def test_without_a_file_the_owner_alone_has_the_sites_account() -> None:
    """The agent's own user is the site; nobody else is anybody."""
    nobody = People("/eth")
    assert choose(accounts_of(Who(0, "root", owner=True), nobody), "") == "/eth"
    assert choose(accounts_of(Who(0, "root", owner=True), nobody), "/eth/any/project") == "/eth/any/project"
    with pytest.raises(AccountError, match="you have no account"):
        choose(accounts_of(Who(1, "alice", (0,), ("root",)), nobody), "/eth")


def test_the_owner_may_name_whatever_the_file_gives_to_somebody() -> None:
    """Sponsored accounts too; another institution's that no line names is not the owner's either."""
    mine = accounts_of(Who(0, "root", owner=True), PEOPLE)
    assert choose(mine, "/lab/own") == "/lab/own"
    with pytest.raises(AccountError):
        choose(mine, "/lab")


def test_another_account_is_refused_with_what_was_meant() -> None:
    """The sentence names the account, the fix the nearest own one and all own ones."""
    with pytest.raises(AccountError, match="/eth/visoin is not yours") as caught:
        choose(accounts_of(Who(1, "alice"), PEOPLE), "/eth/visoin")
    assert caught.value.fix == "did you mean /eth/vision? yours are: /eth/vision, /eth/vision/thesis"
    with pytest.raises(FederationInputError):
        choose(accounts_of(Who(1, "alice"), PEOPLE), "/eth/../lab")


def test_below_is_not_beside_and_not_itself() -> None:
    """``/a/b/*`` is what is below ``/a/b``: neither that nor ``/a/bc``."""
    assert matches("/a/b/*", "/a/b/c")
    assert not matches("/a/b/*", "/a/b")
    assert not matches("/a/b/*", "/a/bc")
    assert not matches("/a/b", "/a/b/c")


@given(name=LABEL, own=PATH, other=PATH, wanted=PATH)
def test_nobody_is_charged_under_an_account_that_no_line_of_theirs_gives(
    name: str, own: str, other: str, wanted: str
) -> None:
    """Whatever is wanted: it is the own account, or it is refused."""
    people = People("/eth", {name: Grant(own, (own,)), name + "x": Grant(other, (other,))})
    accounts = accounts_of(Who(9, name), people)
    assert choose(accounts, "") == own
    if wanted == own:
        assert choose(accounts, wanted) == own
    else:
        with pytest.raises(AccountError):
            choose(accounts, wanted)


def test_a_lease_remembers_its_user_by_number_and_a_token_by_name() -> None:
    """A user called like a token is not the token."""
    assert Who(1042, "alice").key == "uid:1042"
    assert Who(None, "alice").key == "token:alice"
