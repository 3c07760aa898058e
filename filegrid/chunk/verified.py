"""When each replica of this server was last read back and found good.

An SQLite database in the data folder, so that a scrub goes on where it was after a restart. It is
derived: where it is lost, everything is due again, and nothing worse happens. Times are wall time
in milliseconds, for people to read. A turn is later than all others there are, whatever the clock
says, so that one that leaps back does not give the same replica every turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from filegrid.model import ChunkId
from filegrid.runtime import Disk

_VERSION = 1

_SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS replicas (
    chunk_id BLOB PRIMARY KEY,
    turn_ms INTEGER NOT NULL,      -- last verified, tried, or when it came: the oldest is next
    verified_ms INTEGER NOT NULL   -- 0: not since it came
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_turn ON replicas (turn_ms);
CREATE INDEX IF NOT EXISTS by_verification ON replicas (verified_ms);
PRAGMA user_version = {_VERSION};
"""

_NEXT = "SELECT chunk_id, turn_ms FROM replicas ORDER BY turn_ms, chunk_id LIMIT 1"
_LAST = "SELECT verified_ms FROM replicas WHERE chunk_id = ?"
_TRIED = """UPDATE replicas SET turn_ms = max(?1, (SELECT max(turn_ms) + 1 FROM replicas))
    WHERE chunk_id = ?2"""
_VERIFIED = "UPDATE replicas SET verified_ms = ? WHERE chunk_id = ?"
_ARRIVED = "INSERT OR REPLACE INTO replicas VALUES (?, ?, 0)"
_GONE = "DELETE FROM replicas WHERE chunk_id = ?"
_NEVER = "SELECT count(*) FROM replicas WHERE verified_ms = 0"
_OLDEST = "SELECT min(verified_ms) FROM replicas WHERE verified_ms > 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Whose turn it is.

    :ivar since_ms: when it was verified last, or when it came.
    """

    chunk_id: ChunkId
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """How far all replicas together were verified.

    :ivar never: how many were not read back since they came.
    :ivar oldest_ms: the others were all read back since then; 0 where there are no others.
    """

    never: int = 0
    oldest_ms: int = 0


class Verifications:
    """The times, by one thread at a time.

    :raises sqlite3.Error: from every method, where the disk or the database fails.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(_SCHEMA)
        (self._never,) = database.execute(_NEVER).fetchone()

    def begin(self, chunk_ids: Iterable[ChunkId], now_ms: int) -> None:
        """Know exactly these; those that are new here have not been verified."""
        with self._transaction():
            self._database.execute("CREATE TEMP TABLE here (chunk_id BLOB PRIMARY KEY)")
            rows = ((chunk_id,) for chunk_id in chunk_ids)
            self._database.executemany("INSERT INTO here VALUES (?)", rows)
            self._database.execute("DELETE FROM replicas WHERE chunk_id NOT IN here")
            self._database.execute(
                "INSERT OR IGNORE INTO replicas SELECT chunk_id, ?, 0 FROM here", (now_ms,)
            )
            self._database.execute("DROP TABLE here")
        (self._never,) = self._database.execute(_NEVER).fetchone()

    def change(self, arrived: Iterable[bytes], gone: Iterable[bytes], now_ms: int) -> None:
        """These replicas came and went, each in one of the two only."""
        with self._transaction():
            for chunk_id in gone:
                self._never -= self.last(chunk_id) == 0
                self._database.execute(_GONE, (chunk_id,))
            for chunk_id in arrived:
                self._never += self.last(chunk_id) != 0
                self._database.execute(_ARRIVED, (chunk_id, now_ms))

    def verified(self, chunk_ids: Iterable[bytes], now_ms: int) -> None:
        """They were read back and are good."""
        with self._transaction():
            for chunk_id in chunk_ids:
                self._never -= self.last(chunk_id) == 0
                self._database.execute(_VERIFIED, (now_ms, chunk_id))
                self._database.execute(_TRIED, (now_ms, chunk_id))

    def tried(self, chunk_id: bytes, now_ms: int) -> None:
        """It could not be read for a reason that is not its own: let others have their turn."""
        self._database.execute(_TRIED, (now_ms, chunk_id))

    def next(self) -> Turn | None:
        """The replica that has waited longest."""
        row = self._database.execute(_NEXT).fetchone()
        return None if row is None else Turn(chunk_id=ChunkId(row[0]), since_ms=row[1])

    def last(self, chunk_id: bytes) -> int | None:
        """When it was verified; 0: never since it came; None where it is not known."""
        row = self._database.execute(_LAST, (chunk_id,)).fetchone()
        return None if row is None else int(row[0])

    def summary(self) -> Verified:
        (oldest_ms,) = self._database.execute(_OLDEST).fetchone()
        return Verified(never=self._never, oldest_ms=oldest_ms or 0)

    def close(self) -> None:
        self._database.close()

    def _transaction(self) -> sqlite3.Connection:
        """To be used as a context: committed at its end, rolled back on an error."""
        self._database.execute("BEGIN IMMEDIATE")
        return self._database


def open_verifications(disk: Disk, path: str) -> Verifications:
    """The database at `path`; one that cannot be read is given up and begun anew. Blocks.

    :raises sqlite3.Error: where the disk cannot be written.
    """
    database = disk.database(path)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version in (0, _VERSION):
            return Verifications(database)
    except sqlite3.OperationalError:
        raise  # of the disk, not of the contents
    except sqlite3.DatabaseError:
        pass
    database.close()
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError):
            disk.remove(name)
    return Verifications(disk.database(path))
