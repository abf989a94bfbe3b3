"""What nobody gains by: more use, less weight (I4), splitting an account or a job (I5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from federation.fairshare.charging import charge_of
from federation.fairshare.line import Key, Line, Waiting
from federation.fairshare.order import Order
from federation.fairshare.standing import Standing, standing_of
from federation.fairshare.usage import Usage
from federation.policy.policy import AccountRule, Policy

EPOCH = 3_000_000
NOW_S = EPOCH * 600
ACCOUNTS = ("/a", "/a/b", "/a/b/c", "/a/b/d", "/a/e", "/f", "/g/h", "/g/i/j")
Ordering = Callable[[Line[None], Standing], list[Key]]

USED = st.dictionaries(st.sampled_from(ACCOUNTS), st.integers(0, 1000), max_size=8)
LINES = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), st.integers(0, 60 * 3600)), min_size=1, max_size=12
).map(
    lambda asked: Line.of(
        Waiting(f"r{at}", account, "site", NOW_S - age_s, 1, None)
        for at, (account, age_s) in enumerate(asked)
    )
)
WEIGHTS = st.fixed_dictionaries({path: st.integers(1, 5) for path in (*ACCOUNTS, "/g", "/g/i")})


def _standing(policy: Policy, used: Mapping[str, int]) -> Standing:
    return standing_of(
        policy, EPOCH, usage=Usage().add_all((path, EPOCH, msgs) for path, msgs in used.items())
    )


def _ordered(line: Line[None], standing: Standing) -> list[Key]:
    return [one.key for one in Order.of(line, standing).walk()]


def _most_used_first(line: Line[None], standing: Standing) -> list[Key]:
    """A planted bug: whoever used most goes first."""
    return _ordered(
        line, replace(standing, usage={node: (9000 << 40) - u for node, u in standing.usage.items()})
    )


def _weights_turned(line: Line[None], standing: Standing) -> list[Key]:
    """A planted bug: a large weight counts like a small one."""
    rules = {p: replace(one, weight=6 - one.weight) for p, one in standing.policy.accounts.items()}
    return _ordered(line, replace(standing, policy=replace(standing.policy, accounts=rules)))


def _places(ordered: list[Key], line: Line[None], account: str) -> list[int]:
    mine = {one.key for one in line.of_account(account)}
    return [at for at, key in enumerate(ordered) if key in mine]


def _use_law(ordering: Ordering, make_policy: Callable[..., Policy]) -> Callable[[], None]:
    @given(LINES, WEIGHTS, USED, st.sampled_from(ACCOUNTS), st.integers(1, 2000))
    def law(line: Line[None], weights: dict[str, int], used: dict[str, int], account: str, more: int) -> None:
        policy = make_policy(weights)
        before = ordering(line, _standing(policy, used))
        after = ordering(line, _standing(policy, {**used, account: used.get(account, 0) + more}))
        old, new = _places(before, line, account), _places(after, line, account)
        assert all(later >= earlier for earlier, later in zip(old, new, strict=True))

    return law


def _weight_law(ordering: Ordering, make_policy: Callable[..., Policy]) -> Callable[[], None]:
    @given(LINES, WEIGHTS, USED, st.sampled_from(ACCOUNTS), st.integers(1, 5))
    def law(
        line: Line[None], weights: dict[str, int], used: dict[str, int], account: str, weight: int
    ) -> None:
        assume(weight > weights[account])
        before = ordering(line, _standing(make_policy(weights), used))
        after = ordering(line, _standing(make_policy({**weights, account: weight}), used))
        old, new = _places(before, line, account), _places(after, line, account)
        assert all(later <= earlier for earlier, later in zip(old, new, strict=True))

    return law


def test_more_use_never_improves_a_place(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """I4; an order that prefers whoever used most is caught."""
    _use_law(_ordered, make_policy)()
    assert is_caught(_use_law(_most_used_first, make_policy))


def test_more_weight_never_worsens_a_place(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """I4; an order with weights the wrong way round is caught."""
    _weight_law(_ordered, make_policy)()
    assert is_caught(_weight_law(_weights_turned, make_policy))


def _split_law(ordering: Ordering, make_policy: Callable[..., Policy]) -> Callable[[], None]:
    @given(LINES, WEIGHTS, USED, st.sampled_from(("/f", "/a/b/c", "/g/h")), st.integers(2, 5))
    def law(
        line: Line[None], weights: dict[str, int], used: dict[str, int], account: str, parts: int
    ) -> None:
        assume(account.count("/") < 3)
        fresh = [replace(one, asked_at_s=NOW_S - at) for at, one in enumerate(line)]
        plain: Line[None] = Line.of(fresh)
        split: Line[None] = Line.of(
            replace(one, account=f"{account}/p{at % parts}") if one.account == account else one
            for at, one in enumerate(fresh)
        )
        standing = _standing(make_policy(weights), used)
        before, after = ordering(plain, standing), ordering(split, standing)
        mine = {one.key for one in plain.of_account(account)}
        assert [key in mine for key in before] == [key in mine for key in after]

    return law


def _by_open_accounts(line: Line[None], standing: Standing) -> list[Key]:
    """A planted bug: accounts are ranked by their own use alone, so that a new one is an unused one."""
    return [
        one.key for one in sorted(line, key=lambda one: (standing.usage.get(one.account, 0), one.asked_at_s))
    ]


def test_splitting_an_account_gains_nothing(
    make_policy: Callable[..., Policy], is_caught: Callable[..., bool]
) -> None:
    """I5: accounts opened below one have together the places that it had; a flat order is caught."""
    _split_law(_ordered, make_policy)()
    assert is_caught(_split_law(_by_open_accounts, make_policy))


def _serve(policy: Policy, accounts: tuple[str, ...], turns: int) -> dict[str, int]:
    """Give one device after the other, a second each, to whoever is first; all go on waiting."""
    line = Line.of(Waiting(path, path, "site", NOW_S, 1, None) for path in accounts)
    order = Order.of(line, _standing(policy, {}))
    served = dict.fromkeys(accounts, 0)
    for _ in range(turns):
        account = next(order.walk()).account
        served[account] += 1
        order = order.charged(account, 1000)
    return served


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(20, 80))
def test_turns_follow_weights_however_an_account_is_split(
    make_policy: Callable[..., Policy], mine: int, theirs: int, parts: int, turns: int
) -> None:
    """I5: siblings that share an account's weight get together what it got, to a turn for each."""
    whole = _serve(make_policy({"/me": mine * parts, "/you": theirs}), ("/me", "/you"), turns)
    names = tuple(f"/me{at}" for at in range(parts))
    split = _serve(make_policy({**dict.fromkeys(names, mine), "/you": theirs}), (*names, "/you"), turns)
    assert abs(sum(split[name] for name in names) - whole["/me"]) <= parts
    due = turns * mine * parts / (mine * parts + theirs)
    assert abs(whole["/me"] - due) <= 1


