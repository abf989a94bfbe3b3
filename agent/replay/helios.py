"""The Helios trace (SenseTime 2020, CC-BY-4.0) read as ours. The data is not part of this software.

Its ``cluster_log.csv`` has the columns ``job_id, user, vc, gpu_num, cpu_num, node_num, state, submit_time,
start_time, end_time, duration, queue``: times as ``YYYY-MM-DD HH:MM:SS``, the last two in seconds. Those that
are read may stand in any order.

A virtual cluster (``vc``) was a group's own part of the machines: it becomes an institution with a site of
its own, a user becomes a group below it. Names of the data are in mixed case and ours are not: two that
differ in case alone get numbers in the order in which they come. A job that waited on its own cluster longer
than ``guest_after_s`` is one that the federation would have been asked for: a guest. All others are their
owner's own. Jobs without a GPU, and those that never ran, are left out and counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from agent.errors import TraceError
from agent.limits import MAX_TRACE_DEVICES, MAX_TRACE_JOBS, MAX_TRACE_LINE_CHARS, MAX_TRACE_SECONDS
from agent.replay.trace import Job, bounded
from agent.text import printable
from federation.errors import FederationInputError
from federation.fairshare.accounts import check_account, institution

GUEST_AFTER_S: Final = 300.0
PURPOSE: Final = "research"

_NEEDED: Final = ("user", "vc", "gpu_num", "submit_time", "duration", "queue")
_COUNT: Final = re.compile(r"\d{1,9}")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)")
_DAY_S: Final = 86400.0
_HASH_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Helios:
    """What a Helios log gives.

    Args:
        jobs: in the order of their submission, from midnight of the first one's day.
        without_gpu: rows left out since they asked for no GPU.
        never_ran: rows left out since they ran for no second.
        peak_devices: by site, the most devices that its jobs held at once in the record.
    """

    jobs: tuple[Job, ...]
    without_gpu: int
    never_ran: int
    peak_devices: Mapping[str, int] = field(default_factory=dict)


def read_helios(
    lines: Iterable[str],
    name: str,
    *,
    accounts: Mapping[str, str] | None = None,
    guest_after_s: float = GUEST_AFTER_S,
) -> Helios:
    """Return the jobs of a ``cluster_log.csv``.

    Args:
        lines: the text, line by line.
        name: of the file, for errors.
        accounts: by ``vc``, the account that its jobs belong to; with it, a ``vc`` that is not named is an
            error, users are not told apart, and the site has the institution's name.
        guest_after_s: a job that waited longer in the record is a guest.

    Raises:
        TraceError: at the first line that is not as it should be.
    """
    log = _Log(name, accounts, guest_after_s)
    columns: dict[str, int] | None = None
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if len(line) > MAX_TRACE_LINE_CHARS:
            _fail(name, number, f"the line has more than {MAX_TRACE_LINE_CHARS} characters")
        if not line.strip():
            continue
        cells = line.split(",")
        if columns is None:
            columns = {title.strip().removeprefix("\ufeff"): at for at, title in enumerate(cells)}
            missing = [one for one in _NEEDED if one not in columns]
            if missing:
                _fail(name, number, f"the columns {', '.join(missing)} are missing: this is no Helios log")
            continue
        if len(cells) != len(columns):
            _fail(name, number, f"the line has {len(cells)} values, the header {len(columns)}")
        log.add(number, {title: cells[at].strip() for title, at in columns.items()})
    return log.result()


def open_helios(
    path: Path,
    *,
    sha256: str | None = None,
    accounts: Mapping[str, str] | None = None,
    guest_after_s: float = GUEST_AFTER_S,
) -> Helios:
    """Return the jobs of a file.

    Args:
        path: of a ``cluster_log.csv``.
        sha256: what the file's SHA-256 must be, in hex.
        accounts: as in ``read_helios``.
        guest_after_s: as in ``read_helios``.

    Raises:
        TraceError: the file cannot be read, is another one, or is no Helios log.
    """
    try:
        if sha256 is not None:
            check_sha256(path, sha256)
        with path.open(encoding="utf-8", newline="\n") as file:
            return read_helios(bounded(file), str(path), accounts=accounts, guest_after_s=guest_after_s)
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} cannot be read: {error}.", fix="name a text file in UTF-8") from error


def open_accounts(path: Path) -> dict[str, str]:
    """Return a map of accounts: lines ``VC,ACCOUNT``, those that begin with ``#`` apart.

    Raises:
        TraceError: the file cannot be read, or has other lines.
    """
    accounts: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, raw in enumerate(bounded(file), 1):
                line = raw.strip()
                if not line or line.startswith("#"):
                    continue
                vc, _, account = line.partition(",")
                if vc in accounts:
                    _fail(str(path), number, f"the vc '{printable(vc, 40)}' stands here twice")
                try:
                    accounts[vc] = check_account(account.strip())
                except FederationInputError as error:
                    _fail(str(path), number, error.message.rstrip("."))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} cannot be read: {error}.", fix="name a text file in UTF-8") from error
    return accounts


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not the one that was meant.

    Raises:
        TraceError: its SHA-256 is another one.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_HASH_BYTES):
            digest.update(part)
    if digest.hexdigest() != expected.lower():
        raise TraceError(
            f"{path} has the SHA-256 {digest.hexdigest()}, not {printable(expected, 64)}.",
            fix="fetch the file again, or give the sum of the file that you mean",
        )


class _Log:
    def __init__(self, name: str, accounts: Mapping[str, str] | None, guest_after_s: float) -> None:
        self._name = name
        self._accounts = accounts
        self._guest_after_s = guest_after_s
        self._vcs = _Names()
        self._users: dict[str, _Names] = {}
        self._checked: set[str] = set()
        self._moments: dict[str, float] = {}
        self._rows: list[Job] = []
        self._ran: dict[str, list[tuple[float, int]]] = {}
        self._without_gpu = 0
        self._never_ran = 0

    def add(self, number: int, row: Mapping[str, str]) -> None:
        gpus = self._count(number, row, "gpu_num", MAX_TRACE_DEVICES)
        if gpus == 0:
            self._without_gpu += 1
            return
        duration_s = self._count(number, row, "duration", MAX_TRACE_SECONDS)
        if duration_s == 0:
            self._never_ran += 1
            return
        if len(self._rows) >= MAX_TRACE_JOBS:
            _fail(self._name, number, f"the log has more than {MAX_TRACE_JOBS} jobs")
        queue_s = self._count(number, row, "queue", MAX_TRACE_SECONDS)
        submit_s = self._moment(number, row["submit_time"])
        account, site = self._account(number, row["vc"], row["user"])
        local = queue_s <= self._guest_after_s
        self._rows.append(Job(submit_s, account, gpus, float(duration_s), PURPOSE, local, site))
        start_s = submit_s + queue_s
        self._ran.setdefault(site, []).extend([(start_s, gpus), (start_s + duration_s, -gpus)])

    def result(self) -> Helios:
        rows = sorted(self._rows, key=lambda one: one.submit_s)
        first_s = rows[0].submit_s // _DAY_S * _DAY_S if rows else 0.0
        jobs = tuple(replace(one, submit_s=one.submit_s - first_s) for one in rows)
        peaks = {site: _peak(changes) for site, changes in sorted(self._ran.items())}
        return Helios(jobs, self._without_gpu, self._never_ran, peaks)

    def _count(self, number: int, row: Mapping[str, str], column: str, most: int) -> int:
        text = row[column].removesuffix(".0")
        if _COUNT.fullmatch(text) is None or int(text) > most:
            _fail(
                self._name, number, f"{column} is '{printable(row[column], 40)}', no whole number to {most}"
            )
        return int(text)

    def _moment(self, number: int, text: str) -> float:
        day, _, clock = text.partition(" ")
        found = _CLOCK.fullmatch(clock)
        try:
            if found is None:
                raise ValueError(clock)
            if day not in self._moments:
                self._moments[day] = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
            hours, minutes, seconds = (int(part) for part in found.groups())
        except ValueError:
            _fail(self._name, number, f"submit_time is '{printable(text, 40)}', not YYYY-MM-DD HH:MM:SS")
        return self._moments[day] + hours * 3600 + minutes * 60 + seconds

    def _account(self, number: int, vc: str, user: str) -> tuple[str, str]:
        if self._accounts is not None:
            if vc not in self._accounts:
                _fail(self._name, number, f"the map of accounts does not name the vc '{printable(vc, 40)}'")
            account = self._accounts[vc]
            return account, institution(account)
        site = self._vcs.plain(vc)
        group = self._users.setdefault(site, _Names()).plain(user)
        account = f"/{site}/{group}"
        if account not in self._checked:
            try:
                check_account(account)
            except FederationInputError:
                _fail(self._name, number, f"'{printable(vc, 40)}' or '{printable(user, 40)}' is no name")
            self._checked.add(account)
        return account, site


class _Names:
    """Names in mixed case as names in lower case, each its own."""

    def __init__(self) -> None:
        self._plain: dict[str, str] = {}
        self._used: dict[str, int] = {}

    def plain(self, text: str) -> str:
        known = self._plain.get(text)
        if known is None:
            lower = text.lower().replace("_", "-")
            self._used[lower] = self._used.get(lower, 0) + 1
            known = lower if self._used[lower] == 1 else f"{lower}-{self._used[lower]}"
            self._plain[text] = known
        return known


def _peak(changes: list[tuple[float, int]]) -> int:
    """Return the highest sum along time; what ends at a moment is gone before what begins then."""
    most = held = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


def _fail(name: str, line: int, what: str) -> NoReturn:
    raise TraceError(f"{name}:{line}: {what}.", fix="docs/replay.md says what is read of a Helios log")
