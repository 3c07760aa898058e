"""The whole state of a head as a stream of bytes, for another whose log ends before ours begins.

The stream is a sequence of pages, each four bytes of its length, big-endian, and a protobuf
:class:`SnapshotPage`: rows of one table. It is independent of SQLite's own file format.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filegrid.errors import IntegrityError
from filegrid.protocol.wire.replication_pb2 import SnapshotPage, SnapshotValue

ROWS_PER_PAGE = 512

_LENGTH = struct.Struct(">I")

_TABLES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
)


def tables(database: sqlite3.Connection) -> list[str]:
    return [name for (name,) in database.execute(_TABLES)]


@contextmanager
def moment(database: sqlite3.Connection) -> Iterator[None]:
    """What is read inside is of one moment, also while others write.

    :param database: a connection that nobody else uses.
    """
    database.execute("BEGIN")
    try:
        yield
    finally:
        database.execute("COMMIT")


def pages(database: sqlite3.Connection) -> Iterator[bytes]:
    """All rows of all tables. Blocks."""
    for table in tables(database):
        rows = database.execute(f"SELECT * FROM {table}")
        while found := rows.fetchmany(ROWS_PER_PAGE):
            page = SnapshotPage(table=table)
            for row in found:
                page.rows.add(values=[_encode(value) for value in row])
            content = page.SerializeToString()
            yield _LENGTH.pack(len(content)) + content


def load(database: sqlite3.Connection, read: Callable[[int], bytes]) -> None:
    """Put the state of a stream in place of what is there, in one transaction. Blocks.

    :param read: the next so many bytes of the stream; fewer only at its end.
    :raises IntegrityError: where it is no such stream; nothing is changed then.
    """
    known = set(tables(database))
    database.execute("BEGIN IMMEDIATE")
    try:
        for table in known:
            database.execute(f"DELETE FROM {table}")
        while start := read(_LENGTH.size):
            page = SnapshotPage.FromString(read(_LENGTH.unpack(start)[0]))
            if page.table not in known:
                raise IntegrityError(f"the state of another head has a table {page.table!r}")
            for row in page.rows:
                values = [_decode(value) for value in row.values]
                places = ", ".join("?" * len(values))
                database.execute(f"INSERT INTO {page.table} VALUES ({places})", values)
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _encode(value: object) -> SnapshotValue:
    if isinstance(value, int):
        return SnapshotValue(integer=value)
    if isinstance(value, bytes):
        return SnapshotValue(blob=value)
    if isinstance(value, str):
        return SnapshotValue(text=value)
    assert value is None, type(value)
    return SnapshotValue()


def _decode(value: SnapshotValue) -> object:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)
