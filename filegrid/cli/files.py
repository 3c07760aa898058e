"""`filegrid mkdir, mv, rm, cat, digest`, and the list of all commands for files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from filegrid.cli.condition import events, fsck, status
from filegrid.cli.listings import du, ls, stat
from filegrid.cli.opened import as_json, each, grid_paths, into_folder, open_grid
from filegrid.cli.output import Invocation, print_json
from filegrid.cli.transfers import get, put
from filegrid.errors import NoSuchPath
from filegrid.model import split_path


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, callback=grid_paths)
@click.option("-p", "parents", is_flag=True, help="Make missing parents; no error if it exists.")
def mkdir(paths: tuple[str, ...], parents: bool) -> None:
    """Make folders."""
    with open_grid() as grid:
        each(paths, lambda path: grid.mkdir(path, parents=parents))


@click.command()
@click.argument("source", callback=grid_paths)
@click.argument("target", callback=grid_paths)
@click.option("--force", is_flag=True, help="Replace a file that has the name TARGET.")
def mv(source: str, target: str, force: bool) -> None:
    """Give SOURCE the path TARGET, or move it into TARGET where that is a folder.

    It is one step, however much a folder holds.
    """
    with open_grid() as grid:
        names = split_path(source)
        if names:
            target = into_folder(grid, target, names[-1])
        grid.rename(source, target, overwrite=force)


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, callback=grid_paths)
@click.option("-r", "recursive", is_flag=True, help="Remove folders with all that is in them.")
@click.option("--now", is_flag=True, help="For good, without keeping it in the trash.")
def rm(paths: tuple[str, ...], recursive: bool, now: bool) -> None:
    """Remove files and folders; they stay in the trash for a while."""
    with open_grid() as grid:
        each(paths, lambda path: grid.remove(path, recursive=recursive, now=now))


@click.command()
@click.argument("path", callback=grid_paths)
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Begin at this byte.")
@click.option("--length", type=click.IntRange(min=0), help="Print this many bytes at most.")
def cat(path: str, offset: int, length: int | None) -> None:
    """Print the bytes of a file; each was verified before it is printed."""
    with open_grid() as grid:
        for piece in grid.stream(path, offset, length):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@click.command()
@click.argument("local", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--chunk-bytes",
    type=click.IntRange(min=1),
    help="Length of the grid's chunks.  [default: as the configuration says, or 64 MiB]",
)
@as_json
@click.pass_obj
def digest(invocation: Invocation, local: Path, chunk_bytes: int | None, as_json: bool) -> None:
    """Print the digest that `stat` would show for this local file, or for - standard input.

    No grid is asked.
    """
    from filegrid.client.local import local_errors
    from filegrid.hashing import file_digest

    chunk_bytes = chunk_bytes or configured_chunk_bytes(invocation)
    with local_errors(local):
        if str(local) == "-":
            size, found = file_digest(sys.stdin.buffer, chunk_bytes)
        else:
            with open(local, "rb") as file:
                size, found = file_digest(file, chunk_bytes)
    if as_json:
        print_json(
            {"path": str(local), "size": size, "digest": found.hex(), "chunk_bytes": chunk_bytes}
        )
    else:
        click.echo(found.hex())


def configured_chunk_bytes(invocation: Invocation) -> int:
    """The grid's, where a configuration is found."""
    from filegrid.config import load_client
    from filegrid.model import DEFAULT_CHUNK_BYTES

    try:
        file = invocation.config_file()
    except NoSuchPath:
        if invocation.grid:
            raise
        return DEFAULT_CHUNK_BYTES
    return load_client(file).grid.chunk_bytes


COMMANDS = [put, get, ls, stat, cat, mkdir, mv, rm, du, digest, status, events, fsck]
