"""What pydantic says about a form, in the words of policy files and at their places."""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from federation.policy.problems import Problem, closest
from federation.policy.tree import Path, Tree

_DIGITS: Final = re.compile(r"[0-9]{1,15}")
_NOT_A: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping, name: value",
    "model_type": "a mapping, name: value",
}


def complaints(error: ValidationError, form: type[BaseModel], tree: Tree) -> list[Problem]:
    """Return a problem for each thing that pydantic found."""
    details = error.errors(include_url=False)
    misspelt = {
        (*detail["loc"][:-1], closest(str(detail["loc"][-1]), fields_at(form, detail["loc"][:-1])))
        for detail in details
        if detail["type"] == "extra_forbidden"
    }
    return [
        _problem(detail, form, tree)
        for detail in details
        if detail["type"] != "missing" or detail["loc"] not in misspelt
    ]


def _problem(detail: ErrorDetails, form: type[BaseModel], tree: Tree) -> Problem:
    path: Path = detail["loc"]
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        name = str(path[-1])
        known = list(fields_at(form, path[:-1]))
        meant = closest(name, known)
        return _at_key(tree, path, f"unknown key {name!r}", f"one of {', '.join(known)}", meant)
    if kind == "missing":
        in_list = len(path) > 1 and isinstance(path[-2], int)
        span = tree.value(path[:-1]) if in_list else tree.key_above(path[:-1])
        inside = "" if len(path) == 1 else " in this item" if in_list else f" in {path[-2]!r}"
        message = f"{path[-1]!r} is missing{inside}"
        return Problem(span.where, message, f"a line {path[-1]}: ...", end_column=span.end_column)
    if path and path[-1] == "[key]":
        message = str(context.get("message", f"this name is not allowed: {detail['msg']}"))
        hint = str(context.get("did_you_mean", ""))
        return _at_key(tree, path[:-1], message, str(context.get("expected", "")), hint)
    message, expected, hint = _said(detail)
    span = tree.value(path)
    return Problem(span.where, message, expected, hint, span.end_column)


def _said(detail: ErrorDetails) -> tuple[str, str, str]:
    """Return message, what was expected, and what was probably meant."""
    kind, context = detail["type"], detail.get("ctx", {})
    given = detail["input"]
    if kind == "policy":
        return str(context["message"]), str(context["expected"]), str(context["did_you_mean"])
    if kind in _NOT_A:
        what = _shape_of(given)
        meant = {"yes": "true", "no": "false"}.get(str(given), "") if kind == "bool_type" else ""
        if kind == "list_type" and isinstance(given, str):
            meant = f"[{given}]"
        if kind == "int_type" and isinstance(given, str) and _DIGITS.fullmatch(given):
            meant = str(int(given))
        return f"here is {what}", _NOT_A[kind], meant
    if kind == "greater_than_equal":
        return f"{given} is too small", f"at least {context['ge']}", ""
    if kind == "less_than_equal":
        return f"{given} is too large", f"at most {context['le']}", ""
    if kind == "too_short":
        return "there is nothing here", f"at least {context['min_length']}", ""
    if kind in {"too_long", "string_too_long"}:
        return "this is too long", f"at most {context['max_length']}", ""
    if kind == "string_too_short":
        return "this text is empty", "a text", ""
    if kind == "literal_error":
        expected = str(context["expected"])
        return f"{given!r} is not known here", expected, closest(str(given), _quoted(expected))
    return detail["msg"], "", ""


def _shape_of(given: object) -> str:
    """Return what a value is, in a few words."""
    if given is None:
        return "nothing"
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, dict):
        return "a mapping"
    return "a list" if isinstance(given, list) else repr(given)


def _quoted(expected: str) -> list[str]:
    """Return the words of pydantic's ``'a', 'b' or 'c'``."""
    return [word.strip().strip("'") for word in expected.replace(" or ", ",").split(",")]


def _at_key(tree: Tree, path: Path, message: str, expected: str, hint: str) -> Problem:
    span = tree.key(path)
    return Problem(span.where, message, expected, hint, span.end_column)


def fields_at(form: type[BaseModel], path: Path) -> tuple[str, ...]:
    """Return the keys that the form has at a path; none where names are free."""
    kind: Any = form
    for step in path:
        kind = _inner(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            kind = None if field is None else field.annotation
        else:
            kind = next(iter(get_args(kind)[-1:]), None)
        if kind is None:
            return ()
    kind = _inner(kind)
    return tuple(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()


def _inner(kind: Any) -> Any:
    """Return a type without ``Annotated`` and ``| None``."""
    while True:
        origin = get_origin(kind)
        if origin is Annotated:
            kind = get_args(kind)[0]
        elif origin in {Union, types.UnionType}:
            kind = next(each for each in get_args(kind) if each is not type(None))
        else:
            return kind
