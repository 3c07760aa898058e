"""`filegrid whatif` and `filegrid explain`: what the grid would survive, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from filegrid.cli.listings import local_time
from filegrid.cli.opened import as_json, grid_paths, open_grid, shown
from filegrid.cli.output import human_bytes, note, print_json

MOST_SHOWN = 20
"""Paths of a kind on a terminal; --json has all."""


def _names(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> list[str]:
    return [name.strip() for text in value for name in text.split(",") if name.strip()]


@click.command()
@click.option(
    "--down",
    metavar="NODE|rack:RACK[,...]",
    multiple=True,
    required=True,
    callback=_names,
    help="Chunk servers and racks; with commas between them, or given again.",
)
@as_json
def whatif(down: list[str], as_json: bool) -> None:
    """Say what would happen if chunk servers or racks were down; nothing is changed.

    Which files could not be read, which would hang on one replica, which could not be written, and
    how long it would take to make everything whole again.
    """
    with open_grid() as grid:
        found = grid.what_if(*down)
    if as_json:
        print_json(found)
        return
    click.echo(
        f"Without {', '.join(found['down'])}: of {found['chunks']} chunks"
        f" {found['unreadable_chunks']} could not be read, {found['one_replica_chunks']} would be"
        f" on one replica, {found['under_replicated_chunks']} would have too few."
    )
    for key, text in (
        ("unreadable", "could not be read"),
        ("one_replica", "would be on one replica"),
        ("unwritable", "could not be written"),
    ):
        for path in found[key][:MOST_SHOWN]:
            click.echo(f"  {shown(path) if path else '(in the trash)'} {text}")
        if len(found[key]) > MOST_SHOWN:
            click.echo(f"  and {len(found[key]) - MOST_SHOWN} more {text}")
    if not found["writable"]:
        click.echo(f"{found['servers_left']} servers would be left: no new files could be written.")
    click.echo(repair_line(found["repair"]))
    if found["incomplete"]:
        note("warning: some chunk servers have not told yet what they hold")


def repair_line(repair: dict[str, Any]) -> str:
    if not repair["bytes"]:
        return "Nothing would have to be copied."
    size = human_bytes(repair["bytes"])
    if not repair["fits"]:
        return f"{size} would have to be copied, and the servers that are left lack the room."
    took = "a time that nobody knows, as repair.mib_per_second is without limit"
    if repair["seconds"] is not None:
        took = f"some {timedelta(seconds=round(repair['seconds']))}"
    whole = "" if repair["full_redundancy"] else "; not everything can become whole again"
    return f"{size} would be copied, which takes {took}{whole}."


@click.command()
@click.argument("path", callback=grid_paths)
@as_json
def explain(path: str, as_json: bool) -> None:
    """Say where each chunk of a file lies, why there, and what it survives."""
    from filegrid.client.explain import explain as explained

    with open_grid() as grid:
        found = grid.runner.run(lambda: explained(grid.client, path))
    if as_json:
        print_json(found)
        return
    click.echo(f"{shown(found['path'])}: {found['replication']} replicas wanted")
    for chunk in found["chunks"]:
        survives = chunk["survives"]
        click.echo(
            f"chunk {chunk['index']} ({human_bytes(chunk['length'])}) survives the loss of any"
            f" {survives['servers']} servers, any {survives['racks']} racks"
        )
        for replica in chunk["replicas"]:
            when = replica.get("verified")
            verified = f"read back {local_time(when)}" if when else "not read back since it came"
            click.echo(
                f"  {replica['server']} ({replica['rack']}, {replica['server_state']}):"
                f" {replica['state']}, {verified}"
            )
        for reason in chunk["why"]:
            click.echo(f"  {reason}")


COMMANDS = [whatif, explain]
