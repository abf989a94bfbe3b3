"""The people file: what it may say, and where it is wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PeopleFileError
from agent.limits import MAX_ACCOUNTS_OF_ONE, MAX_PEOPLE_BYTES
from agent.people.file import read_people
from agent.people.model import Grant, People

GOOD = b"""\
# who runs under what
version: 1
users:
  alice: /eth/vision
  1042:
    default: /eth/speech
    accounts: [/eth/speech, /eth/teaching/*]
groups:
  students: /eth/teaching
tokens:
"""


def read(data: bytes) -> People:
    return read_people(data, file="people.yaml", site="/eth")


def test_a_file_says_who_has_which_accounts() -> None:
    """Short and long lines, names and numbers, an empty section."""
    assert read(GOOD) == People(
        "/eth",
        users={
            "alice": Grant("/eth/vision", ("/eth/vision",)),
            "1042": Grant("/eth/speech", ("/eth/speech", "/eth/teaching/*")),
        },
        groups={"students": Grant("/eth/teaching", ("/eth/teaching",))},
    )


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", "1:1", "the file is empty"),
        ("users: {}", "1:1", "no people file that is known"),
        ("version: 2", "1:10", "no people file that is known"),
        ("version: true", "1:10", "no people file that is known"),
        ("- version", "1:1", "keys with values"),
        ("version: 1\nuser: {}", "2:1", "did you mean users?"),
        ("version: 1\nfoo: {}", "2:1", "foo is no key here"),
        ("version: 1\nusers: 3", "2:8", "users are names with accounts"),
        ("version: 1\nusers: {a: /x/y, a: /x/z}", "2:18", "is here twice"),
        ("version: 1\nversion: 1", "2:1", "is here twice"),
        ("version: 1\nusers: {a: x}", "2:12", "is no account"),
        ("version: 1\nusers: {a: /x/*}", "2:12", "is no account"),
        ("version: 1\nusers: {a: /X}", "2:12", "is no account"),
        ("version: 1\nusers: {a: /a/b/c/d}", "2:12", "is no account"),
        ("version: 1\nusers: {a: [/x]}", "2:12", "an account belongs here"),
        ("version: 1\nusers: {a: }", "2:9", "an account belongs here"),
        ("version: 1\nusers: {a: {accounts: [/x]}}", "2:9", "names its default"),
        ("version: 1\nusers: {a: {default: /x, accounts: /x}}", "2:36", "accounts are a list"),
        ("version: 1\nusers: {a: {default: /x, acounts: [/x]}}", "2:26", "did you mean accounts?"),
        ("version: 1\nusers: {a: {default: /x, accounts: [/x, y]}}", "2:41", "is no account"),
        ("version: 1\nusers: {a: {default: /x/*}}", "2:22", "is no account"),
        ("version: 1\nusers: {007: /x}", "2:9", "no plain number"),
        ("version: 1\nusers: {0x10: /x}", "2:9", "no plain number"),
        ("version: 1\nusers: {-1: /x}", "2:9", "no plain number"),
        ("version: 1\nusers: {1.5: /x}", "2:9", "no plain number"),
        ("version: 1\nusers: {\u0663: /x}", "2:9", "no plain number"),
        ("version: 1\nusers: {? [a] : /x}", "2:11", "a key is a name"),
        ('version: 1\nusers: {"": /x}', "2:9", "this is no name"),
        ('version: 1\nusers: {" a": /x}', "2:9", "this is no name"),
        ('version: 1\nusers: {"a\\e[2J": /x}', "2:9", "characters that cannot be shown"),
        ("version: 1\nusers: {a: &b /x, c: *b}", "2:12", "anchors are not read"),
        ("version: 1\nusers: {a: !!python/name:os.system /x}", "2:12", "tags are not read"),
        ("version: 1\nusers: " + "[" * 20, "2:23", "nested too deeply"),
        ("version: 1\nusers:\n\ta: /x", "3:1", "a tab is here"),
        ("version: 1\nusers: {a: /x", "2:14", "this is no YAML"),
        ("version: 1\n---\nversion: 1", "2:1", "a second document"),
        ("version: 1\nusers: {<<: {a: /x}}", "2:9", "names its default"),
        ("a: 'b", "1:6", "this is no YAML"),
        ("version: 1\nusers: {a: x, b: y}", "2:12", "(and 1 more)"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: str, says: str) -> None:
    """File, line and column, one sentence, and what to do."""
    with pytest.raises(PeopleFileError) as caught:
        read(text.encode())
    assert caught.value.message.startswith(f"people.yaml:{place}: "), caught.value.message
    assert says in caught.value.message
    assert caught.value.fix


def test_bytes_that_are_no_text_are_told_with_their_place() -> None:
    """The line and column of the first byte that is not UTF-8."""
    with pytest.raises(PeopleFileError, match=r"people.yaml:2:3: this is no UTF-8"):
        read(b"version: 1\nab\xff")


def test_long_files_and_long_lines_are_refused() -> None:
    """Bounds of limits.py hold before and after the reading."""
    with pytest.raises(PeopleFileError, match="more than"):
        read(b"#" * (MAX_PEOPLE_BYTES + 1))
    accounts = ", ".join(f"/x/p{number}" for number in range(MAX_ACCOUNTS_OF_ONE + 1))
    with pytest.raises(PeopleFileError, match="at most 64 accounts"):
        read(f"version: 1\nusers: {{a: {{default: /x, accounts: [{accounts}]}}}}".encode())


_PIECES = st.sampled_from(
    [
        *(b"version: 1\n", b"users:", b"  a: /eth/x\n", b"default: /x\n", b"accounts: [/x]\n", b"&a", b"*a"),
        *(
            b"!!int ",
            b"[",
            b"]",
            b"{",
            b"}",
            b"- ",
            b"\t",
            b"'",
            b'"',
            b"\\",
            b"|\n",
            b">",
            b"? ",
            b": ",
            b"#",
        ),
        *(
            b"%YAML 1.1\n",
            b"---\n",
            b"...\n",
            b"\xff",
            b"\x00",
            b"\xef\xbb\xbf",
            b"<<",
            b"~",
            b"0x",
            b"1e999",
        ),
        *(b"\r", b"\xc2\x85"),
    ]
)


def verdict(data: bytes) -> str:
    """Return the error's words, or nothing for people."""
    try:
        found = read(data)
    except PeopleFileError as error:
        return f"{error.message}{error.fix}" if error.fix else ""
    assert isinstance(found, People)
    return "people"


@given(st.one_of(st.binary(max_size=60), st.lists(_PIECES, max_size=12).map(b"".join)))
def test_no_bytes_end_in_anything_but_people_or_a_positioned_error(data: bytes) -> None:
    """Whatever stands in the file: no traceback, no other exception."""
    said = verdict(data)
    assert said == "people" or re.match(r"people\.yaml:[1-9][0-9]*:[1-9][0-9]*: .", said)
    assert said.isprintable()


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3))
def test_a_damaged_file_is_people_or_a_positioned_error(at: int, damage: bytes) -> None:
    """A good file with some bytes changed."""
    said = verdict(GOOD[:at] + damage + GOOD[at + len(damage) :])
    assert said == "people" or re.match(r"people\.yaml:[1-9][0-9]*:[1-9][0-9]*: .", said)
