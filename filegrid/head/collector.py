"""Taking away what nothing refers to: after a grace, after a second look, and never on a guess.

A chunk goes only where committed state shows that no later command can refer to it (S14): it was
released by a logged removal, or its session has ended, or has said in the log that the upload has
ended, without publishing it. A chunk of a session that this history never opened is not ours to
judge, and stays.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence

from twisted.logger import Logger

from filegrid.errors import GridError
from filegrid.head.liveness import State
from filegrid.head.locations import Locations
from filegrid.head.redundancy import Redundancy
from filegrid.head.roster import Roster, Server
from filegrid.head.schema import MOST_INTEGER
from filegrid.head.sessions import lineage_of
from filegrid.head.view import View
from filegrid.model import ChunkId, session_of
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import frame_pb2
from filegrid.runtime import Runtime

CHUNKS_PER_ORDER = 256
CHUNKS_PER_TURN = 2048

COUNTED_CHUNKS = 4096
"""Of those that are to go: more say nothing new."""

DISCARD_SECONDS = 60.0

MOST_UNEXPLAINED_FRACTION = 0.05
MOST_UNEXPLAINED = 1000
"""More chunks than both, unpublished and of ended sessions at once, wait for a person (S14)."""

_log = Logger()


class Collector:
    """Removes strays from the chunk servers.

    :param grace_seconds: how long a chunk must have been a stray, in this head's own running time.
    :param forget: logs that released chunks are gone from all servers.
    :ivar held_back: how many strays wait for a person.
    """

    def __init__(
        self,
        runtime: Runtime,
        roster: Roster,
        redundancy: Redundancy,
        locations: Locations,
        namespace: View,
        *,
        grace_seconds: float,
        forget: Callable[[Sequence[ChunkId]], Awaitable[None]],
    ) -> None:
        self.held_back = 0
        self._runtime = runtime
        self._roster = roster
        self._redundancy = redundancy
        self._locations = locations
        self._namespace = namespace
        self._grace_seconds = grace_seconds
        self._forget = forget
        self._ordered: set[ChunkId] = set()
        self._orders = Tasks("a removal order")

    async def stop(self) -> None:
        await self._orders.stop()

    def turn(self) -> None:
        """Order the removal of what has been a stray for the grace and still is one.

        Not before every holder has reported to this leader (S17).
        """
        if not self._roster.complete or not self._redundancy.settled:
            return
        now, lineage = self._runtime.clock.seconds(), self._namespace.registers().lineage
        released: list[ChunkId] = []
        unpublished: list[ChunkId] = []
        for chunk_id, stray in self._redundancy.strays.items():
            if now - stray.since < self._grace_seconds:
                break  # the longest known come first
            if chunk_id in self._ordered:
                continue
            record = self._namespace.chunk(chunk_id)  # the second look
            if record is not None:
                if record.released_ms is not None:
                    released.append(chunk_id)
            elif self._is_abandoned(chunk_id):
                of_before = lineage_of(session_of(chunk_id)) < lineage  # a person let them go
                (released if of_before else unpublished).append(chunk_id)
            if len(released) >= CHUNKS_PER_TURN:
                break
        limit = max(MOST_UNEXPLAINED, MOST_UNEXPLAINED_FRACTION * self._namespace.counts().chunks)
        self.held_back = len(unpublished) if len(unpublished) > limit else 0
        if not self.held_back:
            self._discard(unpublished[:CHUNKS_PER_TURN])
        self._discard(released)

    def coming_bytes(self) -> Counter[str]:
        """What each server gets back once the grace of what was released is over, or a part."""
        coming: Counter[str] = Counter()
        for chunk in self._namespace.released_before(MOST_INTEGER, COUNTED_CHUNKS):
            coming.update(dict.fromkeys(self._locations.reporters(chunk.id), chunk.length))
        return coming

    def _is_abandoned(self, chunk_id: ChunkId) -> bool:
        was_opened = self._namespace.session_was_opened(session_of(chunk_id))
        return was_opened and not self._namespace.may_be_published(chunk_id)

    def _discard(self, chunk_ids: list[ChunkId]) -> None:
        by_server: defaultdict[str, list[ChunkId]] = defaultdict(list)
        gone: list[ChunkId] = []
        for chunk_id in chunk_ids:
            holders = [
                name
                for name in self._locations.reporters(chunk_id)
                if not self._roster.is_gone(name)
            ]
            for name in holders:
                if self._roster.state(name) is State.LIVE:
                    by_server[name].append(chunk_id)
            if not holders:
                gone.append(chunk_id)
        for name, theirs in by_server.items():
            for start in range(0, len(theirs), CHUNKS_PER_ORDER):
                batch = theirs[start : start + CHUNKS_PER_ORDER]
                self._ordered.update(batch)
                self._orders.begin(self._order(self._roster[name], batch))
        if gone and self._all_are_here():
            self._ordered.update(gone)
            self._orders.begin(self._write_off(gone))

    def _all_are_here(self) -> bool:
        """Or somebody may come back with chunks that, once they are written off, nobody knows."""
        return all(
            self._roster.state(server.name) is State.LIVE or self._roster.is_gone(server.name)
            for server in self._roster
        )

    async def _order(self, server: Server, chunk_ids: list[ChunkId]) -> None:
        try:
            if server.link is None:
                return
            request = wire.DiscardChunks(order=self._roster.order(server), chunk_ids=chunk_ids)
            await server.link.call(request, frame_pb2.Done, timeout_seconds=DISCARD_SECONDS)
            _log.info("{server} removed {count} chunks", server=server.name, count=len(chunk_ids))
        except GridError as error:
            _log.warn("{server} did not remove: {error}", server=server.name, error=error)
        finally:
            self._ordered.difference_update(chunk_ids)
            self._redundancy.touch(chunk_ids)

    async def _write_off(self, chunk_ids: list[ChunkId]) -> None:
        """Nobody holds them any more: the log may forget them too."""
        try:
            await self._forget(chunk_ids)
        except GridError as error:
            _log.warn("released chunks are not written off: {error}", error=error)
        finally:
            self._ordered.difference_update(chunk_ids)
            self._redundancy.touch(chunk_ids)
