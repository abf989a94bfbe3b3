"""Multicast DNS inside a site: a node announces where it listens, and hears where others do.

Rules: what is heard becomes a hint and nothing else; it proves no name. An announcement's own name is random,
so that nobody can take it first, and the node's name stands in its text. A goodbye counts once nobody answers
for the announcement any more, since anyone can say it. Questions to the network are bounded, and so is memory
(here, and in zeroconf: 10,000 records). IPv4 alone: it is what sites have inside.

zeroconf's own browser is not used: it plans a refresh for every announcement that it hears, without a bound,
and one name that it cannot repeat ends its asking for good (both seen with 0.154). Ours repeats no name of a
stranger and asks the same short question now and then.

The chosen interfaces are where we speak and ask. Linux also delivers what other programs of this machine
joined elsewhere; that is as little proof as the rest. Where multicast cannot be had, ``LocalNetworkError``
says so, and the agent goes on with the addresses that were written down.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import re
import secrets
import socket
import struct
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Final

from zeroconf import (  # type: ignore[attr-defined]  # the DNS classes are public, but not in its __all__
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSQuestionType,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    Zeroconf,
)
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from federation.discovery.hints import Claim, Hint, Hints, format_address, parse_txt, txt_of
from federation.errors import FederationInputError, LocalNetworkError
from federation.limits import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    MAX_ANNOUNCEMENTS,
    MAX_HINTS_PER_NAME,
    MAX_OPEN_QUESTIONS,
    QUESTION_S,
)

SERVICE_TYPE: Final = "_pyrdma-agent._tcp.local."
_OUR_NAME: Final = re.compile(r"[0-9a-f]{16}\." + re.escape(SERVICE_TYPE))
_PTR: Final = 12  # RFC 1035, 3.2.2 and 3.2.4
_IN: Final = 1
_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h: the IPv4 address of an interface


class Announcer:
    """Says on the local network where this node listens, until it is closed."""

    def __init__(self, network: AsyncZeroconf, saying: Awaitable[None]) -> None:
        self._network = network
        self._saying = saying

    @classmethod
    async def start(cls, claim: Claim, *, host: str, port: int, interfaces: Sequence[str]) -> Announcer:
        """Announce that a node listens at an address.

        Args:
            claim: the node and its role.
            host: a literal IPv4 address at which others reach it.
            port: where it listens.
            interfaces: names or IPv4 addresses of this machine's interfaces on which to speak.

        Raises:
            FederationInputError: the address is none that one can dial.
            LocalNetworkError: multicast cannot be had.
        """
        format_address(host, port)
        network = await _join(interfaces)
        name = secrets.token_hex(8)
        info = AsyncServiceInfo(
            SERVICE_TYPE,
            f"{name}.{SERVICE_TYPE}",
            addresses=[socket.inet_aton(host)],
            port=port,
            properties=txt_of(claim),
            server=f"{name}.local.",
        )
        # Without asking first whether the name is free: it is random, and a liar could claim any.
        return cls(network, await network.async_register_service(info, cooperating_responders=True))

    async def close(self) -> None:
        """Say goodbye and leave the network."""
        await self._saying
        await self._network.async_close()


class Browser(RecordUpdateListener):
    """Notes in a table what is announced on the local network, until it is closed."""

    def __init__(self, network: AsyncZeroconf, hints: Hints) -> None:
        self._network = network
        self._hints = hints
        self._announced: dict[str, dict[tuple[str, str, str], Hint]] = {}
        self._questions: dict[str, asyncio.Task[None]] = {}
        self._in_packet: set[str] = set()
        network.zeroconf.async_add_listener(self, None)
        self._asking = asyncio.create_task(self._ask_around())

    @classmethod
    async def start(cls, hints: Hints, *, interfaces: Sequence[str]) -> Browser:
        """Ask for nodes and listen, on interfaces given by name or IPv4 address.

        Raises:
            LocalNetworkError: multicast cannot be had.
        """
        return cls(await _join(interfaces), hints)

    async def close(self) -> None:
        """Stop listening; the hints stay."""
        self._network.zeroconf.async_remove_listener(self)
        tasks = [self._asking, *self._questions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._network.async_close()

    def async_update_records(self, _zeroconf: Zeroconf, _now: float, records: list[RecordUpdate]) -> None:
        """Note which announcements a packet, or the end of their time, is about; zeroconf calls it."""
        for update in records:
            if isinstance(update.new, DNSPointer) and _OUR_NAME.fullmatch(update.new.alias):
                self._in_packet.add(update.new.alias)

    def async_update_records_complete(self) -> None:
        """Look at what is known of them now; zeroconf calls it.

        Whether a packet greeted or said goodbye is no matter: what counts is what is known after it, or else
        who answers.
        """
        for name in self._in_packet:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            if info.load_from_cache(self._network.zeroconf):
                self._note(name, info)
            elif name not in self._questions and len(self._questions) < MAX_OPEN_QUESTIONS:
                self._questions[name] = asyncio.create_task(self._ask(name, info))
        self._in_packet.clear()

    async def _ask_around(self) -> None:
        question = DNSOutgoing(0)
        question.add_question(DNSQuestion(SERVICE_TYPE, _PTR, _IN))
        pause_s = FIRST_PAUSE_S
        while True:
            self._network.zeroconf.async_send(question)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    async def _ask(self, name: str, info: AsyncServiceInfo) -> None:
        answered = False
        try:
            # Answers to the group: those to us reach any of the mDNS programs of a machine.
            answered = await info.async_request(self._network.zeroconf, QUESTION_S * 1000, DNSQuestionType.QM)
        except ZeroconfError:
            pass  # it leads to a host whose name cannot be asked for
        finally:
            del self._questions[name]
        if answered:
            self._note(name, info)
        else:
            self._forget(name)

    def _note(self, name: str, info: AsyncServiceInfo) -> None:
        noted = self._announced.pop(name, {})
        for host in info.parsed_addresses(IPVersion.V4Only)[:MAX_HINTS_PER_NAME]:
            with suppress(FederationInputError):  # a stranger's mistake: there is nobody to tell
                claim = parse_txt(info.properties)
                address = format_address(host, info.port or 0)
                hint = Hint(claim.trust_domain, claim.node, address, claim.role, time.monotonic())
                noted[hint.trust_domain, hint.node, hint.address] = hint
                self._hints.add(hint)
        for place in list(noted)[:-MAX_HINTS_PER_NAME]:
            del noted[place]
        if noted:
            self._announced[name] = noted
        if len(self._announced) > MAX_ANNOUNCEMENTS:
            del self._announced[next(iter(self._announced))]

    def _forget(self, name: str) -> None:
        for place, hint in self._announced.pop(name, {}).items():
            if not any(place in noted for noted in self._announced.values()):
                self._hints.remove(hint)


async def _join(interfaces: Sequence[str]) -> AsyncZeroconf:
    """Return a started mDNS responder on these interfaces."""
    hosts = list(dict.fromkeys(_address_of(interface) for interface in interfaces))
    try:
        network = AsyncZeroconf(interfaces=hosts, ip_version=IPVersion.V4Only)
    except OSError as error:
        raise _refusal(error.strerror or "the system refuses") from error
    try:
        await network.zeroconf.async_wait_for_start()
        if not hosts or len(network.zeroconf.engine.senders) < len(hosts):
            raise _refusal("an interface without multicast")
    except (OSError, ZeroconfError) as error:
        await network.async_close()
        raise _refusal("the sockets do not start") from error
    except LocalNetworkError:
        await network.async_close()
        raise
    return network


def _address_of(interface: str) -> str:
    """Return the IPv4 address of an interface of this machine, given by address or name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            try:
                host = str(ipaddress.IPv4Address(interface))
            except ValueError:
                request = struct.pack("16s240x", interface.encode())
                host = socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
            probe.bind((host, 0))
        except OSError as error:
            raise _refusal(f"no interface {interface!r} with an IPv4 address here") from error
    return host


def _refusal(reason: str) -> LocalNetworkError:
    return LocalNetworkError(
        f"multicast DNS cannot be used on this machine: {reason}.",
        fix="name another interface, free UDP port 5353, or write the addresses of the other nodes down",
    )
