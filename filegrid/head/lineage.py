"""The data of a grid's first head, made of a state that an earlier lineage left (S12).

The new history goes on where the state ends, under a higher lineage: chunk servers obey it, and
never again a head of the one before. Uploads that were under way are over.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from filegrid.datafolder import DataFolder
from filegrid.disk import grid_errors
from filegrid.errors import AlreadyExists, InvalidRequest, WrongGrid
from filegrid.head.contents import Contents
from filegrid.head.journal import Journal
from filegrid.head.schema import RegisterFile, Registers, open_schema
from filegrid.head.sessions import MOST_LINEAGE, Sessions
from filegrid.model import Identity, Role, SessionId
from filegrid.runtime import Disk

STATE = "namespace.sqlite"
"""The state's file in a head's data folder."""

LOG = "log"

_PIECE_BYTES = 1024 * 1024
_FOUNDING_BYTES = 16
_ALL_SESSIONS = "SELECT id FROM sessions"
_DROP_HEADS = "DELETE FROM heads"
_DROP_VOTERS = "DELETE FROM voters"
_ADD_VOTER = "INSERT INTO voters VALUES (?, ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """Whose data is made, and of which grid."""

    grid_id: str
    name: str
    lineage: int
    rng: random.Random


def open_image(disk: Disk, path: str, read: Callable[[int, int], bytes]) -> sqlite3.Connection:
    """The database that a backup holds, as the file `path`. Blocks.

    :param read: up to so many bytes of it, from an offset on; fewer only at its end.
    :raises UnsupportedVersion: where another release made it.
    """
    with grid_errors(path):
        offset = 0
        with closing(disk.create(path)) as file:
            while data := read(_PIECE_BYTES, offset):
                file.pwrite([data], offset)
                offset += len(data)
            file.datasync()
        disk.sync_folder(path.rpartition("/")[0])
        database = disk.database(path)
    open_schema(database)
    return database


def begin_lineage(
    disk: Disk,
    path: str,
    birth: Birth,
    fill: Callable[[str], sqlite3.Connection],
) -> Registers:
    """Make the data folder `path` of a head that is the first of a new lineage. Blocks.

    If we crash in here the folder is of no use: its caller gives it its name once it is whole.

    :param fill: makes the state to begin with, at this path.
    :returns: the new state's registers.
    :raises AlreadyExists: where the folder holds a state already.
    :raises WrongGrid: where the state is another grid's.
    :raises InvalidRequest: where the lineage is not higher than the state's.
    """
    head = Identity(grid_id=birth.grid_id, role=Role.HEAD, name=birth.name)
    folder = DataFolder.open(disk, path, identity=head, create=True, rng=birth.rng)
    try:
        state = folder.within(STATE)
        with grid_errors(state):
            if disk.exists(state):
                raise AlreadyExists("this head has data already", path)
        with closing(fill(state)) as database:
            registers = _rename(database, birth, folder.incarnation)
        with closing(Journal.open(disk, folder.within(LOG))) as log:
            log.begin_at(registers.applied_index + 1)
    finally:
        folder.close()
    return registers


def _rename(database: sqlite3.Connection, birth: Birth, incarnation: bytes) -> Registers:
    file = RegisterFile(database)
    now = file.now
    if now.grid_id != birth.grid_id:
        raise WrongGrid(f"the state is of grid {now.grid_id}, not of {birth.grid_id}")
    if not now.lineage < birth.lineage <= MOST_LINEAGE:
        raise InvalidRequest(
            f"lineage {birth.lineage} is not above {now.lineage}, which the state has"
        )
    database.execute("BEGIN IMMEDIATE")
    contents, sessions = Contents(database, file), Sessions(database, file)
    for (session,) in database.execute(_ALL_SESSIONS).fetchall():
        contents.end_uploads(session)
        sessions.end(SessionId(session))
    database.execute(_DROP_HEADS)  # those of the old lineage: they are lost
    database.execute(_DROP_VOTERS)
    database.execute(_ADD_VOTER, (birth.name, incarnation))
    now.lineage, now.forgotten_lineage = birth.lineage, 0
    now.founding = birth.rng.randbytes(_FOUNDING_BYTES).hex()
    file.save()
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return now
