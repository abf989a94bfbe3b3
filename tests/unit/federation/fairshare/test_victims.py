"""Victims: enough, and none too many (I7); those that lose least, and shrinking before ending."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from federation.fairshare.victims import Candidate, Victims, victims_for

DEVICES = tuple("abcdefgh")
Choice = Callable[[Sequence[Candidate], frozenset[str], int], Victims | None]


@st.composite
def _leases(draw: st.DrawFn, elastic: bool = True) -> list[Candidate]:
    devices = draw(st.permutations(DEVICES))
    leases, at = [], 0
    while at < len(devices) and len(leases) < 6:
        count = draw(st.integers(1, 4))
        mine = frozenset(devices[at : at + count])
        spare = (
            draw(st.sets(st.sampled_from(sorted(mine)), max_size=len(mine) - 1))
            if elastic and len(mine) > 1
            else ()
        )
        leases.append(Candidate(f"l{len(leases)}", mine, draw(st.integers(0, 5)), frozenset(spare)))
        at += count
    return leases


def _choose(leases: Sequence[Candidate], these: frozenset[str], count: int) -> Victims | None:
    return victims_for(leases, these=these, count=count)


def _greedy(leases: Sequence[Candidate], these: frozenset[str], count: int) -> Victims | None:
    """A planted bug: take who loses least until it is enough, and put nobody back."""
    ended: list[Candidate] = []
    for one in sorted(leases, key=lambda one: one.lost_msgs):
        freed = frozenset[str]().union(*(each.devices for each in ended))
        if these <= freed and len(freed) >= count:
            break
        ended.append(one)
    freed = frozenset[str]().union(*(each.devices for each in ended))
    if not (these <= freed and len(freed) >= count):
        return None
    return Victims(tuple(one.id for one in ended), (), freed)


def _minimal_law(choose: Choice) -> Callable[[], None]:
    @given(_leases(), st.sets(st.sampled_from(DEVICES), max_size=3), st.integers(0, 9))
    def law(leases: list[Candidate], these: set[str], count: int) -> None:
        by_id = {one.id: one for one in leases}
        all_devices = frozenset[str]().union(*(one.devices for one in leases))
        possible = these <= all_devices and count <= len(all_devices)
        found = choose(leases, frozenset(these), count)
        assert (found is not None) is possible
        if found is None:
            return
        steps = [by_id[name].devices for name in found.ended]
        for name, given_up in found.shrunk:
            assert given_up <= by_id[name].spare
            assert name not in found.ended
            steps += [frozenset((device,)) for device in given_up]
        assert found.freed == frozenset[str]().union(*steps)
        assert these <= found.freed
        assert len(found.freed) >= count
        for left_out in range(len(steps)):
            rest = frozenset[str]().union(*(steps[:left_out] + steps[left_out + 1 :]))
            assert not (these <= rest and len(rest) >= count), "one of them was not needed"

    return law


def test_no_victim_could_be_spared(is_caught: Callable[..., bool]) -> None:
    """I7: without any one of them the need is not met; taking and never putting back is caught."""
    _minimal_law(_choose)()
    assert is_caught(_minimal_law(_greedy))


@given(_leases(elastic=False), st.integers(1, 8))
def test_of_leases_of_one_device_those_that_lose_least_end(leases: list[Candidate], count: int) -> None:
    """Where all are alike but for what they lose, the sum of that is the least possible."""
    single = [Candidate(one.id, frozenset(sorted(one.devices)[:1]), one.lost_msgs) for one in leases]
    found = victims_for(single, count=count)
    if count > len(single):
        assert found is None
        return
    assert found is not None
    lost = {one.id: one.lost_msgs for one in single}
    least = min(sum(lost[one.id] for one in some) for some in combinations(single, count))
    assert sum(lost[name] for name in found.ended) == least


def test_elastic_leases_shrink_before_any_ends() -> None:
    """A service that can do with less gives up devices, even where an idle lease would lose nothing."""
    service = Candidate("service", frozenset("abc"), 10**9, frozenset("bc"))
    idle = Candidate("idle", frozenset("d"), 0)
    assert victims_for((service, idle), count=2) == Victims(
        (), (("service", frozenset("bc")),), frozenset("bc")
    )
    found = victims_for((service, idle), count=3)
    assert found is not None
    assert found.ended == ("idle",)
    assert dict(found.shrunk) == {"service": frozenset("bc")}


def test_the_owner_names_its_device() -> None:
    """Whoever is on it gives way, and nobody else."""
    leases = (Candidate("x", frozenset("ab"), 500), Candidate("y", frozenset("c"), 0))
    assert victims_for(leases, these=frozenset("b")) == Victims(("x",), (), frozenset("ab"))
    assert victims_for(leases, these=frozenset("z")) is None


def test_the_dearest_that_is_not_needed_is_put_back_first() -> None:
    """Of two that could be spared for the other, the one that loses more is spared."""
    leases = (
        Candidate("x", frozenset("a"), 1),
        Candidate("y", frozenset("b"), 2),
        Candidate("z", frozenset("cde"), 3),
    )
    found = victims_for(leases, count=4)
    assert found is not None
    assert found.ended == ("x", "z")


def test_of_equal_losses_the_first_by_name_ends() -> None:
    """Two machines that look at one state choose the same."""
    leases = [Candidate(name, frozenset(name), 7) for name in "dbca"]
    found = victims_for(leases, count=2)
    assert found is not None
    assert found.ended == ("a", "b")
