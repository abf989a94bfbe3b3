"""What is said of people survives a gRPC call."""

from __future__ import annotations

from dataclasses import fields

import pytest

from agent.errors import RequestError
from agent.limits import MAX_USAGE_ACCOUNTS
from agent.local.people_views import (
    AccountUsageView,
    ReceiptLineView,
    TokenView,
    UsageView,
    Wanted,
    WhoAmIView,
)
from agent.rpc import convert_people
from agent.rpc import pyrdma_pb2 as pb
from agent.rpc.node import wish_from
from federation.errors import FederationInputError

WHO = WhoAmIView("uid:7", "alice", True, "eth", "/eth/a", ("/eth/a", "/eth/b/*"), ("student",), "note")
ROW = AccountUsageView(
    "/eth/a", ("student",), 1, 2, 3, 4, 5, (ReceiptLineView("uni-a", "l", 6, 7, 8.5, 9.5, "signed"),)
)
TOKENS = (TokenView("laptop", "/eth/a", 1.5, 2.5, 3.5), TokenView("other", "/eth/b", 1.5, 2.5, None))
WANTED = Wanted("m", "north", "n1", "/eth/a", "research", True, 60)


def test_every_field_arrives() -> None:
    """None of these has a default's value, so that a forgotten one shows."""
    for value in (WHO, ROW, WANTED):
        assert all(getattr(value, field.name) not in ("", 0, None, (), False) for field in fields(value))
    assert convert_people.whoami_from(convert_people.whoami_to(WHO)) == WHO
    usage = UsageView((ROW,), "receipts")
    assert convert_people.usage_from(convert_people.usage_to(usage)) == usage
    assert convert_people.tokens_from(convert_people.tokens_to(TOKENS)) == TOKENS


def test_what_is_wanted_becomes_the_same_wish() -> None:
    """Account, purpose, instant and duration reach the agent as they were given."""
    wish = wish_from(convert_people.wanted_to(WANTED))
    assert (wish.model, wish.site, wish.node) == ("m", "north", "n1")
    assert (wish.account, wish.purpose, wish.instant, wish.duration_s) == ("/eth/a", "research", True, 60)


def test_accounts_that_are_asked_about_are_accounts_and_few() -> None:
    """A caller cannot have us look for anything else, or for millions."""
    assert convert_people.accounts_from(pb.GetUsageRequest(accounts=["/eth/a"])) == ("/eth/a",)
    with pytest.raises(FederationInputError):
        convert_people.accounts_from(pb.GetUsageRequest(accounts=["/eth/' OR 1=1"]))
    with pytest.raises(RequestError):
        convert_people.accounts_from(pb.GetUsageRequest(accounts=["/a"] * (MAX_USAGE_ACCOUNTS + 1)))
