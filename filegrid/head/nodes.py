"""The nodes of the tree of names as their rows have them: finding one, a page, a way up."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from filegrid.errors import NoSuchPath, NotAFolder
from filegrid.head.schema import FOLDER, ROOT
from filegrid.model import join_path
from filegrid.protocol.wire import values_pb2 as wire

_STEP = "SELECT id, kind FROM nodes WHERE parent = ? AND name = ?"
COLUMNS = """SELECT parent, name, id, kind, mtime_ms, version, content_id,
    size, digest, replication, chunk_bytes, chunk_count
    FROM nodes LEFT JOIN contents USING (content_id) """
_CHILD = COLUMNS + "WHERE parent = ? AND name = ?"
WANTED = "WITH wanted(at, called) AS (VALUES (ROWS)) " + COLUMNS.replace(
    "FROM nodes", "FROM wanted CROSS JOIN nodes ON parent = at AND name = called"
)
_CHILDREN = COLUMNS + "WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"
_PARENT = "SELECT parent, name FROM nodes WHERE id = ?"
_TOTALS = "SELECT files, bytes FROM folders WHERE id = ?"

MOST_STEPS = 16
"""In one statement; deeper paths are rare, and each length is a statement of its own."""


class Stored(NamedTuple):
    """A node as its row and that of its contents have it; those of a folder are None."""

    parent: int
    name: bytes
    id: int
    kind: int
    mtime_ms: int
    version: int
    content_id: bytes | None
    size: int | None
    digest: bytes | None
    replication: int | None
    chunk_bytes: int | None
    chunk_count: int | None

    @property
    def is_folder(self) -> bool:
        return self.kind == FOLDER

    def to_wire(self, path: str) -> wire.Node:
        if self.is_folder:
            return wire.Node(
                path=path,
                kind=wire.NODE_KIND_FOLDER,
                mtime_ms=self.mtime_ms,
                version=self.version,
            )
        return wire.Node(
            path=path,
            kind=wire.NODE_KIND_FILE,
            mtime_ms=self.mtime_ms,
            version=self.version,
            content_id=self.content_id or b"",
            size=self.size or 0,
            digest=self.digest or b"",
            replication=self.replication or 0,
            chunk_bytes=self.chunk_bytes or 0,
            chunk_count=self.chunk_count or 0,
        )


def child(database: sqlite3.Connection, parent: int, name: bytes) -> Stored | None:
    row = database.execute(_CHILD, (parent, name)).fetchone()
    return None if row is None else Stored._make(row)


def children(
    database: sqlite3.Connection, parent: int, *, after: bytes = b"", limit: int
) -> list[Stored]:
    """Those with names greater than `after`, in byte order."""
    return [Stored._make(row) for row in database.execute(_CHILDREN, (parent, after, limit))]


def follow(step: Callable[[int, bytes], tuple[int, bool] | None], names: Sequence[str]) -> int:
    """The id of the folder at the end of `names`.

    :param step: gives the id of what is in a folder under a name, and whether it is a folder.
    :raises NoSuchPath: naming the first that is missing.
    :raises NotAFolder: naming the file in the way.
    """
    at = ROOT
    for depth, name in enumerate(names):
        found = step(at, name.encode())
        if found is None:
            raise NoSuchPath("no such folder", join_path(names[: depth + 1]))
        at, is_folder = found
        if not is_folder:
            raise NotAFolder("this is a file, not a folder", join_path(names[: depth + 1]))
    return at


def find_folder(database: sqlite3.Connection, names: Sequence[str]) -> int:
    """As :func:`follow`."""

    def step(parent: int, name: bytes) -> tuple[int, bool] | None:
        found = database.execute(_STEP, (parent, name)).fetchone()
        return None if found is None else (found[0], found[1] == FOLDER)

    return follow(step, names)


def need(database: sqlite3.Connection, names: Sequence[str]) -> Stored:
    """What is at the end of `names`; raises like :func:`follow`, and NoSuchPath of the last."""
    if not names:
        return existing(child(database, 0, b""), names)
    at = find_folder(database, names[:-1])
    return existing(child(database, at, names[-1].encode()), names)


def find_at_once(database: sqlite3.Connection, names: Sequence[str]) -> Stored | None:
    """What is at the end of `names`, by one statement; None also where that is to be found out,
    or told why not, step by step."""
    if not 0 < len(names) <= MOST_STEPS:
        return None
    row = database.execute(_way(len(names)), [name.encode() for name in names]).fetchone()
    return None if row is None else Stored._make(row)


@lru_cache(maxsize=MOST_STEPS)
def _way(steps: int) -> str:
    at = str(ROOT)
    for _ in range(steps - 1):
        at = f"(SELECT id FROM nodes WHERE parent = {at} AND name = ?)"
    return f"{COLUMNS}WHERE parent = {at} AND name = ?"


def existing(found: Stored | None, names: Sequence[str]) -> Stored:
    """:raises NoSuchPath: where nothing was found at `names`."""
    if found is None:
        raise NoSuchPath("no such file or folder", join_path(names))
    return found


def names_to(database: sqlite3.Connection, node: int) -> list[str] | None:
    """The names from the root to `node`; None for what is not below the root."""
    names: list[str] = []
    while node != ROOT:
        row = database.execute(_PARENT, (node,)).fetchone()
        if row is None or row[0] == 0:
            return None
        node, name = row
        names.append(name.decode("utf-8", "replace"))  # names in the trash are not text
    return names[::-1]


def totals(database: sqlite3.Connection, folder: int) -> tuple[int, int]:
    """Files and bytes below a folder."""
    row: tuple[int, int] = database.execute(_TOTALS, (folder,)).fetchone()
    return row
