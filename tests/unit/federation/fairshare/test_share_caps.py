"""The over-share cap."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.caps import OverCap, cap_of, over_cap
from federation.fairshare.standing import OpenLease, Standing, holdings_of, standing_of
from federation.policy.policy import Policy

EPOCH = 3_000_000
DONATED = st.integers(1, 64)
Over = Callable[[Standing, str, int, Mapping[str, int]], OverCap | None]


def _standing(policy: Policy, donated: int, held: dict[str, int] | None = None) -> Standing:
    leases = [OpenLease(path, count, 0, 0, EPOCH * 600 + 1) for path, count in (held or {}).items()]
    return standing_of(policy, EPOCH, donated={"standard": donated}, open_leases=leases)


def test_the_cap_is_twice_the_share_of_all_donors(make_policy: Callable[..., Policy]) -> None:
    """Devices here and elsewhere count; up to the cap is not beyond it."""
    policy = make_policy({"/a": 1, "/b": 3})
    standing = _standing(policy, 16, {"/a": 5})
    assert cap_of(standing, "/a") == 8
    assert over_cap(standing, "/a", 2, holdings_of([("/a", 1)])) is None
    assert over_cap(standing, "/a", 2, holdings_of([("/a", 2)])) == OverCap("/a", 7, 8)


def test_an_institution_has_a_cap_of_its_own(make_policy: Callable[..., Policy]) -> None:
    """Its accounts together stay below it; the highest cap that binds is named."""
    policy = make_policy({"/a": 1, "/a/x": 1, "/a/y": 1, "/b": 3})
    standing = _standing(policy, 16, {"/a/x": 2, "/a/y": 6})
    assert over_cap(standing, "/a/x", 1, {}) == OverCap("/a", 8, 8)


def test_whoever_holds_nothing_may_have_a_wide_one(make_policy: Callable[..., Policy]) -> None:
    """A small account would never start otherwise."""
    standing = _standing(make_policy({"/a": 1, "/b": 99}), 10)
    assert cap_of(standing, "/a") == 1
    assert over_cap(standing, "/a", 8, {}) is None
    assert over_cap(standing, "/a", 1, {"/a": 1}) == OverCap("/a", 1, 1)


def test_no_devices_no_cap(make_policy: Callable[..., Policy]) -> None:
    """What the federation has is not known yet."""
    standing = standing_of(make_policy({"/a": 1, "/b": 99}), EPOCH)
    assert over_cap(standing, "/a", 8, {"/a": 50}) is None


def _cap_law(over: Over, make_policy: Callable[..., Policy]) -> Callable[[], None]:
    @given(
        st.lists(st.tuples(st.sampled_from(("/a", "/a/x", "/b")), st.integers(1, 4)), max_size=60), DONATED
    )
    def law(asked: list[tuple[str, int]], donated: int) -> None:
        standing = _standing(make_policy({"/a": 2, "/a/x": 1, "/b": 3}), donated)
        held: list[tuple[str, int]] = []
        for account, devices in asked:
            if over(standing, account, devices, holdings_of(held)) is None:
                before = holdings_of(held)
                held.append((account, devices))
                for path, count in holdings_of(held).items():
                    first = not before.get(path)
                    assert count <= cap_of(standing, path) or count == before.get(path, 0) or first

    return law


def _one_level(standing: Standing, account: str, devices: int, held: Mapping[str, int]) -> OverCap | None:
    """A planted bug: accounts have caps, and institutions have none."""
    over = over_cap(standing, account, devices, held)
    return over if over is not None and over.account == account else None


def _until_it_is_full(
    standing: Standing, account: str, devices: int, held: Mapping[str, int]
) -> OverCap | None:
    """A planted bug: whoever is below the cap may have one more, however wide."""
    del devices
    return over_cap(standing, account, 1, held)


def test_no_admission_goes_beyond_the_cap(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """I11: but for a first request, nobody goes beyond the cap at any level; caps that leak are caught."""
    _cap_law(over_cap, make_policy)()
    assert is_caught(_cap_law(_one_level, make_policy))
    assert is_caught(_cap_law(_until_it_is_full, make_policy))


def test_what_others_may_have_given_counts_by_what_was_given_here(make_policy: Callable[..., Policy]) -> None:
    """Four of sixteen devices are here: each given here lately stands for three elsewhere."""
    standing = _standing(make_policy({"/a": 1, "/b": 3}), 16)
    one, two = {"/a": 1}, {"/a": 2}
    assert over_cap(standing, "/a", 1, one, lately=one, here=4) is None, "4 of 8, and one more"
    assert over_cap(standing, "/a", 1, two, lately=two, here=4) == OverCap("/a", 2, 8, unheard=6)
    assert over_cap(standing, "/a", 1, two, lately=one, here=4) is None, "others have heard of the first"
    assert over_cap(standing, "/a", 1, two, lately=two, here=16) is None, "there are no others"
    assert over_cap(standing, "/a", 1, two, lately=two) is None, "nothing is known of what is here"
    heard = _standing(make_policy({"/a": 3, "/b": 7}), 16, {"/a": 2})
    assert over_cap(heard, "/a", 1, two, lately=one, here=4) is None, "4 of 4.8 devices, 9 at most"
    assert over_cap(heard, "/a", 2, two, lately=two, here=4) == OverCap("/a", 4, 9, unheard=4), "6 less 2"


def test_whoever_has_its_share_may_get_as_much_elsewhere_at_once(make_policy: Callable[..., Policy]) -> None:
    """What it asks for is part of the sample then; whoever lacks something of its share is not held back."""
    standing = _standing(make_policy({"/a": 1, "/b": 3}), 16, {"/a": 3})
    assert over_cap(standing, "/a", 1, {"/a": 1}, here=4) is None, "4 and one from each of four"
    assert over_cap(standing, "/a", 1, {"/a": 2}, here=4) == OverCap("/a", 5, 8, unheard=3)
    small = _standing(make_policy({"/a": 1, "/b": 9}), 14, {"/a": 1})
    assert over_cap(small, "/a", 1, {}, here=1) is None, "1.4 devices are its share, it has one"


def _newcomer_law(
    over: Callable[..., OverCap | None], make_policy: Callable[..., Policy]
) -> Callable[[], None]:
    @given(st.lists(st.integers(1, 32), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 9))
    def law(donors: list[int], mine: int, others: int) -> None:
        standing = _standing(make_policy({"/a": mine, "/b": others}), sum(donors))
        given_in_all = 0
        for here in donors:  # none of them hears of another in time
            held = 0
            while held < here:
                counts = holdings_of([("/a", held)]) if held else {}
                if over(standing, "/a", 1, counts, counts, here) is not None:
                    break
                held += 1
            given_in_all += held
        assert given_in_all <= cap_of(standing, "/a") + len(donors)

    return law


def _each_by_itself(
    standing: Standing, account: str, devices: int, held: Mapping[str, int], *_: object
) -> OverCap | None:
    """A planted bug: a donor counts what it has heard of, and nothing else."""
    return over_cap(standing, account, devices, held)


def test_donors_that_have_not_heard_of_each_other_keep_the_cap_together(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """I11: a newcomer whom all of them serve at once has its cap, and at most one device more from each."""
    _newcomer_law(over_cap, make_policy)()
    assert is_caught(_newcomer_law(_each_by_itself, make_policy))
