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


COMMANDS = [backup]
