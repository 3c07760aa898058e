"""What a simulated disk holds: files, folders and databases, and what a crash does to each."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""

_serial = itertools.count(1)  # SQLite's names of databases in memory are global to the process


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A write or truncation since the last sync, and how to undo it."""

    offset: int
    old: bytes
    old_length: int
    new: bytes
    new_length: int


class Content:
    """Bytes of a file, with the changes since they were last synced."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.readable = True
        self._unsynced: list[_Change] = []

    def write(self, new: bytes, offset: int) -> None:
        self._change(offset, new, max(len(self.data), offset + len(new)))

    def truncate(self, length: int) -> None:
        self._change(length, b"", length)

    def synced(self) -> None:
        """What is there now survives every crash."""
        self._unsynced.clear()

    def forget(self) -> None:
        """Go back to what was synced last."""
        for change in reversed(self._unsynced):
            self._put(change.old_length, change.offset, change.old)
        self._unsynced.clear()

    def copy(self) -> Content:
        """As it would be if a crash took all that was not synced."""
        copy = Content()
        copy.data, copy.readable = bytearray(self.data), self.readable
        copy._unsynced = list(self._unsynced)
        copy.forget()
        return copy

    def crash(self, rng: random.Random) -> None:
        """Lose, keep or tear what was not synced; what remains is synced."""
        changes = list(self._unsynced)
        fate = rng.choice(("lost", "kept", "torn"))
        if fate != "kept":
            self.forget()
        if fate == "torn" and changes:
            self._tear(changes, rng)
        self.synced()

    def _tear(self, changes: list[_Change], rng: random.Random) -> None:
        whole = rng.randrange(len(changes))
        for change in changes[:whole]:
            self._put(change.new_length, change.offset, change.new)
        torn = changes[whole]
        sectors = -(-(torn.offset % SECTOR_BYTES + len(torn.new)) // SECTOR_BYTES)
        end = torn.offset // SECTOR_BYTES * SECTOR_BYTES + rng.randint(0, sectors) * SECTOR_BYTES
        new = torn.new[: max(0, end - torn.offset)]
        if new:
            self._put(max(len(self.data), torn.offset + len(new)), torn.offset, new)

    def _change(self, offset: int, new: bytes, new_length: int) -> None:
        old_length = len(self.data)
        end = offset + len(new) if new else old_length  # a truncation takes all behind it
        self._unsynced.append(
            _Change(
                offset=offset,
                old=bytes(self.data[offset:end]),
                old_length=old_length,
                new=new,
                new_length=new_length,
            )
        )
        self._put(new_length, offset, new)

    def _put(self, length: int, offset: int, data: bytes) -> None:
        if length < len(self.data):
            del self.data[length:]
        else:
            self.data.extend(bytes(length - len(self.data)))
        self.data[offset : offset + len(data)] = data


COMMITS_PER_COPY = 50
"""Of one commit in so many a copy is kept, for a crash that loses those that came after it."""


class _Connection(sqlite3.Connection):
    """Tells its database of commits, and of what makes them durable."""

    database: Database
    syncs_commits = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *parameters)
        if sql == "COMMIT":
            self.database.committed(synced=self.syncs_commits)
        elif sql.startswith("PRAGMA wal_checkpoint"):
            self.database.committed(synced=True)
        elif sql.startswith("PRAGMA synchronous"):
            self.syncs_commits = sql.endswith("FULL")
        return cursor


class Database:
    """An SQLite database in memory that lasts as long as this object, whoever closes it.

    As one in WAL mode with ``synchronous = NORMAL`` it keeps of each transaction all or nothing at
    a crash, and is then as it was at some commit since the last that was synced.
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._uri = f"file:filegrid-simulation-{next(_serial)}?mode=memory&cache=shared"
        self._keeper = self._connect()
        self._open: list[sqlite3.Connection] = []
        self._synced = self._later = self._image()

    @classmethod
    def of_image(cls, content: bytes, rng: random.Random) -> Database:
        """What a file holds that a database was copied to."""
        made = cls(rng)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            path.write_bytes(content)
            with closing(sqlite3.connect(path)) as source:
                source.execute("PRAGMA journal_mode = DELETE")
                source.backup(made._keeper)
        made.committed(synced=True)
        return made

    def connect(self) -> sqlite3.Connection:
        self._open.append(self._connect())
        return self._open[-1]

    def end(self) -> None:
        """End the process that has it open: commits are kept, open transactions rolled back."""
        for connection in self._open:
            connection.close()
        self._open = []

    def copy(self) -> Database:
        copy = Database(random.Random(self._random.getrandbits(64)))
        self._keeper.backup(copy._keeper)
        copy.committed(synced=True)
        return copy

    def crash(self) -> None:
        """Go back to what it was once, or stay; what it is then is synced."""
        self.end()
        image = self._random.choice((self._synced, self._later, self._keeper))
        if image is not self._keeper:
            image.backup(self._keeper)
        self.committed(synced=True)

    def committed(self, *, synced: bool) -> None:
        if synced:
            self._synced = self._later = self._image()
        elif self._random.randrange(COMMITS_PER_COPY) == 0:
            self._later = self._image()

    def _image(self) -> sqlite3.Connection:
        image = sqlite3.connect(":memory:", check_same_thread=False)
        self._keeper.backup(image)
        return image

    def _connect(self) -> _Connection:
        connection = sqlite3.connect(
            self._uri, uri=True, check_same_thread=False, isolation_level=None, factory=_Connection
        )
        connection.database = self
        return connection


def image_of(database: sqlite3.Connection) -> bytes:
    """A database as the bytes of a file: SQLite makes them in a real one, for a moment."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        with closing(sqlite3.connect(path, isolation_level=None)) as target:
            database.backup(target)
        return path.read_bytes()


class Folder:
    """Names as they are, and as they are after a crash."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}

    def add(self, name: str, node: Node) -> None:
        """Durably from the start."""
        self.nodes[name] = self.durable[name] = node

    def take(self, name: str) -> Node:
        """Durably out of it."""
        self.durable.pop(name, None)
        return self.nodes.pop(name)

    def walk(self) -> Iterator[Content | Database]:
        """Every file and database in it and below."""
        for node in self.nodes.values():
            if isinstance(node, Folder):
                yield from node.walk()
            else:
                yield node

    def copy(self) -> Folder:
        """With what is durable now, down to the last file."""
        copy = Folder()
        for name, node in sorted(self.durable.items()):
            copy.add(name, node.copy())
        return copy

    def crash(self, rng: random.Random) -> None:
        """Go back to the durable names, and let the crash reach what they name."""
        self.nodes = dict(self.durable)
        for name in sorted(self.nodes):
            node = self.nodes[name]
            if isinstance(node, Database):
                node.crash()  # by chances of its own
            else:
                node.crash(rng)


Node: TypeAlias = Folder | Content | Database


@dataclass(frozen=True, slots=True)
class Naming:
    """`name` in `folder` comes to mean `node`, or nothing."""

    folder: Folder
    name: str
    node: Node | None

    def apply(self) -> None:
        self._put(self.folder.nodes)

    def make_durable(self) -> None:
        self._put(self.folder.durable)

    def _put(self, nodes: dict[str, Node]) -> None:
        if self.node is None:
            nodes.pop(self.name, None)
        else:
            nodes[self.name] = self.node
