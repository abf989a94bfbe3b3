"""YAML as plain values with their places: bounded, one document, no anchors, no tags, no surprises.

Rules: what is read is a small part of YAML 1.2: mappings with text keys, lists, texts, whole numbers, decimal
numbers, ``true``, ``false``, ``null``. ``yes`` and ``010`` are texts. Anchors, aliases, merges, tags,
directives, a second document and a key that is there twice are problems. Bytes, depth, nodes and the length
of a text are bounded while it is read, so that no file takes long to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from federation.limits import (
    MAX_POLICY_BYTES,
    MAX_POLICY_DEPTH,
    MAX_POLICY_NODES,
    MAX_POLICY_SCALAR_CHARS,
)
from federation.policy.policy import Where
from federation.policy.problems import PolicyProblemsError, Problem

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]
Path = tuple[str | int, ...]

_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True, slots=True)
class Span:
    """Where a key or value stands; the end is on the same line."""

    where: Where
    end_column: int


@dataclass(slots=True)
class Tree:
    """A file's values, and where each key and value of them stands, by path."""

    file: str
    root: Value = None
    values: dict[Path, Span] = field(default_factory=dict)
    keys: dict[Path, Span] = field(default_factory=dict)

    def value(self, path: Path) -> Span:
        """Return where a value stands; one that is missing: where what it is missing from does."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, Span(Where(self.file, 1, 1), 2))

    def key(self, path: Path) -> Span:
        """Return where the key of a value stands; an item of a list and the whole file: the value itself."""
        return self.keys.get(path) or (self.value(path) if path in self.values else self.key_above(path))

    def key_above(self, path: Path) -> Span:
        """Return where the nearest key above stands."""
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path) or self.value(())


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    path: Path
    items: list[Value] | dict[str, Value]
    key: str | None = None
    twice: bool = False


def read_tree(data: bytes, file: str) -> Tree:
    """Return the values of a file.

    Raises:
        PolicyProblemsError: it is no YAML, or YAML of a kind that policies do not use.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise _failed(file, 1, 1, f"the file has {len(data)} bytes", f"at most {MAX_POLICY_BYTES}")
    text = _text(data, file)
    reading = _Reading(file)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            reading.take(event)
    except MarkedYAMLError as error:
        raise PolicyProblemsError([*reading.problems, _syntax(error, file)]) from error
    except (YAMLError, ValueError, OverflowError) as error:  # an escape such as \UFFFFFFFF
        raise _failed(file, reading.line, 1, f"this is no YAML: {error}", "plain YAML 1.2") from error
    if not reading.started:
        raise _failed(file, 1, 1, "the file is empty", "a policy: version, name, accounts, ...")
    if reading.problems:
        raise PolicyProblemsError(reading.problems)
    return reading.tree


