"""`filegrid policy` and `filegrid quota`: what holds for a folder and all below it."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import click

from filegrid.cli.condition import table
from filegrid.cli.opened import as_json, grid_paths, note_too_few_servers, open_grid, shown
from filegrid.cli.output import human_bytes, print_json
from filegrid.model import MOST_REPLICATION

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}

_POLICY = ("replication", "spread", "trash_seconds")
_QUOTA = ("quota_bytes", "quota_files")


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Bytes, written 1000000, 500M or 1.5T (of 1024)."""
    if value is None:
        return None
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(f"'{value}' is no size; write 1000000, 500M or 1.5T", ctx, param)
    number, unit = found.groups()
    return int(float(number) * 1024 ** _POWERS[unit.lower()])


_Folder = click.argument("path", callback=grid_paths)


@click.group()
def policy() -> None:
    """Replication, spread and time in the trash of folders; folders below inherit them."""


@policy.command("set")
@_Folder
@click.option(
    "--replication", type=click.IntRange(1, MOST_REPLICATION), help="Replicas of each chunk."
)
@click.option(
    "--spread",
    type=click.Choice(["rack", "host"]),
    help="New replicas go to other racks first, or to other servers only.",
)
@click.option(
    "--trash-seconds",
    type=click.IntRange(min=0),
    help="How long what is removed can be restored; 0: not at all.",
)
def set_policy(
    path: str, replication: int | None, spread: str | None, trash_seconds: int | None
) -> None:
    """Say what holds for PATH and all below it. Only an operator may.

    Files that exist follow a changed replication by and by, except those that were uploaded with a
    --replication of their own.
    """
    from filegrid.protocol.wire import values_pb2

    said = {"replication": replication, "trash_seconds": trash_seconds}
    values: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if spread is not None:
        values["spread"] = values_pb2.SPREAD_HOST if spread == "host" else values_pb2.SPREAD_RACK
    if not values:
        raise click.UsageError("name a --replication, a --spread or --trash-seconds")
    with open_grid() as grid:
        grid.set_policy(path, **values)
        note_too_few_servers(grid, replication)


@policy.command("unset")
@_Folder
@click.option("--replication", is_flag=True, help="What folders above say holds again.")
@click.option("--spread", is_flag=True, help="What folders above say holds again.")
@click.option("--trash-seconds", is_flag=True, help="What folders above say holds again.")
def unset_policy(path: str, **chosen: bool) -> None:
    """Let PATH say nothing any more: of what is named, or of all. Only an operator may."""
    with open_grid() as grid:
        grid.set_policy(path, unset=[name for name in _POLICY if chosen[name]] or _POLICY)


@policy.command("ls")
@as_json
def list_policies(as_json: bool) -> None:
    """List the folders that have policies."""
    with open_grid() as grid:
        found = [one for one in grid.policies() if _says(asdict(one), _POLICY)]
    if as_json:
        print_json([_chosen(asdict(one), ("path", *_POLICY)) for one in found])
        return
    rows = [
        (_or_dash(one.replication), one.spread or "-", _or_dash(one.trash_seconds), shown(one.path))
        for one in found
    ]
    table(("replication", "spread", "trash seconds", "path"), rows)


@click.group()
def quota() -> None:
    """How much may lie in folders, with all below them."""


@quota.command("set")
@_Folder
@click.option(
    "--bytes", "most_bytes", callback=size, metavar="SIZE", help="As 1000000, 500M or 1.5T."
)
@click.option("--files", type=click.IntRange(min=0), help="How many files.")
def set_quota(path: str, most_bytes: int | None, files: int | None) -> None:
    """Let no more lie in PATH than this. Only an operator may.

    What would pass it is refused with the exit code 8. What is there already stays, also where it
    is more; what is in the trash does not count.
    """
    said = {"quota_bytes": most_bytes, "quota_files": files}
    values: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if not values:
        raise click.UsageError("name --bytes, --files or both")
    with open_grid() as grid:
        grid.set_policy(path, **values)


@quota.command("unset")
@_Folder
def unset_quota(path: str) -> None:
    """Take the quotas of PATH away. Only an operator may."""
    with open_grid() as grid:
        grid.set_policy(path, unset=_QUOTA)


@quota.command("ls")
@as_json
def list_quotas(as_json: bool) -> None:
    """List the folders that have quotas, and how much lies there."""
    with open_grid() as grid:
        found = [one for one in grid.policies() if _says(asdict(one), _QUOTA)]
    if as_json:
        columns = ("path", "used_bytes", "quota_bytes", "used_files", "quota_files")
        print_json([_chosen(asdict(one), columns) for one in found])
        return
    rows = [
        (
            human_bytes(one.used_bytes),
            human_bytes(one.quota_bytes) if one.quota_bytes is not None else "-",
            str(one.used_files),
            _or_dash(one.quota_files),
            shown(one.path),
        )
        for one in found
    ]
    table(("used", "of", "files", "of", "path"), rows)


def _says(document: dict[str, Any], names: tuple[str, ...]) -> bool:
    return any(document[name] is not None for name in names)


def _chosen(document: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: document[name] for name in names}


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


COMMANDS = [policy, quota]
