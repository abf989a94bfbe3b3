"""Which models an image is, as the sites' signed lists in the registry say: what rules of a policy speak of.

Rules: the image's id decides, whatever a borrower calls it. Every name of every site counts: whoever lists an
image says under its signature what it is. A site that lists one image under many names is heard for the first
``MAX_NAMES_OF_IMAGE`` of them: what it lists under other names is its own loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.gateway.core.request import KnownModel
from agent.limits import MAX_NAMES_OF_IMAGE
from federation.registry.membership import Membership


class KnownModels:
    """The lists by image.

    Args:
        membership: returns what the registry says now.
    """

    def __init__(self, membership: Callable[[], Membership | None]) -> None:
        self._membership = membership
        self._read: Membership | None = None
        self._by_image: Mapping[str, tuple[KnownModel, ...]] = {}

    def of(self, image_id: str) -> tuple[KnownModel, ...]:
        """Return what an image is listed as, by name; nothing when nobody lists it."""
        now = self._membership()
        if now is not self._read:
            self._read, self._by_image = now, {} if now is None else by_image(now)
        return self._by_image.get(image_id, ())


def by_image(membership: Membership) -> Mapping[str, tuple[KnownModel, ...]]:
    """Return the models of all lists by the image's id."""
    found: dict[str, list[KnownModel]] = {}
    for name in sorted(membership.models):
        binding, site = membership.models[name], name.partition("/")[0]
        known = found.setdefault(binding.image_id, [])
        if sum(one.publisher == site for one in known[-MAX_NAMES_OF_IMAGE:]) < MAX_NAMES_OF_IMAGE:
            known.append(KnownModel(name, site, binding.licence, binding.total_bytes))
    return {image_id: tuple(known) for image_id, known in found.items()}
