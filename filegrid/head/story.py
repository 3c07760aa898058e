"""What came to pass in the grid, told in order: noted in the log, so that every head has it.

A leader notes what it sees of chunk servers, of rot, and of repair. What a leader before it has
noted already is not noted again: that a server is here, or dead, and that a repair is under way, is
looked up in the notes themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

from twisted.logger import Logger

from filegrid.errors import GridError
from filegrid.head.liveness import State
from filegrid.head.redundancy import Redundancy
from filegrid.head.roster import Roster
from filegrid.head.view import View
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire.health_pb2 import Event
from filegrid.runtime import Runtime

MOST_LOOKED_AT = 64
"""Deficits looked at in one turn to see whether one is to be repaired."""

MOST_WAITING = 1000
"""Events that wait to be noted; of a flood the oldest are left out."""

NOTED_AT_ONCE = 64

_HERE = (Event.KIND_JOINED, Event.KIND_RETURNED)
_AWAY = (Event.KIND_DIED, Event.KIND_LEFT)
_REPAIR = (Event.KIND_REPAIR_BEGUN, Event.KIND_REPAIR_ENDED)

_log = Logger()


class Story:
    """One leader's notes.

    :param propose: commits a command.
    """

    def __init__(
        self,
        runtime: Runtime,
        namespace: View,
        roster: Roster,
        redundancy: Redundancy,
        *,
        propose: Callable[[journal.Command], Awaitable[journal.Outcome]],
    ) -> None:
        self._runtime = runtime
        self._namespace = namespace
        self._roster = roster
        self._redundancy = redundancy
        self._propose = propose
        self._waiting: deque[Event] = deque(maxlen=MOST_WAITING)
        self._noting: list[Event] = []
        self._begun_ms: int | None = None  # when repair did; 0: none goes on
        redundancy.healed.clear()  # the leader of then has told of it
        self._notes = Tasks("noting events")

    async def stop(self) -> None:
        await self._notes.stop()

    def tell(self, kind: Event.Kind.ValueType, node: str, text: str = "") -> None:
        """It has come to pass, just now."""
        if kind in _HERE + _AWAY:
            last = self._last(node, _HERE + _AWAY)
            before = last.kind if last is not None else None
            if kind == Event.KIND_JOINED and before is not None:
                if before in _HERE:
                    return  # the leader before this one has said so
                kind = Event.KIND_RETURNED
            if kind == Event.KIND_DIED and before == kind:
                return
        at_ms = round(self._runtime.wall_seconds() * 1000)
        self._waiting.append(Event(kind=kind, node=node, text=text, at_ms=at_ms))

    def turn(self) -> None:
        """Look whether repair has begun or ended, and note what waits."""
        while self._redundancy.healed:
            chunk_id, names = self._redundancy.healed.popleft()
            text = f"chunk {chunk_id.hex()} has all its replicas again"
            self.tell(Event.KIND_ROT_HEALED, ", ".join(sorted(names)), text)
        if self._roster.accounted:
            self._look_at_repair()
        if self._waiting and not len(self._notes):
            self._notes.begin(self._note())

    def _look_at_repair(self) -> None:
        deficits = self._redundancy.deficits
        if self._begun_ms is None:  # a leader before this one may have told of it
            last = self._last("", _REPAIR)
            goes_on = last is not None and last.kind == Event.KIND_REPAIR_BEGUN
            self._begun_ms = last.at_ms if last is not None and goes_on else 0
        if self._begun_ms and not deficits and self._redundancy.settled:
            seconds = self._runtime.wall_seconds() - self._begun_ms / 1000
            text = f"all chunks have their replicas again, after {max(0.0, seconds):.1f} s"
            self.tell(Event.KIND_REPAIR_ENDED, "", text)
            self._begun_ms = 0
        elif not self._begun_ms and self._is_short():
            text = f"{len(deficits)} chunks have too few replicas: {self.cause()}"
            self.tell(Event.KIND_REPAIR_BEGUN, "", text)
            self._begun_ms = self._waiting[-1].at_ms

    def _is_short(self) -> bool:
        """New chunks do not count as long as their servers may not have reported them yet."""
        now = self._runtime.clock.seconds()
        looked_at = islice(self._redundancy.deficits.values(), MOST_LOOKED_AT)
        return any(now >= deficit.ready_at for deficit in looked_at)

    def cause(self) -> str:
        """Why there are deficits, as far as the head can see."""
        away = [
            f"{server.name} is {self._roster.state(server.name).value}"
            for server in self._roster
            if self._roster.state(server.name) is not State.LIVE
        ]
        lost = [
            f"a disk of {server.name} is lost"
            for server in self._roster
            if any(disk.state == "lost" for disk in server.load.disks)
        ]
        condemned = self._redundancy.condemned
        damaged = sum(chunk_id in condemned for chunk_id in self._redundancy.deficits)
        rot = [f"{damaged} of them had a damaged replica"] if damaged else []
        return "; ".join([*away, *lost, *rot]) or "they want more replicas than they have"

    def _last(self, node: str, kinds: tuple[Event.Kind.ValueType, ...]) -> Event | None:
        for event in reversed([*self._noting, *self._waiting]):
            if event.node == node and event.kind in kinds:
                return event
        return self._namespace.last_event(node, kinds)

    async def _note(self) -> None:
        count = min(NOTED_AT_ONCE, len(self._waiting))
        self._noting = [self._waiting.popleft() for _ in range(count)]
        try:
            note = journal.Note(events=self._noting)
            await self._propose(journal.Command(note=note))
        except GridError as error:
            _log.warn("events are not noted: {error}", error=error)
        finally:
            self._noting = []
