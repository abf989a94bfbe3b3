"""``pyrdma-agent policy``: what people, CI and scripts get, by exit code and by stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main

POLICIES = Path(__file__).parents[2] / "policies"
SHIPPED = POLICIES / "consortium.yaml"
OVERLAY = POLICIES / "examples/overlay.yaml"
BROKEN = SHIPPED.read_text().replace("    weight: 40\n", "    wieght: 40\n", 1)


@pytest.fixture
def policy(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["policy", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    return path


def test_good_files_are_good(policy: Any) -> None:
    """Exit code 0, nothing on stdout, a sentence on stderr."""
    code, out, err = policy("check", SHIPPED)
    assert (code, out) == (0, "")
    assert "no problems" in err
    assert policy("check", OVERLAY, "--consortium", SHIPPED)[0] == 0
    assert policy("test", SHIPPED)[0:2] == (0, "9 passed, 0 failed\n")
    assert policy("test", OVERLAY, "--consortium", SHIPPED)[0] == 0


def test_a_bad_file_is_shown_with_a_caret(policy: Any, broken: Path) -> None:
    """Exit code 2; people read the line on stderr."""
    line = BROKEN.split("\n").index("    wieght: 40") + 1
    code, out, err = policy("check", broken)
    assert (code, out) == (2, "")
    assert f"--> {broken}:{line}:5" in err
    assert "^^^^^^ did you mean weight?" in err
    assert "1 problem in 1 file(s)." in err


@pytest.mark.parametrize("command", ["test", "explain", "diff", "fmt"])
def test_every_command_refuses_a_file_that_is_no_policy(policy: Any, tmp_path: Path, command: str) -> None:
    """Exit code 2, a place, no traceback, and the file is as it was."""
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\n  name: x\n")
    more = {"explain": ["--account", "/uni-a", "--purpose", "research"], "diff": [SHIPPED]}.get(command, [])
    code, out, err = policy(command, path, *more)
    assert (code, out) == (2, "")
    assert f"--> {path}:2:" in err
    assert "Traceback" not in err
    assert path.read_text() == "version: 1\n  name: x\n"


def test_formats_for_programs(policy: Any, broken: Path) -> None:
    """One a line, annotations, one object: all on stdout, with the same exit code."""
    code, out, _ = policy("check", broken, SHIPPED, "--output-format", "concise")
    assert code == 2
    assert out.count("\n") == 1
    assert out.startswith(f"{broken}:")
    code, out, _ = policy("check", broken, "--output-format", "github")
    assert (code, out.startswith("::error file=")) == (2, True)
    for arguments in (["--json"], ["--output-format", "json"]):
        code, out, _ = policy("check", broken, *arguments)
        document = json.loads(out)
        assert (code, document["schema"]) == (2, 1)
        assert document["problems"][0]["did_you_mean"] == "weight"
        assert document["problems"][0]["column"] == 5


def test_an_overlay_needs_its_policy(policy: Any) -> None:
    """Alone it says nothing; the fix names the option."""
    code, _, err = policy("check", OVERLAY)
    assert code == 2
    assert "--consortium" in err


def test_a_missing_file_and_an_endless_one(policy: Any, tmp_path: Path) -> None:
    """Neither gives a traceback, and no more is read than a policy may have."""
    assert policy("check", tmp_path / "none.yaml")[0] == 2
    code, _, err = policy("check", "/dev/zero")
    assert code == 2
    assert "at most" in err


def test_number_and_notice_are_checked_against_the_version_before(policy: Any, tmp_path: Path) -> None:
    """The same version again, and one without notice, may not follow: exit code 1."""
    code, _, err = policy("check", SHIPPED, "--replaces", SHIPPED)
    assert code == 1
    assert "its version is 1" in err
    later = tmp_path / "later.yaml"
    later.write_text(
        SHIPPED.read_text().replace("version: 1\n", "version: 2\n").replace("2026-12-01T", "2999-12-01T")
    )
    assert policy("check", later, "--replaces", SHIPPED)[0] == 0


def test_a_failing_test_is_a_failure(policy: Any, tmp_path: Path) -> None:
    """Exit code 1, the name and the reason."""
    path = tmp_path / "p.yaml"
    path.write_text(
        SHIPPED.read_text()
        .replace("claimants: [/institute-c]", "claimants: [any]")
        .replace("expect: {decision: deny, rule: purposes.claimants}", "expect: {decision: allow}")
    )
    code, out, _ = policy("test", path)
    assert code == 1
    assert "FAILED" in out
    assert "denied by purposes.claimants" in out
    assert "8 passed, 1 failed" in out
    assert json.loads(policy("test", path, "--json")[1])["failed"] == 1


def test_explain_tells_rule_line_and_change(policy: Any) -> None:
    """Denied is exit code 4, permitted is 0."""
    asked = ["explain", SHIPPED, "--account", "/uni-a/biology", "--at", "mon 10:00"]
    code, out, _ = policy(*asked, "--purpose", "research", "--size", "500GB")
    assert code == 4
    assert "denied by big-models-by-day" in out
    assert f"rule:   {SHIPPED}:" in out
    assert "permitted with --at 'mon 18:00'" in out
    assert policy(*asked, "--purpose", "research")[0] == 0
    code, out, _ = policy(*asked, "--purpose", "teaching", "--json")
    document = json.loads(out)
    assert (code, document["decision"], document["rule"]) == (4, "deny", "purposes.claimants")
    assert {"field": "purpose", "value": "research"} in document["changes"]


def test_explain_under_an_overlay(policy: Any) -> None:
    """The donor's own rule refuses what the consortium permits, and its file is named."""
    asked = ["explain", SHIPPED, "--account", "/uni-a/biology", "--purpose", "research", "--licence", "gpl"]
    assert policy(*asked)[0] == 0
    code, out, _ = policy(*asked, "--overlay", OVERLAY)
    assert code == 4
    assert "at institute-c" in out
    assert str(OVERLAY) in out


