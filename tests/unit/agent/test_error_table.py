"""The one table of errors: total, unique, and the same on both sides of a call."""

from __future__ import annotations

import grpc
import pytest

from agent.error_table import TABLE, ExitCode, from_code, row_of
from agent.errors import AgentError, InternalError, Reported
from federation.errors import FederationError
from pyrdma.errors import Error

KINDS: list[type[Error | FederationError]] = sorted(TABLE, key=lambda kind: kind.code)


def _tree(root: type[Error | FederationError]) -> set[type[Error | FederationError]]:
    return {root}.union(*(_tree(child) for child in root.__subclasses__()))


def _ours() -> set[type[Error | FederationError]]:
    modules = ("pyrdma.errors", "agent.errors", "federation.errors")
    return {kind for root in Reported for kind in _tree(root) if kind.__module__ in modules}


def test_every_error_has_a_row_of_its_own() -> None:
    """A class that is added without a row would fall back to its parent's exit code unnoticed."""
    assert set(TABLE) == _ours()


def test_every_error_states_its_own_code() -> None:
    """Codes are unique and never inherited, so that the way back is unambiguous."""
    assert all("code" in vars(kind) for kind in TABLE)
    assert len({kind.code for kind in TABLE}) == len(TABLE)


def test_no_failure_exits_with_zero() -> None:
    """A script that checks the exit code never takes a failure for success."""
    assert all(row.exit_code != ExitCode.OK for row in TABLE.values())


def test_every_status_is_one_of_grpc() -> None:
    """The names in the table exist, and none of them is OK."""
    assert all(grpc.StatusCode[row.status] is not grpc.StatusCode.OK for row in TABLE.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_leads_back_to_its_class(kind: type[Error | FederationError]) -> None:
    """Code, sentence and fix give the same error again."""
    again = from_code(kind.code, "It broke.", "mend it")
    assert type(again) is kind
    assert (again.message, again.fix) == ("It broke.", "mend it")


def test_an_unknown_code_is_a_defect() -> None:
    """What a newer agent calls by a new name is not lost."""
    assert type(from_code("from-the-future", "It broke.", "")) is InternalError


def test_a_class_outside_the_table_takes_its_parents_row() -> None:
    """A subclass that a test or plug-in makes is still mapped."""

    class Odd(AgentError):
        code = "odd"

    assert row_of(Odd("x")) is TABLE[AgentError]


def test_exit_codes_are_the_documented_ones() -> None:
    """Scripts rely on these numbers."""
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "UNREACHABLE": 3,
        "DENIED": 4,
        "TIMEOUT": 5,
        "INTERRUPTED": 130,
    }
