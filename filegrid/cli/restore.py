"""`filegrid restore`: a new grid home from a backup and the chunk servers' data."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from filegrid.backup import HEADER_BYTES, STORED_AS, verify
from filegrid.cli.kept import Found, newest, scan
from filegrid.cli.listings import local_time
from filegrid.errors import NoSuchPath, NotPermitted, WrongGrid
from filegrid.protocol.wire.backup_pb2 import BackupHeader

New = click.option(
    "--home",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The new grid's folder; it must not exist, or be empty.",
)
Old = click.option(
    "--chunk-data",
    "old",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The lost grid's folder; nothing in it is changed.",
)

FIRST_HEAD = "head-1"
"""Made of the backup; the other heads learn all from it."""


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@New
@Old
def restore(file: Path | None, home: Path, old: Path) -> None:
    """Make a new grid's home of a backup in FILE and a lost grid's chunks.

    Without FILE it is the newest of the backups that the grid kept on its own chunk servers. Start
    the new home with 'filegrid up'. It has the names as they were when the backup was made; chunks
    that were written later are kept until 'filegrid discard-unknown'.
    """
    from filegrid.cli.heritage import Heritage
    from filegrid.cli.local_make import make_home

    home = home.expanduser().resolve()
    with ExitStack() as stack:
        backup = _given(file, stack) if file is not None else None
        heritage = Heritage.find(old)
        if backup is not None and backup[0].grid_id != heritage.grid_id:
            raise WrongGrid(
                f"a backup of grid {backup[0].grid_id}, and {old} is of {heritage.grid_id}",
                str(file),
            )
        made: list[tuple[BackupHeader, int]] = []

        def fill(corner: Path) -> None:
            nodes = corner / "nodes"
            used = backup or _kept(nodes, heritage.grid_id, old)
            made.append((used[0], _begin(nodes / FIRST_HEAD, used, heritage.highest_lineage)))

        make_home(home, heritage.shape, heritage=heritage, fill=fill)
    header, lineage = made[0]
    click.echo(
        f"{home}: {header.files} files as of log entry {header.index},"
        f" {local_time(header.made_ms / 1000)}, lineage {lineage};"
        f" start it with: filegrid up --home {home}"
    )


def _given(file: Path, stack: ExitStack) -> Found:
    read = reader(stack.enter_context(_opened(file)))
    return verify(read, str(file)), read


def _kept(nodes: Path, grid_id: str, old: Path) -> Found:
    """The newest that the chunk servers have.

    :raises NoSuchPath: where they have none.
    """
    from filegrid.head.salvage import Salvage

    salvage = Salvage()
    stores = [scan(path, grid_id, salvage) for path in sorted(nodes.glob("chunk-*"))]
    found = newest(salvage.take(STORED_AS), stores)
    if found is None:
        raise NoSuchPath(
            "holds no backup that the grid kept in itself",
            str(old),
            advice="make the names of what the chunks tell: filegrid rebuild",
        )
    return found


def _begin(folder: Path, backup: Found, highest_lineage: int) -> int:
    """Make a head's data of a backup; returns its lineage."""
    from filegrid.disk import RealDisk
    from filegrid.head.lineage import Birth, begin_lineage, open_image

    header, read = backup
    disk = RealDisk()
    birth = Birth(
        grid_id=header.grid_id,
        name=FIRST_HEAD,
        lineage=max(header.lineage, highest_lineage) + 1,
        rng=random.SystemRandom(),
    )
    begin_lineage(
        disk,
        str(folder),
        birth,
        lambda path: open_image(
            disk, path, lambda length, offset: read(length, HEADER_BYTES + offset)
        ),
    )
    return birth.lineage


def reader(file: BinaryIO) -> Callable[[int, int], bytes]:
    """Reads so many bytes from an offset on."""

    def read(length: int, offset: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return read


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NoSuchPath("there is no such backup", str(path)) from None
    except OSError as error:
        raise NotPermitted(f"cannot be read: {error.strerror}", str(path)) from None


COMMANDS = [restore]
