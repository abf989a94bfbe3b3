"""Which device, and which donor: each criterion by itself, and no dependence on order or odd figures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gateway.core.fleet import Candidate, Device, NodeReport, Replica
from agent.gateway.core.placement import CarbonPreference, ReceivedOffer, choose, rank_offers
from agent.gateway.core.request import LeaseRequest

IMAGE = "a" * 64
REQUEST = LeaseRequest(
    id="r1",
    borrower_site="uni-b",
    borrower_node="b1",
    model="uni-a/llama",
    image_id=IMAGE,
    total_bytes=10,
    account="",
    purpose="",
)


def candidate(
    node: str, device: str = "gpu0", *, memory: int = 80, warm: bool = False, spares: int = 0
) -> Candidate:
    """A free device."""
    replicas = (Replica(IMAGE, whole=warm),)
    one = Device(device, "gpu", memory)
    return Candidate(NodeReport(node, f"{node}:7400", (one,), replicas, (), spares, True, 0.0), one)


def test_nothing_free_is_nothing_chosen() -> None:
    """An empty list has no best."""
    assert choose(REQUEST, []) is None


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (candidate("n2", warm=True), candidate("n1", spares=2, memory=160)),
        (candidate("n2", spares=1), candidate("n1", memory=160)),
        (candidate("n2", memory=81), candidate("n1", memory=80)),
        (candidate("n1", "gpu1"), candidate("n2", "gpu0")),
        (candidate("n1", "gpu0"), candidate("n1", "gpu1")),
    ],
    ids=["image there", "spare ready", "most memory", "name of the node", "name of the device"],
)
def test_each_criterion_outweighs_all_after_it(better: Candidate, worse: Candidate) -> None:
    """The image's place counts first, then a spare runner, then memory, then names."""
    assert choose(REQUEST, [worse, better]) is better


def test_two_spares_are_no_better_than_one() -> None:
    """One lease needs one runner: beyond it memory decides."""
    more = candidate("n1", spares=3, memory=80)
    larger = candidate("n2", spares=1, memory=160)
    assert choose(REQUEST, [more, larger]) is larger


devices = st.builds(
    candidate,
    st.sampled_from(["n1", "n2", "n3"]),
    st.sampled_from(["gpu0", "gpu1"]),
    memory=st.sampled_from([40, 80]),
    warm=st.booleans(),
    spares=st.integers(0, 2),
)


@given(
    st.lists(devices, unique_by=lambda one: one.ref).flatmap(
        lambda a: st.tuples(st.just(a), st.permutations(a))
    )
)
def test_the_choice_does_not_depend_on_order(lists: tuple[list[Candidate], list[Candidate]]) -> None:
    """The same devices in any order give the same one."""
    first, second = lists
    assert choose(REQUEST, first) == choose(REQUEST, second)


OFFER = ReceivedOffer("uni-c", "o1", "n1", warm=False, bytes_to_move=1000, bytes_per_s=100.0)


def test_a_site_where_the_image_is_outweighs_the_own_site() -> None:
    """Nothing to move beats everything else, the own site a faster one, a faster one a name."""
    warm = replace(OFFER, site="uni-z", warm=True, bytes_per_s=0.0)
    own = replace(OFFER, site="uni-b", bytes_per_s=1.0)
    fast = replace(OFFER, site="uni-d", bytes_per_s=1e9)
    assert rank_offers([OFFER, fast, own, warm], "uni-b") == (warm, own, fast, OFFER)


def test_time_to_move_counts_not_pace_alone() -> None:
    """Few bytes over a slow line may come sooner than many over a fast one."""
    few = replace(OFFER, site="uni-z", bytes_to_move=10, bytes_per_s=10.0)
    assert few.seconds_to_move == 1.0
    assert rank_offers([OFFER, few], "uni-b") == (few, OFFER)


