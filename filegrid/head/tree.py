"""The tree of names: finding, adding, moving and taking away nodes, and what folders add up to.

Every function that looks raises before anything is changed; those that change cannot fail.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from filegrid.errors import NoSuchPath, NotAFolder
from filegrid.head.schema import FOLDER, ROOT, TRASH, RegisterFile
from filegrid.model import join_path
from filegrid.protocol.wire import values_pb2 as wire

_STEP = "SELECT id, kind FROM nodes WHERE parent = ? AND name = ?"
_COLUMNS = """SELECT parent, name, id, kind, mtime_ms, version, content_id,
    size, digest, replication, chunk_bytes, chunk_count
    FROM nodes LEFT JOIN contents USING (content_id) """
_CHILD = _COLUMNS + "WHERE parent = ? AND name = ?"
_CHILDREN = _COLUMNS + "WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"
_PARENT = "SELECT parent, name FROM nodes WHERE id = ?"
_ADD = "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)"
_MOVE = "UPDATE nodes SET parent = ?, name = ? WHERE parent = ? AND name = ?"
_DROP = "DELETE FROM nodes WHERE parent = ? AND name = ?"
_ADD_FOLDER = "INSERT INTO folders VALUES (?, 0, 0)"
_DROP_FOLDER = "DELETE FROM folders WHERE id = ?"
_DROP_POLICY = "DELETE FROM policies WHERE folder = ?"
_TOTALS = "SELECT files, bytes FROM folders WHERE id = ?"
_ADD_TOTALS = "UPDATE folders SET files = files + ?, bytes = bytes + ? WHERE id = ?"


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


def find_folder(database: sqlite3.Connection, names: Sequence[str]) -> int:
    """The id of the folder at the end of `names`.

    :raises NoSuchPath: naming the first that is missing.
    :raises NotAFolder: naming the file in the way.
    """
    at = ROOT
    for depth, name in enumerate(names):
        row = database.execute(_STEP, (at, name.encode())).fetchone()
        if row is None:
            raise NoSuchPath("no such folder", join_path(names[: depth + 1]))
        at, kind = row
        if kind != FOLDER:
            raise NotAFolder("this is a file, not a folder", join_path(names[: depth + 1]))
    return at


def find(database: sqlite3.Connection, names: Sequence[str]) -> Stored | None:
    """What is at the end of `names`; raises like :func:`find_folder` for all before it."""
    if not names:
        return child(database, 0, b"")
    return child(database, find_folder(database, names[:-1]), names[-1].encode())


def need(database: sqlite3.Connection, names: Sequence[str]) -> Stored:
    """What is at the end of `names`. :raises NoSuchPath: where nothing is."""
    found = find(database, names)
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


class Tree:
    """Changes of the tree.

    Totals of folders are first noted at the direct parent and carried up to the root once, at
    :meth:`flush`: many changes of one group meet in the upper folders.
    """

    def __init__(self, database: sqlite3.Connection, registers: RegisterFile) -> None:
        self._database = database
        self._registers = registers
        self._noted: dict[int, tuple[int, int]] = {}

    def new_id(self) -> int:
        self._registers.now.last_node += 1
        return self._registers.now.last_node

    def add_folder(self, parent: int, name: bytes, *, mtime_ms: int, version: int) -> int:
        node = self.new_id()
        self._database.execute(_ADD, (parent, name, node, FOLDER, mtime_ms, version, None))
        self._database.execute(_ADD_FOLDER, (node,))
        return node

    def add_file(self, node: Stored) -> None:
        """Only the columns of `node` that are its own are stored, not those of its contents."""
        self._database.execute(_ADD, node[:7])
        self.note(node.parent, 1, node.size or 0)

    def move(self, node: Stored, parent: int, name: bytes) -> None:
        """Hang `node`, with all below it, somewhere else; what is in the trash counts nowhere."""
        files, size = self._weight(node)  # for a folder this flushes, while the old way up is there
        if node.parent != TRASH:
            self.note(node.parent, -files, -size)
        if parent != TRASH:
            self.note(parent, files, size)
        self._database.execute(_MOVE, (parent, name, node.parent, node.name))

    def drop(self, node: Stored) -> None:
        """Take away a node that counts nowhere and has nothing below it."""
        if node.is_folder:
            self.flush()
            self._database.execute(_DROP_FOLDER, (node.id,))
            self._database.execute(_DROP_POLICY, (node.id,))
        self._database.execute(_DROP, (node.parent, node.name))

    def note(self, folder: int, files: int, size: int) -> None:
        before = self._noted.get(folder, (0, 0))
        self._noted[folder] = (before[0] + files, before[1] + size)

    def flush(self) -> None:
        """Carry what was noted up to the root."""
        sums: dict[int, tuple[int, int]] = {}
        parents: dict[int, int] = {ROOT: 0}
        for start, (files, size) in self._noted.items():
            folder = start
            while folder:
                before = sums.get(folder, (0, 0))
                sums[folder] = (before[0] + files, before[1] + size)
                if folder not in parents:
                    parents[folder] = self._database.execute(_PARENT, (folder,)).fetchone()[0]
                folder = parents[folder]
        self._noted.clear()
        self._database.executemany(
            _ADD_TOTALS, [(files, size, folder) for folder, (files, size) in sums.items()]
        )

    def forget(self) -> None:
        """Drop what was noted in a transaction that is rolled back."""
        self._noted.clear()

    def _weight(self, node: Stored) -> tuple[int, int]:
        if not node.is_folder:
            return 1, node.size or 0
        self.flush()
        row: tuple[int, int] = self._database.execute(_TOTALS, (node.id,)).fetchone()
        return row


def totals(database: sqlite3.Connection, folder: int) -> tuple[int, int]:
    """Files and bytes below a folder."""
    row: tuple[int, int] = database.execute(_TOTALS, (folder,)).fetchone()
    return row
