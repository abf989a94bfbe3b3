"""A trace of jobs as CSV: read strictly and line by line, written in the same form.

The form: UTF-8; lines that begin with ``#`` and empty lines are skipped; the first other line names the
columns; each further one is a job. ``submit`` must not go back, so that a trace can be replayed while it is
read. There is no quoting: no value of a trace has a comma or a space in it.

    submit,account,devices,duration,purpose,kind,site,user,class
    0,/north/nlp,1,1800,research,guest,north,,
    12.5,/south,2,600,teaching,local,south,u17,student

``docs/replay.md`` says what the columns mean. Errors begin with ``FILE:LINE:COLUMN``, counted from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NoReturn

from agent.errors import TraceError
from agent.limits import MAX_TRACE_DEVICES, MAX_TRACE_JOBS, MAX_TRACE_LINE_CHARS, MAX_TRACE_SECONDS
from agent.text import printable
from federation.errors import FederationInputError
from federation.fairshare.accounts import check_account, institution

REQUIRED: Final = ("submit", "account", "devices", "duration", "purpose", "kind", "site")
OPTIONAL: Final = ("user", "class")

_SECONDS: Final = re.compile(r"\d{1,12}(?:\.\d{1,3})?")
_COUNT: Final = re.compile(r"\d{1,9}")
_WORD: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})")


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a trace.

    Args:
        submit_s: when it is asked for, from the trace's start.
        account: who is charged, ``/institution[/group[/project]]``.
        devices: how many it needs at once.
        duration_s: how long it runs once its start is over.
        purpose: as the policy names it.
        local: whether it is the owner's own job on the site's devices; otherwise a guest of the federation.
        site: whose gateway asks for it; of a local job, whose devices it runs on.
        user: who it is of, if the trace says.
        account_class: the class that the trace puts its account in, if any.
    """

    submit_s: float
    account: str
    devices: int
    duration_s: float
    purpose: str
    local: bool
    site: str
    user: str = ""
    account_class: str = ""

    @property
    def institution(self) -> str:
        """The account's first name."""
        return institution(self.account)


def read_trace(lines: Iterable[str], name: str) -> Iterator[Job]:
    """Yield the jobs of a trace as its lines come.

    Args:
        lines: the text, line by line.
        name: of the file, for errors.

    Raises:
        TraceError: at the first line that is not as it should be.
    """
    columns: dict[str, int] | None = None
    accounts: dict[str, str] = {}  # what was checked before need not be checked again
    words: dict[str, str] = {}
    last_s = 0.0
    jobs = 0
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if len(line) > MAX_TRACE_LINE_CHARS:
            _fail(name, number, 1, f"the line has more than {MAX_TRACE_LINE_CHARS} characters")
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split(",")
        if columns is None:
            columns = _header(cells, name, number)
            continue
        jobs += 1
        if jobs > MAX_TRACE_JOBS:
            _fail(name, number, 1, f"the trace has more than {MAX_TRACE_JOBS} jobs")
        row = _Row(name, number, cells, columns)
        job = row.job(accounts, words)
        if job.submit_s < last_s:
            row.fail("submit", f"{job.submit_s:g} is before the line above, {last_s:g}")
        last_s = job.submit_s
        yield job
    if columns is None:
        _fail(name, 1, 1, "the trace has no line that names its columns")


def open_trace(path: Path) -> Iterator[Job]:
    """Yield the jobs of a file.

    Raises:
        TraceError: the file cannot be read, or is no trace.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from read_trace(bounded(file), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path} cannot be read: {error}.", fix="name a text file in UTF-8") from error


def write_trace(jobs: Iterable[Job], file: IO[str]) -> int:
    """Write jobs in the form that ``read_trace`` reads; return how many."""
    file.write(",".join((*REQUIRED, *OPTIONAL)) + "\n")
    count = 0
    for job in jobs:
        kind = "local" if job.local else "guest"
        cells = (
            seconds_text(job.submit_s),
            job.account,
            str(job.devices),
            seconds_text(job.duration_s),
            job.purpose,
            kind,
            job.site,
            job.user,
            job.account_class,
        )
        file.write(",".join(cells) + "\n")
        count += 1
    return count


def bounded(file: IO[str]) -> Iterator[str]:
    """Yield a file's lines, none longer than the reader has to see to refuse it."""
    while line := file.readline(MAX_TRACE_LINE_CHARS + 2):
        yield line


