"""The operator's verbs: what only an operator's certificate opens."""

from __future__ import annotations

import time
from typing import Any

import click

from filegrid.cli.condition import work_line
from filegrid.cli.forecast import targets_of
from filegrid.cli.opened import as_json, open_grid
from filegrid.cli.output import human_bytes, note, print_json

LOOK_SECONDS = 1.0
"""Between two looks at how far something is that is waited for."""

_Targets = click.argument(
    "targets", metavar="NODE|rack:RACK...", nargs=-1, required=True, callback=targets_of
)


@click.command()
@click.argument("head")
def handover(head: str) -> None:
    """Let HEAD lead from now on; changes wait for a moment and none is lost."""
    with open_grid() as grid:
        grid.hand_over(head)


@click.command()
@_Targets
@click.option("--dry-run", is_flag=True, help="Change nothing; say what is there and in the way.")
@click.option("--wait", is_flag=True, help="Return once all are safe to switch off.")
@as_json
def drain(targets: list[str], dry_run: bool, wait: bool, as_json: bool) -> None:
    """Have chunk servers emptied, so that they can be switched off without any loss.

    It begins at once and goes on by itself, whatever head leads, until 'filegrid undrain'. A server
    gets no new chunks then, and what it holds is made elsewhere; it is "drained" once nothing needs
    it any more. A dead one that never comes back is written off so. A rack (rack:dc1/r2) means the
    servers that are in it now.
    """
    with open_grid() as grid:
        found = grid.drain(*targets, dry_run=dry_run)
        shown = None
        while wait and not dry_run and any(one["state"] != "drained" for one in found):
            if found != shown and not as_json:
                show_drains(found)
            shown = found
            time.sleep(LOOK_SECONDS)
            found = grid.drain(*targets, dry_run=True)
    if as_json:
        print_json({"servers": found})
    else:
        show_drains(found)


@click.command()
@_Targets
def undrain(targets: list[str]) -> None:
    """Let chunk servers that were to be drained stay, and take new chunks."""
    with open_grid() as grid:
        grid.drain(*targets, undo=True)


@click.command()
@click.option("--now", is_flag=True, help="Wait for nobody who is away.")
@as_json
def repair(now: bool, as_json: bool) -> None:
    """Say what is being repaired, and what repair waits for.

    It needs nobody to start it. Where many servers vanish together it waits for them for
    repair.restraint_seconds, and for a server that was stopped in good order for
    chunk.maintenance_seconds; with --now, which only an operator may say, it does not.
    """
    with open_grid() as grid:
        if now:
            grid.repair_now()
        work = [one for one in grid.status()["work"] if one["kind"] == "repair"]
    if as_json:
        print_json({"work": work})
    elif not now or work:
        click.echo("\n".join(map(work_line, work)) or "nothing has to be repaired")


@click.command()
@click.option("--wait", is_flag=True, help="Return once the servers are evenly full.")
def balance(wait: bool) -> None:
    """Make the chunk servers evenly full now, and at the speed of repair.

    It stops by itself once all are within balance.band_percent of the mean. The grid does the same
    by itself, more slowly.
    """
    with open_grid() as grid:
        grid.balance()
        while wait:
            time.sleep(LOOK_SECONDS)
            work = [one for one in grid.status()["work"] if one["kind"] == "balance"]
            if not work:
                break
            for one in work:
                note(work_line(one))


def show_drains(servers: list[dict[str, Any]]) -> None:
    for server in servers:
        if server["state"] == "drained":
            click.echo(f"{server['server']} is drained: safe to switch off")
            continue
        size = human_bytes(server["bytes_left"])
        click.echo(
            f"{server['server']} is {server['state']}: {server['chunks_left']} chunks ({size})"
            " are to be made elsewhere"
        )
        for blocker in server["blockers"]:
            note(f"{server['server']}: {blocker}")


COMMANDS = [handover, drain, undrain, balance, repair]
