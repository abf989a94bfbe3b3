"""Policy files: what they say, and that any file is either a policy or a list of problems."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.fairshare.reserve import floors_of
from federation.limits import MAX_POLICY_BYTES, MAX_POLICY_NODES, MAX_POLICY_PROBLEMS
from federation.policy.cases import run_cases
from federation.policy.file import PolicyFile, read_policy
from federation.policy.guarantee import smallest_donor
from federation.policy.overlay import read_overlay, restrict
from federation.policy.policy import Policy, Where
from federation.policy.problems import PolicyProblemsError, Problem, render

POLICIES = Path(__file__).parents[4] / "policies"
SHIPPED = (POLICIES / "consortium.yaml").read_bytes()
FILES = [
    POLICIES / "consortium.yaml",
    *(path for path in sorted((POLICIES / "examples").glob("*.yaml")) if path.stem != "overlay"),
]
MINIMAL = """\
version: 1
name: lab
effective_at: 2026-12-01T06:00Z
accounts: {uni-a: {}}
purposes: {research: {claimants: [any]}}
device_classes: {h100: 1}
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(PolicyProblemsError) as caught:
        read_policy(text.encode(), "p")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_policies_pass_their_tests(path: Path) -> None:
    """Each has tests inside, and none of them fails."""
    read = read_policy(path.read_bytes(), path.name)
    assert len(read.cases) >= 2
    assert [one.faults for one in run_cases(read.cases, read.policy) if one.faults] == []


def test_the_shipped_overlay_passes_its_tests(shipped: PolicyFile) -> None:
    """It restricts the shipped policy, and its tests hold under both."""
    overlay = read_overlay((POLICIES / "examples/overlay.yaml").read_bytes(), "overlay.yaml")
    restricted = restrict(shipped.policy, overlay)
    assert len(restricted.cases) >= 2
    assert [one.faults for one in run_cases(restricted.cases, restricted.policy) if one.faults] == []


def test_a_file_becomes_values(shipped: PolicyFile) -> None:
    """Units become whole numbers, accounts become paths, and each rule knows its line."""
    policy = shipped.policy
    assert policy.digest == hashlib.sha256(SHIPPED).hexdigest()
    assert policy.classes["student"].reserve_permille == 100
    assert policy.classes["newcomer"].until_msgs == 2000 * 3600 * 1000
    assert policy.purposes["teaching"].factor_permille == 500
    assert policy.device_classes["l40s"] == 300
    assert policy.lend.batch_grace_s == 120
    assert policy.models.max_bytes == 800 * 10**9
    assert policy.data.source_bytes_per_s == 2 * 10**9
    assert policy.accounts["/college-d"].attested_by == {
        "under-resourced": "consortium",
        "newcomer": "consortium",
    }
    lines = SHIPPED.decode().split("\n")
    for rule in policy.deny:
        assert rule.where is not None
        assert f"id: {rule.id}" in lines[rule.where.line - 1][rule.where.column - 1 :]


def test_what_is_left_out_has_the_values_of_the_model() -> None:
    """A minimal file has the defaults that ``Policy`` documents."""
    policy = read_policy(MINIMAL.encode(), "p").policy
    plain = Policy("lab", 1, 0, "", {}, {}, {}, {})
    assert policy.caps == plain.caps
    assert policy.decay == plain.decay
    assert policy.models == plain.models
    assert policy.data == plain.data
    assert policy.carbon == plain.carbon
    assert policy.lend == plain.lend
    assert policy.idle_discount_permille == plain.idle_discount_permille
    assert policy.notice_s == plain.notice_s


