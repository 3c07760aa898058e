"""`filegrid rebuild`: a new grid home from the chunk servers' data alone."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from filegrid.backup import HEADER_BYTES, STORED_AS
from filegrid.cli.kept import newest, scan
from filegrid.cli.opened import as_json, shown
from filegrid.cli.output import print_json
from filegrid.cli.restore import FIRST_HEAD, New, Old
from filegrid.protocol.wire.backup_pb2 import BackupHeader

if TYPE_CHECKING:
    from filegrid.head.rebuilding import Rebuilt

MOST_SHOWN = 20
"""Lines about /lost+found; `--json` has all."""


@click.command()
@New
@Old
@click.option("--without-backup", is_flag=True, help="Use the chunks alone.")
@as_json
def rebuild(home: Path, old: Path, without_backup: bool, as_json: bool) -> None:
    """Make a new grid's home of a lost grid's chunks, when all heads and backups are lost.

    Chunks say which file they are of. The names are taken from the newest backup that the grid kept
    in itself, where one is found; whole files that are newer get the path that they were written
    as, what is not whole goes to /lost+found. This is the best that can be done, not what was.
    """
    from filegrid.cli.heritage import Heritage
    from filegrid.cli.local_make import make_home

    heritage = Heritage.find(old)
    replication = heritage.shape.settings.get("grid.replication", "3")
    made: list[_Made] = []
    make_home(
        home.expanduser().resolve(),
        heritage.shape,
        heritage=heritage,
        fill=lambda corner: made.append(
            _rebuild(
                corner / "nodes",
                heritage.grid_id,
                heritage.highest_lineage,
                replication=int(replication),
                with_backup=not without_backup,
            )
        ),
    )
    _tell(home, made[0], as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    rebuilt: Rebuilt
    backup: BackupHeader | None
    lineage: int
    chunks: int
    damaged: int


def _tell(home: Path, made: _Made, *, as_json: bool) -> None:
    header = made.backup
    if as_json:
        backup = header and {
            "made": header.made_ms / 1000,
            "files": header.files,
            "log_index": header.index,
            "lineage": header.lineage,
        }
        counts = {"chunks": made.chunks, "damaged_chunks": made.damaged, "lineage": made.lineage}
        print_json({"best_effort": True, **asdict(made.rebuilt), **counts, "backup": backup})
        return
    click.echo(f"{made.chunks} chunks were found, {made.damaged} of them damaged.")
    if header is None:
        click.echo("No backup was found among them.")
    else:
        click.echo(f"The newest backup among them has {header.files} files.")
        click.echo(f"Of {made.rebuilt.lacking} of these, chunks are not there.")
    click.echo(f"{made.rebuilt.found} files were made of chunks that no backup knows.")
    click.echo(f"{len(made.rebuilt.lost)} versions of files went to /lost+found.")
    for path in made.rebuilt.lost[:MOST_SHOWN]:
        click.echo(f"  {shown(path)}")
    if len(made.rebuilt.lost) > MOST_SHOWN:
        click.echo("  ...")
    click.echo(f"This is the best effort, in lineage {made.lineage}: look through it.")
    click.echo(f"Start it with: filegrid up --home {home}")


def _rebuild(
    nodes: Path, grid_id: str, lineage: int, *, replication: int, with_backup: bool
) -> _Made:
    """Scan what the new home has inherited, and make its first head's data of it."""
    from filegrid.disk import RealDisk
    from filegrid.head.lineage import Birth, begin_lineage, open_image
    from filegrid.head.rebuilding import begin_anew, rebuild
    from filegrid.head.salvage import Salvage
    from filegrid.head.schema import open_schema

    disk, salvage = RealDisk(), Salvage()
    stores = [scan(path, grid_id, salvage) for path in sorted(nodes.glob("chunk-*"))]
    stored = salvage.take(STORED_AS)
    backup = newest(stored, stores) if with_backup else None
    rebuilt: list[Rebuilt] = []

    def fill(path: str) -> sqlite3.Connection:
        if backup is not None:
            _, read = backup
            database = open_image(disk, path, lambda size, at: read(size, HEADER_BYTES + at))
        else:
            database = disk.database(path)
            open_schema(database)
            begin_anew(database, grid_id)
        rebuilt.append(rebuild(database, salvage, replication=replication))
        return database

    header = backup[0] if backup is not None else None
    highest = max(lineage, salvage.highest_lineage, header.lineage if header else 0)
    birth = Birth(grid_id=grid_id, name=FIRST_HEAD, lineage=highest + 1, rng=random.SystemRandom())
    begin_lineage(disk, str(nodes / FIRST_HEAD), birth, fill)
    return _Made(
        rebuilt=rebuilt[0],
        backup=header,
        lineage=birth.lineage,
        chunks=len(salvage.chunk_ids),
        damaged=sum(len(store.damaged) for store in stores),
    )


COMMANDS = [rebuild]
