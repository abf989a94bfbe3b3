"""The people file in force: read anew when it changes, never a worse one for a better."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.errors import AccountError, PeopleFileError
from agent.people.model import Who
from agent.people.roster import Roster

ALICE = Who(1001, "alice")


def write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")  # another inode: seen even within one tick of the file system's clock
    new.write_text(text)
    new.chmod(0o600)
    new.rename(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.yaml"


def roster(path: Path, site: str = "eth") -> Roster:
    return Roster(path, site, Who(os.geteuid(), "me", owner=True))


def account(one: Roster, who: Who, wanted: str = "") -> str:
    return asyncio.run(one.account_for(who, wanted))


def test_without_a_file_only_the_agents_own_user_has_an_account(path: Path) -> None:
    """It is the site's own; outside a site it has a name of its own."""
    made = roster(path)
    made.load()
    assert account(made, made.owner) == "/eth"
    assert account(roster(path, ""), made.owner) == "/local"
    with pytest.raises(AccountError):
        account(made, ALICE)


def test_a_file_that_is_read_again_says_how_it_stands(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also when nothing has changed since: whoever asks for it hears what is wrong once more."""
    caplog.set_level("INFO")
    made = roster(path)
    made.load()
    write(path, "version: 1\nusers: {alice: /eth/a}")
    asyncio.run(made.reread())
    write(path, "version: 1\nusers: {alice: eth}")
    for _ in range(2):
        asyncio.run(made.reread())
    assert account(made, ALICE) == "/eth/a"
    path.unlink()
    asyncio.run(made.reread())
    said = [one.getMessage() for one in caplog.records]
    assert said[0] == f"the people file {path} is in force as it is now"
    assert said[1] == said[2]
    assert said[1].startswith(f"the people file stays as it was before: {path}:2:")
    assert said[3:] == [f"there is no people file {path}"]
    with pytest.raises(AccountError):
        account(made, ALICE)


def test_a_changed_file_counts_from_the_next_question_on(path: Path) -> None:
    """Added, changed, removed: no restart."""
    made = roster(path)
    made.load()
    write(path, "version: 1\nusers: {alice: /eth/a}")
    assert account(made, ALICE) == "/eth/a"
    write(path, "version: 1\nusers: {alice: /eth/b}")
    assert account(made, ALICE) == "/eth/b"
    path.unlink()
    with pytest.raises(AccountError):
        account(made, ALICE)


def test_a_file_that_is_wrong_leaves_the_one_before_in_force_and_says_so(path: Path) -> None:
    """A slip of the pen takes nobody's account; when it is mended, that is forgotten."""
    write(path, "version: 1\nusers: {alice: /eth/a}")
    made = roster(path)
    made.load()
    write(path, "version: 1\nusers: {alice: eth}")
    assert account(made, ALICE) == "/eth/a"
    assert f"{path}:2:16:" in made.fault
    write(path, "version: 1\nusers: {alice: /eth/c}")
    assert account(made, ALICE) == "/eth/c"
    assert made.fault == ""


def test_an_agent_does_not_start_with_a_file_that_is_wrong(path: Path) -> None:
    """There is none before that could stay in force."""
    write(path, "version: 1\nusers: 5")
    with pytest.raises(PeopleFileError, match=":2:8:"):
        roster(path).load()


def test_a_file_that_others_may_write_is_not_believed(path: Path) -> None:
    """Whoever can write it could be anybody."""
    write(path, "version: 1\nusers: {alice: /eth/a}")
    path.chmod(0o620)
    with pytest.raises(PeopleFileError, match="others may write"):
        roster(path).load()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file to another user")
def test_a_file_of_another_user_is_not_believed(path: Path) -> None:
    """Its owner could write it."""
    write(path, "version: 1\nusers: {alice: /eth/a}")
    os.chown(path, 1001, 1001)
    with pytest.raises(PeopleFileError, match="others may write"):
        roster(path).load()
