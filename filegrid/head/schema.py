"""The tables of the namespace, and the numbers that are kept beside them.

All of it is derived from the log: it may be rolled forward from there, and holds nothing that the
log did not say (S8). Names and unique ids are BLOBs, so that SQLite orders them byte by byte.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields

from filegrid.errors import UnsupportedVersion
from filegrid.head.rows import write_rows

SCHEMA_VERSION = 5
"""In the database's user_version; a later one is refused by name (S24)."""

OLDEST_VERSION = 3
"""An older one is refused too; those since then are brought up to date."""

MOST_INTEGER = 2**63 - 1
"""SQLite's integers end here; a larger number from the wire is refused before it gets there."""

FILE = 1
FOLDER = 2
"""The kinds of nodes; values of wire.NodeKind."""

ROOT = 1
TRASH = 2
"""The two nodes that are always there. What is in the trash hangs below the second."""

BACKUPS = b"\x01"
"""The name, beside the root's, of the folder of the backups that the grid keeps in itself; it is
made with the first one, and is below no path."""

_TABLES = (
    # A tree by parent and name: moving or removing a whole folder changes one row.
    """CREATE TABLE nodes (
        parent INTEGER NOT NULL,
        name BLOB NOT NULL,
        id INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        mtime_ms INTEGER NOT NULL,
        version INTEGER NOT NULL,
        content_id BLOB,
        PRIMARY KEY (parent, name)
    ) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX nodes_by_id ON nodes (id)",
    # What lies below a folder, at any depth.
    """CREATE TABLE folders (
        id INTEGER PRIMARY KEY,
        files INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    )""",
    """CREATE TABLE contents (
        content_id BLOB PRIMARY KEY,
        node INTEGER NOT NULL,
        size INTEGER NOT NULL,
        digest BLOB NOT NULL,
        replication INTEGER NOT NULL,
        chunk_bytes INTEGER NOT NULL,
        chunk_count INTEGER NOT NULL,
        asked INTEGER NOT NULL  -- 1: its writer asked for the replication, policies do not count
    ) WITHOUT ROWID""",
    # An append inherits chunks: one chunk may be in several contents.
    """CREATE TABLE chunks (
        content_id BLOB NOT NULL,
        position INTEGER NOT NULL,
        chunk_id BLOB NOT NULL,
        length INTEGER NOT NULL,
        digest BLOB NOT NULL,
        PRIMARY KEY (content_id, position)
    ) WITHOUT ROWID""",
    "CREATE INDEX chunks_by_id ON chunks (chunk_id)",
    # Contents whose chunks were announced and that are not published yet.
    "CREATE TABLE staged (content_id BLOB PRIMARY KEY) WITHOUT ROWID",
    # Chunks that no content names any more. Collected ones are remembered while their session
    # lives, so that it cannot publish them again (S14).
    """CREATE TABLE released (
        chunk_id BLOB PRIMARY KEY,
        released_ms INTEGER NOT NULL,
        length INTEGER NOT NULL,
        digest BLOB NOT NULL,
        collected INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    """CREATE INDEX released_by_time ON released (released_ms, chunk_id, length, digest)
        WHERE collected = 0""",
    # Times in it are log time, except removed_ms, which is for people.
    """CREATE TABLE trash (
        due_ms INTEGER NOT NULL,
        node INTEGER NOT NULL,
        path TEXT NOT NULL,
        removed_ms INTEGER NOT NULL,
        PRIMARY KEY (due_ms, node)
    ) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX trash_by_node ON trash (node)",
    # See policies.py. NULL: nothing is said.
    """CREATE TABLE policies (
        folder INTEGER PRIMARY KEY,
        replication INTEGER,
        spread INTEGER,
        trash_seconds INTEGER,
        quota_bytes INTEGER,
        quota_files INTEGER
    )""",
    """CREATE TABLE policy_work (
        folder INTEGER PRIMARY KEY,
        after BLOB NOT NULL
    )""",
    # What came to pass, the last of it; see story.py.
    """CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        node TEXT NOT NULL,
        kind INTEGER NOT NULL,
        event BLOB NOT NULL
    )""",
    """CREATE TABLE sessions (
        id INTEGER PRIMARY KEY,
        client TEXT NOT NULL,
        renewed_ms INTEGER NOT NULL,
        answered_below INTEGER NOT NULL,
        ended_below INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE results (
        session INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        outcome BLOB NOT NULL,
        PRIMARY KEY (session, sequence)
    ) WITHOUT ROWID""",
    """CREATE TABLE servers (
        name TEXT PRIMARY KEY,
        incarnation BLOB NOT NULL,
        rack TEXT NOT NULL,
        address TEXT NOT NULL,
        standing INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    # The heads that vote.
    """CREATE TABLE voters (
        name TEXT PRIMARY KEY,
        incarnation BLOB NOT NULL
    ) WITHOUT ROWID""",
    # What operators said of heads; see membership.py.
    """CREATE TABLE heads (
        name TEXT PRIMARY KEY,
        address TEXT NOT NULL,
        wanted INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "INSERT INTO nodes VALUES (0, x'', 1, 2, 0, 0, NULL)",
    "INSERT INTO nodes VALUES (0, x'00', 2, 2, 0, 0, NULL)",
    "INSERT INTO folders VALUES (1, 0, 0)",
)

_SINCE = {
    4: next(table for table in _TABLES if table.startswith("CREATE TABLE heads")),
    5: "ALTER TABLE sessions ADD COLUMN ended_below INTEGER NOT NULL DEFAULT 0",
}
"""What each version has that the one before it had not."""

_READ_META = "SELECT key, value FROM meta"
_WRITE_META = "INSERT OR REPLACE INTO meta VALUES (ROWS)"


def open_schema(database: sqlite3.Connection, *, writable: bool = True) -> None:
    """Make the tables where there are none, and set the connection up.

    :raises UnsupportedVersion: for the tables of another release.
    """
    database.isolation_level = None  # transactions begin where we say so
    if writable:
        # NORMAL may lose the last commits at a power failure, never the database itself: the
        # log has them (S8).
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA wal_autocheckpoint = 4000")  # 16 MB, some thousand changes
    database.execute("PRAGMA cache_size = -32768")  # 32 MiB, twice
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0 and writable:
        database.execute("BEGIN IMMEDIATE")
        with database:
            for statement in _TABLES:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif OLDEST_VERSION <= version < SCHEMA_VERSION and writable:
        database.execute("BEGIN IMMEDIATE")
        with database:
            for later in range(version + 1, SCHEMA_VERSION + 1):
                database.execute(_SINCE[later])
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif version != SCHEMA_VERSION:
        raise UnsupportedVersion(
            f"the namespace has version {version}, and this release reads {SCHEMA_VERSION}",
            advice="run the release that wrote it, or a later one",
        )


@dataclass(slots=True, kw_only=True)
class Registers:
    """The numbers of the namespace that are not rows of their own."""

    grid_id: str = ""
    founding: str = ""
    """Random, in hexadecimal digits: which creation of the grid this is (S1)."""
    lineage: int = 0
    applied_epoch: int = 0
    applied_index: int = 0
    log_time_ms: int = 0
    last_node: int = TRASH
    last_session: int = 0
    forgotten_lineage: int = 0
    """What this and earlier lineages made and no file names may be collected: a person said so."""
    chunks: int = 0
    """Different chunks that published contents name, those in the trash with them."""


_REGISTERS = tuple(field.name for field in fields(Registers))


class RegisterFile:
    """Keeps :class:`Registers` in the database, in the transaction that changed them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.now = Registers()
        self._saved: dict[str, object] = {}
        self.load()

    def load(self) -> None:
        """Back to what was last committed."""
        self.now = read_registers(self._database)
        self._saved = dict(self._database.execute(_READ_META))

    def save(self) -> None:
        changed = {}
        for field in _REGISTERS:
            value = getattr(self.now, field)
            if self._saved.get(field) != value:
                changed[field] = value
        write_rows(self._database, _WRITE_META, list(changed.items()))
        self._saved.update(changed)


def read_registers(database: sqlite3.Connection) -> Registers:
    rows = database.execute(_READ_META)
    return Registers(**{key: value for key, value in rows if key in _REGISTERS})
