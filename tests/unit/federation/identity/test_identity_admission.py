"""When a site lets a node join: the one rule, over all that can be found out before."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from federation.errors import (
    EnrolmentError,
    FederationInputError,
    InviteExpiredError,
    InviteMismatchError,
    InviteUsedError,
)
from federation.identity.admission import InviteRecord, admit

KEY = b"the key that proves the secret!!"
FRESH = InviteRecord(
    token_id=bytes(8),
    key=KEY,
    node="gpu07",
    expires_at=1000.0,
    used_csr_sha256=None,
    certificate_pem=None,
    cidr="",
)
USED = replace(FRESH, used_csr_sha256=b"a" * 32, certificate_pem=b"pem")


def decide(record: InviteRecord | None, **change: object) -> str:
    """The decision for a right call, but for what is given."""
    usual: dict[str, object] = {
        "now_s": 500.0,
        "node": "gpu07",
        "csr_sha256": b"a" * 32,
        "proof_ok": True,
        "caller_ip": "10.1.2.3",
    }
    return admit(record, **usual | change)  # type: ignore[arg-type]


def refused(record: InviteRecord | None, **change: object) -> EnrolmentError:
    """The error with which a call is refused."""
    with pytest.raises(EnrolmentError) as caught:
        decide(record, **change)
    return caught.value


def test_a_fresh_invite_is_good_once() -> None:
    """A right call has a certificate issued, until the very second in which the invite ends."""
    assert decide(FRESH) == "issue"
    assert decide(FRESH, now_s=999.9) == "issue"
    assert type(refused(FRESH, now_s=1000.0)) is InviteExpiredError


def test_the_same_request_again_has_the_same_answer_within_the_time() -> None:
    """A node whose connection broke asks again; another request under a used invite is refused."""
    assert decide(USED) == "repeat"
    assert type(refused(USED, csr_sha256=b"b" * 32)) is InviteUsedError
    assert type(refused(USED, now_s=1000.0)) is InviteExpiredError


def test_an_invite_is_for_one_node() -> None:
    """With the right proof, the refusal names the node that it was made for."""
    error = refused(FRESH, node="gpu08")
    assert type(error) is InviteMismatchError
    assert "gpu07" in error.message


def test_who_proves_nothing_learns_nothing() -> None:
    """Without the proof, one same refusal whether the invite is unknown, used, over, or another node's."""
    records = (None, FRESH, USED, replace(FRESH, cidr="192.0.2.0/24"))
    answers = set()
    for record, node, now_s in itertools.product(records, ("gpu07", "gpu08"), (500.0, 2000.0)):
        error = refused(record, node=node, now_s=now_s, proof_ok=False)
        answers.add((type(error), error.message, error.fix))
    answers.add((type(unknown := refused(None)), unknown.message, unknown.fix))
    assert len(answers) == 1
    assert next(iter(answers))[0] is InviteMismatchError


@pytest.mark.parametrize(
    ("cidr", "caller", "let_in"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "::ffff:10.2.0.1", False),
        ("10.1.0.0/16", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "10.1.2.3", False),
        ("10.1.0.0/16", "unix:", False),
        ("0.0.0.0/0", "", False),
        ("", "", True),
    ],
)
def test_an_invite_may_be_for_one_network(cidr: str, caller: str, let_in: bool) -> None:
    """The caller's address decides, in either spelling of IPv4; one that cannot be read is outside."""
    record = replace(FRESH, cidr=cidr)
    if let_in:
        assert decide(record, caller_ip=caller) == "issue"
    else:
        assert "another network" in refused(record, caller_ip=caller).message


def test_a_record_has_a_nodes_name_and_a_network() -> None:
    """What no caller could ever meet is refused when the invite is made."""
    for change in ({"node": "join"}, {"cidr": "10.1.2.3/16"}, {"cidr": "everywhere"}):
        with pytest.raises(FederationInputError):
            replace(FRESH, **change)


def test_the_key_is_not_shown() -> None:
    """A record's repr, which may reach a log, has no key in it."""
    assert "key" not in repr(FRESH)
    assert KEY.decode() not in repr(FRESH)
