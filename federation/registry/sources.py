"""Where the files of a registry are read: a folder, or a web server that holds a copy of one.

Nothing that a source says is believed here; its answers are only kept small, quick and few:

- a file has at most the bytes that the caller allows, and comes within the caller's time, however the source
  spreads it;
- a redirection leads from ``http`` to ``http`` or ``https``, from ``https`` to ``https``, and nowhere else;
- a file that is not there is told apart from a source that does not answer.

The machine's proxy settings are kept, since many nodes reach the outside by a proxy alone.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Protocol, Self
from urllib.parse import unquote, urlsplit

from federation.errors import FederationInputError, RegistryError, RegistryUnreachableError
from federation.limits import FETCH_TIMEOUT_S, MAX_REDIRECTS
from federation.registry.files import read_file

_MISSING: Final = frozenset({403, 404, 410})
_CHUNK_BYTES: Final = 64 << 10


class Source(Protocol):
    """One copy of a registry."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def read(self, path: str, *, max_bytes: int, deadline_s: float) -> bytes:
        """Return the file at a path below the registry's folder.

        Raises:
            FileNotFoundError: the source answers, and has no such file.
            RegistryUnreachableError: it does not answer in this time.
            RegistryError: the file is longer than ``max_bytes``.
        """
        ...


def open_source(text: str) -> Source:
    """Return the source that a folder's path, a ``file://`` or an ``http(s)://`` address names.

    Raises:
        FederationInputError: it names none.
    """
    scheme, mark, _ = text.partition("://")
    if not mark:
        return FolderSource(Path(text))
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return FolderSource(Path(unquote(parts.path)))
    if scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment:
        return HttpSource(text)
    raise FederationInputError(
        f"{text} is no place of a registry.",
        fix="give a folder, or an address with https://, http:// or file://",
    )


class FolderSource:
    """A registry in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = str(folder)

    def read(self, path: str, *, max_bytes: int, deadline_s: float) -> bytes:  # noqa: ARG002 - a disk keeps it
        """Return the file at a path below the folder."""
        at = self._folder / path
        try:
            if at.stat().st_size > max_bytes:
                raise _too_long(self.name, path, max_bytes)
            return read_file(at, max_bytes=max_bytes)
        except FileNotFoundError:
            if self._folder.is_dir():
                raise
            raise _unreachable(self.name, "there is no such folder") from None
        except OSError as error:
            raise _unreachable(self.name, error.strerror or str(error)) from error


class HttpSource:
    """A registry that a web server holds."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")
        # Made once: it reads the machine's certificate store, which takes longer than a fetch.
        self._tls = ssl.create_default_context()
        self.name = base

    def read(self, path: str, *, max_bytes: int, deadline_s: float) -> bytes:
        """Return the file at a path below the server's address."""
        try:
            with (
                _Deadline(deadline_s, self._tls) as deadline,
                deadline.open(f"{self._base}/{path}") as answer,
            ):
                return self._take(answer, path, max_bytes=max_bytes, deadline=deadline)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _MISSING:
                    raise FileNotFoundError(path) from None
                raise _unreachable(self.name, f"it answers {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _unreachable(self.name, str(reason) or type(reason).__name__) from error

    def _take(self, answer: Any, path: str, *, max_bytes: int, deadline: _Deadline) -> bytes:
        data = bytearray()
        while chunk := answer.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > max_bytes:
                raise _too_long(self.name, path, max_bytes)
        # A connection that the deadline cut off looks like one that ended.
        if deadline.over or (answer.length is not None and answer.length > 0):
            raise _unreachable(self.name, f"it broke off {path}")
        return bytes(data)


class _Deadline:
    """Cuts every connection that one read opens when its time is over, also between two bytes of a header."""

    def __init__(self, seconds: float, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._ends_at = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._sockets: list[socket.socket] = []

    @property
    def over(self) -> bool:
        """Say whether the time is over."""
        return time.monotonic() >= self._ends_at

    def open(self, url: str) -> Any:
        """Return the server's answer."""
        opener = urllib.request.OpenerDirector()
        for each in (
            urllib.request.ProxyHandler(),
            _Http(self),
            _Https(self, self._tls),
            _Redirect(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            opener.add_handler(each)
        return opener.open(url, timeout=FETCH_TIMEOUT_S)

    def watch(self, connection: socket.socket) -> None:
        """Cut this connection too when the time is over."""
        # A duplicate, since TLS takes the descriptor away from the socket that it wraps.
        self._sockets.append(connection.dup())
        if self.over:
            self._cut()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        for connection in self._sockets:
            connection.close()

    def _cut(self) -> None:
        for connection in self._sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it ended by itself
                continue


class _Connection(http.client.HTTPConnection):
    deadline: _Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _TlsConnection(http.client.HTTPSConnection, _Connection):
    """TLS over a watched connection: HTTPSConnection connects by its base, which is _Connection here."""


def _watched(kind: type[_Connection], deadline: _Deadline, host: str, **arguments: Any) -> _Connection:
    connection = kind(host, **arguments)
    connection.deadline = deadline
    return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(_watched, _Connection, self._deadline), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline, tls: ssl.SSLContext) -> None:
        super().__init__(context=tls)
        self._tls = tls
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(_watched, _TlsConnection, self._deadline, context=self._tls), req)


class _Redirect(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise urllib.error.URLError(f"it redirects to {urlsplit(newurl).scheme or 'nowhere'}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _unreachable(name: str, reason: str) -> RegistryUnreachableError:
    return RegistryUnreachableError(
        f"the registry at {name} cannot be read: {reason}.",
        fix="check the address, the network and the proxy settings; what is known stays in use",
    )


def _too_long(name: str, path: str, max_bytes: int) -> RegistryError:
    return RegistryError(
        f"the registry at {name} has a {path} of more than {max_bytes} bytes.",
        fix="use another source, and tell the one who runs this one",
    )
