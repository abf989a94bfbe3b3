"""Accounts as paths, and a line of requests by account."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationInputError
from federation.fairshare.accounts import (
    ancestors,
    check_account,
    institution,
    is_within,
    nodes_of,
    parent_of,
)
from federation.fairshare.line import Line, Waiting

ACCOUNTS = ("/a", "/a/b", "/a/b/c", "/d")


@pytest.mark.parametrize("path", ["/a", "/uni-a/nlp", "/uni-a/nlp/thesis-7"])
def test_a_path_of_one_to_three_names_is_an_account(path: str) -> None:
    """It comes back as it is."""
    assert check_account(path) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a",
        "a/b",
        "/a/",
        "//a",
        "/a//b",
        "/a/b/c/d",
        "/A",
        "/a b",
        "/a\n",
        "/-a",
        "/..",
        "/" + "a" * 64,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """With an error that says what to write."""
    with pytest.raises(FederationInputError):
        check_account(text)


def test_the_way_to_an_account() -> None:
    """From the institution down, and its seat at the end."""
    assert ancestors("/a/b/c") == ("/a", "/a/b", "/a/b/c")
    assert nodes_of("/a/b") == ("/a", "/a/b", "/a/b/")
    assert [parent_of(node) for node in nodes_of("/a/b")] == ["", "/a", "/a/b"]
    assert institution("/a/b/c") == "a"


def test_below_is_not_merely_spelled_alike() -> None:
    """``/ab`` is not below ``/a``."""
    assert is_within("/a/b", "/a")
    assert is_within("/a", "/a")
    assert not is_within("/ab", "/a")
    assert not is_within("/a", "/a/b")


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 6), st.sampled_from(ACCOUNTS), st.integers(0, 3)), max_size=30
    )
)
def test_a_line_has_what_was_added_and_not_removed(steps: list[tuple[bool, int, str, int]]) -> None:
    """Counts, look-ups and order by age agree with a plain table after each step."""
    line: Line[int] = Line()
    known: dict[tuple[str, str], Waiting[int]] = {}
    for step, (adds, name, account, asked_at_s) in enumerate(steps):
        waiting = Waiting(f"r{name}", account, f"s{name % 2}", asked_at_s, 1, step)
        before = line
        if adds:
            line = line.add(waiting)
            known[waiting.key] = waiting
        else:
            line = line.remove(*waiting.key)
            assert (line is before) is (waiting.key not in known)
            known.pop(waiting.key, None)
        assert line == Line.of(known.values())
        assert len(line) == len(known)
        assert (waiting.key in line) is adds
        assert line.get(*waiting.key) == known.get(waiting.key)
        for path in ACCOUNTS:
            assert line.count(path) == sum(is_within(one.account, path) for one in known.values())
            ages = [one.asked_at_s for one in line.of_account(path)]
            assert ages == sorted(ages)