def test_sites_and_openness_are_inherited() -> None:
    """An institution speaks for itself; what is below takes both from above, or says its own."""
    text = MINIMAL.replace(
        "{uni-a: {}}",
        "{uni-a: {open: true, accounts: {g: {}, h: {open: false, sites: [uni-b]}}},"
        " college: {sites: [uni-a]}}",
    )
    accounts = read_policy(text.encode(), "p").policy.accounts
    assert accounts["/uni-a"].sites == ("uni-a",)
    assert (accounts["/uni-a/g"].sites, accounts["/uni-a/g"].open) == (("uni-a",), True)
    assert (accounts["/uni-a/h"].sites, accounts["/uni-a/h"].open) == (("uni-b",), False)
    assert accounts["/college"].sites == ("uni-a",)


def test_accounts_may_be_paths() -> None:
    """A flat list of paths says the same as a tree."""
    flat = MINIMAL.replace("{uni-a: {}}", "{/uni-a/g: {weight: 3}, /uni-a: {weight: 2}}")
    tree = MINIMAL.replace("{uni-a: {}}", "{uni-a: {weight: 2, accounts: {g: {weight: 3}}}}")

    def weights(text: str) -> list[tuple[str, int]]:
        return [(path, one.weight) for path, one in read_policy(text.encode(), "p").policy.accounts.items()]

    assert weights(flat) == weights(tree) == [("/uni-a", 2), ("/uni-a/g", 3)]


def test_all_problems_are_told_at_once_in_their_order() -> None:
    """One run shows every mistake of a stage."""
    text = (
        MINIMAL.replace("version: 1", "version: 0").replace("h100: 1", "h100: fast") + "lend: {grace: 10}\n"
    )
    assert [problem.split(":")[1] for problem in problems_of(text)] == ["1", "6", "7"]


def test_a_file_of_problems_is_cut_off() -> None:
    """A file with a thousand mistakes gives no more than anybody would read."""
    text = MINIMAL + "".join(f"x{at}: 1\n" for at in range(1000))
    assert len(problems_of(text)) == MAX_POLICY_PROBLEMS


def test_a_file_is_bounded() -> None:
    """Too many bytes, or too many parts, are refused with a place."""
    assert "bytes" in problems_of(MINIMAL + "#" * MAX_POLICY_BYTES)[0]
    many = MINIMAL + "tests: [" + "1," * MAX_POLICY_NODES + "]\n"
    assert "too many parts" in problems_of(many)[0]


@pytest.mark.parametrize(
    "bomb", ["[" * 100_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000, "[a," * 20_000]
)
def test_deep_nesting_is_refused_at_once(bomb: str) -> None:
    """No stack and no minute is spent on it."""
    assert "nested too deeply" in problems_of(bomb)[0] or "a key is a name" in problems_of(bomb)[0]


def test_carets_stand_under_what_is_wrong() -> None:
    """The line is shown, the word is underlined, the likely word is named."""
    text = MINIMAL.replace("{uni-a: {}}", "{uni-a: {wieght: 3}}")
    with pytest.raises(PolicyProblemsError) as caught:
        read_policy(text.encode(), "p.yaml")
    assert render(caught.value.problems, text, "full") == (
        "error: unknown key 'wieght'\n"
        " --> p.yaml:4:20\n"
        "  |\n"
        "4 | accounts: {uni-a: {wieght: 3}}\n"
        "  |                    ^^^^^^ did you mean weight?\n"
        "  = expected: one of weight, sites, classes, open, accounts"
    )
    assert render(caught.value.problems, text, "github") == (
        "::error file=p.yaml,line=4,col=20,endColumn=26,title=policy::"
        "unknown key 'wieght'; did you mean weight?; expected: one of weight, sites, classes, open, accounts"
    )


def test_a_test_that_fails_says_how() -> None:
    """Decision, rule, classes and reserve are compared."""
    text = MINIMAL + (
        "tests:\n"
        "  - {name: a, request: {account: /uni-a, purpose: research}, expect: {decision: deny}}\n"
        "  - name: b\n"
        "    request: {account: /uni-a, purpose: research}\n"
        "    expect: {decision: allow, reserve: 5%}\n"
        "  - name: c\n"
        "    request: {account: /uni-x, purpose: research}\n"
        "    expect: {decision: deny, rule: accounts.unknown}\n"
    )
    read = read_policy(text.encode(), "p")
    first, second, third = run_cases(read.cases, read.policy)
    assert first.faults == ("it is allowed",)
    assert second.faults == ("its reserve is 0%, not 5%",)
    assert third.faults == ()


