"""Mutual TLS between agents: one server a node, and one channel to each peer that is talked to.

Rules: a channel trusts the CA of the site that it goes to and nothing else, and checks the node's name; the
server's handshake knows the CAs of all members, and who may call what is decided for each call by
``agent.rpc.identity``. Certificates change while the server runs; channels are made anew when ours did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc import aio

from agent.errors import SocketInUseError
from agent.limits import (
    CHANNEL_DRAIN_S,
    MAX_CHANNELS,
    MAX_CONNECTION_AGE_GRACE_S,
    MAX_CONNECTION_AGE_S,
    MAX_NETWORK_RPCS,
    RECONNECT_LAST_S,
)
from agent.rpc.identity import IdentityInterceptor
from agent.rpc.server import OPTIONS
from agent.site.keyring import Credentials
from agent.site.trust import Target

_SERVER_OPTIONS: Final = (
    *OPTIONS,
    ("grpc.so_reuseport", 0),  # a port in use must be an error, not a share of somebody's calls
    ("grpc.max_connection_age_ms", int(MAX_CONNECTION_AGE_S * 1000)),
    ("grpc.max_connection_age_grace_ms", int(MAX_CONNECTION_AGE_GRACE_S * 1000)),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


def network_server(interceptor: IdentityInterceptor) -> aio.Server:
    """Return a server without services or ports."""
    return aio.server(
        interceptors=(interceptor,), options=_SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_NETWORK_RPCS
    )


def bind_network(server: aio.Server, address: str, current: Callable[[], Credentials]) -> int:
    """Bind the server to ``HOST:PORT`` with mutual TLS; return the port.

    ``current`` is asked at each handshake, in a thread of gRPC's.

    Raises:
        SocketInUseError: the port cannot be had.
    """
    shown: list[Credentials] = [current()]

    def fetch() -> Any:
        now = current()
        if now == shown[0]:
            return None
        shown[0] = now
        return _configuration(now)

    credentials = grpc.dynamic_ssl_server_credentials(
        _configuration(shown[0]), fetch, require_client_authentication=True
    )
    return add_port(server, address, credentials)


def add_port(server: aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    """Bind a server to ``HOST:PORT``; return the port.

    Raises:
        SocketInUseError: the port cannot be had.
    """
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise SocketInUseError(
            f"the address {address} cannot be listened on.",
            fix="see who uses it (ss -ltnp), or name another with --listen",
        ) from error
    return int(port)


def _configuration(credentials: Credentials) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key, credentials.certificate)], root_certificates=credentials.roots
    )


class Channels:
    """The channels of one node, one a target; at most ``MAX_CHANNELS``, the longest unused one goes first."""

    def __init__(self, current: Callable[[], Credentials]) -> None:
        self._current = current
        self._open: dict[tuple[Target, bytes], aio.Channel] = {}
        self._draining: set[asyncio.Task[None]] = set()

    def to(self, target: Target) -> aio.Channel:
        """Return the channel to a target; gRPC connects it when it is used, and again when it broke."""
        mine = self._current()
        key = (target, mine.certificate)
        channel = self._open.pop(key, None)
        if channel is None:
            for old in [one for one in self._open if one[0] == target]:
                self._drain(self._open.pop(old))
            while len(self._open) >= MAX_CHANNELS:
                self._drain(self._open.pop(next(iter(self._open))))
            channel = _dial(target, mine)
        self._open[key] = channel  # last: the longest unused one stands first
        return channel

    async def close(self) -> None:
        """Let go of every channel."""
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        await asyncio.gather(*(channel.close(None) for channel in self._open.values()))
        self._open.clear()

    def _drain(self, channel: aio.Channel) -> None:
        # Calls under way may end; new ones go over the new channel.
        task = asyncio.create_task(channel.close(CHANNEL_DRAIN_S))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)


def _dial(target: Target, mine: Credentials) -> aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=target.authority, private_key=mine.key, certificate_chain=mine.certificate
    )
    options = (
        *OPTIONS,
        ("grpc.ssl_target_name_override", target.identity.dns),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", int(RECONNECT_LAST_S * 1000)),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_http_proxy", 0),  # a proxy from the environment is for people's tools, not for peers
    )
    return aio.secure_channel(target.address, credentials, options=options)
