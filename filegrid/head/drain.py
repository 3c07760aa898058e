"""Chunk servers that are to leave: what still holds them, and when they are safe to switch off.

That a server is to leave is logged, and so outlives leaders. From then on it gets no new chunks,
and its replicas do not count any more as those that stay: what has too few without it is copied as
in any repair, and the server is one of those that can be read from. It is drained, which is logged
too, once nothing is there that is not elsewhere as often as its file wants. A dead server can be
drained as well: that says that it is not expected back, once nothing is missing that it may have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from twisted.logger import Logger

from filegrid.errors import GridError
from filegrid.head.deficits import Deficit
from filegrid.head.liveness import State
from filegrid.head.locations import Locations
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.head.roster import Roster
from filegrid.head.view import Standing, View
from filegrid.model import ChunkId
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.runtime import Runtime

QUIET_SECONDS = 5.0
"""So long nothing must have been there that is not elsewhere: uploads were told of the server
before it was to leave, and their next chunks may be on their way."""

MOST_UPLOADS = 1000
"""Chunks of open uploads that are counted; more make no difference."""

SCAN_PAGE = 256

_log = Logger()


@dataclass(slots=True, kw_only=True)
class Left:
    """What is on a server and not elsewhere yet.

    :ivar uploads: chunks of uploads that are under way, sealed or still being written.
    :ivar wanting: of the chunks, the most replicas that one wants.
    """

    chunks: int = 0
    bytes: int = 0
    uploads: int = 0
    wanting: int = 0
    blockers: list[str] = field(default_factory=list)


class Drain:
    """Looks after the servers that are to leave, for a leader.

    :param propose: commits a command.
    """

    def __init__(
        self,
        runtime: Runtime,
        roster: Roster,
        redundancy: Redundancy,
        locations: Locations,
        registry: Registry,
        namespace: View,
        *,
        propose: Callable[[journal.Command], Awaitable[journal.Outcome]],
    ) -> None:
        self._runtime = runtime
        self._roster = roster
        self._redundancy = redundancy
        self._locations = locations
        self._registry = registry
        self._namespace = namespace
        self._propose = propose
        self._empty_since: dict[str, float] = {}
        self._changes = Tasks("a change of a server's standing")

    async def stop(self) -> None:
        await self._changes.stop()

    def state(self, name: str) -> str:
        """As status shows it: of a server that cannot be reached, that comes first."""
        standing, state = self._registry.standing(name), self._roster.state(name)
        if standing is Standing.DRAINED and (state is not State.LIVE or not self._is_needed(name)):
            return "drained"  # it may be switched off, and may have been
        if standing is not Standing.SERVING and state is State.LIVE:
            return "draining"
        return state.value

    async def order(self, names: Sequence[str], *, undo: bool) -> None:
        """Log that servers are to leave, or to stay after all."""
        wanted = Standing.SERVING if undo else Standing.DRAINING
        changing = [
            name for name in names if undo or self._registry.standing(name) is not Standing.DRAINED
        ]
        await self._set(changing, wanted)

    async def _set(self, names: Sequence[str], standing: Standing) -> None:
        change = journal.SetStanding(servers=names, standing=standing.value)
        await self._propose(journal.Command(set_standing=change))

    # Whether it is over.

    def turn(self) -> None:
        """Log what has become true of servers that are leaving."""
        now = self._runtime.clock.seconds()
        leaving = [
            name
            for name in sorted(self._registry.leaving)
            if self._roster.state(name) is not State.SUSPECT and not self._roster.is_gone(name)
        ]
        needed = {name: self._is_needed(name) for name in leaving}
        # While files are written there is often something that was not looked at yet. That says
        # nothing: what came to a server meanwhile is there at the next look.
        self._empty_since = {
            name: self._empty_since.get(name, now)
            for name in leaving
            if needed[name] is False or (needed[name] is None and name in self._empty_since)
        }
        if len(self._changes):
            return
        for name in leaving:
            drained = self._registry.standing(name) is Standing.DRAINED
            if drained and needed[name]:
                self._changes.begin(self._note(name, Standing.DRAINING))
            is_quiet = now - self._empty_since.get(name, now) >= QUIET_SECONDS
            if not drained and needed[name] is False and is_quiet:
                self._changes.begin(self._note(name, Standing.DRAINED))

    async def _note(self, name: str, standing: Standing) -> None:
        try:
            await self._set([name], standing)
            _log.info("{name} is {standing}", name=name, standing=standing.name.lower())
        except GridError as error:
            _log.warn("what {name} is was not logged: {error}", name=name, error=error)

    def _is_needed(self, name: str) -> bool | None:
        """Whether anything would be lost, or have fewer replicas than wanted, if it were switched
        off, or if it never came back; None where not all has been looked at just now."""
        if not (self._roster.complete and self._redundancy.settled):
            return None
        if self._roster.state(name) is State.DEAD:
            # This head may never have heard what a dead server holds: all that is missing may be.
            holds_more = bool(self._redundancy.deficits)
        else:
            holds_more = self._roster[name].load.writers > 0 or any(
                name in need.leaving for need in self._needs()
            )
        return holds_more or self._uploads(name, most=1) > 0

    def waiting(self, name: str) -> tuple[int, int]:
        """Chunks, and bytes in them, that wait to be made elsewhere; of what was looked at."""
        lengths = [need.record.chunk.length for need in self._needs() if name in need.leaving]
        return len(lengths), sum(lengths)

    def _needs(self) -> Iterator[Deficit]:
        # What moves is mostly what leaves: a server that is not empty is found so at once.
        return chain(self._redundancy.moves.by_urgency(), self._redundancy.deficits.by_urgency())

    def _uploads(self, name: str, *, most: int) -> int:
        """Sealed chunks of uploads that are under way."""
        count = 0
        for chunk_id, stray in self._redundancy.strays.items():
            if not stray.released and self._namespace.may_be_published(chunk_id):
                count += name in self._locations.reporters(chunk_id)
                if count >= most:
                    break
        return count

    # What is left to do.

    async def left(self, name: str, leaving: Sequence[str]) -> Left:
        """What would still be on a server alone, or is, if those `leaving` left, and what is in
        the way. Looks at all that is there, a page at a time."""
        found = Left(
            uploads=self._uploads(name, most=MOST_UPLOADS) + self._roster[name].load.writers
        )
        gone = {*leaving, *self._registry.leaving}
        after: bytes | None = b""
        while after is not None:
            ids, after = self._locations.of_server(name, after)
            self._count(ids, gone, found)
            await self._runtime.sleep(0)
        found.blockers = self._blockers(name, gone, found)
        return found

    def _count(self, ids: Sequence[ChunkId], gone: set[str], found: Left) -> None:
        for record in self._namespace.records(ids).values():
            if record.released_ms is not None:
                continue
            found.wanting = max(found.wanting, record.replication)
            staying = [
                other
                for other in self._locations.holders(record.chunk)
                if other not in gone and self._roster.state(other) is not State.DEAD
            ]
            if len(staying) < record.replication:
                found.chunks += 1
                found.bytes += record.chunk.length

    def _blockers(self, name: str, gone: set[str], found: Left) -> list[str]:
        """What keeps it from ever being drained, as things are; what takes only time is none."""
        blockers = []
        state, missing = self._roster.state(name), len(self._redundancy.deficits)
        if state is State.SUSPECT:
            blockers.append("it is suspect: nothing can be read from it")
        elif state is State.DEAD and missing:
            blockers.append(f"it is dead, and {missing} chunks lack replicas that it may have")
        staying = [one for one in self._roster.candidates() if one.name not in gone]
        if found.chunks and len(staying) < found.wanting:
            blockers.append(
                f"{len(staying)} servers would stay, and its chunks want {found.wanting} replicas"
            )
        room = sum(one.free_bytes for one in staying)
        if found.bytes > room:
            blockers.append(
                f"{found.bytes} bytes have to go elsewhere, and the servers that stay have room"
                f" for {room}"
            )
        if found.uploads:
            blockers.append(
                f"{found.uploads} chunks there are of uploads that are not finished: they are"
                " waited for"
            )
        return blockers
