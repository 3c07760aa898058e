"""Chunk servers that answer heartbeats and do not serve: found by what others say of them.

Clients and peers report a server that they could not reach, that failed, was slow, or sent wrong
bytes; a server itself reports the damage that it finds. One report says little: a cable of the
reporter may be loose. A server is suspect once two have reported it, or one of them twice with some
time between, or once it found much damage. It gets new chunks and readers last then, and its
replicas still count. It is trusted again when nobody has reported it for a while: the longer, the
more often that has happened.

Two rules keep a bad witness, or a bad network, from taking the grid away: who reports more than
half of all servers is not heard, and no more than half of all are suspect at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 60.0
"""Reports older than this count no more."""

APART_SECONDS = 2.0
"""Between two reports of one reporter that count as two: many transfers fail in the same moment."""

DAMAGED_CHUNKS = 3
DAMAGE_SECONDS = 600.0
"""So many damaged chunks in so long are not age but a disk, or its memory, that fails."""

FIRST_HOLD_SECONDS = 20.0
MOST_HOLD_SECONDS = 600.0
"""How long nobody must report a suspect before it is trusted again; doubled each time."""

FORGIVEN_SECONDS = 1800.0
"""After so long without suspicion the first time counts as the first again."""

MOST_REPORTS = 64
"""Kept of one server; the newest count."""


@dataclass(frozen=True, slots=True)
class Report:
    at: float
    reporter: str
    reason: str


@dataclass(slots=True)
class _Record:
    reports: deque[Report] = field(default_factory=lambda: deque(maxlen=MOST_REPORTS))
    damaged_at: deque[float] = field(default_factory=lambda: deque(maxlen=DAMAGED_CHUNKS))
    reason: str = ""
    until: float = 0.0
    times: int = 0


class Suspicion:
    """What is held against each server; everything is forgotten with the leader's reign."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def reason(self, name: str) -> str:
        """Why it is suspect; empty where it is trusted."""
        record = self._records.get(name)
        return record.reason if record is not None else ""

    def report(self, name: str, reporter: str, reason: str, now: float) -> None:
        """Somebody was not served by `name` as he should have been."""
        record = self._records.setdefault(name, _Record())
        recent = (one for one in record.reports if one.reporter == reporter)
        if any(now - one.at < APART_SECONDS for one in recent):
            return
        record.reports.append(Report(now, reporter, reason))
        if record.reason:
            record.until = max(record.until, now + _hold_seconds(record.times))

    def damaged(self, name: str, count: int, now: float) -> None:
        """It found so many of its own replicas damaged."""
        record = self._records.setdefault(name, _Record())
        record.damaged_at.extend([now] * min(count, DAMAGED_CHUNKS))

    def joined(self, name: str) -> None:
        """It begins anew: what was said of it before has its cause in what ended."""
        self._records.pop(name, None)

    def judge(self, now: float, names: list[str]) -> tuple[list[str], list[str]]:
        """Bring everything up to now.

        :param names: all servers there are.
        :returns: who is suspect from now on, and who is trusted again.
        """
        reporters: dict[str, set[str]] = {}
        for name, record in self._records.items():
            while record.reports and now - record.reports[0].at > WINDOW_SECONDS:
                record.reports.popleft()
            for one in record.reports:
                reporters.setdefault(one.reporter, set()).add(name)
        heard = {who for who, whom in reporters.items() if 2 * len(whom) <= len(names)}
        trusted = self._trust_again(now)
        suspects = sum(bool(record.reason) for record in self._records.values())
        found = []
        for name in names:
            record = self._records.setdefault(name, _Record())
            reason = "" if record.reason else _why(record, heard, now)
            if not reason or 2 * (suspects + 1) > len(names):
                continue
            if now - record.until > FORGIVEN_SECONDS:
                record.times = 0
            record.reason = reason
            record.until = now + _hold_seconds(record.times)
            record.times += 1
            suspects += 1
            found.append(name)
        return found, trusted

    def _trust_again(self, now: float) -> list[str]:
        trusted = []
        for name, record in self._records.items():
            if record.reason and now >= record.until:
                record.reason = ""
                record.reports.clear()
                record.damaged_at.clear()
                trusted.append(name)
        return trusted


def _hold_seconds(times: int) -> float:
    return float(min(MOST_HOLD_SECONDS, FIRST_HOLD_SECONDS * 2 ** min(times, 10)))


def _why(record: _Record, heard: set[str], now: float) -> str:
    reports = [one for one in record.reports if one.reporter in heard]
    reporters = sorted({one.reporter for one in reports})
    if len(reports) >= 2:
        return f"{' and '.join(reporters[:3])} report: {reports[-1].reason}"
    damaged_at = record.damaged_at
    if len(damaged_at) == DAMAGED_CHUNKS and now - damaged_at[0] <= DAMAGE_SECONDS:
        return f"it found {DAMAGED_CHUNKS} damaged chunks in {now - damaged_at[0]:.0f} s"
    return ""
