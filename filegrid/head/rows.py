"""Many rows in one statement.

Python lets go of its lock around every step of SQLite, and then waits for its turn to go on: beside
a busy reactor that costs far more than the row. So what a group of entries needs is read, and
written, in as few steps as can be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

Row: TypeAlias = tuple[Any, ...]

MOST_ROWS = 64
"""In one statement: more save little, and a connection keeps few statements prepared."""

ROWS = "(ROWS)"
"""Stands in a statement for its rows: ``VALUES (ROWS)``, or ``IN (ROWS)``."""


def write_rows(database: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    """Run the statement for all rows."""
    for part in _parts(rows):
        database.execute(_over(statement, len(part), len(part[0])), _flat(part))


def read_rows(database: sqlite3.Connection, statement: str, keys: Sequence[Row]) -> Iterator[Row]:
    """What the statement gives for all keys."""
    for part in _parts(keys):
        yield from database.execute(_over(statement, len(part), len(part[0])), _flat(part))


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Pieces whose lengths are powers of two, so that a few prepared statements serve them all."""
    start, size = 0, MOST_ROWS
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


def _flat(rows: Sequence[Row]) -> list[Any]:
    return [value for row in rows for value in row]


@lru_cache(maxsize=256)
def _over(statement: str, count: int, width: int) -> str:
    row = ", ".join("?" * width)
    if width > 1 or "VALUES (ROWS)" in statement:
        row = f"({row})"
    joined = ", ".join([row] * count)
    return statement.replace(ROWS, joined if "VALUES (ROWS)" in statement else f"({joined})")
