"""The order of a line: Fair Tree (I3), a function of values alone (I1), kept up to date event by event."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from federation.fairshare.charging import Charges
from federation.fairshare.line import Key, Line, Waiting
from federation.fairshare.order import Order
from federation.fairshare.rank import lot
from federation.fairshare.standing import Standing, standing_of
from federation.fairshare.usage import Usage
from federation.policy.policy import Caps, Policy

EPOCH = 3_000_000
NOW_S = EPOCH * 600
ACCOUNTS = ("/a", "/a/b", "/a/b/c", "/a/b/d", "/a/e", "/f", "/g/h", "/g/i/j", "/k/l/m")
NAMED = ("/a", "/a/b", "/a/b/c", "/a/b/d", "/a/e", "/f", "/g", "/g/h", "/g/i", "/k")
Ordering = Callable[[Line[None], Standing, Charges], list[Key]]

MSGS = st.one_of(st.integers(0, 3), st.integers(0, 10**12))
REQUESTS = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.one_of(st.integers(0, 3), st.integers(0, 60 * 3600))), max_size=14
)


@dataclass(frozen=True)
class Case:
    weights: Mapping[str, int]
    used: Mapping[str, int]
    own: Mapping[str, int]
    requests: Sequence[tuple[str, int]]


CASES = st.builds(
    Case,
    st.fixed_dictionaries({path: st.integers(1, 4) for path in NAMED}),
    st.dictionaries(st.sampled_from(ACCOUNTS), MSGS, max_size=6),
    st.dictionaries(st.sampled_from(ACCOUNTS), MSGS, max_size=3),
    REQUESTS,
)


def _line(requests: Sequence[tuple[str, int]]) -> Line[None]:
    return Line.of(
        Waiting(f"r{at}", account, "site", NOW_S - age_s, 1, None)
        for at, (account, age_s) in enumerate(requests)
    )


def _standing(policy: Policy, used: Mapping[str, int]) -> Standing:
    usage = Usage().add_all((account, EPOCH, msgs) for account, msgs in used.items())
    return standing_of(policy, EPOCH, usage=usage)


def _ordered(line: Line[None], standing: Standing, own: Charges) -> list[Key]:
    return [one.key for one in Order.of(line, standing, own).walk()]


def _by_definition(line: Line[None], standing: Standing, own: Charges) -> list[Key]:
    """Fair Tree as FAIRNESS has it, with fractions, from the top, knowing nothing of forests."""
    caps = standing.policy.caps

    def aged(requests: Sequence[Waiting[None]]) -> int:
        further = max(0, (NOW_S - min(one.asked_at_s for one in requests)) // caps.max_wait_s - 1)
        return min(caps.max_age_factor, 2**further)

    def serve(node: str) -> list[Waiting[None]]:
        if node.endswith("/"):
            return sorted(
                line.accounts[node[:-1]], key=lambda one: (one.asked_at_s, lot(one.key, standing.epoch))
            )
        below = {f"{node}/{one.account[len(node) :].split('/')[1]}" for one in line if one.account != node
                 and one.account.startswith(node + "/")}  # fmt: skip
        seats = {node + "/"} if node in line.accounts else set()
        ranked = []
        for child in below | seats:
            served = serve(child)
            use = Fraction(standing.usage.get(child, 0), 1 << 40) + own.by_node.get(child, 0)
            rule = standing.policy.accounts.get(child)
            weight = 1 if rule is None else rule.weight
            path = child.rstrip("/")
            is_accounts = child.endswith("/") or {one.account for one in served} == {path}
            factor = aged(line.accounts[path]) if is_accounts else 1
            ranked.append((use / (weight * factor), served[0].asked_at_s, lot(served[0].key, EPOCH), served))
        return [one for *_, served in sorted(ranked, key=lambda each: each[:3]) for one in served]

    return [one.key for one in serve("")]


def _flat(line: Line[None], standing: Standing, own: Charges) -> list[Key]:
    """A planted bug: accounts by their own use, whatever their institutions used."""

    def rank(one: Waiting[None]) -> tuple[Fraction, int]:
        used = standing.usage.get(one.account, 0) + (own.on(one.account) << 40)
        rule = standing.policy.accounts.get(one.account)
        return Fraction(used, rule.weight if rule else 1), one.asked_at_s

    return [one.key for one in sorted(line, key=rank)]


def _rounding(line: Line[None], standing: Standing, own: Charges) -> list[Key]:
    """A planted bug: use in whole msgs by share, as floats or small integers would have it."""
    coarse = replace(standing, usage={node: used >> 50 << 50 for node, used in standing.usage.items()})
    return _ordered(line, coarse, own)


def _fair_tree_law(ordering: Ordering, make_policy: Callable[..., Policy]) -> Callable[[], None]:
    @given(CASES)
    def law(case: Case) -> None:
        line, standing = _line(case.requests), _standing(make_policy(case.weights), case.used)
        own = Charges.of(case.own)
        assert ordering(line, standing, own) == _by_definition(line, standing, own)

    return law


def test_the_order_is_fair_tree(make_policy: Callable[..., Policy], is_caught: Callable[..., bool]) -> None:
    """I3: it is the order that the definition gives with fractions; a flat one and a rounded one are not."""
    _fair_tree_law(_ordered, make_policy)()
    assert is_caught(_fair_tree_law(_flat, make_policy))
    assert is_caught(_fair_tree_law(_rounding, make_policy))


def _by_arrival(line: Line[None], standing: Standing, own: Charges) -> list[Key]:
    """A planted bug: ties by who came first to this donor."""
    arrived = {one.key: at for at, one in enumerate(line)}
    return sorted(_ordered(line, standing, own), key=lambda key: arrived[key] // 2)


def _pure_law(ordering: Ordering, make_policy: Callable[..., Policy]) -> Callable[[], None]:
    @given(CASES, st.randoms(use_true_random=False))
    def law(case: Case, chance: random.Random) -> None:
        standing = _standing(make_policy(case.weights), case.used)
        line = _line(case.requests)
        requests = list(line)
        chance.shuffle(requests)
        other: Line[None] = Line()
        for one in requests:
            other = other.add(one)
        again = _standing(
            make_policy(dict(reversed(case.weights.items()))), dict(reversed(case.used.items()))
        )
        assert ordering(line, standing, Charges.of(case.own)) == ordering(other, again, Charges.of(case.own))

    return law


def test_the_order_is_a_function_of_values(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """I1: neither arrival nor the order of a table matters; an order that looks at arrival is caught."""
    _pure_law(_ordered, make_policy)()
    assert is_caught(_pure_law(_by_arrival, make_policy))


@given(CASES)
def test_the_place_is_how_many_go_first(make_policy: Callable[..., Policy], case: Case) -> None:
    """``ahead`` counts without walking what a walk counts."""
    order = Order.of(_line(case.requests), _standing(make_policy(case.weights), case.used))
    assert [order.ahead(one) for one in order.walk()] == list(range(len(case.requests)))


def test_ties_are_broken_anew_in_each_epoch(make_policy: Callable[..., Policy]) -> None:
    """Equal accounts with equally old requests: the lot decides, by epoch."""
    policy = make_policy({f"/u{at}": 1 for at in range(8)})
    line = Line.of(Waiting(f"r{at}", f"/u{at}", "site", 5, 1, None) for at in range(8))
    orders = {
        tuple(one.id for one in Order.of(line, standing_of(policy, epoch)).walk()) for epoch in range(6)
    }
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("waits", "factor"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 16), (99, 16)]
)
def test_waiting_doubles_an_accounts_share(
    make_policy: Callable[..., Policy], waits: int, factor: int
) -> None:
    """After ``max_wait_s`` its request is first in the account; each further one doubles, to the bound."""
    caps = Caps(max_wait_s=3600)
    policy = make_policy({"/old": 1, "/new": 1}, caps=caps)
    for used, first in ((1000 * factor - 1, "/old"), (1000 * factor + 1, "/new")):
        order = Order.of(
            Line.of(
                (
                    Waiting("1", "/old", "s", NOW_S - waits * 3600, 1, None),
                    Waiting("2", "/new", "s", NOW_S, 1, None),
                )
            ),
            _standing(policy, {"/old": used, "/new": 1000}),
        )
        assert next(order.walk()).account == first


def test_an_institution_does_not_rise_by_what_ages_inside_it(make_policy: Callable[..., Policy]) -> None:
    """An old request lifts its account among its siblings, not its institution."""
    policy = make_policy({"/a": 1, "/a/x": 1, "/a/y": 1, "/b": 1})
    line = Line.of(
        (
            Waiting("old", "/a/x", "s", NOW_S - 40 * 3600, 1, None),
            Waiting("new", "/a/y", "s", NOW_S, 1, None),
            Waiting("other", "/b", "s", NOW_S, 1, None),
        )
    )
    order = Order.of(line, _standing(policy, {"/a/x": 900, "/a/y": 100, "/b": 999}))
    assert [one.id for one in order.walk()] == ["other", "old", "new"]


def test_an_account_with_others_below_it_ages_at_its_seat(make_policy: Callable[..., Policy]) -> None:
    """Its own old request goes before theirs, and neither lifts the account over its siblings."""
    policy = make_policy({"/a": 1, "/a/x": 1, "/b": 1})
    line = Line.of(
        (
            Waiting("own", "/a", "s", NOW_S - 40 * 3600, 1, None),
            Waiting("below", "/a/x", "s", NOW_S, 1, None),
            Waiting("other", "/b", "s", NOW_S, 1, None),
        )
    )
    order = Order.of(line, _standing(policy, {"/a": 600, "/a/x": 400, "/b": 999}))
    assert [one.id for one in order.walk()] == ["other", "own", "below"]
    alone = order.removed("s", "below")
    assert [one.id for one in alone.walk()] == ["own", "other"]


def test_serving_is_leaving_and_being_charged(make_policy: Callable[..., Policy]) -> None:
    """Both in one are what both are one after the other; for who does not wait it is nothing."""
    policy = make_policy({"/a": 1, "/b": 1})
    order = Order.of(_line([("/a", 5), ("/a", 4), ("/b", 3)]), _standing(policy, {}))
    assert order.served("site", "r0", 70) == order.removed("site", "r0").charged("/a", 70)
    assert order.served("site", "r0", 0) == order.removed("site", "r0")
    assert order.served("site", "nobody", 70) is order


def test_classes_that_lack_devices_go_first(make_policy: Callable[..., Policy]) -> None:
    """Whoever lacks most, then Fair Tree inside the class; the rest follows, nobody twice."""
    policy = make_policy(
        {"/a": 1, "/b": 1, "/c": 1, "/d": 1},
        classes={"/b": ("student",), "/c": ("student", "newcomer"), "/d": ("newcomer",)},
        reserves={"student": 200, "newcomer": 100},
    )
    line = Line.of(Waiting(path, path, "s", NOW_S, 1, None) for path in ("/a", "/b", "/c", "/d"))
    order = Order.of(line, _standing(policy, {"/b": 5, "/c": 7, "/d": 9}))
    assert [one.id for one in order.walk()] == ["/a", "/b", "/c", "/d"]
    assert [one.id for one in order.walk({"newcomer": 1})] == ["/d", "/a", "/b", "/c"]
    assert [one.id for one in order.walk({"newcomer": 1, "student": 2})] == ["/b", "/c", "/d", "/a"]
    assert [order.ahead(one, {"newcomer": 1}) for one in order.walk({"newcomer": 1})] == [0, 1, 2, 3]


def test_others_use_is_compared_where_the_ways_part(make_policy: Callable[..., Policy]) -> None:
    """Per mille of what each was due among those who wait."""
    policy = make_policy({"/a": 1, "/a/x": 1, "/a/y": 1, "/b": 3})
    line = Line.of(Waiting(path, path, "s", NOW_S, 1, None) for path in ("/a/x", "/a/y", "/b"))
    order = Order.of(line, _standing(policy, {"/a/x": 300, "/a/y": 100, "/b": 400}))
    assert order.compared("/a/x", "/b") == ("/b", 666, 2000)
    assert order.compared("/a/x", "/a/y") == ("/a/y", 500, 1500)


class Events(RuleBasedStateMachine):
    """An order that lives through events is the one made from nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.make: Callable[..., Policy]
        self.policy = self.make(
            {path: 1 + at % 3 for at, path in enumerate(NAMED)},
            classes={"/a/b": ("student",), "/f": ("student", "newcomer"), "/g": ("newcomer",)},
            reserves={"student": 100, "newcomer": 300},
        )
        standing = _standing(self.policy, {"/a/b/c": 100, "/f": 300, "/g/h": 200})
        self.order: Order[None] = Order.of(Line(), standing)
        self.asked = 0

    @rule(account=st.sampled_from(ACCOUNTS), age_s=st.one_of(st.integers(0, 2), st.integers(0, 10**5)))
    def ask(self, account: str, age_s: int) -> None:
        self.asked += 1
        self.order = self.order.added(Waiting(f"r{self.asked}", account, "site", NOW_S - age_s, 1, None))

    @rule(at=st.integers(0, 20), account=st.sampled_from(ACCOUNTS))
    def ask_again_for_another(self, at: int, account: str) -> None:
        if ("site", f"r{at}") in self.order.line:
            self.order = self.order.added(Waiting(f"r{at}", account, "site", NOW_S, 1, None))

    @rule(at=st.integers(0, 20))
    def leave(self, at: int) -> None:
        self.order = self.order.removed("site", f"r{at}")

    @rule(account=st.sampled_from(ACCOUNTS), msgs=st.integers(-300, 300))
    def charge(self, account: str, msgs: int) -> None:
        self.order = self.order.charged(account, msgs)

    @rule(
        several=st.lists(
            st.tuples(st.sampled_from(ACCOUNTS), st.integers(-300, 300), st.integers(0, 20)), max_size=40
        )
    )
    def go_on_unseen(self, several: list[tuple[str, int, int]]) -> None:
        for account, msgs, at in several:
            self.order = self.order.charged(account, msgs).removed("site", f"r{at}")
            if msgs > 0:
                self.asked += 1
                self.order = self.order.added(Waiting(f"r{self.asked}", account, "site", NOW_S - at, 1, None))

    @invariant()
    def is_the_one_from_nothing(self) -> None:
        fresh = Order.of(Line.of(self.order.line), self.order.standing, self.order.own)
        for deficits in ({}, {"student": 2}, {"newcomer": 1, "student": 1}):
            assert [one.key for one in self.order.walk(deficits)] == [one.key for one in fresh.walk(deficits)]
        assert self.order == fresh


def test_events_lead_to_the_order_from_nothing(make_policy: Callable[..., Policy]) -> None:
    """I1: adding, removing and charging one by one leave no trace of their order."""

    class Living(Events):
        make = staticmethod(make_policy)

    run_state_machine_as_test(
        Living, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )


def test_an_order_that_forgets_institutions_is_caught(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """A planted bug: a charge re-ranks the account and not those above it."""

    class Forgetful(Events):
        make = staticmethod(make_policy)

        @rule(account=st.sampled_from(ACCOUNTS), msgs=st.integers(100, 300))
        def charge_badly(self, account: str, msgs: int) -> None:
            self.order = replace(self.order, own=self.order.own.add(account, msgs))

    assert is_caught(Forgetful)


def test_the_first_few_need_no_walk_of_all(make_policy: Callable[..., Policy]) -> None:
    """A walk is lazy: the first of a long line comes without the last."""
    policy = make_policy({f"/u{at}": 1 for at in range(50)})
    line = Line.of(Waiting(f"r{at}", f"/u{at % 50}", "site", at, 1, None) for at in range(500))
    assert len(list(islice(Order.of(line, _standing(policy, {})).walk(), 3))) == 3
