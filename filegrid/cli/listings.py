"""`filegrid ls`, `filegrid stat` and `filegrid du`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from filegrid.cli.opened import as_json, grid_paths, open_grid, shown
from filegrid.cli.output import human_bytes, print_json

if TYPE_CHECKING:
    from filegrid.client.blocking import Grid
    from filegrid.client.stat import Stat


@click.command()
@click.argument("path", callback=grid_paths, default="/")
@click.option("-l", "long", is_flag=True, help="With replication, size and time of each.")
@click.option("-R", "recursive", is_flag=True, help="With all folders below.")
@as_json
def ls(path: str, long: bool, recursive: bool, as_json: bool) -> None:
    """List a folder, or a file by itself. PATH is / where it is left out."""
    with open_grid() as grid:
        top = grid.stat(path)
        if as_json:
            print_json([entry_document(entry) for entry in listed(grid, top, recursive)])
        elif not top.is_folder:
            click.echo(line(top, top.path, long))
        elif recursive:
            list_below(grid, top.path, long)
        else:
            for entry in grid.listdir(top.path):
                click.echo(line(entry, entry.name, long))


def listed(grid: Grid, top: Stat, recursive: bool) -> Iterator[Stat]:
    if not top.is_folder:
        return iter([top])
    return grid.walk(top.path) if recursive else grid.listdir(top.path)


def list_below(grid: Grid, top: str, long: bool) -> None:
    """As `ls -R`: each folder under a line with its path."""
    folders = [top]
    while folders:
        folder = folders.pop()
        click.echo(f"{shown(folder)}:" if folder == top else f"\n{shown(folder)}:")
        below = []
        for entry in grid.listdir(folder):
            click.echo(line(entry, entry.name, long))
            if entry.is_folder:
                below.append(entry.path)
        folders += reversed(below)


def line(entry: Stat, name: str, long: bool) -> str:
    if not long:
        return shown(name)
    kind = "d" if entry.is_folder else "-"
    replication = "-" if entry.is_folder else str(entry.replication)
    return f"{kind} {replication:>2} {entry.size:>14} {local_time(entry.mtime)} {shown(name)}"


def local_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def entry_document(entry: Stat) -> dict[str, Any]:
    return {
        "path": entry.path,
        "name": entry.name,
        "kind": entry.kind,
        "size": entry.size,
        "mtime": entry.mtime,
        "replication": entry.replication,
        "digest": entry.digest,
        "version": entry.version,
    }


@click.command()
@click.argument("path", callback=grid_paths)
@as_json
def stat(path: str, as_json: bool) -> None:
    """Show all that is known of a file or folder, with --json where each replica lies."""
    with open_grid() as grid:
        found = grid.stat(path)
        if as_json:
            print_json({**entry_document(found), "chunks": chunks_document(grid, found)})
            return
    click.echo(f"path         {shown(found.path)}")
    click.echo(f"kind         {found.kind}")
    click.echo(f"modified     {local_time(found.mtime)}")
    click.echo(f"version      {found.version}")
    if not found.is_folder:
        click.echo(f"size         {found.size} bytes ({human_bytes(found.size)})")
        click.echo(f"replication  {found.replication}")
        click.echo(f"chunks       {found.chunk_count} of {found.chunk_bytes} bytes at most")
        click.echo(f"digest       {found.digest}")


def chunks_document(grid: Grid, found: Stat) -> list[dict[str, Any]]:
    """The chunks of a file, and of each replica where it lies, as its own server says."""
    from filegrid.client.check import inspect_file

    if found.is_folder:
        return []
    return [
        {
            "id": placed.chunk.id.hex(),
            "length": placed.chunk.length,
            "digest": placed.chunk.digest.hex(),
            "replicas": [replica.document() for replica in replicas],
        }
        for placed, replicas in grid.runner.run(lambda: inspect_file(grid.client, found))
    ]


@click.command()
@click.argument("path", callback=grid_paths, default="/")
@as_json
def du(path: str, as_json: bool) -> None:
    """Count the bytes and files of a folder, with all folders below. PATH is / where left out."""
    from filegrid.client.tree import usage

    with open_grid() as grid:
        total = grid.runner.run(lambda: usage(grid.client, path))
    if as_json:
        print_json(
            {"path": path, "bytes": total.bytes, "files": total.files, "folders": total.folders}
        )
    else:
        click.echo(f"{total.bytes}\t{total.files} files\t{shown(path)}")