class _Reading:
    """Takes a parser's events one by one and builds the tree."""

    def __init__(self, file: str) -> None:
        self.tree = Tree(file)
        self.problems: list[Problem] = []
        self.started = False
        self.line = 1
        self._open: list[_Open] = []
        self._documents = 0
        self._nodes = 0

    def take(self, event: Event) -> None:
        """Take the next event."""
        span = self._span(event)
        self.line = span.where.line
        if isinstance(event, DocumentStartEvent):
            self._document(event, span)
        elif isinstance(event, NodeEvent):
            self._node(event, span)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._open.pop()

    def _document(self, event: DocumentStartEvent, span: Span) -> None:
        self._documents += 1
        if self._documents > 1:
            raise self._stop(span, "a second document begins here", "one policy in one file")
        if event.tags or event.version:
            raise self._stop(span, "directives are not read", "a file without lines that begin with %")

    def _node(self, event: NodeEvent, span: Span) -> None:
        self.started = True
        self._nodes += 1
        if self._nodes > MAX_POLICY_NODES:
            raise self._stop(span, "the file has too many parts", f"at most {MAX_POLICY_NODES}")
        if isinstance(event, AliasEvent):
            raise self._stop(
                span, "aliases are not read", "the text itself; for everybody the word any, a star in quotes"
            )
        if event.anchor is not None:
            raise self._stop(span, "anchors are not read", "the text itself each time")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._stop(span, "tags are not read", "the value without a tag")
        above = self._open[-1] if self._open else None
        if above is not None and isinstance(above.items, dict) and above.key is None:
            self._key(above, event, span)
        elif isinstance(event, ScalarEvent):
            self._put(above, self._scalar(event, span), span)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(self._open) >= MAX_POLICY_DEPTH:
                raise self._stop(span, "this is nested too deeply", f"at most {MAX_POLICY_DEPTH} levels")
            items: list[Value] | dict[str, Value] = {} if isinstance(event, MappingStartEvent) else []
            path = self._put(above, items, span)
            self._open.append(_Open(path, items))

    def _key(self, above: _Open, event: NodeEvent, span: Span) -> None:
        if not isinstance(event, ScalarEvent):
            raise self._stop(span, "a key is a name", "text before the colon")
        key = str(event.value)
        if len(key) > MAX_POLICY_SCALAR_CHARS:
            raise self._stop(span, "this name is too long", f"at most {MAX_POLICY_SCALAR_CHARS} characters")
        if not key.isprintable():
            raise self._stop(span, "this name has characters that cannot be shown", "printable text")
        path = (*above.path, key)
        above.twice = key in above.items
        if above.twice:
            first = self.tree.keys[path].where
            self._add(span, f"{key!r} is here twice; the first one is in line {first.line}", "each name once")
        else:
            self.tree.keys[path] = span
        above.key = key

    def _put(self, above: _Open | None, value: Value, span: Span) -> Path:
        if value is None and above is not None and above.key is not None:
            # Nothing stands here: its mark is wherever the next thing is.
            span = self.tree.keys.get((*above.path, above.key), span)
        if above is None:
            self.tree.root = value
            path: Path = ()
        elif isinstance(above.items, list):
            above.items.append(value)
            path = (*above.path, len(above.items) - 1)
        else:
            assert above.key is not None
            path = (*above.path, above.key)
            if above.twice:  # told already; what is in it is read and left out
                path = (*above.path, above.key, "again")
            else:
                above.items[above.key] = value
            above.key = None
        self.tree.values.setdefault(path, span)
        return path

    def _scalar(self, event: ScalarEvent, span: Span) -> Value:
        text = str(event.value)
        if len(text) > MAX_POLICY_SCALAR_CHARS:
            self._add(span, "this text is too long", f"at most {MAX_POLICY_SCALAR_CHARS} characters")
            return text[:MAX_POLICY_SCALAR_CHARS]
        if not text.replace("\n", "").isprintable():  # by an escape; reasons and names are shown on terminals
            self._add(span, "this text has characters that cannot be shown", "printable text")
        if event.style is not None:  # in quotes, or a block: text
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _LEADING_ZERO.match(text):
            return text
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _DECIMAL.fullmatch(text) else text

    def _span(self, event: Event) -> Span:
        start, end = event.start_mark, event.end_mark
        line, column = (start.line, start.column) if start is not None else (0, 0)
        same = end is not None and end.line == line and end.column > column
        return Span(Where(self.tree.file, line + 1, column + 1), (end.column if same else column + 1) + 1)

    def _add(self, span: Span, message: str, expected: str) -> None:
        self.problems.append(Problem(span.where, message, expected, end_column=span.end_column))

    def _stop(self, span: Span, message: str, expected: str) -> PolicyProblemsError:
        self._add(span, message, expected)
        return PolicyProblemsError(self.problems)


def walk(value: Value, path: Path = ()) -> Iterator[tuple[Path, Value]]:
    """Yield every value with its path, the outer ones first."""
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from walk(item, (*path, at))


def _text(data: bytes, file: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        at_line, at = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise _failed(file, at_line, at, "this is no UTF-8", "a text file in UTF-8") from error
    for number, each in enumerate(text.split("\n"), 1):
        line = each.removesuffix("\r")
        if not line.isprintable():
            at, char = next((at, char) for at, char in enumerate(line, 1) if not char.isprintable())
            name = {"\t": "a tab", "\ufeff": "a byte order mark"}.get(char, f"the character {char!a}")
            raise _failed(file, number, at, f"{name} is here", "printable text and spaces")
    return text


def _syntax(error: MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if isinstance(mark, StringMark) else (1, 1)
    said = str(error.problem or error.context or "it cannot be read").strip()
    expected = ""
    if "mapping values are not allowed" in said:
        expected = "a space after each colon, one 'name: value' a line, text with a colon in quotes"
    elif "alphabetic" in said or "alias" in said:
        expected = "the word any instead of a star, or the star in quotes"
    elif "block end" in said or "block mapping" in said or "simple key" in said:
        expected = "the same indentation as the lines that it belongs with, and a colon after each name"
    return Problem(Where(file, line, column), f"this is no YAML: {said}", expected, end_column=column + 1)


def _failed(file: str, line: int, column: int, message: str, expected: str) -> PolicyProblemsError:
    return PolicyProblemsError([Problem(Where(file, line, column), message, expected)])
