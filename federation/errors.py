"""What can go wrong in the federation, divided by whose fault it is.

::

    FederationError
    +-- FederationInputError     the caller's name, file or argument
    |   +-- InviteError              an invite that is none, or not for this
    |   +-- PolicyFileError          a policy file or an overlay with problems, each with its place
    +-- IdentityError            a peer is not who it says, or may not speak here
    +-- EnrolmentError           a join that the site refuses, by its state
    |   +-- InviteUsedError          the invite was used
    |   +-- InviteExpiredError       the invite's time is over
    |   +-- InviteMismatchError      the invite was made for another node, or the proof is wrong
    +-- RegistryError            the registry cannot be read, or not be believed
    |   +-- RegistryUnreachableError no source of the registry answers
    |   +-- RegistryExpiredError     nobody has signed it in time
    |   +-- RegistryRollbackError    an older or another registry than the one known here
    |   +-- NotAdmittedError         the site is not in the registry
    +-- LedgerError              the books of use cannot be kept, or what came for them not be believed
    |   +-- ReceiptError             a receipt, request or series that is none, or is not signed as it says
    |   +-- LedgerLockedError        our own chain may be older than what others hold of it
    |   +-- ExportError              a file that is no export of a ledger
    +-- LocalNetworkError        this machine's network refuses multicast; discovery is off, all else works

Each has a stable ``code``, one sentence, and a ``fix``, like the errors of ``pyrdma``, which this package
does not know; ``agent.error_table`` maps both to gRPC status and exit code.
"""

from __future__ import annotations

from typing import ClassVar


class FederationError(Exception):
    """An error with a code, one sentence and a fix.

    Args:
        message: one sentence that says what happened and on whose side.
        fix: what to do about it; empty where nothing but a report helps.
    """

    code: ClassVar[str] = "federation"

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class FederationInputError(FederationError):
    """The caller's name, file or argument cannot be used."""

    code = "federation-input"


class InviteError(FederationInputError):
    """A text that is no invite, or one that cannot be used here."""

    code = "invite"


class PolicyFileError(FederationInputError):
    """A policy file or a donor's overlay cannot be taken; ``federation.policy.problems`` has the places."""

    code = "policy-file"


class IdentityError(FederationError):
    """A peer is not who it says, or may not speak here."""

    code = "identity"


class EnrolmentError(FederationError):
    """The site refuses a join."""

    code = "enrolment"


class InviteUsedError(EnrolmentError):
    """The invite was used already."""

    code = "invite-used"


class InviteExpiredError(EnrolmentError):
    """The invite's time is over."""

    code = "invite-expired"


class InviteMismatchError(EnrolmentError):
    """The invite was made for another node, or its proof is wrong."""

    code = "invite-mismatch"


class RegistryError(FederationError):
    """The registry cannot be read, or not be believed."""

    code = "registry"


class RegistryUnreachableError(RegistryError):
    """No source of the registry answers."""

    code = "registry-unreachable"


class RegistryExpiredError(RegistryError):
    """Nobody has signed the registry in time."""

    code = "registry-expired"


class RegistryRollbackError(RegistryError):
    """The registry is older than, or another than, the one known here."""

    code = "registry-rollback"


class NotAdmittedError(RegistryError):
    """The site is not in the registry."""

    code = "not-admitted"


class LocalNetworkError(FederationError):
    """This machine's network refuses multicast: nothing is announced or found, all else works."""

    code = "mdns"


class LedgerError(FederationError):
    """The books of use cannot be kept, or what came for them cannot be believed."""

    code = "ledger"


class ReceiptError(LedgerError):
    """A receipt, signed request or series that is none, or is not signed as it says."""

    code = "receipt"


class LedgerLockedError(LedgerError):
    """Our own chain may be older than what others hold of it: nothing is signed until that is settled."""

    code = "ledger-locked"


class ExportError(LedgerError):
    """A file that is no export of a ledger."""

    code = "ledger-export"