@pytest.mark.parametrize("reserves", [(100,), (250, 250), (1, 1, 1), (500,), (100, 100, 100, 200)])
def test_reserves_go_round_from_the_smallest_donor_on(reserves: tuple[int, ...]) -> None:
    """From there on every donor keeps all of them; a file that asks it of smaller ones is refused."""
    names = [f"c{at}" for at in range(len(reserves))]
    inside = ", ".join(f"{name}: uni-a" for name in names)
    classes = ", ".join(
        f"{name}: {{reserve: {each / 10}%, attesters: [uni-a]}}"
        for name, each in zip(names, reserves, strict=True)
    )
    text = (
        MINIMAL.replace("{uni-a: {}}", f"{{uni-a: {{classes: {{{inside}}}}}}}") + f"classes: {{{classes}}}\n"
    )

    def wanted(devices: int) -> int:
        return sum(-(-each * devices // 1000) for each in reserves)

    policy = read_policy(f"{text}caps: {{reserve_from: 1000}}\n".encode(), "p").policy
    fewest = smallest_donor(policy)
    assert all(wanted(devices) <= devices for devices in range(fewest, 1000))
    assert set(floors_of(policy, 999).values()) == {0}
    policy = read_policy(f"{text}caps: {{reserve_from: {fewest}}}\n".encode(), "p").policy
    assert sum(floors_of(policy, fewest).values()) == wanted(fewest) <= fewest
    if fewest > 1:
        assert wanted(fewest - 1) > fewest - 1
        assert "reserve" in problems_of(f"{text}caps: {{reserve_from: {fewest - 1}}}\n")[0]


def read_or_problems(data: bytes) -> tuple[tuple[Problem, ...], PolicyFile | None]:
    try:
        return (), read_policy(data, "p")
    except PolicyProblemsError as error:
        return error.problems, None


LINES = SHIPPED.decode().split("\n")


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """The shipped file with a few edits such as people and crashes make."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["drop", "twice", "swap", "cut", "indent", "insert"]))
        if kind == "drop":
            del lines[at]
        elif kind == "twice":
            lines.insert(at, lines[at])
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        elif kind == "indent":
            lines[at] = " " * draw(st.integers(0, 6)) + lines[at].lstrip()
        else:
            place = draw(st.integers(0, len(lines[at])))
            piece = draw(
                st.sampled_from([*"{}[]:,&*!|>%@`\"'#-? \t0", "any", "null", "0x1", "~", "\\", "\x85"])
            )
            lines[at] = lines[at][:place] + piece + lines[at][place:]
    return "\n".join(lines).encode()


@settings(max_examples=25, deadline=None)
@given(mutations())
def test_a_mutated_policy_is_a_policy_or_has_problems(data: bytes) -> None:
    """Nothing else comes out, whatever happened to the file; problems have places in it."""
    problems, read = read_or_problems(data)
    lines = data.decode().split("\n")
    assert (read is None) == bool(problems)
    assert all(1 <= one.where.line <= len(lines) for one in problems)
    render(problems, data.decode(), "full")
    if read is not None:
        assert isinstance(read.policy.accounts["/uni-b"].where, Where)
        run_cases(read.cases, read.policy)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(alphabet=st.sampled_from("ab:-[]{}\"'\\xuU0F&*!|>%@?,#\n "), max_size=40).map(str.encode),
    )
)
def test_any_bytes_give_problems(data: bytes) -> None:
    """Bytes that are no policy are refused by the reader, never by a crash of what reads YAML."""
    with pytest.raises(PolicyProblemsError):
        read_policy(data, "p")
