"""The steps of ``join``, in their order: the site is asked when this node is ready for the answer."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.cli.output import talk
from agent.cli.places import empty_books, own_address
from agent.cli.steps import step
from agent.errors import NodeError, RequestError, StateError
from agent.limits import CLOCK_SKEW_SHOWN_S
from agent.paths import Paths
from agent.rpc.enrol_client import EnrolClient, check_server
from agent.site.config import SiteConfig, check_listen, default_listen
from agent.site.draft import JoinDraft
from agent.site.home import SiteHome
from federation.identity.invite import Invite, decode
from federation.identity.keys import fingerprint, spki_sha256
from federation.identity.names import check_address
from federation.identity.shape import read_certificate
from federation.limits import CLOCK_SKEW_S, MAX_INVITE_CHARS


def read_invite(file: str | None, text: str | None) -> Invite:
    """Return the invite that was given, once, as a file, on stdin or as text.

    Raises:
        RequestError, InviteError: there is none.
    """
    with step("invite") as one:
        invite = decode(_text(file, text))
        one.text = f"{invite.node} at {invite.site}, CA {authority_fingerprint(invite)}"
    return invite


def authority_fingerprint(invite: Invite) -> str:
    """Return the invite's CA key for people who compare it."""
    return fingerprint(spki_sha256(read_certificate(invite.authority_pem).public_key()))


def present_place(home: SiteHome, invite: Invite) -> SiteConfig | None:
    """Return this node's place if it has joined with such an invite before, nothing if it is of no site.

    Raises:
        StateError: it is another node, or of another site.
    """
    if not home.exists:
        return None
    present = home.load()
    if home.authority_pem == invite.authority_pem and present.node == invite.node:
        return present
    raise StateError(
        f"this node is {present.node} of {present.site} already.",
        fix="leave that site first: pyrdma-agent leave",
    )


async def join_site(
    invite: Invite, home: SiteHome, paths: Paths, *, address: str | None, listen: str | None
) -> SiteConfig:
    """Join; return this node's place. The caller holds the state directory.

    Raises:
        Error, FederationError: it did not. The same invite can be tried again, unless the sentence says
            otherwise.
    """
    with step("state-dir") as one:
        here = check_address(address or own_address(invite.address))
        listens = check_listen(listen or default_listen(here))
        await empty_books(paths)
        draft = JoinDraft.begin(paths.join_dir, invite)
        one.text = f"{paths.state_dir}; others will dial this node at {here}"
    with step("gateway") as one:
        await check_server(invite)
        one.text = f"the site's own server answers at {invite.address}"
    async with EnrolClient(invite) as client:
        check_clock(await client.challenge())
        with step("enrolled") as one:
            given = await client.join(draft.csr)
            config = SiteConfig(
                site=invite.site,
                trust_domain=invite.trust_domain,
                node=invite.node,
                role="node",
                address=here,
                listen=listens,
                gateway_node=given.gateway_node,
                gateway_address=given.gateway_address,
                registry_sources=invite.registry_sources,
                registry_pin=invite.registry_pin.hex(),
            )
            home.create_node(
                config,
                key_pem=draft.key_pem,
                certificate_pem=given.certificate_pem,
                authority_pem=invite.authority_pem,
            )
            draft.end()
            one.text = f"the gateway is {config.gateway_node} at {config.gateway_address}"
    return config


def check_clock(offset_s: float) -> None:
    """Show by how many seconds the gateway's clock is ahead.

    Raises:
        NodeError: by too many, either way: certificates would be refused.
    """
    with step("clock-skew") as one:
        side = "behind" if offset_s > 0 else "ahead of"
        one.text = f"{abs(offset_s):.1f} s {side} the gateway's clock"
        if abs(offset_s) > CLOCK_SKEW_S:
            raise NodeError(
                f"this machine's clock is {one.text}; at most {CLOCK_SKEW_S:.0f} s are let pass.",
                fix="set both clocks by the network (timedatectl), then join again with the same invite",
            )
        if abs(offset_s) > CLOCK_SKEW_SHOWN_S:
            one.word = "WARN"


def _text(file: str | None, text: str | None) -> str:
    if (file is None) == (text is None):
        raise RequestError("the invite is needed, once.", fix="give --invite-file FILE, or - to read stdin")
    if text is not None:
        talk("WARN  --invite shows the secret to other users of this machine (ps); --invite-file does not.")
        return text
    if file == "-":
        return sys.stdin.read(MAX_INVITE_CHARS + 1)
    try:
        with Path(str(file)).open(encoding="utf-8", errors="replace") as opened:
            return opened.read(MAX_INVITE_CHARS + 1)
    except OSError as error:
        raise RequestError(
            f"the invite's file {file} cannot be read: {error.strerror}.",
            fix="name the file that was copied to this machine",
        ) from error
