"""`filegrid backup`, and what is done with one when all heads are lost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from filegrid.cli.opened import as_json, open_grid
from filegrid.cli.output import human_bytes, print_json


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@as_json
def backup(file: Path, as_json: bool) -> None:
    """Copy the grid's metadata (names, not contents) into FILE, while the grid goes on."""
    with open_grid() as grid:
        made = grid.backup(file)
    if as_json:
        print_json(asdict(made))
        return
    click.echo(
        f"{made.path}: {made.files} files of {human_bytes(made.bytes)}"
        f" as of log entry {made.log_index}, {human_bytes(made.size)}"
    )


@click.command("discard-unknown")
@click.option("--dry-run", is_flag=True, help="Only say how much it is.")
def discard_unknown(dry_run: bool) -> None:
    """Let go of what was written before a restore and no file names.

    After a restore or a rebuild the chunk servers keep what this grid's history does not know:
    it may be all that is left of some file. Only an operator may give it up.
    """
    with open_grid() as grid:
        count = grid.discard_unknown(dry_run=dry_run)
    click.echo(f"{count} chunks {'would be' if dry_run else 'are'} let go")


COMMANDS = [backup, discard_unknown]
