"""What can go wrong in the agent, divided by whose side it is on.

::

    pyrdma.errors.Error
    +-- RequestError           the caller's request cannot be carried out as given
    |   +-- UnknownModelError      no node that we can ask has the model
    |   +-- AmbiguousModelError    one name, several images
    |   +-- UnknownLeaseError      no lease of this id
    |   +-- UnsupportedModelError  a folder whose architecture cannot run from an image
    |   +-- NotGatewayError          only the gateway of a site does this
    |   +-- RefusedError             no donor grants a lease
    |   +-- NotAllowedError          a socket that the caller may not use, or not for this
    |   +-- AccountError             an account that the caller may not use
    |   +-- PeopleFileError          a people file that cannot be used as it is
    |   +-- TokenError               a token that is none, or none any more
    |   +-- TraceError               a trace that cannot be read; the sentence names file and line
    |   +-- NoPlotError              a picture is asked for and what draws it is not installed
    +-- NodeError              this node
    |   +-- StateError             the state file cannot be read, written or trusted
    |   +-- SocketInUseError       another agent runs on these directories
    |   +-- RunnerError            a runner cannot start, failed or died
    |   +-- OwnedError             a device whose owner has it, or takes it back
    |   +-- BusyError              a bound of limits.py is reached
    |   +-- StoppingError          the agent is about to end
    +-- PeerNodeError          another node's agent cannot be reached or answered badly
    +-- UnreachableError       no agent answers on the local socket
    +-- DeadlineError          a call took longer than its deadline
    +-- InternalError          a defect of ours

The tree hangs below pyrdma's, so one ``except Error`` serves both. The federation knows neither and has its
own tree: what may meet an error of either says ``except Reported``. ``agent.error_table`` has all of them.
"""

from __future__ import annotations

from typing import Final

from federation.errors import FederationError
from pyrdma.errors import Error

Reported: Final = (Error, FederationError)
"""What has a code, one sentence and a fix; anything else is a defect of ours."""


class AgentError(Error):
    """The agent could not do what it was asked."""

    code = "agent"


class RequestError(AgentError):
    """The caller's request cannot be carried out as given."""

    code = "request"


class UnknownModelError(RequestError):
    """No node that we can ask has the model."""

    code = "unknown-model"


class AmbiguousModelError(RequestError):
    """One name stands for several images."""

    code = "ambiguous-model"


class UnknownLeaseError(RequestError):
    """There is no lease of this id."""

    code = "unknown-lease"


class UnsupportedModelError(RequestError):
    """The folder is a model, but one whose weights cannot be bound as they are."""

    code = "unsupported-model"


class NotGatewayError(RequestError):
    """Only the gateway of a site does this."""

    code = "not-gateway"


class RefusedError(RequestError):
    """No donor grants a lease; the sentence has each one's reason."""

    code = "refused"


class NotAllowedError(RequestError):
    """The caller may not use this socket, or not for this call."""

    code = "not-allowed"


class TraceError(RequestError):
    """A trace cannot be read; the sentence begins with file, line and column."""

    code = "trace"


class NoPlotError(RequestError):
    """A picture is asked for, and what draws it is not installed."""

    code = "no-plot"


class AccountError(RequestError):
    """The caller has no account, or may not use the one named."""

    code = "account"


class PeopleFileError(RequestError):
    """The people file cannot be used as it is; the sentence names file, line and column."""

    code = "people-file"


class TokenError(RequestError):
    """A token that is damaged, ended, revoked, or whose secret was not proven."""

    code = "token"


class NodeError(AgentError):
    """This node cannot do it."""

    code = "node"


class StateError(NodeError):
    """The state file cannot be read, written or trusted."""

    code = "state"


class SocketInUseError(NodeError):
    """Another agent runs on the same directories."""

    code = "socket-in-use"


class RunnerError(NodeError):
    """A runner cannot start, failed or died."""

    code = "runner"


class OwnedError(NodeError):
    """The device's owner has it, or takes it back."""

    code = "owned"


class BusyError(NodeError):
    """A bound is reached; try again when something has ended."""

    code = "busy"


class StoppingError(NodeError):
    """The agent is about to end."""

    code = "stopping"


class PeerNodeError(AgentError):
    """Another node's agent cannot be reached or answered badly."""

    code = "peer-node"


class UnreachableError(AgentError):
    """No agent answers on the local socket."""

    code = "unreachable"


class DeadlineError(AgentError):
    """A call took longer than its deadline."""

    code = "deadline"


class InternalError(AgentError):
    """A defect of ours; the log has the traceback."""

    code = "internal"
