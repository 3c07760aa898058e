"""The tree of names for those who change it: adding, moving and taking away nodes, and what
folders add up to.

Every function that looks raises before anything is changed; those that change cannot fail.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from filegrid.head.nodes import WANTED, Stored, child, children, existing, follow, totals
from filegrid.head.rows import read_rows, write_rows
from filegrid.head.schema import FOLDER, ROOT, TRASH, RegisterFile

_PARENT = "SELECT parent FROM nodes WHERE id = ?"
_ADD = "INSERT INTO nodes VALUES (ROWS)"
_TAKE = "DELETE FROM nodes WHERE id IN (ROWS)"
_ADD_FOLDER = "INSERT INTO folders VALUES (?, 0, 0)"
_DROP_FOLDER = "DELETE FROM folders WHERE id = ?"
_DROP_POLICY = "DELETE FROM policies WHERE folder = ?"
_ADD_TOTALS = "UPDATE folders SET files = files + ?, bytes = bytes + ? WHERE id = ?"

MOST_FOLDERS = 10_000
"""Ids of folders kept in memory, some 2 MiB; above that number they are read anew."""

Place: TypeAlias = tuple[int, bytes]
"""Where a node hangs: the id of its folder, and its name there."""


class Tree:
    """The tree for those who change it.

    Many changes of one group meet in the same rows: each is read once, and what became of it is
    written once, with all others. So rows are read through here alone while a transaction lasts;
    the table has what was changed only after :meth:`write`. Totals of folders are first noted at
    the direct parent and carried up to the root once, at :meth:`flush`.
    """

    def __init__(self, database: sqlite3.Connection, registers: RegisterFile) -> None:
        self._database = database
        self._registers = registers
        self._folders: dict[Place, int] = {}  # outlives transactions: nobody else changes the tree
        self._seen: dict[Place, Stored | None] = {}
        self._changed: dict[Place, int] = {}  # with the id that the table has there; 0 for none
        self._noted: dict[int, tuple[int, int]] = {}

    # Looking

    def fetch(self, paths: Iterable[Sequence[str]]) -> None:
        """Read what is at these paths, all at once, as far as their folders are known."""
        wanted: dict[Place, None] = {}
        for names in paths:
            at = self._known_folder(names[:-1])
            if at is not None and names:
                place = (at, names[-1].encode())
                if place not in self._seen:
                    wanted[place] = None
        if len(wanted) < 2:
            return
        self._seen.update(dict.fromkeys(wanted))
        for row in read_rows(self._database, WANTED, list(wanted)):
            self._seen[row[0], row[1]] = Stored._make(row)

    def child(self, parent: int, name: bytes) -> Stored | None:
        place = (parent, name)
        if place not in self._seen:
            self._seen[place] = child(self._database, parent, name)
        return self._seen[place]

    def find_folder(self, names: Sequence[str]) -> int:
        """As :func:`follow`."""
        return follow(self._step, names)

    def find(self, names: Sequence[str]) -> Stored | None:
        """What is at the end of `names`; raises like :func:`follow` for all before it."""
        if not names:
            return self.child(0, b"")
        return self.child(self.find_folder(names[:-1]), names[-1].encode())

    def need(self, names: Sequence[str]) -> Stored:
        """What is at the end of `names`. :raises NoSuchPath: where nothing is."""
        return existing(self.find(names), names)

    def is_empty(self, folder: int) -> bool:
        self.write()
        return not children(self._database, folder, limit=1)

    def _known_folder(self, names: Sequence[str]) -> int | None:
        at: int | None = ROOT
        for name in names:
            if at is not None:
                at = self._folders.get((at, name.encode()))
        return at

    def _step(self, parent: int, name: bytes) -> tuple[int, bool] | None:
        place = (parent, name)
        folder = self._folders.get(place)
        if folder is not None:
            return folder, True
        found = self.child(parent, name)
        if found is None:
            return None
        if found.is_folder:
            if len(self._folders) >= MOST_FOLDERS:
                self._folders.clear()
            self._folders[place] = found.id
        return found.id, found.is_folder

    # Changing

    def new_id(self) -> int:
        self._registers.now.last_node += 1
        return self._registers.now.last_node

    def add_folder(self, parent: int, name: bytes, *, mtime_ms: int, version: int) -> int:
        node = self.new_id()
        own = (parent, name, node, FOLDER, mtime_ms, version, None)
        self._put(Stored(*own, None, None, None, None, None))
        self._database.execute(_ADD_FOLDER, (node,))
        return node

    def add_file(self, node: Stored) -> None:
        """Only the columns of `node` that are its own are stored, not those of its contents."""
        self._put(node)
        self.note(node.parent, 1, node.size or 0)

    def move(self, node: Stored, parent: int, name: bytes) -> None:
        """Hang `node` with all below it into a free place; what is in the trash counts nowhere."""
        files, size = self._weight(node)  # for a folder this flushes, while the old way up is there
        if node.parent != TRASH:
            self.note(node.parent, -files, -size)
        if parent != TRASH:
            self.note(parent, files, size)
        self._take(node)
        self._put(node._replace(parent=parent, name=name))

    def drop(self, node: Stored) -> None:
        """Take away a node that counts nowhere and has nothing below it."""
        if node.is_folder:
            self.flush()
            self._database.execute(_DROP_FOLDER, (node.id,))
            self._database.execute(_DROP_POLICY, (node.id,))
        self._take(node)
        self.write()

    def _take(self, node: Stored) -> None:
        place = (node.parent, node.name)
        self._changed.setdefault(place, node.id)
        self._seen[place] = None
        self._folders.pop(place, None)

    def _put(self, node: Stored) -> None:
        place = (node.parent, node.name)
        self._changed.setdefault(place, 0)
        self._seen[place] = node

    def write(self) -> None:
        """Bring the table up to all changes so far."""
        changed, self._changed = self._changed, {}
        if not changed:
            return
        now = [self._seen[place] for place in changed]
        # All are taken away before any is put: a node that moves has one row at any time.
        write_rows(self._database, _TAKE, [(node,) for node in changed.values() if node])
        write_rows(self._database, _ADD, [node[:7] for node in now if node is not None])

    def note(self, folder: int, files: int, size: int) -> None:
        before = self._noted.get(folder, (0, 0))
        self._noted[folder] = (before[0] + files, before[1] + size)

    def flush(self) -> None:
        """Write everything, and carry what was noted up to the root."""
        self.write()
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

    def reread(self) -> None:
        """Somebody changes rows beside this: write what was changed here, and read all anew."""
        self.write()
        self._seen.clear()

    def end(self) -> None:
        """The transaction ends: all is in the tables."""
        self.flush()
        self._seen.clear()

    def forget(self) -> None:
        """After a rollback: drop what was noted, and what may not be so any more."""
        for kept in (self._folders, self._seen, self._changed, self._noted):
            kept.clear()

    def _weight(self, node: Stored) -> tuple[int, int]:
        if not node.is_folder:
            return 1, node.size or 0
        self.flush()
        return totals(self._database, node.id)
