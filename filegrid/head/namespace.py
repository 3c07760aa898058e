"""The namespace: a deterministic state machine on SQLite, fed by the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from filegrid.head import snapshot
from filegrid.head.changes import Changes
from filegrid.head.schema import RegisterFile, open_schema
from filegrid.head.view import View
from filegrid.protocol.wire import journal_pb2 as journal

BUSY_MS = 5000
"""How long the state waits for a reader where it has to: until the next start nothing else does."""


class Namespace(View):
    """Names, manifests, sessions and servers of a grid.

    The same entries make the same state at every head, whenever and however often they are
    applied. Time is the log's (S9).

    :param database: where entries are applied, by one thread at a time.
    :param readers: a second connection to the same database, for the thread that reads while the
        other applies; without it one thread does both.
    :raises UnsupportedVersion: for a database that another release made (S24).
    """

    def __init__(
        self, database: sqlite3.Connection, readers: sqlite3.Connection | None = None
    ) -> None:
        open_schema(database)
        super().__init__(readers or database)
        self._database = database
        self._registers = RegisterFile(database)
        self._changes = Changes(database, self._registers)

    @property
    def applied_index(self) -> int:
        """For the thread that applies; others ask :meth:`registers`."""
        return self._registers.now.applied_index

    @property
    def log_time_ms(self) -> int:
        """Of the last applied entry; for the thread that applies."""
        return self._registers.now.log_time_ms

    def apply(self, entries: Sequence[journal.Entry]) -> list[journal.Outcome]:
        """Apply entries, in one transaction with the index up to which they were applied (S8).

        :returns: for each entry its outcome; an empty one where the entry was applied before.
        """
        applied = self._registers.now.applied_index
        outcomes: list[journal.Outcome] = []
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._changes.fetch(entries)
            for entry in entries:
                if entry.index <= applied:
                    outcomes.append(journal.Outcome())
                    continue
                assert entry.index == self._registers.now.applied_index + 1, entry.index
                outcomes.append(self._changes.apply(entry))
            self._changes.finish()
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self._changes.forget()
            raise
        return outcomes

    def replace(self, read: Callable[[int], bytes]) -> None:
        """Put the state of another head in place of this one, durably.

        :param read: the next so many bytes of what :func:`filegrid.head.snapshot.pages` made.
        :raises IntegrityError: where it is no such state; nothing is changed then.
        """
        # By its own sync: a backup that reads may keep what comes then from writing it back.
        self._database.execute("PRAGMA synchronous = FULL")
        try:
            snapshot.load(self._database, read)
        finally:
            self._database.execute("PRAGMA synchronous = NORMAL")
        self._changes.forget()
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def checkpoint(self) -> int:
        """Make what was applied durable in the database file itself.

        :returns: the index up to which the log is not needed any more to rebuild this state; 0
            where a reader was in the way, and nothing may be cut (S8).
        """
        # A backup that is being made reads for long, and changes do not wait for it.
        self._database.execute("PRAGMA busy_timeout = 0")
        row = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        return 0 if row[0] else self._registers.now.applied_index