def seconds_text(value: float) -> str:
    """Return seconds to the millisecond, without needless zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


class _Row:
    """One line on its way to a job; knows where its cells stand."""

    def __init__(self, name: str, number: int, cells: list[str], columns: dict[str, int]) -> None:
        self._name = name
        self._number = number
        self._cells = cells
        self._columns = columns
        if len(cells) != len(columns):
            _fail(name, number, 1, f"the line has {len(cells)} values, the header {len(columns)}")

    def job(self, accounts: dict[str, str], words: dict[str, str]) -> Job:
        cells, columns = self._cells, self._columns
        account = cells[columns["account"]]
        if account not in accounts:
            try:
                check_account(account)
            except FederationInputError as error:
                self.fail("account", error.message.rstrip("."))
            accounts[account] = account
        kind = cells[columns["kind"]]
        if kind not in {"local", "guest"}:
            self.fail("kind", f"{_shown(kind)} is neither local nor guest")
        return Job(
            self._seconds("submit", least=0.0),
            accounts[account],
            self._devices(),
            self._seconds("duration", least=0.001),
            self._word("purpose", words),
            kind == "local",
            self._word("site", words),
            self._word("user", words) if "user" in columns else "",
            self._word("class", words) if "class" in columns else "",
        )

    def fail(self, column: str, what: str) -> NoReturn:
        at = self._columns[column]
        _fail(self._name, self._number, 1 + sum(len(cell) + 1 for cell in self._cells[:at]), what)

    def _seconds(self, column: str, *, least: float) -> float:
        text = self._cells[self._columns[column]]
        if _SECONDS.fullmatch(text) is None or not least <= float(text) <= MAX_TRACE_SECONDS:
            self.fail(column, f"{_shown(text)} is no number of seconds from {least:g} to {MAX_TRACE_SECONDS}")
        return float(text)

    def _devices(self) -> int:
        text = self._cells[self._columns["devices"]]
        if _COUNT.fullmatch(text) is None or not 1 <= int(text) <= MAX_TRACE_DEVICES:
            self.fail("devices", f"{_shown(text)} is no number of devices from 1 to {MAX_TRACE_DEVICES}")
        return int(text)

    def _word(self, column: str, words: dict[str, str]) -> str:
        text = self._cells[self._columns[column]]
        if text in words or (not text and column in OPTIONAL):
            return words.get(text, "")
        if _WORD.fullmatch(text) is None:
            self.fail(column, f"{_shown(text)} is no name: letters, digits, dots, dashes and underscores")
        words[text] = text
        return text


def _header(cells: list[str], name: str, number: int) -> dict[str, int]:
    column = 1
    found: dict[str, int] = {}
    for at, cell in enumerate(cells):
        if cell not in REQUIRED and cell not in OPTIONAL:
            known = ", ".join((*REQUIRED, *OPTIONAL))
            _fail(name, number, column, f"{_shown(cell)} is no column of a trace; these are: {known}")
        if cell in found:
            _fail(name, number, column, f"the column {cell} stands here twice")
        found[cell] = at
        column += len(cell) + 1
    missing = [one for one in REQUIRED if one not in found]
    if missing:
        _fail(name, number, 1, f"the columns {', '.join(missing)} are missing")
    return found


def _shown(text: str) -> str:
    return f"'{printable(text, 60)}'"


def _fail(name: str, line: int, column: int, what: str) -> NoReturn:
    raise TraceError(f"{name}:{line}:{column}: {what}.", fix="docs/replay.md describes the form of a trace")