def _job_law(charge: Callable[..., int]) -> Callable[[], None]:
    @given(
        st.integers(0, 10**8), st.lists(st.integers(0, 10**8), min_size=1, max_size=6), st.integers(1, 4000)
    )
    def law(one_ms: int, parts_ms: list[int], rho: int) -> None:
        jobs_ms = (one_ms, *parts_ms)

        def charged(busy_ms: int, discount_ms: int) -> int:
            return charge(
                busy_ms=busy_ms,
                discount_ms=discount_ms,
                rho_permille=rho,
                share_permille=333,
                factor_permille=1500,
                idle_discount_permille=500,
                devices=1,
            )

        whole = charged(sum(jobs_ms), sum(job_ms // 3 for job_ms in jobs_ms))
        split = sum(charged(job_ms, job_ms // 3) for job_ms in jobs_ms)
        assert 0 <= whole - split <= len(parts_ms)

    return law


def _first_minute_free(*, busy_ms: int, discount_ms: int, **rest: int) -> int:
    """A planted bug: each lease has a minute for nothing."""
    return charge_of(busy_ms=max(discount_ms, busy_ms - 60_000), discount_ms=discount_ms, **rest)


def test_splitting_a_job_gains_rounding_at_most(is_caught: Callable[..., bool]) -> None:
    """I5: jobs that take as long together are charged the same, to a msgs for each; a gift is caught."""
    _job_law(charge_of)()
    assert is_caught(_job_law(_first_minute_free))


def test_an_account_below_an_open_one_needs_no_rule(make_policy: Callable[..., Policy]) -> None:
    """It counts with weight 1 among its siblings, and its use is its parents' too."""
    policy = make_policy({"/a": 1})
    assert policy.accounts == {"/a": AccountRule("/a", 1, (), (), {}, open=True)}
    standing = _standing(policy, {"/a/new": 7})
    assert standing.usage["/a"] == 7 << 40
    assert standing.share("/a/new") == (1, 1)
