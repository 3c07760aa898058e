"""What was removed or replaced, until its time has come."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from filegrid.errors import NoSuchPath
from filegrid.head.contents import Contents
from filegrid.head.nodes import Stored, child, children, totals
from filegrid.head.rows import Row, write_rows
from filegrid.head.schema import MOST_INTEGER, TRASH, RegisterFile
from filegrid.head.tree import Tree
from filegrid.model import ChunkId

_PUT = "INSERT INTO trash VALUES (ROWS)"
_FIRST_DUE = "SELECT due_ms, node FROM trash WHERE due_ms <= ? ORDER BY due_ms, node LIMIT 1"
_OLDEST = "SELECT due_ms, node, path FROM trash ORDER BY due_ms, node LIMIT 1"
_FIND = "SELECT due_ms, node, path FROM trash WHERE node = ? AND due_ms > ?"
_LIST = """SELECT due_ms, node, path, removed_ms FROM trash
    WHERE node > ? AND due_ms > ? ORDER BY node LIMIT ?"""
_HURRY = "UPDATE trash SET due_ms = ?1 WHERE node = ?2 AND due_ms > ?1"
_HURRY_ALL = "UPDATE trash SET due_ms = ?1 WHERE due_ms > ?1"
_DROP = "DELETE FROM trash WHERE due_ms = ? AND node = ?"


def _name_in_trash(node: int) -> bytes:
    return node.to_bytes(8, "big")


def is_due(database: sqlite3.Connection, log_time_ms: int) -> bool:
    return database.execute(_FIRST_DUE, (log_time_ms,)).fetchone() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thrown:
    """Something in the trash, with all that is below it."""

    id: int
    path: str
    """Where it was."""
    is_folder: bool
    files: int
    bytes: int
    removed_ms: int
    due_ms: int


def list_trash(
    database: sqlite3.Connection, after: int, limit: int, log_time_ms: int
) -> list[Thrown]:
    """What can still be restored, in the order of the ids."""
    found = []
    for due_ms, node, path, removed_ms in database.execute(_LIST, (after, log_time_ms, limit)):
        top = child(database, TRASH, _name_in_trash(node))
        assert top is not None, node
        files, size = totals(database, node) if top.is_folder else (1, top.size or 0)
        found.append(
            Thrown(
                id=node,
                path=path,
                is_folder=top.is_folder,
                files=files,
                bytes=size,
                removed_ms=removed_ms,
                due_ms=due_ms,
            )
        )
    return found


class Trash:
    """Changes of the trash. What is thrown away is in the table only after :meth:`write`."""

    def __init__(
        self,
        database: sqlite3.Connection,
        registers: RegisterFile,
        tree: Tree,
        contents: Contents,
    ) -> None:
        self._database = database
        self._registers = registers
        self._tree = tree
        self._contents = contents
        self._thrown: list[Row] = []

    def put(self, node: Stored, path: str, *, stay_ms: int, wall_ms: int) -> None:
        """One change of one row, however much is below the node.

        :param stay_ms: log time until it may be taken apart; 0: it is due at once.
        """
        due_ms = min(self._registers.now.log_time_ms + stay_ms, MOST_INTEGER)
        self._tree.move(node, TRASH, _name_in_trash(node.id))
        self._thrown.append((due_ms, node.id, path, wall_ms))

    def write(self) -> None:
        """Bring the table up to all changes so far."""
        thrown, self._thrown = self._thrown, []
        write_rows(self._database, _PUT, thrown)

    def forget(self) -> None:
        """After a rollback: drop what was noted."""
        self._thrown.clear()

    def find(self, node: int) -> tuple[Stored, str]:
        """What is there under this id, and where it was.

        :raises NoSuchPath: where it is not, or its time has come.
        """
        now_ms = self._registers.now.log_time_ms
        row = self._database.execute(_FIND, (node, now_ms)).fetchone()
        top = child(self._database, TRASH, _name_in_trash(node)) if row else None
        if top is None:
            raise NoSuchPath("the trash has nothing under this number", str(node))
        return top, row[2]

    def take_out(self, node: Stored, parent: int, name: bytes) -> None:
        """Hang it somewhere again."""
        row = self._database.execute(_FIND, (node.id, self._registers.now.log_time_ms)).fetchone()
        self._tree.move(node, parent, name)
        self._database.execute(_DROP, row[:2])

    def hurry(self, nodes: Sequence[int]) -> int:
        """These are due now, or all where none is named; returns how many were not before."""
        now_ms = self._registers.now.log_time_ms
        if not nodes:
            return self._database.execute(_HURRY_ALL, (now_ms,)).rowcount
        return sum(self._database.execute(_HURRY, (now_ms, node)).rowcount for node in nodes)

    def hurry_oldest(self) -> str:
        """It is due from now on, as what was taken apart in part is never restored; returns where
        it was, or nothing where all is due that is there."""
        row = self._database.execute(_OLDEST).fetchone()
        if row is None or not self.hurry([row[1]]):
            return ""
        path: str = row[2]
        return path

    def purge(self, limit: int) -> tuple[int, list[ChunkId]]:
        """Take apart what is due, the oldest first, at most `limit` nodes and chunks.

        :returns: how many they were, `limit` where more may be due; and the released chunks.
        """
        released: list[ChunkId] = []
        left = limit
        while left:
            now_ms = self._registers.now.log_time_ms
            row = self._database.execute(_FIRST_DUE, (now_ms,)).fetchone()
            if row is None:
                break
            top = child(self._database, TRASH, _name_in_trash(row[1]))
            assert top is not None, row
            left = self._take_apart(top, left, released)
            if child(self._database, TRASH, top.name) is None:
                self._database.execute(_DROP, row)
        return limit - left, released

    def _take_apart(self, top: Stored, left: int, released: list[ChunkId]) -> int:
        """Depth first, so that nothing is ever left without a parent; returns what is left."""
        way = [top]
        while way and left:
            node = way[-1]
            if node.is_folder:
                if below := children(self._database, node.id, limit=1):
                    way.append(below[0])
                    continue
            else:
                assert node.content_id is not None
                left -= self._contents.take_apart(node.content_id, left, released)
                if not left:
                    break  # some of the content may remain
            self._tree.drop(node)
            left -= 1
            way.pop()
        return left
