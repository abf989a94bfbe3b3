"""The people file in force at this node, and what it says of whoever calls.

Rules: the file is read anew when it has changed, beside the loop; one that cannot be used leaves the one
before in force, and that is said in the log and in ``whoami``. It must be the agent's own or root's, and
nobody else may write it. Without a file the agent's own user and root alone have an account, the site's own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import PeopleFileError
from agent.limits import MAX_PEOPLE_BYTES
from agent.people.file import read_people
from agent.people.model import Accounts, People, Who, accounts_of, choose

_log = logging.getLogger(__name__)
ALONE: Final = "/local"
"""The account of a node that is of no site."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What tells one state of a file from another; all zeros: no file."""

    inode: int = 0
    size_bytes: int = 0
    changed_ns: int = 0


class Roster:
    """The people of one node.

    Args:
        path: of the people file; it need not be there.
        site: the site's name; empty outside any.
        owner: the user that the agent runs as.
    """

    def __init__(self, path: Path, site: str, owner: Who) -> None:
        self._path = path
        self.site = site
        self.owner = owner
        self._own = f"/{site}" if site else ALONE
        self._people = People(self._own)
        self._seen = _Seen()
        self._reading = asyncio.Lock()
        self.fault = ""
        """Why the file as it stands is not in force; empty when it is."""

    def load(self) -> None:
        """Read the file for the first time.

        Raises:
            PeopleFileError: it is there and cannot be used.
        """
        self._seen = self._look()
        self._people = self._read()

    async def accounts(self, who: Who) -> Accounts:
        """Return the accounts of a caller."""
        await self._refresh()
        return accounts_of(who, self._people)

    async def account_for(self, who: Who, wanted: str) -> str:
        """Return the account that a request of a caller is charged to.

        Raises:
            AccountError, FederationInputError: the caller may not name this one, or has none.
        """
        return choose(await self.accounts(who), wanted)

    async def reread(self) -> None:
        """Read the file now, changed or not, and say in the log how it stands."""
        async with self._reading:
            await self._read_anew(self._look())

    async def _refresh(self) -> None:
        async with self._reading:
            seen = self._look()
            if seen != self._seen:
                await self._read_anew(seen)

    async def _read_anew(self, seen: _Seen) -> None:
        self._seen = seen  # one that is wrong is not read again until it changes, or somebody says so
        try:
            self._people = await asyncio.to_thread(self._read)
        except PeopleFileError as error:
            self.fault = error.message
            _log.error("the people file stays as it was before: %s", error.message)
            return
        self.fault = ""
        there = f"the people file {self._path} is in force as it is now"
        _log.info(there if seen != _Seen() else f"there is no people file {self._path}")

    def _look(self) -> _Seen:
        try:
            found = self._path.stat()
        except OSError:
            return _Seen()
        return _Seen(found.st_ino, found.st_size, found.st_mtime_ns)

    def _read(self) -> People:
        try:
            with self._path.open("rb") as opened:
                self._refuse_strangers(os.fstat(opened.fileno()))
                data = opened.read(MAX_PEOPLE_BYTES + 1)
        except FileNotFoundError:
            return People(self._own)
        except OSError as error:
            raise PeopleFileError(
                f"{self._path}:1:1: the people file cannot be read: {error.strerror}.",
                fix="make it readable for the user that runs the agent",
            ) from error
        return read_people(data, file=str(self._path), site=self._own)

    def _refuse_strangers(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise PeopleFileError(f"{self._path}:1:1: the people file is no file.", fix="put one there")
        if found.st_uid not in (0, self.owner.uid) or found.st_mode & 0o022:
            raise PeopleFileError(
                f"{self._path}:1:1: others may write the people file, so anybody could be in it.",
                fix=f"chown it to the user that runs the agent, and: chmod go-w {self._path}",
            )
