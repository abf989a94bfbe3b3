"""Which image a name stands for."""

from __future__ import annotations

import pytest

from agent.errors import AmbiguousModelError, RequestError, UnknownModelError
from agent.resolve import ModelRef, Offer, choose, parse_ref
from pyrdma.image.manifest import ImageId

ONE, TWO = ImageId(b"\x01" * 32), ImageId(b"\x02" * 32)


def _offer(peer: str, image_id: ImageId) -> Offer:
    return Offer(peer, image_id, 10, peer)


def test_a_reference_is_a_name_or_a_name_at_an_image() -> None:
    """Both forms parse, and print as they were."""
    assert parse_ref("site/llama-3.1") == ModelRef("site/llama-3.1", None)
    assert parse_ref(f"m@{ONE.hex()}") == ModelRef("m", ONE)
    assert str(parse_ref(f"m@{ONE.hex()}")) == f"m@{ONE.hex()}"


@pytest.mark.parametrize(
    "text", ["", "a/b/c", "../m", "/m", "m/", "m m", "m\n", "-m", "m@", "m@1234", "m@" + "G" * 64, "x" * 129]
)
def test_anything_else_is_refused(text: str) -> None:
    """No path, no control character, no id prefix gets through."""
    with pytest.raises(RequestError):
        parse_ref(text)


def test_the_local_name_wins_over_peers() -> None:
    """A peer cannot change what a name means here."""
    assert choose(ModelRef("m", None), ONE, [_offer("a", TWO)]) == ONE


def test_peers_that_agree_decide_an_unknown_name() -> None:
    """Several holders of one image are one answer."""
    assert choose(ModelRef("m", None), None, [_offer("a", TWO), _offer("b", TWO)]) == TWO


def test_peers_that_differ_need_the_caller_to_choose() -> None:
    """The fix names both references in full, with who has them."""
    with pytest.raises(AmbiguousModelError) as caught:
        choose(ModelRef("m", None), None, [_offer("a", ONE), _offer("b", TWO)])
    assert f"m@{ONE.hex()} at a" in caught.value.fix
    assert f"m@{TWO.hex()} at b" in caught.value.fix


def test_an_id_in_the_reference_is_the_only_image_that_counts() -> None:
    """Neither the local binding nor other offers matter then."""
    ref = ModelRef("m", TWO)
    assert choose(ref, ONE, [_offer("a", ONE), _offer("b", TWO)]) == TWO
    with pytest.raises(UnknownModelError):
        choose(ref, ONE, [_offer("a", ONE)])


def test_a_name_that_nobody_knows_names_the_peers_that_were_silent() -> None:
    """The reader sees that the answer may be incomplete."""
    with pytest.raises(UnknownModelError, match=r"Not reachable: unix:/x"):
        choose(ModelRef("m", None), None, [], unreachable=["unix:/x"])
