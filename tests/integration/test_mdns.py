"""Multicast DNS for real: nodes as processes on loopback, liars with packets of their own."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from zeroconf import DNSOutgoing, ServiceInfo
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from federation.discovery.hints import Claim, Hints, Role, txt_of
from federation.discovery.mdns import SERVICE_TYPE, Announcer, Browser
from federation.errors import FederationInputError, LocalNetworkError
from federation.limits import MAX_ANNOUNCEMENTS, MAX_HINTS_PER_SITE, MAX_OPEN_QUESTIONS

SPEAKERS = Path(__file__).with_name("mdns_speakers.py")
GROUP = ("224.0.0.251", 5353)
LO = ["127.0.0.1"]
ANSWER = 0x8400  # an authoritative answer (RFC 6762, 18)
TRUTH = "127.0.0.7:7443"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def domain() -> str:
    """A trust domain that nobody else on this machine's loopback speaks of."""
    return f"t{secrets.token_hex(4)}.example"


@pytest.fixture
def announce(domain: str) -> Iterator[Start]:
    """A function that starts a process which announces a node."""
    started = []

    def start(node: str, address: str = TRUTH) -> subprocess.Popen[str]:
        host, _, port = address.partition(":")
        command = [sys.executable, str(SPEAKERS), "announce", "127.0.0.1", domain, node, host, port]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "announced\n"
        return process

    yield start
    for process in started:
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.fixture
def liar() -> Iterator[socket.socket]:
    """A socket that sends to everyone who listens on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        # Linux takes an answer from any port; binding to 5353 would take part of the others' packets.
        yield one


@asynccontextmanager
async def _browser(domain: str) -> AsyncIterator[tuple[Browser, Hints]]:
    hints = Hints(domain)
    browser = await Browser.start(hints, interfaces=LO)
    try:
        yield browser, hints
    finally:
        await browser.close()


@asynccontextmanager
async def _browsing(domain: str) -> AsyncIterator[Hints]:
    async with _browser(domain) as (_, hints):
        yield hints


def _packet(
    domain: str,
    node: str,
    address: str,
    *,
    name: str = "",
    server: str = "",
    with_address: bool = True,
    ttl_s: int = 120,
) -> bytes:
    host, _, port = address.partition(":")
    name = name or f"{secrets.token_hex(8)}.{SERVICE_TYPE}"
    info = ServiceInfo(
        SERVICE_TYPE,
        name,
        addresses=[socket.inet_aton(host)],
        port=int(port),
        properties=txt_of(Claim(domain, node, Role.NODE)),
        server=server or name.replace(f".{SERVICE_TYPE}", ".local."),
    )
    out = DNSOutgoing(ANSWER)
    addresses = info.dns_addresses() if with_address else []
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *addresses):
        record.ttl = ttl_s
        out.add_answer_at_time(record, 0)
    (packet,) = out.packets()
    return bytes(packet)


async def _name_of_only_announcement(domain: str, wait_until: Any) -> str:
    """Return the DNS-SD name under which the only node of a domain is announced, as any listener can."""
    network = AsyncZeroconf(interfaces=LO)
    names: set[str] = set()
    ours: set[str] = set()
    browser = AsyncServiceBrowser(network.zeroconf, SERVICE_TYPE, [lambda name, **_: names.add(name)])

    async def found() -> bool:
        for name in names - ours:
            info = await network.async_get_service_info(SERVICE_TYPE, name)
            if info is not None and info.properties.get(b"td") == domain.encode():
                ours.add(name)
        return bool(ours)

    await wait_until(found, "for the announcement")
    await browser.async_cancel()
    await network.async_close()
    (name,) = ours
    return name


@pytest.mark.asyncio
async def test_a_node_is_heard_until_it_says_goodbye(
    domain: str, announce: Start, wait_until: Callable[..., Any]
) -> None:
    """Another process's address and role arrive, whoever came first, and go with it."""
    async with _browsing(domain) as early:
        node = await asyncio.to_thread(announce, "gpu07")
        await wait_until(lambda: early.addresses(domain, "gpu07") == (TRUTH,))
        assert early.of_site(domain)[0].role is Role.NODE
        async with _browsing(domain) as late:
            await wait_until(lambda: late.addresses(domain, "gpu07") == (TRUTH,))
            await asyncio.to_thread(node.communicate)
            await wait_until(lambda: not early.of_site(domain))
            await wait_until(lambda: not late.of_site(domain))


@pytest.mark.asyncio
async def test_a_spoofer_adds_a_candidate_and_takes_none(
    domain: str, announce: Start, wait_until: Callable[..., Any]
) -> None:
    """Who announces a node's name first, or after it, is one more address; the real one is there too."""
    await asyncio.to_thread(announce, "gpu07", "127.0.0.66:666")
    await asyncio.to_thread(announce, "gpu07")
    await asyncio.to_thread(announce, "gpu07", "127.0.0.67:667")
    async with _browsing(domain) as hints:
        candidates = {TRUTH, "127.0.0.66:666", "127.0.0.67:667"}
        await wait_until(lambda: set(hints.addresses(domain, "gpu07")) == candidates)


