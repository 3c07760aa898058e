"""What was removed or replaced, until its time has come."""

from __future__ import annotations

import sqlite3

from filegrid.head.contents import Contents
from filegrid.head.schema import MOST_INTEGER, TRASH, RegisterFile
from filegrid.head.tree import Stored, Tree, child, children
from filegrid.model import ChunkId

_PUT = "INSERT INTO trash VALUES (?, ?, ?, ?)"
_FIRST_DUE = "SELECT due_ms, node FROM trash WHERE due_ms <= ? ORDER BY due_ms, node LIMIT 1"
_DROP = "DELETE FROM trash WHERE due_ms = ? AND node = ?"


def _name_in_trash(node: int) -> bytes:
    return node.to_bytes(8, "big")


def is_due(database: sqlite3.Connection, log_time_ms: int) -> bool:
    return database.execute(_FIRST_DUE, (log_time_ms,)).fetchone() is not None


class Trash:
    """Changes of the trash."""

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

    def put(self, node: Stored, path: str, *, stay_ms: int, wall_ms: int) -> None:
        """One change of one row, however much is below the node.

        :param stay_ms: log time until it may be taken apart; 0: it is due at once.
        """
        due_ms = min(self._registers.now.log_time_ms + stay_ms, MOST_INTEGER)
        self._tree.move(node, TRASH, _name_in_trash(node.id), to_trash=True)
        self._database.execute(_PUT, (due_ms, node.id, path, wall_ms))

    def purge(self, limit: int) -> tuple[int, list[ChunkId]]:
        """Take apart what is due, the oldest first, at most `limit` nodes and chunks.

        :returns: how many they were, `limit` where more may be due; and the released chunks.
        """
        released: list[ChunkId] = []
        left = limit
        while left:
            row = self._database.execute(_FIRST_DUE, (self._registers.now.log_time_ms,)).fetchone()
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
