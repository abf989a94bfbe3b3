"""The one table from errors to gRPC status and exit code, and the way back from a code.

Rules: every class of pyrdma's, the agent's and the federation's trees has a row of its own (a test holds
that), codes are unique, no row maps a failure to exit code 0. The gRPC status is a name, so that the command
line reads it without importing grpc. A status is for strangers' tools; our own client re-raises by code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from agent import errors as agent_errors
from federation import errors as federation_errors
from federation.errors import FederationError
from pyrdma import errors as library_errors
from pyrdma.errors import Error


class ExitCode(IntEnum):
    """What the command line returns; stable, documented in its help."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    DENIED = 4
    TIMEOUT = 5
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Row:
    """One error's face outside."""

    status: str
    exit_code: ExitCode
    side: str


TABLE: Final[Mapping[type[Error | FederationError], Row]] = {
    library_errors.Error: Row("INTERNAL", ExitCode.FAILED, "this node"),
    library_errors.InputError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    library_errors.ImageFormatError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    library_errors.ManifestError: Row("DATA_LOSS", ExitCode.FAILED, "the other side"),
    library_errors.BindingError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "your input"),
    library_errors.LocalError: Row("INTERNAL", ExitCode.FAILED, "this node"),
    library_errors.BudgetError: Row("RESOURCE_EXHAUSTED", ExitCode.FAILED, "this node"),
    library_errors.LaneError: Row("UNAVAILABLE", ExitCode.FAILED, "this node"),
    library_errors.ChannelError: Row("UNAVAILABLE", ExitCode.FAILED, "this node"),
    library_errors.PeerError: Row("UNAVAILABLE", ExitCode.FAILED, "the other side"),
    library_errors.SourceError: Row("UNAVAILABLE", ExitCode.FAILED, "the other side"),
    library_errors.NoSourceError: Row("UNAVAILABLE", ExitCode.FAILED, "the other side"),
    agent_errors.AgentError: Row("INTERNAL", ExitCode.FAILED, "this node"),
    agent_errors.RequestError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    agent_errors.UnknownModelError: Row("NOT_FOUND", ExitCode.FAILED, "your input"),
    agent_errors.AmbiguousModelError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "your input"),
    agent_errors.UnknownLeaseError: Row("NOT_FOUND", ExitCode.FAILED, "your input"),
    agent_errors.UnsupportedModelError: Row("FAILED_PRECONDITION", ExitCode.USAGE, "your input"),
    agent_errors.NotGatewayError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "your input"),
    agent_errors.RefusedError: Row("RESOURCE_EXHAUSTED", ExitCode.FAILED, "the other side"),
    agent_errors.NotAllowedError: Row("PERMISSION_DENIED", ExitCode.DENIED, "your input"),
    agent_errors.TraceError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    agent_errors.NoPlotError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "this node"),
    agent_errors.AccountError: Row("PERMISSION_DENIED", ExitCode.DENIED, "your input"),
    agent_errors.PeopleFileError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    agent_errors.TokenError: Row("PERMISSION_DENIED", ExitCode.DENIED, "your input"),
    agent_errors.NodeError: Row("INTERNAL", ExitCode.FAILED, "this node"),
    agent_errors.StateError: Row("INTERNAL", ExitCode.FAILED, "this node"),
    agent_errors.SocketInUseError: Row("ALREADY_EXISTS", ExitCode.FAILED, "this node"),
    agent_errors.RunnerError: Row("INTERNAL", ExitCode.FAILED, "this node"),
    agent_errors.OwnedError: Row("UNAVAILABLE", ExitCode.FAILED, "this node"),
    agent_errors.BusyError: Row("RESOURCE_EXHAUSTED", ExitCode.FAILED, "this node"),
    agent_errors.StoppingError: Row("UNAVAILABLE", ExitCode.FAILED, "this node"),
    agent_errors.PeerNodeError: Row("UNAVAILABLE", ExitCode.FAILED, "the other side"),
    agent_errors.UnreachableError: Row("UNAVAILABLE", ExitCode.UNREACHABLE, "this node"),
    agent_errors.DeadlineError: Row("DEADLINE_EXCEEDED", ExitCode.TIMEOUT, "this node"),
    agent_errors.InternalError: Row("INTERNAL", ExitCode.FAILED, "this node"),
    federation_errors.FederationError: Row("INTERNAL", ExitCode.FAILED, "this node"),
    federation_errors.FederationInputError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    federation_errors.InviteError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    federation_errors.PolicyFileError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    federation_errors.IdentityError: Row("PERMISSION_DENIED", ExitCode.FAILED, "the other side"),
    federation_errors.EnrolmentError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "the other side"),
    federation_errors.InviteUsedError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "your input"),
    federation_errors.InviteExpiredError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "your input"),
    federation_errors.InviteMismatchError: Row("PERMISSION_DENIED", ExitCode.FAILED, "your input"),
    federation_errors.RegistryError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "the other side"),
    federation_errors.RegistryUnreachableError: Row("UNAVAILABLE", ExitCode.FAILED, "the other side"),
    federation_errors.RegistryExpiredError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "the other side"),
    federation_errors.RegistryRollbackError: Row("DATA_LOSS", ExitCode.FAILED, "the other side"),
    federation_errors.NotAdmittedError: Row("NOT_FOUND", ExitCode.FAILED, "the other side"),
    federation_errors.LedgerError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "this node"),
    federation_errors.ReceiptError: Row("INVALID_ARGUMENT", ExitCode.FAILED, "the other side"),
    federation_errors.LedgerLockedError: Row("FAILED_PRECONDITION", ExitCode.FAILED, "this node"),
    federation_errors.ExportError: Row("INVALID_ARGUMENT", ExitCode.USAGE, "your input"),
    federation_errors.LocalNetworkError: Row("UNAVAILABLE", ExitCode.FAILED, "this node"),
}


def row_of(error: Error | FederationError) -> Row:
    """Return the error's row, or that of its nearest parent that has one."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def from_code(code: str, message: str, fix: str) -> Error | FederationError:
    """Return the error that another process described; an unknown code becomes an ``InternalError``."""
    return _BY_CODE.get(code, agent_errors.InternalError)(message, fix=fix)


_BY_CODE: Final = {kind.code: kind for kind in TABLE}
