"""The operator's verbs: what only an operator's certificate opens."""

from __future__ import annotations

import click

from filegrid.cli.opened import open_grid


@click.command()
@click.argument("head")
def handover(head: str) -> None:
    """Let HEAD lead from now on; changes wait for a moment and none is lost."""
    with open_grid() as grid:
        grid.hand_over(head)


COMMANDS = [handover]
