"""What sessions and fetches share of UCX: one context and worker, its endpoints, and what is being sent.

Rules: nothing else of ours imports ucxx. The port comes up on the declared interface alone, or not at all. A
buffer that is being sent stays alive until UCX has finished with it.

It knows no order of the cache and no frame, and does not sleep: the event loop in ``pyrdma.lanes.ucx`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyrdma.errors import LaneError
from pyrdma.lanes.bound import require_bound_to


@dataclass(slots=True)
class _Pending:
    """A send that UCX has not finished; holds its buffer alive."""

    request: Any
    array: Any
    done: Callable[[], None]


class Port:
    """One UCX worker, bound to one interface.

    Args:
        interface: the network interface that was declared protected.

    Raises:
        LaneError: UCX is not installed, does not come up, or listens beyond the interface.
    """

    def __init__(self, interface: str) -> None:
        try:
            from ucxx._lib import libucxx
            from ucxx._lib.arr import Array
        except ImportError as error:
            raise LaneError(
                f"UCX is not installed here ({error}).",
                fix="install pyrdma-agent with the extra 'cpu' or 'cu12'",
            ) from error
        self._ucx, self._array = libucxx, Array
        self._sends: list[_Pending] = []
        try:
            context = libucxx.UCXContext(feature_flags=(libucxx.Feature.TAG, libucxx.Feature.WAKEUP))
            self._worker = libucxx.UCXWorker(context)
            self._worker.init_blocking_progress_mode()
            self.address: bytes = self._worker.address.tobytes()
        except (libucxx.UCXError, RuntimeError) as error:
            raise LaneError(
                f"UCX did not come up on the interface {interface!r} ({error}).",
                fix="declare one that 'ip address' lists as UP, with --interface NAME",
            ) from error
        require_bound_to(interface)
        self._mask = libucxx.UCXXTagMaskFull

    # --- progress -----------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor that is readable when UCX has work, once ``arm`` said so."""
        return int(self._worker.epoll_file_descriptor)

    def arm(self) -> bool:
        """Ask UCX to wake us; False when there is work already."""
        return bool(self._worker.arm())

    def progress(self) -> bool:
        """Let UCX work for one round; return whether it did anything."""
        return bool(self._worker.progress_once())

    def finish_sends(self) -> bool:
        """Take leave of the sends that UCX has finished; return whether there were any."""
        done = [send for send in self._sends if send.request.completed]
        if done:
            self._sends = [send for send in self._sends if not send.request.completed]
            for send in done:
                send.done()
        return bool(done)

    def cancel_failed(self) -> None:
        """Cancel what was posted on endpoints that failed: they only plan to, and progress does not do it."""
        self._worker.cancel_inflight_requests()

    # --- endpoints and what goes over them ----------------------------------------------------------------

    def endpoint(self, address: str, on_end: Callable[[int], None], name: int) -> Any:
        """Return an endpoint to the worker with an address in hex; ``on_end(name)`` is called when it fails.

        Raises:
            LaneError: UCX cannot make it.
        """
        try:
            endpoint = self._ucx.UCXEndpoint.create_from_worker_address(
                self._worker, self._ucx.UCXAddress.create_from_buffer(bytes.fromhex(address)), True
            )
            endpoint.set_close_callback(on_end, cb_args=(name,))
        except (self._ucx.UCXError, RuntimeError, ValueError) as error:
            raise LaneError(str(error)) from error
        return endpoint

    def receive(self, buffer: Any, tag: int, *, endpoint: Any = None) -> Any:
        """Return a request that receives into a flat uint8 array, from one endpoint or from anybody.

        Raises:
            LaneError: UCX cannot post it.
        """
        receiver = self._worker if endpoint is None else endpoint
        try:
            return receiver.tag_recv(self._array(buffer), self._ucx.UCXXTag(tag), self._mask)
        except self._ucx.UCXError as error:
            raise LaneError(str(error)) from error

    def send(self, endpoint: Any, buffer: Any, tag: int, done: Callable[[], None]) -> bool:
        """Send a flat uint8 array; ``done`` is called at its end. False when the endpoint is gone."""
        array = self._array(buffer)
        try:
            request = endpoint.tag_send(array, self._ucx.UCXXTag(tag))
        except self._ucx.UCXError:
            done()  # the endpoint is gone; its peer finds out by itself
            return False
        self._sends.append(_Pending(request, array, done))
        return True


def failure(request: Any) -> str | None:
    """Return why a request that has completed failed; None when it did not."""
    try:
        request.check_error()
    except Exception as error:  # noqa: BLE001 - ucxx raises a class per status; the text is all that matters here
        return str(error) or type(error).__name__
    return None