@pytest.mark.parametrize("pace", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_pace_that_is_none_counts_as_the_worst(pace: float) -> None:
    """A donor cannot get to the front with a figure that no line has."""
    odd = replace(OFFER, site="uni-a", bytes_per_s=pace)
    assert rank_offers([odd, OFFER], "uni-b") == (OFFER, odd)


received = st.builds(
    ReceivedOffer,
    st.sampled_from(["uni-a", "uni-b", "uni-c"]),
    st.text("0123456789", min_size=1, max_size=3),
    st.sampled_from(["n1", "n2"]),
    st.booleans(),
    st.integers(-5, 2**64),
    st.floats(),
    st.floats(),
    st.integers(-5, 2000),
    st.integers(0, 2**32),
)
grams_of = st.dictionaries(st.sampled_from(["uni-a", "uni-b", "uni-c"]), st.integers(0, 5000))


@given(
    st.lists(received, unique_by=lambda one: one.offer_id).flatmap(
        lambda a: st.tuples(st.just(a), st.permutations(a))
    ),
    st.integers(0, 1_000_000),
    grams_of,
)
def test_ranking_is_total_and_does_not_depend_on_order(
    lists: tuple[list[ReceivedOffer], list[ReceivedOffer]], weight: int, grams: dict[str, int]
) -> None:
    """Whatever figures donors send, every offer is in the list once, at the same place."""
    first, second = lists
    carbon = CarbonPreference(weight, grams)
    ranked = rank_offers(first, "uni-b", carbon)
    assert [one.offer_id for one in ranked] == [one.offer_id for one in rank_offers(second, "uni-b", carbon)]
    assert {one.offer_id for one in ranked} == {one.offer_id for one in first}
    warm = [one.warm for one in ranked]
    assert warm == sorted(warm, reverse=True)


CARBON = CarbonPreference(1000, {"uni-y": 10, "uni-z": 20})


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (replace(OFFER, site="uni-z", warm=True, starts_in_s=900.0), replace(OFFER, site="uni-b")),
        (replace(OFFER, site="uni-b", starts_in_s=900.0), replace(OFFER, site="uni-a")),
        (replace(OFFER, site="uni-z", egress_left_permille=0), replace(OFFER, site="uni-a", starts_in_s=1.0)),
        (replace(OFFER, site="uni-z"), replace(OFFER, site="uni-y", egress_left_permille=899)),
        (replace(OFFER, site="uni-y", waiting=9), replace(OFFER, site="uni-z")),
        (replace(OFFER, site="uni-z"), replace(OFFER, site="uni-z", node="n0", waiting=1)),
        (replace(OFFER, site="uni-z", node="n1"), replace(OFFER, site="uni-z", node="n2")),
    ],
    ids=["warm", "own site", "sooner", "more egress left", "less carbon", "fewer waiting", "name"],
)
def test_each_weight_of_offers_outweighs_all_after_it(better: ReceivedOffer, worse: ReceivedOffer) -> None:
    """The order that is published, criterion by criterion."""
    assert rank_offers([worse, better], "uni-b", CARBON) == (better, worse)


def test_less_than_a_second_or_a_tenth_is_no_difference() -> None:
    """What is measured that roughly does not outweigh what comes after it."""
    sooner = replace(OFFER, site="uni-d", waiting=3)
    later = replace(OFFER, site="uni-e", bytes_to_move=1050, egress_left_permille=1000)
    assert rank_offers([sooner, later], "uni-b") == (later, sooner)
    less = replace(later, site="uni-f", egress_left_permille=910)
    more = replace(later, site="uni-g", egress_left_permille=990)
    assert rank_offers([more, less], "uni-b") == (less, more)


@pytest.mark.parametrize("starts_in_s", [math.nan, math.inf, -math.inf])
def test_a_start_that_is_no_time_counts_as_the_worst(starts_in_s: float) -> None:
    """Neither does it break the ranking, nor bring anybody to the front."""
    odd = replace(OFFER, site="uni-a", starts_in_s=starts_in_s)
    assert rank_offers([odd, OFFER], "uni-b") == (OFFER, odd)


def test_carbon_counts_as_seconds_of_waiting_and_no_more() -> None:
    """A gram like a millisecond at full weight: enough to turn near offers, never those that are far apart.

    A site without a figure counts like the mean of the others; without a weight nothing counts.
    """
    near = replace(OFFER, site="uni-d", bytes_to_move=1010)  # 0.1 s behind
    far = replace(OFFER, site="uni-e", bytes_to_move=2000)
    grams = {"uni-c": 400, "uni-d": 100, "uni-e": 0}
    assert rank_offers([OFFER, near, far], "uni-b", CarbonPreference(1000, grams)) == (near, OFFER, far)
    assert rank_offers([OFFER, near, far], "uni-b", CarbonPreference(0, grams)) == (OFFER, near, far)
    unknown = replace(OFFER, site="uni-f")
    dirty, clean = replace(OFFER, site="uni-c"), replace(OFFER, site="uni-d")
    ranked = rank_offers([unknown, dirty, clean], "uni-b", CarbonPreference(1000, grams))
    assert ranked == (clean, unknown, dirty)


def test_carbon_decides_where_nobody_knows_the_pace() -> None:
    """Both would wait endlessly; what is warm, or here, stays before everything."""
    one, other = (replace(OFFER, site=site, bytes_per_s=0.0) for site in ("uni-c", "uni-d"))
    own, warm = replace(one, site="uni-b"), replace(one, site="uni-e", warm=True)
    carbon = CarbonPreference(1000, {"uni-c": 500, "uni-d": 20, "uni-e": 5000, "uni-b": 5000})
    assert rank_offers([one, other, own, warm], "uni-b", carbon) == (warm, own, other, one)
