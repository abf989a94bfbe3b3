"""Which devices an owner takes: named ones, free ones, then those whose guests lose least."""

from __future__ import annotations

import pytest

from agent.devices.choice import Choosable, choose
from agent.errors import OwnedError, RequestError


def device(name: str, guests: dict[str, float] | None = None, **how: bool) -> Choosable:
    """Return a device that is lent unless said otherwise."""
    return Choosable(name, how.get("claimed", False), how.get("free", False), guests or {})


def test_named_devices_are_taken_as_named() -> None:
    """Claimed or not; one that is not there is said with what is."""
    devices = [device("a", claimed=True), device("b")]
    assert choose(devices, ["b", "a", "b"], 0) == ("b", "a")
    with pytest.raises(RequestError, match="no device 'c'") as caught:
        choose(devices, ["c"], 0)
    assert caught.value.fix == "it has a, b"


def test_free_devices_go_first_then_the_youngest_guests() -> None:
    """Nobody is ended while something is free."""
    devices = [device("a", {"l1": 900.0}), device("b", {"l2": 10.0}), device("c"), device("d", free=True)]
    assert choose(devices, [], 1) == ("d",)
    assert choose(devices, [], 2) == ("c", "d")
    assert choose(devices, [], 3) == ("b", "c", "d")


def test_a_lease_on_several_devices_is_lost_once() -> None:
    """Two devices of one young lease cost less than one of it and one of another."""
    devices = [device("a", {"l1": 30.0}), device("b", {"l2": 20.0}), device("c", {"l2": 20.0})]
    assert choose(devices, [], 2) == ("b", "c")


def test_leases_that_share_a_device_go_together() -> None:
    """What is lost is all of theirs."""
    devices = [device("a", {"l1": 5.0, "l2": 90.0}), device("b", {"l3": 50.0})]
    assert choose(devices, [], 1) == ("b",)


def test_what_another_command_has_is_not_given_twice() -> None:
    """Unless it is named."""
    devices = [device("a", claimed=True), device("b", claimed=True)]
    with pytest.raises(OwnedError, match="2 of 2 devices are in use by their owner"):
        choose(devices, [], 1)
    with pytest.raises(RequestError, match="2 devices, not 3"):
        choose(devices, [], 3)
    assert choose(devices, [], 0) == ("a", "b")
