"""Where a node looks for its gateway: what was written down, then hints, until one of them works."""

from __future__ import annotations

from agent.site.config import SiteConfig
from agent.site.trust import Trust
from agent.site.whereabouts import Whereabouts
from federation.identity.authority import SiteAuthority

CONFIG = SiteConfig(
    site="north",
    trust_domain="north.pyrdma.example",
    node="n2",
    role="node",
    address="10.0.0.2:7443",
    listen="0.0.0.0:7443",
    gateway_node="n1",
    gateway_address="10.0.0.1:7443",
)


def make(hints: list[str]) -> Whereabouts:
    """What looks for the gateway, with hints that a test changes."""
    authority = SiteAuthority.create(CONFIG.trust_domain, now_s=0.0).certificate_pem
    return Whereabouts(Trust(CONFIG, authority, lambda _: False), lambda: tuple(hints))


def test_what_was_written_down_comes_first_and_again() -> None:
    """Each failure leads on to the next address, and after the last to the first."""
    where = make(["10.0.0.8:1", "10.0.0.1:7443", "10.0.0.9:1"])
    seen = []
    for _ in range(4):
        seen.append(where.target().address)
        where.unreached()
    assert seen == ["10.0.0.1:7443", "10.0.0.8:1", "10.0.0.9:1", "10.0.0.1:7443"]
    assert where.target().identity.node == "n1"


def test_an_address_that_works_is_kept() -> None:
    """New hints, in whatever order, or the end of its own one lead nowhere else until it fails."""
    hints = ["10.0.0.8:1"]
    where = make(hints)
    where.unreached()
    for now in (["10.0.0.9:1", "10.0.0.8:1"], []):
        hints[:] = now
        assert where.target().address == "10.0.0.8:1"
    where.unreached()
    assert where.target().address == "10.0.0.1:7443"
