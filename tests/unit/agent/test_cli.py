"""The command line: help, exit codes, what it loads, and the JSON that scripts read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from agent.cli import people_json, schema
from agent.cli.main import _COMMANDS, cli, main
from agent.cli.output import data_json
from agent.local import device_views, federation_views, people_views, views
from agent.site.config import SiteConfig

GOLDEN = Path(__file__).parent / "golden"
IMAGE = "ab" * 32
SOURCE = views.SourceView("eth", "tcp", 10, "dropped", "sent a wrong byte")
PROGRESS = views.ProgressView(10, 20, "tcp", (SOURCE,))
LEASE = views.LeaseView(
    "0123456789abcdef", "m", IMAGE, "active", 1.5, None, "", 4000, 77, donor="eth/gpu07", borrower=""
)
STATUS = views.StatusView(
    name="eth",
    version="0.1.0",
    uptime_s=3.5,
    pid=5,
    cache=views.CacheView(True, 6, 100, 50, 60, 1, "it died", (views.WorkerView("tcp", 7),)),
    spares=views.SparesView(1, 1, (8,), ""),
    peers=(views.PeerView("unix:/x", "", False, "the peer unix:/x is not reachable."),),
    leases=2,
    state_fault="",
)
FEDERATION = federation_views.FederationView(
    site="uni-a",
    trust_domain="uni-a.example",
    node="gw",
    role="gateway",
    gateway="gw",
    certificate_expires_at=9.5,
    registry=federation_views.RegistryView("eu-lab", "fresh", "", 1, 1.5, 2.5),
    sites=(
        federation_views.SiteView(
            "uni-a", "uni-a.example", True, "ready", "", 0.5, "10.0.0.1:7443", 2, 1, 1, 1, 3, 0.25, 700, 312
        ),
    ),
    nodes=(
        federation_views.NodeView(
            name="gw",
            address="10.0.0.1:7443",
            role="gateway",
            state="ready",
            age_s=0.5,
            devices=(
                federation_views.DeviceView("cpu0", "cpu", 100, "leased", "0123456789abcdef", "eth/n1"),
            ),
            images=3,
            transfer_bytes_per_s=0.25,
        ),
    ),
    policy=federation_views.PolicyView(
        3, "ab12", 2, "it has opted out", ((4, 1_800_000_000),), ("the overlay: p:1:1: wrong.",)
    ),
)
SITE = SiteConfig(
    site="uni-a",
    trust_domain="uni-a.example",
    node="gpu07",
    role="node",
    address="10.0.0.7:7443",
    listen="[::]:7443",
    gateway_node="gw",
    gateway_address="10.0.0.1:7443",
)
DOCUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "status": lambda: schema.status_document(STATUS),
    "models": lambda: schema.models_document(
        [views.ModelView("m", IMAGE, 20, "/folder", 2.5, 2, 1, 3, "published")]
    ),
    "leases": lambda: schema.leases_document([LEASE]),
    "transfers": lambda: schema.transfers_document(
        [views.TransferView("t1", "m", IMAGE, "pull", "failed", PROGRESS, 2.5, 0.5, "no source is left")]
    ),
    "publish": lambda: schema.published_document(
        views.PublishedView("m", IMAGE, 20, 2, 3, ("README.md",), None, 0.5, "mit"), ["a note"]
    ),
    "run": lambda: schema.granted_document(
        views.GrantedView(
            LEASE,
            "http://127.0.0.1:4000/v1",
            "key",
            views.StartView("tcp", 20, 0.25, 0.125, 0.5, True, (views.PhaseView("map", 0.25),), (SOURCE,)),
        ),
        [],
    ),
    "stop": lambda: schema.stopped_document(LEASE),
    "init": lambda: schema.site_document(SITE, changed=True, fingerprint="88ad 499b", request="r.json"),
    "invite": lambda: schema.invite_document(federation_views.InviteView("pyrdma1.x.y", 3.5), "gpu07"),
    "nodes": lambda: schema.federation_document(FEDERATION),
    "whoami": lambda: people_json.whoami_document(
        people_views.WhoAmIView(
            "uid:1000", "alice", False, "eth", "/eth/a", ("/eth/a", "/eth/b/*"), ("student",), "a note"
        )
    ),
    "usage": lambda: people_json.usage_document(
        people_views.UsageView(
            (
                people_views.AccountUsageView(
                    "/eth/a",
                    ("student",),
                    decayed_msgs=1,
                    charged_msgs=2,
                    due_permille=3,
                    delivered_permille=4,
                    leases=5,
                    receipts=(
                        people_views.ReceiptLineView("uni-a", "0123456789abcdef", 6, 7, 8.5, 9.5, "signed"),
                    ),
                ),
            ),
            "receipts",
        )
    ),
    "token": lambda: people_json.token_document(
        people_views.NewTokenView("pyrdma-token1.x.y", 3.5), "laptop"
    ),
    "tokens": lambda: people_json.tokens_document(
        [people_views.TokenView("laptop", "/eth/a", 1.5, 3.5, None)]
    ),
    "devices": lambda: schema.devices_document(
        [
            device_views.OwnDeviceView(
                id="gpu0",
                kind="gpu",
                device_class="h100-80gb",
                memory_bytes=9,
                state="reclaiming",
                wanted=("a job",),
                left_s=7.5,
                guests=(device_views.GuestView("0123456789abcdef", "m", "eth/gpu07", 60.5, 10.0),),
                donated=True,
                draining=False,
                only_idle=True,
                hours=("mon-fri 20:00-06:00",),
                headroom_bytes=1,
                doubt="",
                last_reclaim_s=None,
            )
        ],
        dry_run=True,
    ),
    "leave": lambda: schema.left_document("uni-a", "gpu07", "This node has left uni-a."),
}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_the_json_of_a_command_is_the_golden_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Within schema 1 nothing is renamed or removed; a new key is added to the golden file by hand."""
    data_json(DOCUMENTS[name]())
    assert capsys.readouterr().out == (GOLDEN / f"{name}.json").read_text()


