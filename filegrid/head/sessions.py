"""Client sessions: leases in log time, and what was answered to whom."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from filegrid.errors import InvalidRequest, NotPermitted, OutcomeUnknown
from filegrid.head.rows import Row, write_rows
from filegrid.head.schema import MOST_INTEGER, RegisterFile, Registers
from filegrid.model import SessionId, unique_id
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire

SESSION_LEASE_MS = 10 * 60 * 1000
"""Log time for which a session lives without being renewed. Shorter, and a client that is cut off
for a while loses its uploads; longer, and what dead clients uploaded fills the disks."""

MOST_LINEAGE = 2**15 - 1
"""So that a session id, lineage << 48 | counter, stays a positive integer for SQLite."""

MOST_KNOWN = 10_000
"""Sessions kept in memory, some 3 MiB; above that number they are read anew."""

MOST_UNANSWERED = 16_384
"""How many results of one session are kept at most, whatever its client says it still needs."""

_COUNTER_BITS = 48

_GET = "SELECT client, renewed_ms, answered_below, ended_below FROM sessions WHERE id = ?"
_OPEN = "INSERT INTO sessions VALUES (?, ?, ?, 0, 0)"
_RENEW = """UPDATE sessions SET renewed_ms = ?2, ended_below = max(ended_below, ?3)
    WHERE id = ?1"""
_ANSWERED = "UPDATE sessions SET answered_below = ? WHERE id = ?"
_DROP = "DELETE FROM sessions WHERE id = ?"
_RESULT = "SELECT outcome FROM results WHERE session = ? AND sequence = ?"
_LAST_RESULT = "SELECT max(sequence) FROM results WHERE session = ?"
_RECORD = "INSERT INTO results VALUES (ROWS)"
_DROP_ANSWERED = "DELETE FROM results WHERE session = ? AND sequence < ?"
_DROP_RESULTS = "DELETE FROM results WHERE session = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session that lives.

    :ivar ended_below: what it numbered lower than this it publishes no more: those uploads ended.
    """

    id: SessionId
    client: str
    renewed_ms: int
    answered_below: int
    ended_below: int

    def may_publish(self, unique: bytes) -> bool:
        """Whether a change may still come that names this chunk or content of ours (S14)."""
        return unique >= unique_id(self.id, self.ended_below)

    def is_due(self, log_time_ms: int) -> bool:
        """Whether its lease has run out; it lives until the log says that it ended."""
        return log_time_ms - self.renewed_ms > SESSION_LEASE_MS


def get_session(database: sqlite3.Connection, session: int) -> Session | None:
    if session > MOST_INTEGER:
        return None
    row = database.execute(_GET, (session,)).fetchone()
    if row is None:
        return None
    client, renewed_ms, answered_below, ended_below = row
    return Session(
        id=SessionId(session),
        client=client,
        renewed_ms=renewed_ms,
        answered_below=answered_below,
        ended_below=ended_below,
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


@dataclass(slots=True)
class _Known:
    """A living session in memory. :ivar last: the highest sequence whose result is kept."""

    client: str
    answered_below: int
    ended_below: int
    last: int


class Sessions:
    """Changes of the sessions.

    Results, and which answers have arrived, are noted, and written once for all changes of a
    group, at :meth:`flush`: a busy client says the latter anew with every change.
    """

    def __init__(self, database: sqlite3.Connection, registers: RegisterFile) -> None:
        self._database = database
        self._registers = registers
        self._known: dict[int, _Known] = {}  # outlives transactions: nobody else changes them
        self._answered: set[int] = set()
        self._results: dict[tuple[int, int], bytes] = {}

    def open(self, client: str) -> SessionId:
        now = self._registers.now
        now.last_session += 1
        session = SessionId(now.lineage << _COUNTER_BITS | now.last_session)
        self._database.execute(_OPEN, (session, client, now.log_time_ms))
        return session

    def renew(self, session: int, ended_below: int) -> int:
        if session > MOST_INTEGER:
            return 0
        ended_below = min(ended_below, MOST_INTEGER)
        known = self._known.get(session)
        if known is not None:
            known.ended_below = max(known.ended_below, ended_below)
        values = session, self._registers.now.log_time_ms, ended_below
        return self._database.execute(_RENEW, values).rowcount

    def first_open(self, session: SessionId) -> bytes:
        """Of a session that was admitted: no id lower than this is published any more (S14)."""
        return unique_id(session, self._known[session].ended_below)

    def is_due(self, session: int) -> bool:
        found = get_session(self._database, session)
        return found is not None and found.is_due(self._registers.now.log_time_ms)

    def end(self, session: SessionId) -> None:
        self.flush()
        self._known.pop(session, None)
        self._database.execute(_DROP_RESULTS, (session,))
        self._database.execute(_DROP, (session,))

    def admit(self, once: wire.Once, client: str) -> journal.Outcome | None:
        """What the change came to, where it was made before; None where it is to be made now (S10).

        :raises OutcomeUnknown: where the session is not alive, or its client has said that it
            has the answer.
        :raises NotPermitted: where the session is another client's.
        """
        session, sequence, answered_below = once.session, once.sequence, once.answered_below
        known = self._known.get(session) or self._learn(session)
        if known is None:
            raise OutcomeUnknown(
                "the session has ended; the change may have been applied before",
                advice="look at the path, then open a new session",
            )
        if known.client != client:
            raise NotPermitted("this session belongs to another client")
        if sequence < known.answered_below:
            raise OutcomeUnknown("the answer to this change is not kept any more")
        if sequence > MOST_INTEGER:
            raise InvalidRequest("a sequence number out of range")
        if sequence - max(answered_below, known.answered_below) > MOST_UNANSWERED:
            raise InvalidRequest("too many changes whose answers are still awaited")
        if min(answered_below, sequence) > known.answered_below:
            known.answered_below = min(answered_below, sequence)
            self._answered.add(session)
        if sequence > known.last:
            return None
        result = self._results.get((session, sequence))
        if result is None:
            row = self._database.execute(_RESULT, (session, sequence)).fetchone()
            result = None if row is None else row[0]
        return None if result is None else journal.Outcome.FromString(result)

    def record(self, once: wire.Once, outcome: journal.Outcome) -> None:
        """Keep the answer; which chunks came and went is not part of it."""
        if outcome.released or outcome.published:
            answer = journal.Outcome()
            answer.CopyFrom(outcome)
            answer.ClearField("released")
            answer.ClearField("published")
            outcome = answer
        session, sequence = once.session, once.sequence
        known = self._known[session]
        known.last = max(known.last, sequence)
        self._results[session, sequence] = outcome.SerializeToString(deterministic=True)

    def flush(self) -> None:
        """Write what was noted, and drop the answers that nobody will ask for."""
        results: list[Row] = [(*key, result) for key, result in self._results.items()]
        write_rows(self._database, _RECORD, results)
        for session in self._answered:
            answered_below = self._known[session].answered_below
            self._database.execute(_DROP_ANSWERED, (session, answered_below))
            self._database.execute(_ANSWERED, (answered_below, session))
        self._results.clear()
        self._answered.clear()
        if len(self._known) > MOST_KNOWN:
            self._known.clear()

    def forget(self) -> None:
        """After a rollback: drop what was noted, and what may not be so any more."""
        self._known.clear()
        self._answered.clear()
        self._results.clear()

    def _learn(self, session: int) -> _Known | None:
        found = get_session(self._database, session)
        if found is None:
            return None
        last = self._database.execute(_LAST_RESULT, (session,)).fetchone()[0]
        known = _Known(found.client, found.answered_below, found.ended_below, last or 0)
        self._known[session] = known
        return known
