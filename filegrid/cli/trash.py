"""`filegrid trash`: what was removed or replaced, until its time is over."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

import click

from filegrid.cli.condition import table
from filegrid.cli.opened import as_json, open_grid, shown
from filegrid.cli.output import human_bytes, print_json
from filegrid.errors import NoSuchPath


@click.group()
def trash() -> None:
    """List, restore and empty what was removed or replaced."""


@trash.command("ls")
@as_json
def list_trash(as_json: bool) -> None:
    """List what can be restored, with the number of each."""
    with open_grid() as grid:
        found = grid.list_trash()
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        (
            str(one.id),
            one.kind,
            str(one.files),
            human_bytes(one.bytes),
            datetime.fromtimestamp(one.removed).strftime("%Y-%m-%d %H:%M:%S"),
            str(timedelta(seconds=round(one.left_seconds))),
            shown(one.path),
        )
        for one in found
    ]
    table(("number", "kind", "files", "size", "removed", "time left", "path"), rows)


@trash.command()
@click.argument("what", metavar="NUMBER|PATH")
@click.argument("target", required=False, default="")
def restore(what: str, target: str) -> None:
    """Put something back where it was, or as TARGET; of a PATH, what was removed last."""
    with open_grid() as grid:
        if what.isdigit():
            number = int(what)
        else:
            of_path = [one for one in grid.list_trash() if one.path == what]
            if not of_path:
                raise NoSuchPath("the trash has nothing of this path", what)
            number = max(of_path, key=lambda one: one.removed).id
        click.echo(shown(grid.restore(number, target).path))


@trash.command()
@click.argument("numbers", nargs=-1, type=int)
def empty(numbers: tuple[int, ...]) -> None:
    """Remove for good what is in the trash: these NUMBERS, or all. Only an operator may."""
    with open_grid() as grid:
        grid.empty_trash(*numbers)


COMMANDS = [trash]
