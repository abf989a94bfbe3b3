"""What this process listens on, read from the kernel."""

from __future__ import annotations

import socket

import pytest

from pyrdma.errors import LaneError
from pyrdma.lanes.bound import interface_address, listening, require_bound_to


def test_loopback_has_its_address() -> None:
    """The address of an interface comes from the kernel."""
    assert interface_address("lo") == "127.0.0.1"


def test_an_interface_that_does_not_exist_is_named() -> None:
    """The sentence names the interface and the fix says where to look."""
    with pytest.raises(LaneError, match="'nosuch0'") as caught:
        interface_address("nosuch0")
    assert "ip address" in caught.value.fix


def test_a_listener_beyond_the_interface_is_refused() -> None:
    """Listening on loopback passes, listening everywhere or in IPv6 does not."""
    with socket.create_server(("127.0.0.1", 0)):
        require_bound_to("lo")
        assert "127.0.0.1" in listening()
        with socket.create_server(("0.0.0.0", 0)), pytest.raises(LaneError, match=r"0\.0\.0\.0"):
            require_bound_to("lo")
        with (
            socket.create_server(("::", 0), family=socket.AF_INET6),
            pytest.raises(LaneError, match="beyond"),
        ):
            require_bound_to("lo")
