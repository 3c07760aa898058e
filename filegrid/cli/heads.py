"""`filegrid heads`: which heads the grid has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from filegrid.cli.opened import open_grid
from filegrid.cli.output import note
from filegrid.errors import DeadlineExceeded

LOOK_SECONDS = 0.5

Wait = click.option(
    "--wait",
    "wait_seconds",
    default=60.0,
    metavar="SECONDS",
    help="How long to wait until it is so; it goes on by itself afterwards.  [default: 60]",
)


@click.group()
def heads() -> None:
    """Add and remove heads while the grid goes on, one at a time. 'filegrid status' lists them."""


@heads.command()
@click.argument("name")
@click.argument("address", metavar="HOST:PORT")
@Wait
def add(name: str, address: str, wait_seconds: float) -> None:
    """Let the head NAME, which listens at HOST:PORT, have a vote.

    Start it first, with an empty data folder and the other heads in its node.heads. It counts once
    it has caught up. A grid of an even number of heads outlives no more than one of one head less.
    """
    with open_grid() as grid:
        grid.add_head(name, address)
        _until(lambda: _role(grid.status(), name) in ("leader", "standby"), name, wait_seconds)
    click.echo(f"{name} has a vote")


@heads.command()
@click.argument("name")
@Wait
def remove(name: str, wait_seconds: float) -> None:
    """Let the head NAME have no vote any more, then stop it.

    Where it leads, another head does first. One that is dead for good can be removed as well.
    """
    with open_grid() as grid:
        grid.remove_head(name)
        _until(lambda: _role(grid.status(), name) is None, name, wait_seconds)
    click.echo(f"{name} has no vote any more: stop it, and take it out of node.heads")


def _role(status: dict[str, Any], name: str) -> str | None:
    return next((one["role"] for one in status["heads"] if one["name"] == name), None)


def _until(is_so: Callable[[], bool], name: str, wait_seconds: float) -> None:
    """:raises DeadlineExceeded: where it is not so in time."""
    deadline_at = time.monotonic() + wait_seconds
    while not is_so():
        if time.monotonic() > deadline_at:
            note("it is noted, and goes on by itself: see the warnings of 'filegrid status'")
            raise DeadlineExceeded(f"not done within {wait_seconds:g} s", name)
        time.sleep(LOOK_SECONDS)


COMMANDS = [heads]
