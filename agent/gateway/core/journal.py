"""Events and decisions as bytes in one form, and back: what happened can be kept, and played again.

Rules: equal values give equal bytes; what comes back from bytes equals what went in. A value stands as a
list, its class's name first, then its fields in order; a table as pairs sorted by key; bytes as hex.
Events that were kept, played over the state from which they began, give the same effects, bit for bit. Who
reads bytes that a stranger may have written checks their signature first: only the form is checked here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

from agent.errors import InternalError
from agent.gateway.core import book, events, fleet, request
from federation.fairshare import freshness, reasons, standing
from federation.policy import policy

_MODULES: Final = (book, events, fleet, request, freshness, reasons, standing, policy)
_KINDS: Final = {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__
}
_TUPLES: Final = {"DeviceRef": fleet.DeviceRef}


def event_bytes(event: events.Event) -> bytes:
    """Return an event's form."""
    return _bytes(_plain(event))


def event_of(body: bytes) -> events.Event:
    """Return the event of a form.

    Raises:
        InternalError: these bytes are none.
    """
    value = _value(json.loads(body), events.Event)
    if not isinstance(value, get_args(events.Event)):
        raise InternalError("these bytes are no event of a donor.")
    return cast(events.Event, value)


def decision_bytes(decision: events.Decision) -> bytes:
    """Return a decision's form, with the event that it was made on."""
    return _bytes(_plain(decision))


def decision_of(body: bytes) -> events.Decision:
    """Return the decision of a form.

    Raises:
        InternalError: these bytes are none.
    """
    value = _value(json.loads(body), events.Decision)
    if not isinstance(value, events.Decision):
        raise InternalError("these bytes are no decision of a donor.")
    return value


def effect_bytes(effect: events.Effect) -> bytes:
    """Return an effect's form, to compare what was done with what a replay does."""
    return _bytes(_plain(effect))


def _bytes(plain: object) -> bytes:
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | str():
            return value.value if isinstance(value, Enum) else value
        case float():
            return value
        case bytes():
            return value.hex()
        case fleet.DeviceRef():
            return ["DeviceRef", value.node, value.device]
        case tuple() | list() | frozenset():
            return [_plain(one) for one in value]
        case Mapping():
            return sorted([str(key), _plain(one)] for key, one in value.items())
    name = type(value).__name__
    if _KINDS.get(name) is not type(value):
        raise InternalError(f"the journal knows no {name}.")
    return [name, *(_plain(getattr(value, one)) for one in _fields(type(value)))]


@cache
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind) if one.init and one.name != "known_index")


@cache
def _types(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _value(plain: object, kind: Any) -> object:
    """Return what a plain value means where a type is expected."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _one_of(plain, get_args(kind))
    if origin is Literal or kind in (str, int, bool, NoneType, object):
        return plain
    if kind is float:
        return plain
    if kind is bytes:
        return bytes.fromhex(_text(plain))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    if origin is tuple:
        return _tuple_of(plain, get_args(kind))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _value(one, get_args(kind)[1]) for key, one in _list(plain)}
    return _made(_list(plain))


def _one_of(plain: object, kinds: tuple[Any, ...]) -> object:
    if plain is None or not isinstance(plain, list):
        simple = next((one for one in kinds if isinstance(one, type) and issubclass(one, Enum)), None)
        return plain if plain is None or simple is None else simple(plain)
    of_tuple = next((one for one in kinds if get_origin(one) is tuple), None)
    if of_tuple is not None:
        return _value(plain, of_tuple)
    return _made(plain)


def _tuple_of(plain: object, kinds: tuple[Any, ...]) -> object:
    items = _list(plain)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_value(one, kinds[0]) for one in items)
    return tuple(_value(one, kind) for one, kind in zip(items, kinds, strict=True))


def _made(plain: list[Any]) -> object:
    name, *rest = plain
    made: Callable[..., object] | None = _TUPLES.get(name)
    if made is not None:
        return made(*rest)
    kind = _KINDS.get(name)
    if kind is None:
        raise InternalError(f"the journal knows no {name!r}.")
    names, types = _fields(kind), _types(kind)
    values = (_value(one, types[field]) for field, one in zip(names, rest, strict=True))
    return kind(**dict(zip(names, values, strict=True)))


def _list(plain: object) -> list[Any]:
    if not isinstance(plain, list):
        raise InternalError("a list was expected in the journal.")
    return plain


def _text(plain: object) -> str:
    if not isinstance(plain, str):
        raise InternalError("a text was expected in the journal.")
    return plain
