"""Which chunk server holds which replicas: what the servers reported, in a database in memory.

Soft state: it is made anew at every start from the servers' inventories. It is written in the
reactor's thread, where nothing may wait for a disk: under heavy writeback even an unsynced write
takes long enough to cost a leader its lease (S5). Some 150 bytes a replica.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from filegrid.model import Chunk, ChunkId, Digest

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
DROP TABLE IF EXISTS replicas;
DROP TABLE IF EXISTS servers;
CREATE TABLE servers (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE replicas (
    chunk_id BLOB NOT NULL,
    server INTEGER NOT NULL,
    length INTEGER NOT NULL,
    digest BLOB NOT NULL,
    report INTEGER NOT NULL,
    PRIMARY KEY (chunk_id, server)
) WITHOUT ROWID;
CREATE INDEX replicas_of_server ON replicas (server, chunk_id);
"""

_REPORTS = "SELECT chunk_id, server, length, digest FROM replicas WHERE chunk_id IN ({})"

Report: TypeAlias = tuple[str, int, bytes]
"""A server, and the length and digest of what it has."""


class Locations:
    """Replicas by chunk and by server.

    A replica counts for a chunk only where length and digest are those of the manifest (S15), so
    both are kept with it.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.executescript(_SCHEMA)
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._report: dict[str, int] = {}

    def holders(self, chunk: Chunk) -> list[str]:
        """The servers with a replica of exactly this chunk."""
        rows = self._db.execute(
            "SELECT server FROM replicas WHERE chunk_id = ? AND length = ? AND digest = ?",
            (chunk.id, chunk.length, chunk.digest),
        )
        return [self._names[number] for (number,) in rows]

    def reporters(self, chunk_id: bytes) -> list[str]:
        """The servers with anything under this id."""
        rows = self._db.execute("SELECT server FROM replicas WHERE chunk_id = ?", (chunk_id,))
        return [self._names[number] for (number,) in rows]

    def reports(self, chunk_ids: Sequence[bytes]) -> dict[ChunkId, list[Report]]:
        """What is there under each of these ids, and where; ids that nobody has are left out."""
        marks = ",".join("?" * len(chunk_ids))
        found: dict[ChunkId, list[Report]] = {}
        for chunk_id, number, length, digest in self._db.execute(_REPORTS.format(marks), chunk_ids):
            found.setdefault(chunk_id, []).append((self._names[number], length, digest))
        return found

    def of_server(self, name: str, after: bytes, limit: int) -> list[ChunkId]:
        """The next chunks that a server holds, in the order of their ids."""
        rows = self._db.execute(
            "SELECT chunk_id FROM replicas WHERE server = ? AND chunk_id > ?"
            " ORDER BY chunk_id LIMIT ?",
            (self._number(name), after, limit),
        )
        return [ChunkId(chunk_id) for (chunk_id,) in rows]

    def add(self, name: str, chunks: Iterable[Chunk]) -> None:
        number, report = self._number(name), self._report.setdefault(name, 0)
        self._db.executemany(
            "INSERT OR REPLACE INTO replicas VALUES (?, ?, ?, ?, ?)",
            [(chunk.id, number, chunk.length, chunk.digest, report) for chunk in chunks],
        )

    def remove(self, name: str, chunk_ids: Iterable[bytes]) -> None:
        number = self._number(name)
        self._db.executemany(
            "DELETE FROM replicas WHERE chunk_id = ? AND server = ?",
            [(chunk_id, number) for chunk_id in chunk_ids],
        )

    def begin_report(self, name: str) -> None:
        """A full inventory is coming; what it does not name is gone at its end, not before."""
        self._report[name] = self._report.get(name, 0) + 1

    def end_report(self, name: str) -> list[ChunkId]:
        """Forget what was not named since the report began; returns it."""
        number, report = self._number(name), self._report[name]
        rows = self._db.execute(
            "SELECT chunk_id FROM replicas WHERE server = ? AND report <> ?", (number, report)
        ).fetchall()
        stale = [ChunkId(chunk_id) for (chunk_id,) in rows]
        self.remove(name, stale)
        return stale

    def replica(self, chunk_id: bytes, name: str) -> Chunk | None:
        """What the server reported under this id."""
        row = self._db.execute(
            "SELECT length, digest FROM replicas WHERE chunk_id = ? AND server = ?",
            (chunk_id, self._number(name)),
        ).fetchone()
        if row is None:
            return None
        return Chunk(id=ChunkId(chunk_id), length=row[0], digest=Digest(row[1]))

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            number = len(self._numbers) + 1
            self._db.execute("INSERT INTO servers VALUES (?, ?)", (number, name))
            self._numbers[name] = number
            self._names[number] = name
        return self._numbers[name]
