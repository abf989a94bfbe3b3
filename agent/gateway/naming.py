"""What a model's name means for a site: which image, how large, in whose words.

Rules: a bare name is this site's own first, on the gateway, then on its nodes; only a name that nobody here
knows is asked of other sites. Whoever is asked together must agree: nodes as well as sites. ``SITE/NAME`` is
that site's, as its signed list in the registry says; a name that the list does not have yet is asked of the
site's own gateway, and that is said. An id means its image, whatever anybody answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.daemon.catalogue import Catalogue
from agent.daemon.reports import ReportedImage
from agent.errors import UnknownModelError
from agent.gateway.neighbours import Neighbours, split_site
from agent.resolve import ModelRef, Offer, choose
from agent.site.trust import Trust
from federation.errors import FederationError
from pyrdma.errors import Error
from pyrdma.image.manifest import ImageId


@dataclass(frozen=True, slots=True)
class Meant:
    """The image that a reference means; ``note`` is worth telling whoever asked."""

    image_id: ImageId
    total_bytes: int
    note: str = ""


class Naming:
    """Names as this site's gateway reads them.

    Args:
        site: this one's name.
        catalogue: what the gateway's own node knows; ``None`` where it donates nothing.
        reported: the images that this site's nodes report.
        trust: the registry's word on other sites' names.
        neighbours: the other sites.
    """

    def __init__(
        self,
        site: str,
        catalogue: Catalogue | None,
        reported: Callable[[], dict[str, tuple[ReportedImage, ...]]],
        trust: Trust,
        neighbours: Neighbours,
    ) -> None:
        self._site = site
        self._catalogue = catalogue
        self._reported = reported
        self._trust = trust
        self._neighbours = neighbours

    async def resolve(self, ref: ModelRef) -> Meant:
        """Return what a reference means.

        Raises:
            UnknownModelError, AmbiguousModelError: nobody knows it, or several mean different images.
            NotAdmittedError: it names a site that the registry does not know.
        """
        site, bare = split_site(ref.name, self._site)
        if site:
            return await self._of_site(site, ModelRef(bare, ref.image_id), ref)
        bare_ref = ModelRef(bare, ref.image_id)
        own = await self.own(bare_ref)
        if own is not None:
            return own
        return await self._of_anyone(bare_ref)

    async def own(self, ref: ModelRef) -> Meant | None:
        """Return what a bare name, or an id, means within this site."""
        if self._catalogue is not None:
            bound = await self._catalogue.bound(ref)
            if bound is not None:
                manifest = await self._catalogue.manifest_of(bound)
                return Meant(bound, manifest.layout.total_bytes)
        offers = [
            Offer(node, image.image_id, image.total_bytes, node)
            for node, images in self._reported().items()
            for image in images
            if (ref.name in image.names if ref.image_id is None else ref.image_id == image.image_id)
        ]
        return _chosen(ref, offers) if offers else None

    async def _of_site(self, site: str, bare: ModelRef, ref: ModelRef) -> Meant:
        neighbour = self._neighbours.get(site)
        membership = self._trust.membership
        signed = membership.models.get(f"{site}/{bare.name}") if membership is not None else None
        if signed is not None:
            image_id = ImageId.parse(signed.image_id)
            if bare.image_id in (None, image_id):
                return Meant(image_id, signed.total_bytes)
        offer = await neighbour.lender.find(bare)
        if offer is None or bare.image_id not in (None, offer.image_id):
            raise UnknownModelError(
                f"{site} has no model {ref} in its memory, and its signed list does not name it.",
                fix="see what the registry names with: pyrdma-agent consortium show",
            )
        note = (
            ""
            if bare.image_id is not None
            else f"{ref.name} is not in {site}'s signed list yet; its gateway says what it is"
        )
        return Meant(offer.image_id, offer.total_bytes, note)

    async def _of_anyone(self, ref: ModelRef) -> Meant:
        asked = self._neighbours.ready()
        answers = await asyncio.gather(*(one.lender.find(ref) for one in asked), return_exceptions=True)
        offers, unreachable = [], list(self._neighbours.silent())
        for one, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Offer):
                offers.append(answer)
            elif isinstance(answer, Error | FederationError):
                unreachable.append(one.document.site)
            elif isinstance(answer, BaseException):
                raise answer
        return _chosen(ref, offers, unreachable)


def _chosen(ref: ModelRef, offers: Sequence[Offer], unreachable: Sequence[str] = ()) -> Meant:
    image_id = choose(ref, None, offers, unreachable=unreachable)
    return Meant(image_id, next(one.total_bytes for one in offers if one.image_id == image_id))