@pytest.mark.asyncio
async def test_a_spoofer_of_the_announcement_itself_takes_no_candidate(
    domain: str, announce: Start, liar: socket.socket, wait_until: Callable[..., Any]
) -> None:
    """Records that overwrite a node's own in every cache leave its address among the hints."""
    await asyncio.to_thread(announce, "gpu07")
    async with _browsing(domain) as hints:
        await wait_until(lambda: hints.addresses(domain, "gpu07") == (TRUTH,))
        name = await _name_of_only_announcement(domain, wait_until)
        liar.sendto(_packet(domain, "gpu07", "127.0.0.66:666", name=name), GROUP)
        await wait_until(lambda: len(hints.addresses(domain, "gpu07")) > 1)
        # Whether the liar's port goes with our host depends on what came when; ours is there whole.
        assert TRUTH in hints.addresses(domain, "gpu07")


@pytest.mark.asyncio
async def test_a_goodbye_takes_no_other_announcements_address(
    domain: str, announce: Start, wait_until: Callable[..., Any]
) -> None:
    """Who announces a node's true address and says goodbye takes nothing away."""
    await asyncio.to_thread(announce, "gpu07")
    liar = await asyncio.to_thread(announce, "gpu07")
    last = await asyncio.to_thread(announce, "gpu08")
    async with _browsing(domain) as hints:
        await wait_until(lambda: len(hints.of_site(domain)) == 2)
        await asyncio.to_thread(liar.communicate)
        await asyncio.to_thread(last.communicate)
        present = True

        def last_is_forgotten() -> bool:
            nonlocal present
            present = present and bool(hints.addresses(domain, "gpu07"))
            return not hints.addresses(domain, "gpu08")

        await wait_until(last_is_forgotten)
        assert present


@pytest.mark.asyncio
async def test_half_announcements_have_us_ask_little(
    domain: str, announce: Start, liar: socket.socket, wait_until: Callable[..., Any]
) -> None:
    """Of 300 announcements that lack an address as many are asked about as may be at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ear.bind(GROUP)  # the group's packets alone: no program's answers end here
        ear.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP[0]) + socket.inet_aton(LO[0])
        )
        ear.setblocking(False)
        mark = secrets.token_hex(6)
        asked: set[bytes] = set()

        def hear() -> None:
            with suppress(BlockingIOError):
                while packet := ear.recv(9000):
                    if not packet[2] & 0x80:
                        asked.update(re.findall(mark.encode() + b"....", packet))

        async with _browsing(domain) as hints:
            for number in range(300):
                name = f"{mark}{number:04x}.{SERVICE_TYPE}"
                liar.sendto(_packet(domain, "n", "127.0.0.66:666", name=name, with_address=False), GROUP)
                await asyncio.sleep(0)
                hear()
            await asyncio.to_thread(announce, "gpu07")
            await wait_until(lambda: hints.addresses(domain, "gpu07") == (TRUTH,))
            hear()
        assert 0 < len(asked) <= MAX_OPEN_QUESTIONS


@pytest.mark.asyncio
async def test_a_false_goodbye_is_not_believed(
    domain: str, announce: Start, liar: socket.socket, wait_until: Callable[..., Any]
) -> None:
    """A goodbye in a node's name has us ask, and the node answers."""
    await asyncio.to_thread(announce, "gpu07")
    async with _browsing(domain) as hints:
        await wait_until(lambda: hints.addresses(domain, "gpu07") == (TRUTH,))
        name = await _name_of_only_announcement(domain, wait_until)
        heard_s = hints.of_site(domain)[0].seen_at_s
        liar.sendto(_packet(domain, "gpu07", TRUTH, name=name, ttl_s=0), GROUP)
        present = True

        def asked_and_answered() -> bool:
            nonlocal present
            present = present and hints.addresses(domain, "gpu07") == (TRUTH,)
            return not present or hints.of_site(domain)[0].seen_at_s > heard_s

        await wait_until(asked_and_answered)
        assert present


@pytest.mark.asyncio
async def test_a_flood_fills_the_table_and_no_more(
    domain: str, announce: Start, liar: socket.socket, wait_until: Callable[..., Any]
) -> None:
    """Of 4,000 announcements of one host as many stay as a site may have, the real node's among them."""
    await asyncio.to_thread(announce, "gpu07")
    async with _browser(domain) as (browser, hints):
        await wait_until(lambda: hints.addresses(domain, "gpu07") == (TRUTH,))
        for number in range(2000):
            liar.sendto(_packet(domain, f"n{number}", "127.0.0.66:666"), GROUP)
            liar.sendto(_packet(domain, "gpu07", f"127.0.0.66:{number + 1}"), GROUP)
            await asyncio.sleep(0)  # the other side of the flood is this loop
            assert len(hints.of_site(domain)) <= MAX_HINTS_PER_SITE
        await wait_until(lambda: len(hints.of_site(domain)) == MAX_HINTS_PER_SITE)
        assert TRUTH in hints.addresses(domain, "gpu07")
        assert len(browser._announced) <= MAX_ANNOUNCEMENTS
        assert len(browser._in_packet) == 0


