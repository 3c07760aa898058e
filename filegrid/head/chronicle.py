"""The events that the log has noted, the last of them: `filegrid events`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from filegrid.protocol.wire.health_pb2 import Event

MOST_EVENTS = 10_000
"""Kept; some years of a quiet grid, and some MiB."""

MOST_ELECTIONS = 64

_LAST_NUMBER = "SELECT ifnull(max(number), 0) FROM events"
_ADD = "INSERT INTO events VALUES (?, ?, ?, ?)"
_TRIM = "DELETE FROM events WHERE number <= ?"
_LIST = "SELECT event FROM events ORDER BY number DESC LIMIT ?"
_LIST_OF = "SELECT event FROM events WHERE kind = ? ORDER BY number DESC LIMIT ?"
_LAST_OF = """SELECT event FROM events WHERE node = ? AND kind IN ({})
    ORDER BY number DESC LIMIT 1"""


def note(database: sqlite3.Connection, events: Iterable[Event]) -> int:
    """Add them behind the last; returns how many they were."""
    first: int = database.execute(_LAST_NUMBER).fetchone()[0] + 1
    rows = [
        (number, event.node, event.kind, event.SerializeToString(deterministic=True))
        for number, event in enumerate(events, first)
    ]
    database.executemany(_ADD, rows)
    database.execute(_TRIM, (first + len(rows) - 1 - MOST_EVENTS,))
    return len(rows)


def last_events(database: sqlite3.Connection, limit: int) -> list[Event]:
    """The oldest of them first."""
    rows = database.execute(_LIST, (limit,)).fetchall()
    return [Event.FromString(event) for (event,) in reversed(rows)]


def elections(database: sqlite3.Connection) -> list[tuple[str, float]]:
    """Who was elected, and when in seconds since 1970; the oldest of them first."""
    rows = database.execute(_LIST_OF, (Event.KIND_ELECTION, MOST_ELECTIONS)).fetchall()
    events = [Event.FromString(event) for (event,) in reversed(rows)]
    return [(event.node, event.at_ms / 1000) for event in events]


def last_event(
    database: sqlite3.Connection, node: str, kinds: Sequence[Event.Kind.ValueType]
) -> Event | None:
    """The last of a node that is of one of these kinds."""
    marks = ",".join("?" * len(kinds))
    row = database.execute(_LAST_OF.format(marks), (node, *kinds)).fetchone()
    return None if row is None else Event.FromString(row[0])
