"""The people file, read: small YAML that one person keeps, checked to the last key, with positions in errors.

::

    version: 1
    users:
      alice: /eth/vision                    # charged by default, and the only one that she may name
      1042:                                 # a user by number
        default: /eth/speech
        accounts: [/eth/speech, /eth/teaching/*]
    groups:
      students: /eth/teaching
    tokens:
      alice-laptop: /eth/vision

Rules: the YAML is that of policy files (``federation.policy.tree``): no anchors, no tags, no key twice; keys
that are not known are refused, and a user or group that is called by digits alone is one by number. All
problems are found at once and the first one is told with its place. Whether the site may speak for an
account is not asked here: the policy says so, at each request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from agent.errors import PeopleFileError
from agent.limits import MAX_ACCOUNTS_OF_ONE, MAX_PEOPLE_BYTES, MAX_PEOPLE_LINES, MAX_PERSON_CHARS
from agent.people.model import BELOW, Grant, People
from federation.errors import FederationInputError
from federation.fairshare.accounts import check_account
from federation.policy.findings import Findings
from federation.policy.problems import PolicyProblemsError, closest
from federation.policy.tree import Path, Value, read_tree

VERSION: Final = 1
_NUMBER: Final = re.compile(r"0|[1-9][0-9]*")
_SECTIONS: Final = ("users", "groups", "tokens")
_LINE: Final = ("default", "accounts")


def read_people(data: bytes, *, file: str, site: str) -> People:
    """Return the people of a file.

    Args:
        data: its bytes.
        file: what errors call it.
        site: the account of the site itself, such as ``/eth``.

    Raises:
        PeopleFileError: anything is not as it must be; the sentence begins with ``FILE:LINE:COLUMN``.
    """
    try:
        if len(data) > MAX_PEOPLE_BYTES:
            raise PeopleFileError(
                f"{file}:1:1: the file has more than {MAX_PEOPLE_BYTES} bytes.", fix="give accounts to groups"
            )
        tree = read_tree(data, file)
        findings = Findings(tree)
        people = _people(tree.root, findings, site)
        if findings.problems:
            raise PolicyProblemsError(findings.problems)
    except PolicyProblemsError as error:
        raise PeopleFileError(error.message, fix=error.fix or "see the example in the docs") from error
    return people


def _people(root: Value, findings: Findings, site: str) -> People:
    if not isinstance(root, dict):
        findings.value((), "a people file has keys with values", "version: 1, users: ...")
        return People(site)
    if root.get("version") != VERSION or isinstance(root.get("version"), bool):
        findings.value(("version",), "this is no people file that is known here", f"version: {VERSION}")
    _refuse_unknown(root, (), ("version", *_SECTIONS), findings)
    lines = {name: _section(root.get(name), (name,), findings) for name in _SECTIONS}
    if sum(map(len, lines.values())) > MAX_PEOPLE_LINES:
        findings.value((), f"the file has more than {MAX_PEOPLE_LINES} lines", "accounts for groups")
    return People(site, lines["users"], lines["groups"], lines["tokens"])


def _section(value: Value, path: Path, findings: Findings) -> Mapping[str, Grant]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        findings.value(path, f"{path[-1]} are names with accounts", "NAME: /site/group")
        return {}
    lines = {}
    for name, line in value.items():
        at = (*path, name)
        if not 0 < len(name) <= MAX_PERSON_CHARS or name != name.strip():
            findings.key(at, "this is no name", f"1 to {MAX_PERSON_CHARS} characters")
        elif name.lstrip("+-.")[:1].isdigit() and not _NUMBER.fullmatch(name):
            findings.key(at, f"{name} is no plain number", "1042; or, of a name such as 3d-lab, its number")
        lines[name] = _grant(line, at, findings)
    return lines


def _grant(line: Value, path: Path, findings: Findings) -> Grant:
    if not isinstance(line, dict):
        account = _account(line, path, findings, pattern=False)
        return Grant(account, (account,))
    _refuse_unknown(line, path, _LINE, findings)
    if "default" not in line:
        findings.key(path, "a line with accounts names its default", "default: /site/group")
        return Grant("", ())
    default = _account(line["default"], (*path, "default"), findings, pattern=False)
    listed, at = line.get("accounts", []), (*path, "accounts")
    if not isinstance(listed, list):
        findings.value(at, "accounts are a list", "[/site/group, /site/other]")
        listed = []
    if len(listed) > MAX_ACCOUNTS_OF_ONE:
        findings.value(at, f"a line has at most {MAX_ACCOUNTS_OF_ONE} accounts", "/site/group/*")
    accounts = [_account(one, (*at, number), findings, pattern=True) for number, one in enumerate(listed)]
    return Grant(default, tuple(dict.fromkeys((default, *accounts))))


def _account(value: Value, path: Path, findings: Findings, *, pattern: bool) -> str:
    if not isinstance(value, str):
        findings.value(path, "an account belongs here", "/site/group")
        return ""
    try:
        check_account(value.removesuffix(BELOW) if pattern else value)
    except FederationInputError as error:
        findings.value(path, f"{value} is no account: {error.message.rstrip('.')}", error.fix)
    return value


def _refuse_unknown(
    found: Mapping[str, Value], path: Path, known: tuple[str, ...], findings: Findings
) -> None:
    for name in found:
        if name not in known:
            findings.key(
                (*path, name), f"{name} is no key here", f"one of {', '.join(known)}", closest(name, known)
            )
