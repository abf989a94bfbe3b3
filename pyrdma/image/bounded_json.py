"""JSON from strangers: bounded, without duplicate keys, and every way to fail is one ``ValueError``.

Python's own parser accepts duplicate keys (the last one wins, so two readers can see two files), recurses as
deep as the text says and allocates what it says. The caller bounds the size of the text.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pyrdma.limits import MAX_JSON_VALUES


def parse_object(text: bytes, *, floats: bool) -> dict[str, Any]:
    """Return the JSON object that a UTF-8 text holds.

    Args:
        text: the whole text, of a size that the caller has bounded.
        floats: whether numbers other than integers may occur.

    Raises:
        ValueError: with the end of a sentence that begins with the text.
    """
    if text.count(b",") > MAX_JSON_VALUES:
        raise ValueError(f"holds more than {MAX_JSON_VALUES} values")
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=None if floats else _refuse_number,
            parse_constant=None if floats else _refuse_number,
        )
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON ({error.msg} at character {error.pos})") from error
    except _RefusedError:
        raise
    except ValueError as error:  # the interpreter's own bound on the digits of an integer
        raise ValueError("holds a number that is too long") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if type(value) is not dict:
        raise ValueError("is no JSON object")
    return value


class _RefusedError(ValueError):
    """One of our own refusals, raised through the parser."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedError("holds a key twice in one object")
    return found


def _refuse_number(_text: str) -> NoReturn:
    raise _RefusedError("holds a number that is no integer")
