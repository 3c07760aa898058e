"""Who is alive: judged by the answers to heartbeats, in the judge's own running time.

======== ============================== ============================================
state    while                          what follows
======== ============================== ============================================
LIVE     heard of lately                gets new chunks
SUSPECT  silent, or its link is lost    gets no new chunks; its replicas still count
DEAD     silent for `dead_seconds`      its replicas do not count; repair begins
======== ============================== ============================================

A server that is stopped in good order says so; it is suspect from then on, and dead only when it
has been away for longer than it may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    LIVE = "live"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(slots=True)
class _Record:
    heard_at: float
    linked: bool
    state: State
    away_until: float = 0.0


class Liveness:
    """The state of every chunk server that is known.

    :param suspect_seconds: silence after which a server is suspect.
    :param dead_seconds: silence after which it is dead.
    :param most_gap_seconds: between two judgements; what is above it the judge itself was stopped
        for, and does not count against anybody (S18).
    """

    def __init__(
        self, *, suspect_seconds: float, dead_seconds: float, most_gap_seconds: float
    ) -> None:
        self._suspect_seconds = suspect_seconds
        self._dead_seconds = dead_seconds
        self._most_gap_seconds = most_gap_seconds
        self._records: dict[str, _Record] = {}
        self._judged_at: float | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def state(self, name: str) -> State:
        return self._records[name].state

    def silent_seconds(self, name: str, now: float) -> float:
        return now - self._records[name].heard_at

    def begin(self, now: float, names: Iterable[str]) -> None:
        """Judge anew: each of these has as long to come as a silent one (S18)."""
        before = self._records
        self._records = {name: _Record(now, False, State.SUSPECT) for name in names}
        for name, record in self._records.items():
            if name in before:
                record.away_until = before[name].away_until
        self._judged_at = now

    def joined(self, name: str, now: float) -> State:
        """It is here; returns the state that it had, DEAD for one never seen."""
        before = self._records.get(name)
        self._records[name] = _Record(now, True, State.LIVE)
        return before.state if before is not None else State.DEAD

    def heard(self, name: str, now: float) -> None:
        record = self._records[name]
        if record.linked:
            record.heard_at, record.state = now, State.LIVE

    def link_lost(self, name: str) -> None:
        record = self._records[name]
        record.linked = False
        if record.state is State.LIVE:
            record.state = State.SUSPECT

    def left(self, name: str, until: float) -> None:
        """It said that it is being stopped: until then it is not dead."""
        record = self._records[name]
        record.linked, record.state, record.away_until = False, State.SUSPECT, until

    def away_seconds(self, name: str, now: float) -> float:
        """How long one that left in good order is waited for yet; 0 of others."""
        record = self._records[name]
        return max(0.0, record.away_until - now) if record.state is State.SUSPECT else 0.0

    def give_up(self, now: float) -> None:
        """Wait for nobody who left."""
        for record in self._records.values():
            record.away_until = min(record.away_until, now)

    def judge(self, now: float) -> list[str]:
        """Bring all states up to `now`; returns the servers that are found dead in this turn."""
        gap = now - self._judged_at if self._judged_at is not None else 0.0
        self._judged_at = now
        stopped_seconds = max(0.0, gap - self._most_gap_seconds)
        died = []
        for name, record in self._records.items():
            record.heard_at = min(now, record.heard_at + stopped_seconds)
            record.away_until += stopped_seconds
            silence = now - record.heard_at
            if record.state is State.DEAD:
                continue
            if silence >= self._dead_seconds and now >= record.away_until:
                record.state = State.DEAD
                died.append(name)
            elif silence >= self._suspect_seconds or not record.linked:
                record.state = State.SUSPECT
        return died
