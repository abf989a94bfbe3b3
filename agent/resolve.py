"""Which image a model's name stands for, and who has it. Pure: no socket, file or clock.

Rules:

- a reference is ``NAME`` or ``NAME@IMAGEID``; the id is given in full, a prefix is never enough;
- a name that is bound on this node stands for that image; peers are not asked, so that they cannot change it;
- a name that only peers know stands for their image if all of them mean the same one; else the caller must
  choose by ``NAME@IMAGEID``;
- with an id in the reference, only that image counts, whatever else the name stands for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.errors import AmbiguousModelError, RequestError, UnknownModelError
from agent.limits import MAX_NAME_CHARS
from pyrdma.errors import InputError
from pyrdma.image.manifest import ImageId

_PART: Final = "[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME: Final = re.compile(f"{_PART}(?:/{_PART})?")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as a caller names it."""

    name: str
    image_id: ImageId | None

    def __str__(self) -> str:
        return self.name if self.image_id is None else f"{self.name}@{self.image_id.hex()}"


@dataclass(frozen=True, slots=True)
class Offer:
    """A peer's word that it holds an image under the name.

    ``peer`` is the address by which we reach it, ``node`` what it calls itself: for people, never identity.
    """

    peer: str
    image_id: ImageId
    total_bytes: int
    node: str


def check_name(name: str) -> str:
    """Return the name.

    Raises:
        RequestError: it is no model's name.
    """
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise RequestError(
            "a model's name has letters, digits, '.', '_' and '-', at most one '/', "
            f"and at most {MAX_NAME_CHARS} characters.",
            fix="choose another name, such as all-minilm-l6-v2",
        )
    return name


def parse_ref(text: str) -> ModelRef:
    """Return the reference that ``NAME`` or ``NAME@IMAGEID`` is.

    Raises:
        RequestError: it is neither.
    """
    name, at, digits = text.partition("@")
    try:
        return ModelRef(check_name(name), ImageId.parse(digits) if at else None)
    except InputError as error:
        raise RequestError(error.message, fix="copy the id from: pyrdma-agent models --json") from error


def choose(
    ref: ModelRef, local: ImageId | None, offers: Sequence[Offer], *, unreachable: Sequence[str] = ()
) -> ImageId:
    """Return the image that the reference stands for.

    Args:
        ref: what the caller asked for.
        local: the image that the name is bound to on this node.
        offers: what the peers said; may be empty when ``local`` decides.
        unreachable: peers that could not be asked, for the sentence.

    Raises:
        UnknownModelError: nobody has it.
        AmbiguousModelError: peers mean different images.
    """
    if ref.image_id is not None:
        if local == ref.image_id or any(offer.image_id == ref.image_id for offer in offers):
            return ref.image_id
    elif local is not None:
        return local
    elif offers:
        found = sorted({offer.image_id for offer in offers})
        if len(found) == 1:
            return found[0]
        holders = {one: sorted(offer.peer for offer in offers if offer.image_id == one) for one in found}
        who = "; ".join(f"{ref.name}@{one.hex()} at {', '.join(peers)}" for one, peers in holders.items())
        raise AmbiguousModelError(
            f"the peers mean {len(found)} different images by {ref.name}.",
            fix=f"name one: {who}",
        )
    silent = f" Not reachable: {', '.join(unreachable)}." if unreachable else ""
    raise UnknownModelError(
        f"no model {ref} is known on this node or on its peers.{silent}",
        fix="see what there is with: pyrdma-agent models; "
        "or add it with: pyrdma-agent publish FOLDER --name NAME",
    )
