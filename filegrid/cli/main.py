"""The `filegrid` command: finds the subcommand, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

from filegrid.cli.output import INTERRUPTED, Invocation, error_line, exit_code, note
from filegrid.errors import GridError

_MODULES = (
    *("nodes", "demo", "ca", "files", "trash", "policy", "operator", "heads", "forecast"),
    *("backup", "restore", "rebuild", "bench", "simulate"),
)
"""Modules of filegrid.cli that have COMMANDS, in the order of looking. Each imports what it needs
inside its functions, so that `filegrid --help` stays quick."""

_WITHOUT_GRID = ("nodes", "demo", "ca", "restore", "rebuild", "simulate")
"""Those whose commands work on a folder of this machine, not as a client of a grid."""

BROKEN_PIPE = 141
"""As shells say of a process that SIGPIPE ended; whoever closed the pipe wanted no more."""


class Commands(click.Group):
    """The subcommands of :data:`_MODULES`, loaded as they are asked for."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return next((found for found in self._found() if found.name == cmd_name), None)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(str(found.name) for found in self._found())

    def _found(self) -> Iterator[click.Command]:
        for name in _MODULES:
            for command in import_module(f"filegrid.cli.{name}").COMMANDS:
                yield command if name in _WITHOUT_GRID else with_shared_options(command)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        setattr(ctx.ensure_object(Invocation), str(param.name), value)


def _shared_options() -> list[click.Option]:
    return [
        click.Option(
            ["--grid"],
            metavar="FILE",
            expose_value=False,
            callback=_remember,
            help="The client's configuration.  [default: $FILEGRID_GRID, ./grid.toml or"
            " ~/.config/filegrid/grid.toml]",
        ),
        click.Option(
            ["--timeout", "timeout_seconds"],
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            expose_value=False,
            callback=_remember,
            help="How long each operation waits for the grid.  [default: 30]",
        ),
    ]


def with_shared_options(command: click.Command) -> click.Command:
    """Let --grid and --timeout also stand behind the command's name, as people write them."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            with_shared_options(child)
        return command
    taken = {name for param in command.params for name in param.opts}
    command.params.extend(o for o in _shared_options() if not taken.intersection(o.opts))
    return command


@click.command(
    cls=Commands,
    params=list(_shared_options()),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="filegrid", prog_name="filegrid")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """A redundant, fast, private file store for a team with unreliable machines."""
    ctx.ensure_object(Invocation)
    if ctx.invoked_subcommand is None:
        note(ctx.get_help())
        ctx.exit(2)


def run(arguments: list[str]) -> int:
    """Run one command and say how it ended, as an exit code."""
    try:
        ended = cli.main(arguments, prog_name="filegrid", standalone_mode=False)
        sys.stdout.flush()
        return ended if isinstance(ended, int) else 0
    except click.exceptions.Abort:  # what click makes of Ctrl-C
        return INTERRUPTED
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        advice = f"; see {where} --help" if where else ""
        note(f"{where or 'filegrid'}: {' '.join(error.format_message().split())}{advice}")
        return error.exit_code
    except GridError as error:
        note(error_line(error))
        return exit_code(error)
    except BrokenPipeError:
        # Python flushes standard output once more at the end; let it have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        note(error_line(error))
        return exit_code(error)


def main() -> None:
    """Where the `filegrid` script enters."""
    sys.exit(run(sys.argv[1:]))
