"""`filegrid restore`: a new grid home from a backup and the chunk servers' data."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from filegrid.errors import NoSuchPath, NotPermitted, WrongGrid

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
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@New
@Old
def restore(file: Path, home: Path, old: Path) -> None:
    """Make a new grid's home of a backup in FILE and a lost grid's chunks.

    Start it with 'filegrid up'. It has the names as they were when the backup was made; chunks
    that were written later are kept until 'filegrid discard-unknown'.
    """
    from filegrid.backup import HEADER_BYTES, verify
    from filegrid.cli.heritage import Heritage
    from filegrid.cli.local_make import make_home
    from filegrid.disk import RealDisk
    from filegrid.head.lineage import Birth, begin_lineage, open_image

    home = home.expanduser().resolve()
    with ExitStack() as stack:
        read = reader(stack.enter_context(_opened(file)))
        header = verify(read, str(file))
        heritage = Heritage.find(old)
        if header.grid_id != heritage.grid_id:
            raise WrongGrid(
                f"a backup of grid {header.grid_id}, and {old} is of {heritage.grid_id}", str(file)
            )
        birth = Birth(
            grid_id=header.grid_id,
            name=FIRST_HEAD,
            lineage=max(header.lineage, heritage.highest_lineage) + 1,
            rng=random.SystemRandom(),
        )

        def fill(corner: Path) -> None:
            disk = RealDisk()
            begin_lineage(
                disk,
                str(corner / "nodes" / FIRST_HEAD),
                birth,
                lambda path: open_image(
                    disk, path, lambda length, offset: read(length, HEADER_BYTES + offset)
                ),
            )

        make_home(home, heritage.shape, heritage=heritage, fill=fill)
    click.echo(
        f"{home}: {header.files} files as of log entry {header.index}, lineage {birth.lineage};"
        f" start it with: filegrid up --home {home}"
    )


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
