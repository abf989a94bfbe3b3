"""Sources: a folder or a web server, honest or not; the latter are real servers on loopback."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.errors import FederationInputError, RegistryError, RegistryUnreachableError
from federation.limits import MAX_REGISTRY_BYTES
from federation.registry.fetching import SourceFetcher
from federation.registry.sources import FolderSource, HttpSource, open_source
from federation.registry.tuf_api import DownloadHTTPError

NOW = 1_800_000_000.0
Answer = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached without the proxy of the machine that runs the tests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve connections with a function that writes whatever it likes; yield the server's host and port."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def handle(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(5)
            wrapped = connection if tls is None else tls.wrap_socket(connection, server_side=True)
            with wrapped:
                while b"\r\n\r\n" not in wrapped.recv(65536):
                    continue
                answer(wrapped)

    def accept() -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        listener.close()


def reply(body: bytes, *, status: str = "200 OK", headers: str = "") -> Answer:
    """Return what answers with this."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return lambda connection: connection.sendall(head.encode() + body)


def drip(before: bytes, piece: bytes) -> Answer:
    """Return what sends a piece every now and then, for ever; without a piece, what stays silent."""
    pace = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(before)
        if not piece:
            connection.recv(1)  # until the other side has had enough
        while piece:
            connection.sendall(piece)
            pace.wait(0.02)

    return answer


def certificate(folder: Path) -> ssl.SSLContext:
    """Return a server's TLS for 127.0.0.1; the certificate lies in the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mirror")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "mirror.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "mirror.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "mirror.pem", folder / "mirror.key")
    return context


def test_a_place_is_a_folder_or_an_address(tmp_path: Path) -> None:
    """By its path, as ``file://``, or on the web; the name is what the caller gave."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "x").write_bytes(b"1")
    for text in (str(tmp_path / "a b"), f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b"):
        source = open_source(text)
        assert isinstance(source, FolderSource)
        assert source.read("x", max_bytes=1, deadline_s=1) == b"1"
    assert isinstance(open_source("https://example.org/registry"), HttpSource)
    assert open_source("https://example.org/registry/").name == "https://example.org/registry/"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://example.org/r",
        "https://",
        "http://?x",
        "https://example.org/r?x=1",
        "https://[/",
        "file://host/r",
        "x://",
    ],
)
def test_no_other_place_is_taken(text: str) -> None:
    """Neither another scheme, nor a file of another host, nor an address with a question in it."""
    with pytest.raises(FederationInputError, match="is no place of a registry"):
        open_source(text)


def test_a_folder_tells_a_missing_file_from_a_missing_folder(tmp_path: Path) -> None:
    """The one ends the chain of roots, the other is an outage; a long file is neither."""
    source = FolderSource(tmp_path)
    with pytest.raises(FileNotFoundError):
        source.read("x", max_bytes=1, deadline_s=1)
    with pytest.raises(RegistryUnreachableError, match="no such folder"):
        FolderSource(tmp_path / "gone").read("x", max_bytes=1, deadline_s=1)
    (tmp_path / "x").write_bytes(b"12")
    with pytest.raises(RegistryError, match="of more than 1 bytes"):
        source.read("x", max_bytes=1, deadline_s=1)
    (tmp_path / "d").mkdir()
    with pytest.raises(RegistryUnreachableError):
        source.read("d", max_bytes=1 << 20, deadline_s=1)


def test_a_member_reads_a_registry_from_a_web_server(world: Any) -> None:
    """Any server that serves a folder will do; sites' files are asked for at once, and never again."""
    sites = [world.admit(f"site-{at}") for at in range(4)]
    world.publish(*[site.models("m") for site in sites])
    asked: list[str] = []
    together = threading.Barrier(len(sites), timeout=10)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/targets/"):
                together.wait()
            super().do_GET()

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(world.folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            client = world.client(f"http://127.0.0.1:{server.server_port}/")
            membership = client.refresh(now_s=NOW)
            assert len(asked) == len(set(asked)) == 5 + 2 * len(sites)
            asked.clear()
            assert client.refresh(now_s=NOW) == membership == world.client().refresh(now_s=NOW)
            assert asked == ["/metadata/2.root.json", "/metadata/timestamp.json"]
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(RegistryUnreachableError, match="Connection refused"):
        client.refresh(now_s=NOW)


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "410 Gone"])
def test_what_is_not_there_is_said_so(status: str) -> None:
    """The chain of roots ends with a file that is not there."""
    with serving(reply(b"no", status=status)) as host, pytest.raises(FileNotFoundError):
        open_source(f"http://{host}").read("x", max_bytes=10, deadline_s=5)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(b"", status="500 Oops"), "answers 500"),
        (lambda connection: connection.close(), "closed connection"),
        (lambda connection: connection.sendall(b"nonsense\r\n\r\n"), "nonsense"),
        (
            lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345"),
            "broke off",
        ),
        (lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000), "headers"),
    ],
)
def test_a_broken_server_is_an_outage(answer: Answer, reason: str) -> None:
    """Each with its reason: the next source may do better."""
    with serving(answer) as host, pytest.raises(RegistryUnreachableError, match=reason):
        open_source(f"http://{host}").read("x", max_bytes=10, deadline_s=5)


