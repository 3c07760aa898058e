"""`filegrid rebuild`: a new grid home from the chunk servers' data alone."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from filegrid.backup import HEADER_BYTES, STORED_AS, verify
from filegrid.cli.opened import as_json, shown
from filegrid.cli.output import note, print_json
from filegrid.cli.restore import FIRST_HEAD, New, Old
from filegrid.errors import GridError, NoSuchChunk
from filegrid.model import Chunk
from filegrid.protocol.wire.backup_pb2 import BackupHeader

if TYPE_CHECKING:
    from filegrid.chunk.store import Store
    from filegrid.head.rebuilding import Rebuilt
    from filegrid.head.salvage import Salvage, Version

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
    stores = [_scan(path, grid_id, salvage) for path in sorted(nodes.glob("chunk-*"))]
    stored = salvage.take(STORED_AS)
    backup = _newest(stored, stores) if with_backup else None
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


def _scan(folder: Path, grid_id: str, salvage: Salvage) -> Store:
    from filegrid.chunk.store import Store
    from filegrid.disk import RealDisk

    store = Store(RealDisk(), str(folder), grid_id=grid_id)
    for chunk in store.load():
        try:
            salvage.add(store.header(chunk.id))
        except GridError as error:
            note(f"left out: {error}")
    return store


def _newest(
    versions: Iterable[Version], stores: list[Store]
) -> tuple[BackupHeader, Callable[[int, int], bytes]] | None:
    """The newest whole backup of those that the grid kept in itself."""
    best: tuple[BackupHeader, Callable[[int, int], bytes]] | None = None
    for version in versions:
        if not version.whole:
            continue
        try:
            read = _reading(version, stores)
            header = verify(read, f"backup {version.content_id.hex()}")
        except GridError as error:
            note(f"left out: {error}")
            continue
        if best is None or (header.lineage, header.index) > (best[0].lineage, best[0].index):
            best = header, read
    return best


def _reading(version: Version, stores: list[Store]) -> Callable[[int, int], bytes]:
    """Reads a whole version, from replicas that were checked.

    :raises GridError: where a chunk has no good replica.
    """
    good = [(chunk, _good_replica(chunk, stores)) for chunk in version.runs[0]]

    def read(length: int, offset: int) -> bytes:
        place, start = divmod(offset, version.chunk_bytes)
        if place >= len(good):
            return b""
        chunk, store = good[place]
        return store.read(chunk, start, min(length, version.chunk_bytes - start))

    return read


def _good_replica(chunk: Chunk, stores: list[Store]) -> Store:
    trouble: GridError = NoSuchChunk("it is on no chunk server", chunk.id.hex())
    for store in stores:
        try:
            store.verify(chunk)
            return store
        except NoSuchChunk:
            continue
        except GridError as error:
            trouble = error
    raise trouble


COMMANDS = [rebuild]
