"""Carbon series: from a file of hours to what other gateways have of a site."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.cli.main import main
from agent.errors import RequestError
from agent.ledger.carbon import CarbonTable, read_carbon, read_hours, write_carbon
from federation.errors import ReceiptError
from federation.ledger.carbon import CarbonSeries, SignedCarbon, sign_carbon
from federation.ledger.signing import KeyOfSite, Keys, public_of
from federation.limits import MAX_CARBON_HOURS

KEY = Ed25519PrivateKey.generate()
KEYS = Keys({"north": (KeyOfSite(public_of(KEY)),), "south": (KeyOfSite(public_of(KEY)),)})
HOUR = 1_772_373_600


def signed(*grams: int | None, site: str = "north", made_at_s: int = 1) -> SignedCarbon:
    """Return a signed series of these hours."""
    series = CarbonSeries(site=site, from_s=HOUR, g_per_kwh=grams, source="grid", made_at_s=made_at_s)
    return sign_carbon(KEY, series)


def test_a_file_of_hours_is_read() -> None:
    """In any time zone, with comments; a missing hour has no figure."""
    text = (
        "# the grid of the north\n2026-03-01T14:00Z,312\n\n2026-03-01T16:00+01:00, 300\n2026-03-01T17:00Z,7\n"
    )
    series = read_hours(text, "north", "grid", now_s=5.0)
    assert (series.from_s, series.g_per_kwh, series.made_at_s) == (HOUR, (312, 300, None, 7), 5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "2026-03-01T14:00Z",
        "2026-03-01T14:30Z,1",
        "2026-03-01T14:00,1",
        "2026-03-01T14:00Z,many",
        "2026-03-01T14:00Z,1\n2026-03-01T14:00Z,2",
        "2026-03-01T14:00Z,1\n2026-03-01T13:00Z,2",
        "2026-03-01T14:00Z,1\n2027-03-01T14:00Z,2",
    ],
)
def test_a_line_that_is_no_hour_is_refused(text: str) -> None:
    """With its number, where there is one; a series has a length, too."""
    with pytest.raises(RequestError):
        read_hours(text, "north", "grid", now_s=0.0)
    assert MAX_CARBON_HOURS < 24 * 365


def test_what_is_kept_is_sent_as_it_is(tmp_path: Path) -> None:
    """Nothing before there is one, nothing when it is damaged."""
    assert read_carbon(tmp_path) is None
    write_carbon(tmp_path, signed(100))
    assert read_carbon(tmp_path) == signed(100)
    (tmp_path / "carbon.json").write_text('{"body": 7}')
    assert read_carbon(tmp_path) is None


def test_each_site_speaks_for_itself_and_the_later_series_counts() -> None:
    """Another's, or one that somebody else signed, is refused; an hour without a figure has none."""
    table = CarbonTable()
    table.take("north", signed(100, None, 300, made_at_s=5), KEYS)
    table.take("north", signed(999, made_at_s=4), KEYS)
    table.take("south", signed(50, site="south"), KEYS)
    assert table.grams(HOUR + 1) == {"north": 100, "south": 50}
    assert table.grams(HOUR + 3600) == {}
    assert table.grams(HOUR + 7200) == {"north": 300}
    for wrong in (signed(1, made_at_s=9), SignedCarbon(signed(1).body, bytes(64))):
        with pytest.raises(ReceiptError):
            table.take("south", wrong, KEYS)
    assert table.grams(HOUR) == {"north": 100, "south": 50}


def test_the_command_signs_at_the_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the site's receipts key; elsewhere, and for a file that is none, it changes nothing."""
    state = ("--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run"))
    file = tmp_path / "hours.csv"
    hour = time.strftime("%Y-%m-%dT%H:00Z", time.gmtime())
    file.write_text(f"{hour},412\n")
    words = ["carbon", "set", str(file), "--source", "grid", "--json", *state]
    assert main(words) != 0
    assert main(["carbon", "show", *state]) != 0
    assert not main(
        [
            *("init", "--site", "north", "--trust-domain", "north.example", "--address", "127.0.0.1:7443"),
            *("--node", "gw", "--request", str(tmp_path / "request.json"), *state),
        ]
    )
    capsys.readouterr()
    assert not main(words)
    assert json.loads(capsys.readouterr().out)["hours"] == 1
    assert read_carbon(tmp_path / "state") is not None
    assert not main(["carbon", "show", *state])
    shown = capsys.readouterr()
    assert shown.out == f"{hour},412\n"
    assert "from grid; this hour: 4" in shown.err
    assert not main(["carbon", "show", "--json", *state])
    said = json.loads(capsys.readouterr().out)
    assert (said["g_per_kwh"], said["site"]) == ([412], "north")
    file.write_text("nonsense")
    assert main(words) == 2
    assert read_carbon(tmp_path / "state") is not None
