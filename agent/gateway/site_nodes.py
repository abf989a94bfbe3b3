"""The nodes of a site as its gateway sees them: what they hold, and how images and orders get there."""

from __future__ import annotations

from collections.abc import Callable

from agent.daemon.faces import Host as HostFace
from agent.daemon.host import Host
from agent.daemon.reports import LeaseEnd, Report, ReportedImage
from agent.errors import PeerNodeError, RequestError
from agent.gateway.core.fleet import Fleet
from agent.gateway.core.request import LeaseRequest
from agent.gateway.forwarding import Forwarding
from agent.site.home import SiteConfig
from pyrdma.image.manifest import ImageId


class SiteNodes:
    """The nodes of a site, the gateway's own among them.

    Args:
        config: the gateway's place.
        host: what its own node donates, if anything.
        forwarding: brings images into the gateway's memory for the others.
        reach: given a node's name and address, returns what orders it.
        fleet: what the nodes have said of themselves.
        clock: the clock of leases.
    """

    def __init__(
        self,
        config: SiteConfig,
        host: Host | None,
        *,
        forwarding: Forwarding,
        reach: Callable[[str, str], HostFace],
        fleet: Callable[[], Fleet],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._host = host
        self._forwarding = forwarding
        self._reach = reach
        self._fleet = fleet
        self._clock = clock
        self._images: dict[str, tuple[ReportedImage, ...]] = {}

    def note(self, node: str, images: tuple[ReportedImage, ...]) -> None:
        """Note what a node has in memory."""
        self._images[node] = images

    def forget(self, node: str) -> None:
        """Forget what a node had in memory."""
        self._images.pop(node, None)

    def images(self) -> dict[str, tuple[ReportedImage, ...]]:
        """Return what is in memory, by node; what a lost node had is nowhere."""
        present = (one.node for one in self._fleet().present(self._clock()))
        return {node: self._images[node] for node in present if node in self._images}

    def host_of(self, node: str) -> HostFace:
        """Return what orders a node.

        Raises:
            RequestError: it is the gateway's own, and donates nothing.
            PeerNodeError: it has not been heard of.
        """
        if node == self._config.node:
            if self._host is None:
                raise RequestError(f"the node {node} donates nothing.", fix="name another node")
            return self._host
        known = self._fleet().nodes.get(node)
        if known is None:
            raise PeerNodeError(f"the node {node} has not been heard of.", fix="see: pyrdma-agent nodes")
        return self._reach(node, known.report.address)

    async def prepare(self, node: str, request: LeaseRequest) -> None:
        """Return once a node can get the image that is asked for.

        Raises:
            Error: nobody has it, or there is no room for it at the gateway.
        """
        if node == self._config.node:
            return  # it pulls for itself, and says how far it is
        known = self._fleet().nodes.get(node)
        if known is not None and known.report.holds(request.image_id):
            return
        await self._forwarding.on_its_way(ImageId.parse(request.image_id), request.model)

    async def own_report(self, ended: tuple[LeaseEnd, ...]) -> Report:
        """Return the word of the gateway's own node on itself, with the leases that have ended there."""
        if self._host is None:
            return Report(self._config.address, (), (), (), 0, 0.0, donating=False)
        return await self._host.report(self._config.address, ended)
