"""Re-replication: the orders that carry out the plan."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, takewhile

from twisted.logger import Logger

from filegrid.errors import GridError
from filegrid.head.deficits import Deficit
from filegrid.head.liveness import State
from filegrid.head.planning import Copy, Work, plan
from filegrid.head.redundancy import Redundancy
from filegrid.head.restraint import Restraint
from filegrid.head.roster import Roster, Server
from filegrid.head.view import View
from filegrid.model import ChunkId
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Runtime

COPIES_PER_ORDER = 256
ORDER_BYTES = 128 * 1024 * 1024
"""In one order, the last chunk whole; with it, a lost answer costs some seconds of work."""

COPY_SECONDS = 120.0
"""For one order, beyond what the limit takes; a server that takes longer is asked again, or another
one is."""

BURST_SECONDS = 1.0
"""What was not spent is kept for so long."""

_MIB = 1024 * 1024

_log = Logger()


class Repair:
    """Gives the orders of the plan, turn after turn.

    :param mib_per_second: that each chunk server may read or write for repair; 0 is no limit.
    :ivar running: the copies that are under way, by chunk, with their targets.
    :ivar work: what every live server has to do, and may do yet.
    """

    def __init__(
        self,
        runtime: Runtime,
        roster: Roster,
        redundancy: Redundancy,
        restraint: Restraint,
        namespace: View,
        *,
        mib_per_second: float,
    ) -> None:
        self.running: dict[ChunkId, str] = {}
        self.work: dict[str, Work] = {}
        self._runtime = runtime
        self._roster = roster
        self._redundancy = redundancy
        self._restraint = restraint
        self._namespace = namespace
        self._bytes_per_second = mib_per_second * _MIB or math.inf
        self._allowed_at = runtime.clock.seconds()
        self._orders = Tasks("a repair order")

    async def stop(self) -> None:
        await self._orders.stop()

    @property
    def bytes_per_second(self) -> float:
        """What all live servers together may copy."""
        return self._bytes_per_second * max(1, len(self._roster.candidates()))

    @property
    def waits_for(self) -> str:
        """Why it holds back; empty where it does not."""
        now = self._runtime.clock.seconds()
        seconds = self._restraint.seconds_left(now)
        if seconds:
            names = self._restraint.vanished
            return (
                f"{len(names)} servers vanished together ({', '.join(names[:5])}): but for chunks"
                f" on their last replica, repair waits {seconds:.0f} s for them, or for 'filegrid"
                " repair --now'"
            )
        if not self._roster.accounted:
            return "some servers have not reported yet"
        return ""

    def turn(self) -> None:
        """Order what can be ordered now; nothing before all servers have spoken (S18)."""
        deficits, moves = self._redundancy.deficits, self._redundancy.moves
        now = self._runtime.clock.seconds()
        live = {
            server.name for server in self._roster if self._roster.state(server.name) is State.LIVE
        }
        self._allow(live, now)
        if not self._roster.accounted or not (deficits or moves):
            return
        needs: Iterable[Deficit] = chain(deficits.by_urgency(), moves.by_urgency())
        if self._restraint.seconds_left(now):
            needs = takewhile(lambda need: len(need.sources) <= 1, deficits.by_urgency())
        found = plan(
            needs,
            self._roster.candidates(),
            self._roster.racks(),
            work=self.work,
            running=self.running,
            live=live,
            suspect={name for name in live if self._roster.suspicion(name)},
            now=now,
            random=self._runtime.random,
        )
        for chunk_id in found.stuck:
            self._postpone(chunk_id, now)
        self.begin(found.copies, planned=True)

    def _allow(self, live: Iterable[str], now: float) -> None:
        """Give everybody what the time since the last turn is worth."""
        seconds, self._allowed_at = now - self._allowed_at, now
        gained = self._bytes_per_second * max(seconds, 1e-6)
        most = self._bytes_per_second * BURST_SECONDS
        for name in live:
            work = self._work_of(name)
            work.read_bytes = min(most, work.read_bytes + gained)
            work.write_bytes = min(most, work.write_bytes + gained)
        for name in self.work.keys() - set(live):
            if not self.work[name].copies:
                del self.work[name]

    def _work_of(self, name: str) -> Work:
        """Of one, too, that has come since the last turn."""
        return self.work.setdefault(name, Work())

    def begin(self, copies: Iterable[Copy], *, planned: bool = False) -> None:
        """Order copies.

        :param planned: the plan has counted them already.
        """
        by_target: defaultdict[str, list[Copy]] = defaultdict(list)
        for copy in copies:
            self.running[copy.deficit.record.chunk.id] = copy.target
            by_target[copy.target].append(copy)
            if not planned:
                self._work_of(copy.sources[0]).read(copy.deficit)
                self._work_of(copy.target).write(copy.deficit)
        for target, theirs in by_target.items():
            for batch in _batches(theirs):
                self._orders.begin(self._order(self._roster[target], batch))

    async def _order(self, server: Server, copies: list[Copy]) -> None:
        failed = {copy.deficit.record.chunk.id for copy in copies}
        try:
            if server.link is None:
                return
            request = wire.CopyChunks(
                order=self._roster.order(server), copies=[self._to_wire(copy) for copy in copies]
            )
            # What was ordered before comes first, all at the pace of the server.
            queued_seconds = self.work[server.name].outstanding_bytes / self._bytes_per_second
            answer = await server.link.call(
                request, wire.Copied, timeout_seconds=COPY_SECONDS + queued_seconds
            )
            failed.difference_update(ChunkId(chunk_id) for chunk_id in answer.copied)
            for source in answer.source_failures:
                self._roster.complain(source.server, server.name, source.fault.what)
            for failure in answer.failures:
                _log.warn(
                    "{server} could not copy {chunk}: {reason}",
                    server=server.name,
                    chunk=failure.chunk_id.hex(),
                    reason=failure.fault.what,
                )
        except GridError as error:
            _log.warn("{server} did not copy: {error}", server=server.name, error=error)
        finally:
            # The new replica counts once the server reports it; a failure is tried again after the
            # settling time, perhaps elsewhere.
            self._ended(server.name, copies, failed)

    def _ended(self, target: str, copies: list[Copy], failed: set[ChunkId]) -> None:
        work = self.work[target]
        for copy in copies:
            chunk_id = copy.deficit.record.chunk.id
            work.written(copy.deficit)
            self.running.pop(chunk_id, None)
            # One that was made may not have been reported yet: that is no reason to make another.
            self._postpone(chunk_id, self._runtime.clock.seconds())
        self._redundancy.touch(copy.deficit.record.chunk.id for copy in copies)

    def _postpone(self, chunk_id: ChunkId, now: float) -> None:
        self._redundancy.deficits.postpone(chunk_id, now)
        self._redundancy.moves.postpone(chunk_id, now)

    def _to_wire(self, copy: Copy) -> wire.ChunkCopy:
        record = copy.deficit.record
        sources = [self._roster[name] for name in copy.sources]
        return wire.ChunkCopy(
            chunk=record.chunk.to_wire(),
            origin=self._namespace.origin(record),
            sources=[wire.Hop(server=one.name, address=one.address) for one in sources],
            critical=copy.deficit.critical,
        )


def _batches(copies: list[Copy]) -> Iterator[list[Copy]]:
    """In orders of which none is too long."""
    batch: list[Copy] = []
    size = 0
    for copy in copies:
        batch.append(copy)
        size += copy.deficit.record.chunk.length
        if len(batch) >= COPIES_PER_ORDER or size >= ORDER_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