@pytest.mark.parametrize(
    "option",
    [
        ["--site", "nowhere"],
        ["--size", "20"],
        ["--at", "noon"],
        ["--used", "/uni-a=5h"],
        ["--device-class", "x"],
    ],
)
def test_explain_refuses_what_it_does_not_know(policy: Any, option: list[str]) -> None:
    """A word that names nothing is a usage error, never an answer."""
    code, out, err = policy("explain", SHIPPED, "--account", "/uni-a", "--purpose", "research", *option)
    assert (code, out) == (2, "")
    assert option[0] in err or option[1] in err


def test_diff_tells_who_gains(policy: Any, tmp_path: Path) -> None:
    """Shares, then what is not as it was."""
    other = tmp_path / "b.yaml"
    other.write_text(
        SHIPPED.read_text().replace("weight: 40", "weight: 80", 1).replace("a100: 0.5", "a100: 0.6")
    )
    code, out, _ = policy("diff", SHIPPED, other)
    assert code == 0
    lines = out.split("\n")
    assert any(line.startswith("/uni-a ") and "gains" in line for line in lines)
    assert any(line.startswith("/uni-b ") and "loses" in line for line in lines)
    assert "  + a100: 0.6" in lines
    document = json.loads(policy("diff", SHIPPED, other, "--json")[1])
    assert document["shares"][0]["account"] == "/uni-a"
    assert policy("diff", SHIPPED, SHIPPED)[1] == "nothing changes\n"


def test_diff_tells_which_leases_would_be_refused(policy: Any, tmp_path: Path) -> None:
    """From what ``leases --json`` prints; ended ones and those without an account do not count."""
    other = tmp_path / "b.yaml"
    other.write_text(SHIPPED.read_text().replace("  to: [any]", "  to: [/uni-a, /uni-b/courses, /college-d]"))
    row = {
        "model": "uni-a/m",
        "state": "active",
        "donor": "uni-a/n1",
        "borrower": "",
        "account": "/uni-b/courses",
    }
    rows = [
        row | {"id": "kept"},
        row | {"id": "gone", "account": "/uni-b"},
        row | {"id": "ended", "account": "/uni-b", "state": "ended"},
        row | {"id": "nobody", "account": ""},
    ]
    leases = tmp_path / "leases.json"
    leases.write_text(json.dumps({"schema": 1, "leases": rows}))
    code, out, _ = policy("diff", SHIPPED, other, "--leases", leases, "--site", "uni-b")
    assert code == 0
    assert "leases that would be refused: 1" in out
    assert "  gone /uni-b uni-a/m: lend.to: uni-a does not lend to /uni-b." in out
    leases.write_text("[1]")
    assert policy("diff", SHIPPED, other, "--leases", leases)[0] == 2


def test_fmt_changes_a_file_once(policy: Any, tmp_path: Path) -> None:
    """``--check`` changes nothing; the second time there is nothing to do; the mode stays."""
    path = tmp_path / "p.yaml"
    path.write_text(
        SHIPPED.read_text().replace("  uni-a:", "    uni-a:", 0).replace("{weight: 2}", "{ weight: 2 }")
    )
    path.chmod(0o640)
    before = path.read_text()
    assert policy("fmt", "--check", path)[0] == 1
    assert path.read_text() == before
    assert policy("fmt", path)[0] == 0
    assert path.read_text() == SHIPPED.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert policy("fmt", "--check", path)[0] == 0
    assert [each.name for each in tmp_path.iterdir()] == ["p.yaml"]


def test_fmt_reads_stdin() -> None:
    """As editors call it."""
    result = subprocess.run(
        [sys.executable, "-m", "agent", "policy", "fmt", "-"],
        input="kind:   overlay\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "# yaml-language-server: $schema=overlay.schema.json\nkind: overlay\n"


def test_the_schemas_are_printed(policy: Any) -> None:
    """What is printed is what is committed."""
    assert policy("schema")[1] == (POLICIES / "policy.schema.json").read_text()
    assert policy("schema", "--overlay")[1] == (POLICIES / "overlay.schema.json").read_text()


def test_help_loads_neither_pydantic_nor_yaml() -> None:
    """What only these commands need is not paid for by the others."""
    code = (
        "import sys\nfrom agent.cli.main import main\nmain(['--help'])\nmain(['policy', '--help'])\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in result.stderr.split()}
    assert not loaded & {"pydantic", "pydantic_core", "ruamel", "grpc", "cryptography"}