@pytest.mark.parametrize(
    "headers",
    [b"", b"Content-Length: 3\r\n", b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n"],
)
def test_an_endless_answer_is_cut_off(headers: bytes) -> None:
    """After the allowed bytes, whatever length the server claims; a claimed length is not exceeded."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n")
        while True:
            connection.sendall(
                b"4000\r\n" + b"x" * 0x4000 + b"\r\n" if b"chunked" in headers else b"x" * 65536
            )

    with serving(answer) as host:
        source = open_source(f"http://{host}")
        if headers == b"Content-Length: 3\r\n":
            assert source.read("x", max_bytes=100_000, deadline_s=5) == b"xxx"
            return
        with pytest.raises(RegistryError, match="of more than 100000 bytes") as caught:
            source.read("x", max_bytes=100_000, deadline_s=5)
        assert type(caught.value) is RegistryError


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b"x"),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_a_slow_answer_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, piece: bytes, secure: bool
) -> None:
    """Silent, or a byte now and then, in the head or in the body, under TLS as well: the deadline holds."""
    tls = certificate(tmp_path) if secure else None
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "mirror.pem"))
    begun = time.monotonic()
    with serving(drip(before, piece), tls=tls) as host:
        source = open_source(f"{'https' if secure else 'http'}://{host}")
        with pytest.raises(RegistryUnreachableError):
            source.read("x", max_bytes=10_000, deadline_s=0.3)
        assert 0.25 < time.monotonic() - begun < 3


def test_a_handshake_without_end_is_cut_off() -> None:
    """A server that accepts and never says a word of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = open_source(f"https://127.0.0.1:{listener.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(RegistryUnreachableError):
            source.read("x", max_bytes=10, deadline_s=0.3)
        assert time.monotonic() - begun < 3


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that the machine trusts is taken, another is an outage."""
    tls = certificate(tmp_path)
    with serving(reply(b"ok"), tls=tls) as host:
        with pytest.raises(RegistryUnreachableError, match="certificate verify failed"):
            open_source(f"https://{host}").read("x", max_bytes=10, deadline_s=5)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "mirror.pem"))
        assert open_source(f"https://{host}").read("x", max_bytes=10, deadline_s=5) == b"ok"


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x", "//"])
def test_a_redirection_leads_only_to_the_web(place: str) -> None:
    """A mirror cannot have this node read its own files."""
    moved = reply(b"", status="302 Found", headers=f"Location: {place}\r\n")
    with serving(moved) as host, pytest.raises(RegistryUnreachableError):
        open_source(f"http://{host}").read("x", max_bytes=10, deadline_s=5)


def test_a_redirection_never_leaves_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From ``https`` to ``http`` is refused; from ``http`` to ``http`` is followed, but not in circles."""
    tls = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "mirror.pem"))
    with serving(reply(b"found")) as there:
        moved = reply(b"", status="302 Found", headers=f"Location: http://{there}/y\r\n")
        with serving(moved) as host:
            assert open_source(f"http://{host}").read("x", max_bytes=10, deadline_s=5) == b"found"
        with (
            serving(moved, tls=tls) as host,
            pytest.raises(RegistryUnreachableError, match="redirects to http"),
        ):
            open_source(f"https://{host}").read("x", max_bytes=10, deadline_s=5)
    circle = reply(b"", status="302 Found", headers="Location: /x\r\n")
    with serving(circle) as host, pytest.raises(RegistryUnreachableError):
        open_source(f"http://{host}").read("x", max_bytes=10, deadline_s=5)


def test_a_refresh_takes_so_many_bytes_in_all(tmp_path: Path) -> None:
    """Many files within their bounds are refused as one beyond it is."""
    with (tmp_path / "x").open("wb") as file:
        file.truncate(16 << 20)
    fetcher = SourceFetcher(FolderSource(tmp_path))
    for _ in range(MAX_REGISTRY_BYTES // (16 << 20)):
        fetcher.download_bytes("x", 16 << 20)
    with pytest.raises(RegistryError, match="of more than 0 bytes"):
        fetcher.download_bytes("x", 16 << 20)


def test_files_read_ahead_are_held_to_the_same_bounds(tmp_path: Path) -> None:
    """A file that was read ahead is used once; one that failed is tried again, and says why."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"bbb")
    fetcher = SourceFetcher(FolderSource(tmp_path))
    fetcher.prefetch({"a": 1, "b": 2, "c": 3})
    (tmp_path / "a").write_bytes(b"x")
    assert [fetcher.download_bytes("a", 1) for _ in range(2)] == [b"a", b"x"]
    with pytest.raises(RegistryError, match="of more than 2 bytes"):
        fetcher.download_bytes("b", 2)
    with pytest.raises(DownloadHTTPError):
        fetcher.download_bytes("c", 3)
