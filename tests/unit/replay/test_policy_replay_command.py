"""``policy replay`` as people call it: tables, JSON, pictures, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.replay.report import time_text, verdict
from agent.replay.summary import Group, quantile

TRACE = """submit,account,devices,duration,purpose,kind,site
0,/north/nlp,1,600,research,guest,north
10,/south,2,3000,research,local,south
20,/west,1,900,research,guest,west
4000,/west,1,60,research,guest,west
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return path


def test_two_start_costs_stand_side_by_side(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables name both, and say who gains by the second."""
    starts = ("--start", "disk=600s", "--start", "warm=1.5s")
    assert main(("policy", "replay", "--trace", str(trace), "--donors", "south=4", *starts)) == 0
    said = capsys.readouterr()
    assert "4 jobs over" in said.err
    assert "disk 600 s" in said.out
    assert "warm 1.5 s" in said.out
    assert "idle hours recovered" in said.out
    assert "of waiting" in said.out


def test_figures_come_as_json_and_are_the_same_each_time(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object on stdout, with every institution in it."""
    command = ("policy", "replay", "--trace", str(trace), "--donors", "south=4", "--json")
    texts = []
    for _ in range(2):
        assert main(command) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    variant = json.loads(texts[0])["variants"][0]
    assert [one["name"] for one in variant["institutions"]] == ["north", "west"]
    assert variant["total"]["wait_p50_s"] == 1.5
    assert variant["recovered_h"] == pytest.approx((600 + 900) / 3600, abs=1e-4)


def test_a_made_trace_can_be_kept_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --write-trace writes gives the same figures as what was made."""
    path = tmp_path / "made.csv"
    donors = "alder=64,birch=48,cedar=16,elm=16,fig=1,fir=12,hazel=4,iris=2x2"
    made = ("policy", "replay", "--generate", "3:60", "--donors", donors, "--json")
    assert main((*made, "--write-trace", str(path))) == 0
    first = capsys.readouterr().out
    assert main(("policy", "replay", "--trace", str(path), "--donors", donors, "--json")) == 0
    assert capsys.readouterr().out == first


def test_a_picture_is_the_same_each_time_and_small(trace: Path, tmp_path: Path) -> None:
    """An SVG of some tens of kilobytes, byte for byte the same; a PNG by its name."""
    paths = [tmp_path / name for name in ("a.svg", "b.svg", "c.png")]
    for path in paths:
        command = ("policy", "replay", "--trace", str(trace), "--donors", "south=4", "--plot", str(path))
        assert main((*command, "--start", "disk=600s", "--start", "warm=1.5s")) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 100_000
    assert paths[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which trace"),
        (("--generate", "1", "--trace", "T"), "say which trace"),
        (("--generate", "x"), "is no seed"),
        (("--generate", "1:0"), "1 to"),
        (("--generate", "1:5", "--start", "disk"), "is no start cost"),
        (("--generate", "1:5", "--donors", "a"), "is no donor"),
        (("--generate", "1:5", "--plot", "x.pdf"), "neither an .svg nor a .png"),
        (("--generate", "1:5", "--lag", "soon"), "is no duration"),
        (("--trace", "T", "--sha256", "00"), "has the SHA-256"),
        (("--trace", "T", "--helios"), "this is no Helios log"),
        (("--generate", "1:5", *("--start", "a=1s") * 9), "too many to compare"),
    ],
)
def test_what_cannot_be_replayed_is_a_sentence(
    trace: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what was wrong."""
    given = tuple(str(trace) if one == "T" else one for one in arguments)
    assert main(("policy", "replay", *given)) == 2
    assert said in capsys.readouterr().err


def test_without_matplotlib_a_picture_is_refused_before_the_replay(trace: Path) -> None:
    """The sentence says what to install; nothing else needs it."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from agent.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "policy", "replay", "--trace", str(trace), "--donors", "south=4"]
    done = subprocess.run([*command, "--plot", "x.svg"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pyrdma-agent[plot]" in done.stderr
    assert "replaying" not in done.stderr
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_quantiles_are_nearest_ranks() -> None:
    """No value is made up between two."""
    assert quantile([], 0.5) is None
    assert quantile([5.0], 0.9) == 5.0
    assert [quantile([4.0, 1.0, 3.0, 2.0], part) for part in (0.5, 0.9)] == [2.0, 4.0]


def test_who_gains_goes_by_hours_and_then_by_waits() -> None:
    """Served hours count first; where they are the same, the wait of nine of ten."""

    def group(useful_h: float, wait_s: float | None) -> Group:
        return Group("a", 10, 0, 0, 0, wait_s, wait_s, useful_h, 0.1, 100.0)

    assert verdict(group(100.0, 60.0), group(110.0, 600.0)) == "gains 10 h"
    assert verdict(group(100.0, 60.0), group(90.0, 6.0)) == "loses 10 h"
    assert verdict(group(100.0, 600.0), group(100.5, 60.0)) == "gains 9 min of waiting"
    assert verdict(group(100.0, 60.0), group(100.0, 62.0)) == "the same"
    assert verdict(group(0.0, None), group(0.0, None)) == "the same"
    assert time_text(7300) == "2.0 h"
