"""``pyrdma-agent policy``: policy files, for those who write and review them. No agent is asked."""

from __future__ import annotations

import importlib
from typing import Final

import click

_COMMANDS: Final = {
    "check": "agent.cli.policy_check:check",
    "fmt": "agent.cli.policy_check:fmt",
    "test": "agent.cli.policy_check:test",
    "explain": "agent.cli.policy_explain:explain",
    "diff": "agent.cli.policy_diff:diff",
    "replay": "agent.cli.policy_replay:replay",
    "schema": "agent.cli.policy_check:schema",
}


class _LazyPolicyGroup(click.Group):
    """Imports a command's module only when its name is used or listed, in the order of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of a name."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_LazyPolicyGroup, short_help="Write, check and compare policy files.")
def policy() -> None:
    """Write, check and compare a consortium's policy files and the overlays of its donors.

    Nothing here changes an agent: a version counts once the consortium has signed it, from its effective_at.
    """
