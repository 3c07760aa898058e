"""What the commands that use a grid share: the grid, paths in it, names on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from filegrid.cli.output import Invocation, error_line, note
from filegrid.errors import GridError
from filegrid.model import split_path

if TYPE_CHECKING:
    from filegrid.client.blocking import Grid

T = TypeVar("T", str, tuple[str, ...])


def open_grid() -> Grid:
    """The grid that the command line means."""
    from filegrid import connect

    invocation = click.get_current_context().find_object(Invocation) or Invocation()
    return connect(invocation.config_file(), timeout_seconds=invocation.timeout_seconds)


def grid_paths(ctx: click.Context, param: click.Parameter, value: T) -> T:
    """Of an argument that is one absolute path in the grid, or several; a slash at its end stays.

    :raises InvalidPath: where one is none.
    """
    for path in (value,) if isinstance(value, str) else value or ():
        split_path(path)
    return value


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def shown(name: str) -> str:
    """A name as a terminal may have it: what is not printable is escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


def note_too_few_servers(grid: Grid, replication: int | None) -> None:
    """Say so where more replicas are asked for than can be there now; files are taken all the same.

    :param replication: None where it was not asked for here.
    """
    if replication is None or (status := grid.status())["leader"] is None:
        return
    states = [server["state"] for server in status["chunk_servers"]]
    count = sum(state in ("live", "suspect") for state in states)
    if count < replication:
        note(
            f"{count} chunk servers can have replicas, and {replication} are asked for: the others"
            " are made once there are more servers"
        )


class Failures:
    """Errors of a command that goes on to the next file after one."""

    def __init__(self) -> None:
        self.first: GridError | None = None

    def add(self, error: GridError) -> None:
        """Tell of it on standard error."""
        self.first = self.first or error
        note(error_line(error))

    def end(self) -> None:
        """End the command with the exit code of the first error, where there was one."""
        if self.first is not None:
            click.get_current_context().exit(self.first.exit_code)


def each(paths: tuple[str, ...], work: Callable[[str], object]) -> None:
    """Do `work` for every path; those after one that failed have their turn as well."""
    failures = Failures()
    for path in paths:
        try:
            work(path)
        except GridError as error:
            failures.add(error)
    failures.end()


def into_folder(grid: Grid, target: str, name: str) -> str:
    """Where something called `name` goes: `target`, or below it where that is a folder."""
    from filegrid.errors import NoSuchPath

    try:
        folder = target.endswith("/") or grid.stat(target).is_folder
    except NoSuchPath:
        folder = False
    return f"{target.rstrip('/')}/{name}" if folder else target
