"""The fields of policy files: figures with units, names, accounts, hours; each with its bounds.

Rules: a field's error says what was expected and, where that can be told, what was probably meant. What
``any`` stands for in a file is ``*`` in the values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from federation.errors import FederationInputError
from federation.fairshare.accounts import check_account
from federation.identity.names import check_label
from federation.limits import MAX_POLICY_NAMES
from federation.policy import units
from federation.policy.hours import EXPECTED, parse_span
from federation.policy.policy import PER_MILLE

ANY_WORD: Final = "any"
"""What files write for everybody; the values say ``*``."""


def _problem(message: str, expected: str = "", did_you_mean: str = "") -> PydanticCustomError:
    context = {"message": message, "expected": expected, "did_you_mean": did_you_mean}
    return PydanticCustomError("policy", "{message}", context)


def _unit(
    parse: Callable[[object], int], low: int, high: int, write: Callable[[int], str]
) -> BeforeValidator:
    """Return a validator that reads a figure with its unit and bounds it."""

    def read(value: object) -> int:
        try:
            number = parse(value)
        except units.UnitError as error:
            raise _problem(error.message, error.expected, error.did_you_mean) from error
        if not low <= number <= high:
            side = "less than" if number < low else "more than"
            bound = write(low if number < low else high)
            percent = write is units.write_ratio and high < number <= 100 * PER_MILLE and high <= 1000
            hint = f"{value}%" if percent and isinstance(value, int) else ""
            raise _problem(f"{value} is {side} {bound}", f"{write(low)} to {write(high)}", hint)
        return number

    return BeforeValidator(read)


def _texts(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


def duration(low: int, high: int) -> tuple[BeforeValidator, WithJsonSchema]:
    """Return what makes an integer a time between two bounds."""
    bounded = _unit(units.duration_s, low, high, units.write_duration)
    return bounded, _texts(units.DURATION_PATTERN, units.write_duration(low or 10))


def ratio(low: int, high: int) -> tuple[BeforeValidator, WithJsonSchema]:
    """Return what makes an integer a ratio in per mille between two bounds."""
    schema = {
        "anyOf": [
            {"type": "number", "minimum": low / 1000, "maximum": high / 1000},
            {"type": "string", "pattern": units.PERCENT_PATTERN},
        ]
    }
    return _unit(units.ratio_permille, low, high, units.write_ratio), WithJsonSchema(schema)


def _label(value: str) -> str:
    try:
        return check_label(value, "site")
    except FederationInputError as error:
        expected = "lower-case letters, digits and '-', at most 63"
        raise _problem(f"{value!r} is no name", expected, _as_label(value)) from error


def _as_label(value: str) -> str:
    folded = value.lower().replace("_", "-").replace(" ", "-").strip("/-")
    try:
        return check_label(folded, "site")
    except FederationInputError:
        return ""


def _account(value: str) -> str:
    try:
        return check_account(value)
    except FederationInputError as error:
        meant = f"/{value}" if not value.startswith("/") and value else value.rstrip("/")
        try:
            hint = check_account(meant.lower())
        except FederationInputError:
            hint = ""
        expected = "/institution, /institution/group or /institution/group/project"
        raise _problem(f"{value!r} is no account", expected, hint) from error


def _account_or_any(value: str) -> str:
    if value == ANY_WORD:
        return "*"
    if value == "*":
        raise _problem("a star is not read here", f"the word {ANY_WORD}", ANY_WORD)
    return _account(value)


def _word_or_any(value: str) -> str:
    if value == "*":
        raise _problem("a star is not read here", f"the word {ANY_WORD}", ANY_WORD)
    return "*" if value == ANY_WORD else value


def _model(value: str) -> str:
    site, slash, name = value.partition("/")
    try:
        check_label(site, "site")
    except FederationInputError as error:
        raise _problem(f"{value!r} is no model", "SITE/NAME, or SITE/* for all of a site") from error
    if not slash or not name or ("*" in name and name != "*"):
        raise _problem(f"{value!r} is no model", "SITE/NAME, or SITE/* for all of a site")
    return value


def _hours(value: str) -> str:
    try:
        parse_span(value)
    except ValueError as error:
        raise _problem(str(error), EXPECTED) from error
    return value


Label = Annotated[str, AfterValidator(_label), Field(max_length=63)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Account = Annotated[str, AfterValidator(_account), _texts(r"^/[a-z0-9-]+(/[a-z0-9-]+){0,2}$", "/uni-a/bio")]
Accounts = Annotated[
    list[
        Annotated[
            str,
            AfterValidator(_account_or_any),
            _texts(r"^(any|/[a-z0-9-]+(/[a-z0-9-]+){0,2})$", "/uni-a"),
        ]
    ],
    Field(max_length=MAX_POLICY_NAMES),
]
Labels = Annotated[list[Label], Field(max_length=MAX_POLICY_NAMES)]
Words = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_word_or_any)]],
    Field(max_length=MAX_POLICY_NAMES),
]
Texts = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=MAX_POLICY_NAMES)
]
Hours = Annotated[list[Annotated[str, AfterValidator(_hours)]], Field(max_length=MAX_POLICY_NAMES)]
ModelNames = Annotated[list[Annotated[str, AfterValidator(_model)]], Field(max_length=MAX_POLICY_NAMES)]
Size = Annotated[
    int,
    _unit(units.size_bytes, 1, 10**18, units.write_size),
    _texts(units.SIZE_PATTERN, "200GB"),
]
Time = Annotated[
    int,
    _unit(units.time_s, 0, 1 << 40, units.write_time),
    _texts(units.TIME_PATTERN, "2027-01-01T06:00Z"),
]
Use = Annotated[
    int,
    _unit(units.use_msgs, units.MSGS_PER_GPU_HOUR, 1 << 53, units.write_use),
    _texts(units.USE_PATTERN, "500GPUh"),
]