def test_every_document_says_its_schema() -> None:
    """A reader can refuse what it does not know."""
    assert all(document()["schema"] == 1 for document in DOCUMENTS.values())


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line in the list and a page of its own."""
    assert main([name, "--help"]) == 0
    page = capsys.readouterr().out
    assert f"Usage: pyrdma-agent {name}" in page
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith(f"{name} ") and len(line.split()) > 2 for line in lines)


def _leaves() -> list[str]:
    return _leaves_of(cli, "")


def _leaves_of(group: click.Group, before: str) -> list[str]:
    context, names = click.Context(group), list[str]()
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = isinstance(command, click.Group)
        names += _leaves_of(command, f"{before}{name} ") if inner else [f"{before}{name}"]
    return names


def test_every_command_but_serve_and_tui_prints_json() -> None:
    """Serve has no result, tui is for eyes, mine is its command, fmt and schema print files as they are."""
    without = set()
    for name in _leaves():
        command = [sys.executable, "-m", "agent", *name.split(), "--help"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        if "--json" not in result.stdout:
            without.add(name)
    assert without == {"mine", "policy fmt", "policy schema", "serve", "tui"}


def test_the_help_documents_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes a script finds them without the source, and how to complete."""
    main(["--help"])
    page = " ".join(capsys.readouterr().out.split())
    for number in ("0 ok", "1 failed", "2 usage", "3 agent not", "4 denied", "5 timeout", "130 interrupt"):
        assert number in page
    assert "COMPLETE=bash_source" in page


def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command or option, or a missing argument."""
    assert [main(["nonsense"]), main(["models", "--nonsense"]), main(["run"])] == [2, 2, 2]
    assert capsys.readouterr().out == ""


def test_no_agent_exits_with_3_and_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, whose side it is on, the fix; nothing on stdout."""
    assert main(["status", "--json", "--run-dir", str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no agent answers on" in captured.err
    assert "side: this node" in captured.err
    assert "fix:  start one with: pyrdma-agent serve" in captured.err
    assert "Traceback" not in captured.err


def test_bad_options_of_serve_are_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A peer that is no address and a size that is none."""
    common = ["serve", "--state-dir", str(tmp_path)]
    assert main([*common, "--peer", "host:1"]) == 2
    assert main([*common, "--memory", "lots"]) == 2
    assert "no unix:PATH" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def _modules_after(arguments: str) -> set[str]:
    code = (
        "import sys\nfrom agent.cli.main import main\n"
        f"main({arguments})\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


HEAVY = {"torch", "numpy", "transformers", "textual", "ucxx", "pandas"}


def test_help_loads_nothing_heavy() -> None:
    """Neither gRPC, nor what only runners need, nor rich, nor the toolkit of the terminal UI."""
    for arguments in ("['--help']", "['tui', '--help']"):
        assert not _modules_after(arguments) & (HEAVY | {"grpc", "rich", "sqlite_utils", "asyncio"})


def test_a_command_loads_grpc_and_nothing_of_a_runner(tmp_path: Path) -> None:
    """A borrower's machine needs neither torch nor UCX."""
    loaded = _modules_after(f"['status', '--run-dir', {str(tmp_path)!r}]")
    assert "grpc" in loaded
    assert not loaded & (HEAVY | {"sqlite_utils", "rich"})


def test_serves_modules_load_neither_torch_nor_numpy_nor_ucx() -> None:
    """The control plane stays small and cannot be taken down by a parser of foreign bytes."""
    code = (
        "import sys, asyncio, agent.daemon.serve, agent.launch, pyrdma.cache.client\n"
        "from agent.state.sqlite import _database_class; _database_class()\n"
        "print('\\n'.join(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "sqlite_utils" in loaded
    assert not loaded & HEAVY


def test_help_is_fast() -> None:
    """At most 0.3 s, the best of three: people type it to look something up."""
    best = 9.9
    for _ in range(3):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-m", "agent", "--help"], capture_output=True, check=True)
        best = min(best, time.monotonic() - begun)
    assert best <= 0.3


def test_talk_goes_to_stderr_without_colour_or_animation_off_a_terminal(tmp_path: Path) -> None:
    """A pipe gets plain text, whatever TERM says."""
    result = subprocess.run(
        [sys.executable, "-m", "agent", "run", "m", "--run-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (3, "")
    assert "\x1b" not in result.stderr