@pytest.mark.asyncio
async def test_rubbish_does_no_harm(
    domain: str, announce: Start, liar: socket.socket, wait_until: Callable[..., Any]
) -> None:
    """Packets that are broken, cut, or about nothing are passed over, and a node is heard after them."""
    noise = random.Random(7)
    good = _packet(domain, "gpu08", "127.0.0.8:8")
    cases = [noise.randbytes(noise.randrange(1, 400)) for _ in range(300)]
    cases += [good[: noise.randrange(len(good))] for _ in range(300)]
    for _ in range(600):
        changed = bytearray(good)
        for _ in range(noise.randrange(1, 6)):
            changed[noise.randrange(12, len(good))] = noise.randrange(256)
        cases.append(bytes(changed))
    cases += [_packet(domain, "gpu09", "0.0.0.0:9"), _packet(domain, "gpu09", "127.0.0.9:0")]
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with _browsing(domain) as hints:
        for case in cases:
            liar.sendto(case, GROUP)
            await asyncio.sleep(0)
        await asyncio.to_thread(announce, "gpu07")
        await wait_until(lambda: hints.addresses(domain, "gpu07") == (TRUTH,))
        assert not hints.addresses(domain, "gpu09")
    assert not unhandled


@pytest.mark.asyncio
async def test_names_that_cannot_be_said_do_not_stop_the_asking(
    domain: str, announce: Start, liar: socket.socket, wait_until: Callable[..., Any]
) -> None:
    """Names that no packet could repeat are passed over: a node whose hint was lost is asked for again."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    await asyncio.to_thread(announce, "gpu07")
    async with _browsing(domain) as hints:
        await wait_until(lambda: hints.addresses(domain, "gpu07") == (TRUTH,))
        (truth,) = hints.of_site(domain)
        # Bytes that are no UTF-8 are three times as many when written again: more than a label holds.
        pointer = _packet(domain, "gpu08", "127.0.0.66:666", name=f"{'x' * 30}.{SERVICE_TYPE}")
        liar.sendto(pointer.replace(b"x" * 30, b"\xff" * 30), GROUP)
        host = _packet(domain, "gpu08", "127.0.0.66:666", server=f"{'y' * 31}.local.", with_address=False)
        liar.sendto(host.replace(b"y" * 31, b"\xff" * 31), GROUP)
        hints.remove(truth)
        await wait_until(lambda: TRUTH in hints.addresses(domain, "gpu07"))
    gc.collect()  # a task's error that nobody took is reported when it goes
    assert not unhandled


@pytest.mark.asyncio
@pytest.mark.parametrize("interfaces", [["no-such-0"], ["192.0.2.1"], ["lo", "no-such-0"], []])
async def test_an_interface_that_is_not_here_is_said(domain: str, interfaces: list[str]) -> None:
    """Announcing and browsing are refused with the error that lets the agent go on, and leave no socket."""
    with pytest.raises(LocalNetworkError) as refusal:
        await Browser.start(Hints(domain), interfaces=interfaces)
    assert refusal.value.fix
    with pytest.raises(LocalNetworkError):
        await Announcer.start(Claim(domain, "a", Role.NODE), host="127.0.0.1", port=1, interfaces=interfaces)


@pytest.mark.asyncio
async def test_an_address_that_is_none_is_not_announced(domain: str) -> None:
    """A host name or a wildcard would be a hint that nobody can use."""
    for host in ("gpu07.example", "0.0.0.0"):
        with pytest.raises(FederationInputError):
            await Announcer.start(Claim(domain, "a", Role.NODE), host=host, port=1, interfaces=LO)


def test_machines_hear_each_other(domain: str, network_lab: Any) -> None:
    """Across a real switch, on an interface given by its name."""
    with network_lab(2) as lab:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        speaker = [sys.executable, str(SPEAKERS)]
        node = lab.run_in(0, [*speaker, "announce", "eth0", domain, "gpu07", lab.address(0), "7443"], **pipes)
        assert node.stdout.readline() == "announced\n"
        heard = lab.run_in(1, [*speaker, "browse", "eth0", domain, "gpu07"], **pipes)
        assert heard.communicate(timeout=30)[0] == f"{lab.address(0)}:7443\n"


def test_a_port_that_is_taken_is_said(domain: str, network_lab: Any) -> None:
    """Where another program holds the multicast port for itself, the error says so."""
    taken = "import socket; s = socket.socket(2, 2); s.bind(('', 5353)); print('taken', flush=True); input()"
    with network_lab(1) as lab:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        holder = lab.run_in(0, [sys.executable, "-c", taken], **pipes)
        assert holder.stdout.readline() == "taken\n"
        refused = lab.run_in(0, [sys.executable, str(SPEAKERS), "browse", "eth0", domain, "a"], **pipes)
        said = refused.communicate(timeout=30)[0]
        assert said.startswith("mdns multicast DNS cannot be used on this machine: Address already in use")
