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

Rules: one meaning a file: unknown keys, keys given twice, anchors and aliases are refused, and numbers are
names here. Whether the site may speak for an account is not asked: the policy says so, at each request.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agent.errors import PeopleFileError
from agent.limits import MAX_ACCOUNTS_OF_ONE, MAX_PEOPLE_BYTES, MAX_PEOPLE_LINES, MAX_PERSON_CHARS
from agent.people.model import BELOW, Grant, People
from agent.text import printable
from federation.errors import FederationInputError
from federation.fairshare.accounts import check_account

VERSION: Final = "1"
_SECTIONS: Final = ("version", "users", "groups", "tokens")
_LINE: Final = ("default", "accounts")
_MAX_DEPTH: Final = 4
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]*")
_TEXT: Final = "tag:yaml.org,2002:str"
_NUMBER: Final = "tag:yaml.org,2002:int"
_NULL: Final = "tag:yaml.org,2002:null"


def read_people(data: bytes, *, file: str, site: str) -> People:
    """Return the people of a file.

    Args:
        data: its bytes.
        file: what errors call it.
        site: the account of the site itself, such as ``/eth``.

    Raises:
        PeopleFileError: anything is not as it must be; the sentence begins with ``FILE:LINE:COLUMN``.
    """
    reading = _Reading(file)
    root = reading.compose(data)
    sections = reading.mapping(root, "a people file", _known(_SECTIONS)) if root is not None else {}
    version = sections.get("version")
    if version is None or reading.text(version[1], "the version") != VERSION:
        raise reading.error(
            root if version is None else version[1],
            "a people file begins with its version.",
            f"write: version: {VERSION}",
        )
    lines = {name: reading.lines(name, sections[name][1]) for name in _SECTIONS[1:] if name in sections}
    if sum(map(len, lines.values())) > MAX_PEOPLE_LINES:
        raise reading.error(root, f"the file has more than {MAX_PEOPLE_LINES} lines.", "use groups")
    return People(site, lines.get("users", {}), lines.get("groups", {}), lines.get("tokens", {}))


class _Reading:
    """One file on its way to values."""

    def __init__(self, file: str) -> None:
        self._file = file

    def compose(self, data: bytes) -> Node | None:
        """Return the file's tree, without anchors, aliases, tags or depth."""
        if len(data) > MAX_PEOPLE_BYTES:
            raise self.error(None, f"the file has more than {MAX_PEOPLE_BYTES} bytes.", "use groups")
        try:
            text = data.decode("utf-8")
            self._refuse_cleverness(text)
            found = YAML(typ="safe", pure=True).compose(text)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            raise self._at(line, column, "the file is not UTF-8.", "save it as UTF-8") from None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            why = " ".join(str(error.problem or error.context or "unreadable").split())
            raise self._at(line, column, f"this is no YAML: {why}.", "see the example in the docs") from None
        except (YAMLError, ValueError, RecursionError, NotImplementedError) as error:
            why = " ".join(str(error).split())
            raise self._at(1, 1, f"this is no YAML: {why}.", "see the example in the docs") from None
        return found if isinstance(found, Node) else None

    def _refuse_cleverness(self, text: str) -> None:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
                raise self._mark(event.start_mark, "anchors and aliases have no place here.", "write it out")
            if isinstance(event, CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise self._mark(event.start_mark, "this is nested too deeply.", "see the example")
            elif isinstance(event, CollectionEndEvent):
                depth -= 1

    def mapping(self, node: Node, what: str, check: Callable[[str], str]) -> dict[str, tuple[Node, Node]]:
        """Return a mapping by key, each with the nodes of key and value; ``check`` says what is wrong."""
        if not isinstance(node, MappingNode):
            raise self.error(node, f"{what} is a list of keys with values.", "write KEY: VALUE")
        found: dict[str, tuple[Node, Node]] = {}
        for key, value in node.value:
            name = self.text(key, "a key")
            if name in found:
                raise self.error(key, f"{_shown(name)} stands here twice.", "remove one of them")
            if wrong := check(name):
                raise self.error(key, wrong, "see the example in the docs")
            found[name] = (key, value)
        return found

    def lines(self, section: str, node: Node) -> Mapping[str, Grant]:
        """Return one section: lines by name."""
        if isinstance(node, ScalarNode) and node.tag == _NULL:
            return {}
        return {
            name: self._grant(value)
            for name, (_, value) in self.mapping(node, f"the section {section}", _check_name).items()
        }

    def _grant(self, node: Node) -> Grant:
        if not isinstance(node, MappingNode):
            account = self._account(node, pattern=False)
            return Grant(account, (account,))
        parts = self.mapping(node, "a line", _known(_LINE))
        if "default" not in parts:
            raise self.error(node, "a line with accounts names its default.", "add: default: /site/group")
        default = self._account(parts["default"][1], pattern=False)
        listed = parts["accounts"][1] if "accounts" in parts else None
        if listed is None:
            return Grant(default, (default,))
        if not isinstance(listed, SequenceNode):
            raise self.error(listed, "accounts are a list.", "write: accounts: [/site/group]")
        if len(listed.value) > MAX_ACCOUNTS_OF_ONE:
            raise self.error(
                listed, f"a line has at most {MAX_ACCOUNTS_OF_ONE} accounts.", "use /site/group/*"
            )
        accounts = (default, *(self._account(one, pattern=True) for one in listed.value))
        return Grant(default, tuple(dict.fromkeys(accounts)))

    def _account(self, node: Node, *, pattern: bool) -> str:
        text = self.text(node, "an account")
        try:
            check_account(text.removesuffix(BELOW) if pattern else text)
        except FederationInputError as error:
            raise self.error(node, f"{_shown(text)} is no account: {error.message}", error.fix) from None
        return text

    def text(self, node: Node, what: str) -> str:
        """Return a text or a number as it is written."""
        if not isinstance(node, ScalarNode) or node.tag not in (_TEXT, _NUMBER):
            raise self.error(node, f"{what} is a word or a number.", "put it in quotes if it is meant so")
        value = str(node.value)
        if node.tag == _NUMBER and not _DECIMAL.fullmatch(value):
            raise self.error(node, f"{_shown(value)} is no plain number.", "write it as 1042, or in quotes")
        return value

    def error(self, node: Node | None, sentence: str, fix: str) -> PeopleFileError:
        """Return an error at a node."""
        return self._at(1, 1, sentence, fix) if node is None else self._mark(node.start_mark, sentence, fix)

    def _mark(self, mark: object, sentence: str, fix: str) -> PeopleFileError:
        line, column = getattr(mark, "line", 0), getattr(mark, "column", 0)
        return self._at(line + 1, column + 1, sentence, fix)

    def _at(self, line: int, column: int, sentence: str, fix: str) -> PeopleFileError:
        return PeopleFileError(f"{self._file}:{line}:{column}: {sentence}", fix=fix)


def _known(keys: tuple[str, ...]) -> Callable[[str], str]:
    def check(name: str) -> str:
        if name in keys:
            return ""
        near = difflib.get_close_matches(name, keys, n=1)
        return f"{_shown(name)} is no key here; " + (
            f"did you mean {near[0]}?" if near else f"there are {', '.join(keys)}."
        )

    return check


def _check_name(name: str) -> str:
    if 0 < len(name) <= MAX_PERSON_CHARS and name.isprintable() and not name.isspace():
        return ""
    return f"a name has 1 to {MAX_PERSON_CHARS} printable characters."


def _shown(text: str) -> str:
    return printable(text, MAX_PERSON_CHARS)
