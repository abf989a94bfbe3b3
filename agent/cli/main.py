"""The entry of ``pyrdma-agent``: the group of commands, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from agent import __version__
from agent.cli.output import say_error
from agent.error_table import ExitCode, row_of
from agent.errors import Reported
from pyrdma.errors import Error

_COMMANDS: Final = {
    "demo": "agent.cli.demo:demo",
    "init": "agent.cli.init:init",
    "serve": "agent.cli.serve:serve",
    "invite": "agent.cli.invite:invite",
    "join": "agent.cli.join:join",
    "leave": "agent.cli.leave:leave",
    "publish": "agent.cli.publish:publish",
    "models": "agent.cli.show:models",
    "run": "agent.cli.run:run",
    "stop": "agent.cli.run:stop",
    "leases": "agent.cli.show:leases",
    "whoami": "agent.cli.people:whoami",
    "usage": "agent.cli.people:usage",
    "token": "agent.cli.people:token",
    "transfers": "agent.cli.show:transfers",
    "queue": "agent.cli.queue:queue",
    "status": "agent.cli.show:status",
    "nodes": "agent.cli.nodes:nodes",
    "devices": "agent.cli.devices:devices",
    "donate": "agent.cli.devices:donate",
    "withdraw": "agent.cli.devices:withdraw",
    "drain": "agent.cli.devices:drain",
    "undrain": "agent.cli.devices:undrain",
    "reclaim": "agent.cli.devices:reclaim",
    "mine": "agent.cli.devices:mine",
    "consortium": "agent.cli.consortium:consortium",
    "policy": "agent.cli.policy:policy",
    "ledger": "agent.cli.ledger:ledger",
    "carbon": "agent.cli.carbon:carbon",
    "audit": "agent.cli.audit:audit",
    "tui": "agent.cli.tui:tui",
}
_EPILOG: Final = """\
\b
Exit codes: 0 ok, 1 failed or refused, 2 usage or invalid file, 3 agent not reachable,
4 denied by policy, 5 timeout, 130 interrupt.

\b
Completion: eval "$(_PYRDMA_AGENT_COMPLETE=bash_source pyrdma-agent)" (or zsh_source, fish_source).
"""


class LazyGroup(click.Group):
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


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyrdma-agent")
@click.option("--debug", is_flag=True, help="Show tracebacks and the debug log.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Warm-start models on pooled GPUs from memory that already holds the weights."""
    context.obj = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if not debug:  # gRPC writes lines of its own to stderr, where ours say the same in one sentence
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        result = cli.main(args=given, prog_name="pyrdma-agent", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left; Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Reported as error:
        if debug:
            raise
        say_error(error)
        return row_of(error).exit_code
    except Exception as error:
        if debug:
            raise
        say_error(
            Error(f"a defect of pyrdma-agent: {type(error).__name__}: {error}.", fix="add --debug, report it")
        )
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
