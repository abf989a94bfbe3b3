"""What a child process gets from us, and what we make of its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import InternalError, RunnerError, UnsupportedModelError
from agent.launch import _verdict, child_environment
from pyrdma.errors import BindingError


def test_a_runner_gets_no_secret_from_our_environment() -> None:
    """Only names on the allow-list pass; whatever else there is may be a token."""
    environ = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "t", "HOME": "/root", "LC_ALL": "C"}
    child = child_environment(environ)
    assert child["PATH"] == "/bin"
    assert not {"s", "t", "/root"} & set(child.values())


def test_a_runner_is_offline_and_bounded() -> None:
    """No hub, no telemetry, no more threads than cores."""
    child = child_environment({})
    assert (child["HF_HUB_OFFLINE"], child["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert int(child["OMP_NUM_THREADS"]) >= 1
    assert child["PYTHONSAFEPATH"] == "1"


def test_a_good_verdict_may_carry_a_note() -> None:
    """The last line of the output counts, not what libraries print before it."""
    assert _verdict(b'some library talks\n{"ok": true, "note": "n"}\n', b"", Path("/f")) == "n"
    assert _verdict(b'{"ok": true, "architecture": "Bert"}', b"", Path("/f")) == ""


def test_a_bad_verdict_is_raised_as_the_check_said_it() -> None:
    """Code, sentence and fix survive the process boundary."""
    out = b'{"ok": false, "code": "binding", "message": "No.", "fix": "convert it"}'
    with pytest.raises(BindingError, match=r"No\.") as caught:
        _verdict(out, b"", Path("/f"))
    assert caught.value.fix == "convert it"


@pytest.mark.parametrize(
    ("out", "err", "kind"),
    [
        (b"", b"Traceback\nImportError: no torch", RunnerError),
        (b"[1]", b"", UnsupportedModelError),
        (b'{"ok": false, "code": "from-the-future", "message": "x"}', b"", InternalError),
    ],
)
def test_a_check_that_breaks_is_never_a_pass(out: bytes, err: bytes, kind: type[Exception]) -> None:
    """Fail closed: only an explicit ok publishes."""
    with pytest.raises(kind):
        _verdict(out, err, Path("/f"))


def test_a_childs_words_cannot_move_a_cursor() -> None:
    """Its output may hold what a model's files held."""
    with pytest.raises(RunnerError) as caught:
        _verdict(b"", b"\x1b[2Jboom", Path("/f"))
    assert "\x1b" not in caught.value.message
    assert "boom" in caught.value.message
