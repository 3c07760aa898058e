"""Client sessions: leases in log time, and what was answered to whom."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from filegrid.errors import InvalidRequest, NotPermitted, OutcomeUnknown
from filegrid.head.schema import MOST_INTEGER, RegisterFile, Registers
from filegrid.model import SessionId
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire

SESSION_LEASE_MS = 10 * 60 * 1000
"""Log time for which a session lives without being renewed. Shorter, and a client that is cut off
for a while loses its uploads; longer, and what dead clients uploaded fills the disks."""

MOST_LINEAGE = 2**15 - 1
"""So that a session id, lineage << 48 | counter, stays a positive integer for SQLite."""

MOST_UNANSWERED = 16_384
"""How many results of one session are kept at most, whatever its client says it still needs."""

_COUNTER_BITS = 48

_GET = "SELECT client, renewed_ms, answered_below FROM sessions WHERE id = ?"
_OPEN = "INSERT INTO sessions VALUES (?, ?, ?, 0)"
_RENEW = "UPDATE sessions SET renewed_ms = ? WHERE id = ?"
_ANSWERED = "UPDATE sessions SET answered_below = ? WHERE id = ?"
_DROP = "DELETE FROM sessions WHERE id = ?"
_RESULT = "SELECT outcome FROM results WHERE session = ? AND sequence = ?"
_RECORD = "INSERT INTO results VALUES (?, ?, ?)"
_DROP_ANSWERED = "DELETE FROM results WHERE session = ? AND sequence < ?"
_DROP_RESULTS = "DELETE FROM results WHERE session = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session that lives."""

    id: SessionId
    client: str
    renewed_ms: int
    answered_below: int

    def is_due(self, log_time_ms: int) -> bool:
        """Whether its lease has run out; it lives until the log says that it ended."""
        return log_time_ms - self.renewed_ms > SESSION_LEASE_MS


def get_session(database: sqlite3.Connection, session: int) -> Session | None:
    if session > MOST_INTEGER:
        return None
    row = database.execute(_GET, (session,)).fetchone()
    if row is None:
        return None
    client, renewed_ms, answered_below = row
    return Session(
        id=SessionId(session), client=client, renewed_ms=renewed_ms, answered_below=answered_below
    )


def was_opened(registers: Registers, session: SessionId) -> bool:
    """Whether the session's birth is in this history, alive or not (S12, S14).

    So are those of earlier lineages, once a person has said that nothing of them is needed.
    """
    lineage, counter = lineage_of(session), session & ((1 << _COUNTER_BITS) - 1)
    if lineage != registers.lineage:
        return 0 < lineage <= registers.forgotten_lineage
    return 0 < counter <= registers.last_session


def lineage_of(session: SessionId) -> int:
    """Which history of the grid opened it (S12)."""
    return session >> _COUNTER_BITS


class Sessions:
    """Changes of the sessions.

    Which answers have arrived is noted, and written once for all changes of a group, at
    :meth:`flush`: a busy client says it anew with every change.
    """

    def __init__(self, database: sqlite3.Connection, registers: RegisterFile) -> None:
        self._database = database
        self._registers = registers
        self._answered: dict[int, int] = {}

    def open(self, client: str) -> SessionId:
        now = self._registers.now
        now.last_session += 1
        session = SessionId(now.lineage << _COUNTER_BITS | now.last_session)
        self._database.execute(_OPEN, (session, client, now.log_time_ms))
        return session

    def renew(self, session: int) -> int:
        if session > MOST_INTEGER:
            return 0
        return self._database.execute(_RENEW, (self._registers.now.log_time_ms, session)).rowcount

    def is_due(self, session: int) -> bool:
        found = get_session(self._database, session)
        return found is not None and found.is_due(self._registers.now.log_time_ms)

    def end(self, session: SessionId) -> None:
        self._answered.pop(session, None)
        self._database.execute(_DROP_RESULTS, (session,))
        self._database.execute(_DROP, (session,))

    def admit(self, once: wire.Once, client: str) -> journal.Outcome | None:
        """What the change came to, where it was made before; None where it is to be made now (S10).

        :raises OutcomeUnknown: where the session is not alive, or its client has said that it
            has the answer.
        :raises NotPermitted: where the session is another client's.
        """
        found = get_session(self._database, once.session)
        if found is None:
            raise OutcomeUnknown(
                "the session has ended; the change may have been applied before",
                advice="look at the path, then open a new session",
            )
        if found.client != client:
            raise NotPermitted("this session belongs to another client")
        sequence = once.sequence
        answered_below = self._answered.get(found.id, found.answered_below)
        if sequence < answered_below:
            raise OutcomeUnknown("the answer to this change is not kept any more")
        if sequence > MOST_INTEGER:
            raise InvalidRequest("a sequence number out of range")
        if sequence - max(once.answered_below, answered_below) > MOST_UNANSWERED:
            raise InvalidRequest("too many changes whose answers are still awaited")
        if min(once.answered_below, sequence) > answered_below:
            self._answered[found.id] = min(once.answered_below, sequence)
        row = self._database.execute(_RESULT, (found.id, sequence)).fetchone()
        return None if row is None else journal.Outcome.FromString(row[0])

    def record(self, once: wire.Once, outcome: journal.Outcome) -> None:
        """Keep the answer; which chunks came and went is not part of it."""
        answer = journal.Outcome()
        answer.CopyFrom(outcome)
        answer.ClearField("released")
        answer.ClearField("published")
        row = (once.session, once.sequence, answer.SerializeToString(deterministic=True))
        self._database.execute(_RECORD, row)

    def flush(self) -> None:
        """Write what was noted, and drop the answers that nobody will ask for."""
        for session, answered_below in self._answered.items():
            self._database.execute(_DROP_ANSWERED, (session, answered_below))
            self._database.execute(_ANSWERED, (answered_below, session))
        self._answered.clear()

    def forget(self) -> None:
        """Drop what was noted in a transaction that is rolled back."""
        self._answered.clear()
