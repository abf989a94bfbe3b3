"""What can go wrong in the warm-start library, divided by whose side it is on.

::

Error:
    +-- InputError            the caller's file, name or argument
    |   +-- ImageFormatError  a folder or weight file that is no model we can carry
    |   +-- ManifestError     bytes that are no manifest, or not the one with this id
    |   +-- BindingError      a model and an image that do not fit together
    +-- LocalError            this machine
    |   +-- BudgetError       the donated memory does not suffice
    |   +-- LaneError         a lane worker cannot run, died or broke its contract
    |   +-- ChannelError      a process of ours broke off, or sent what is no message
    +-- PeerError             the other side
        +-- SourceError       one source stalled, died, lied or refused
        +-- NoSourceError     no source is left for pieces that are still missing

Each error has a stable ``code``, one sentence, and a ``fix``: what the reader can do about it.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """An error with a code, one sentence and a fix.

    Args:
        message: one sentence that says what happened and on whose side.
        fix: what to do about it; empty where nothing but a report helps.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class InputError(Error):
    """The caller's file, name or argument cannot be used."""

    code = "input"


class ImageFormatError(InputError):
    """A folder or weight file is no model that an image can be made of."""

    code = "image-format"


class ManifestError(InputError):
    """Bytes are no manifest, or not the manifest that the image id names."""

    code = "manifest"


class BindingError(InputError):
    """A model and an image do not fit together name by name."""

    code = "binding"


class LocalError(Error):
    """This machine lacks something: memory, a socket, a kernel feature."""

    code = "local"


class BudgetError(LocalError):
    """The donated memory does not suffice."""

    code = "memory-budget"


class LaneError(LocalError):
    """A lane worker cannot run, died, or broke its contract."""

    code = "lane"


class ChannelError(LocalError):
    """A process of ours closed its channel or sent what is no message."""

    code = "channel"


class PeerError(Error):
    """The other side of a transfer failed."""

    code = "peer"


class SourceError(PeerError):
    """One source stalled, died, lied or refused."""

    code = "source"


class NoSourceError(PeerError):
    """No source is left for pieces that are still missing."""

    code = "no-source"


def _tree(root: type[Error]) -> dict[str, type[Error]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def from_code(code: str, message: str, fix: str) -> Error:
    """Return the error that another process of ours described; an unknown code gives a plain ``Error``."""
    return _tree(Error).get(code, Error)(message, fix=fix)
