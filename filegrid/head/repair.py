"""Re-replication: a pure plan, and the orders that carry it out."""

from __future__ import annotations

import heapq
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from filegrid.errors import GridError
from filegrid.head.liveness import State
from filegrid.head.placement import Candidate, place
from filegrid.head.redundancy import Deficit, Redundancy
from filegrid.head.roster import Roster, Server
from filegrid.head.view import View
from filegrid.model import ChunkId
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Runtime

SETTLE_SECONDS = 2.0
"""A chunk that was just published is short of replicas until all its servers have reported it."""

COPIES_PER_SERVER = 32
"""Ordered of one server and not yet answered; more would only wait at the server."""

COPIES_PER_ORDER = 16
COPY_SECONDS = 120.0
"""For one order; a server that takes longer is asked again, or another one is."""

_log = Logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One replica to be made."""

    deficit: Deficit
    target: str


def plan(
    deficits: Iterable[Deficit],
    candidates: Sequence[Candidate],
    racks: Mapping[str, str],
    *,
    running: Mapping[ChunkId, str],
    now: float,
    most_bytes: float,
    random: random.Random,
) -> list[Copy]:
    """The next copies to order: the chunks with the fewest replicas first, then the oldest need.

    :param racks: of every server by name.
    :param running: copies under way, by chunk, with their targets.
    :param most_bytes: what may be copied in this turn.
    """
    load = Counter(running.values())
    room = sum(max(0, COPIES_PER_SERVER - load[candidate.name]) for candidate in candidates)
    waiting = (
        deficit
        for deficit in deficits
        if deficit.holders
        and deficit.record.chunk.id not in running
        and now - deficit.since >= SETTLE_SECONDS
    )
    copies: list[Copy] = []
    for deficit in heapq.nsmallest(room, waiting, key=lambda one: (len(one.holders), one.since)):
        if most_bytes <= 0:
            break
        chosen = place(
            [one for one in candidates if load[one.name] < COPIES_PER_SERVER],
            1,
            chunk_bytes=deficit.record.chunk.length,
            random=random,
            holders=deficit.holders,
            holder_racks=[racks[name] for name in deficit.holders],
        )
        for target in chosen:
            load[target.name] += 1
            most_bytes -= deficit.record.chunk.length
            copies.append(Copy(deficit=deficit, target=target.name))
    return copies


class Repair:
    """Gives the orders of the plan, turn after turn.

    :param mib_per_second: that each chunk server may spend; 0 is no limit.
    :ivar running: the copies that are under way.
    """

    def __init__(
        self,
        runtime: Runtime,
        roster: Roster,
        redundancy: Redundancy,
        namespace: View,
        *,
        mib_per_second: float,
    ) -> None:
        self.running: dict[ChunkId, str] = {}
        self._runtime = runtime
        self._roster = roster
        self._redundancy = redundancy
        self._namespace = namespace
        self._bytes_per_second = mib_per_second * 1024 * 1024 or sys.float_info.max / 1e6
        self._allowance_bytes = 0.0
        self._allowed_at = runtime.clock.seconds()
        self._orders = Tasks("a repair order")

    async def stop(self) -> None:
        await self._orders.stop()

    def turn(self) -> None:
        """Order what can be ordered now; nothing before all servers have spoken (S18)."""
        if not self._roster.complete or not self._redundancy.deficits:
            return
        now = self._runtime.clock.seconds()
        candidates = self._roster.candidates()
        second_bytes = self._bytes_per_second * len(candidates)
        self._allowance_bytes = min(
            second_bytes, self._allowance_bytes + (now - self._allowed_at) * second_bytes
        )
        self._allowed_at = now
        copies = plan(
            self._redundancy.deficits.values(),
            candidates,
            {server.name: server.rack for server in self._roster},
            running=self.running,
            now=now,
            most_bytes=self._allowance_bytes,
            random=self._runtime.random,
        )
        by_target: defaultdict[str, list[Copy]] = defaultdict(list)
        for copy in copies:
            self.running[copy.deficit.record.chunk.id] = copy.target
            self._allowance_bytes -= copy.deficit.record.chunk.length
            by_target[copy.target].append(copy)
        for target, theirs in by_target.items():
            for start in range(0, len(theirs), COPIES_PER_ORDER):
                batch = theirs[start : start + COPIES_PER_ORDER]
                self._orders.begin(self._order(self._roster[target], batch))

    async def _order(self, server: Server, copies: list[Copy]) -> None:
        ids = [copy.deficit.record.chunk.id for copy in copies]
        try:
            if server.link is None:
                return
            request = wire.CopyChunks(
                order=self._roster.order(server),
                copies=[self._to_wire(copy.deficit) for copy in copies],
            )
            answer = await server.link.call(request, wire.Copied, timeout_seconds=COPY_SECONDS)
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
            for chunk_id in ids:
                self.running.pop(chunk_id, None)
                if (deficit := self._redundancy.deficits.get(chunk_id)) is not None:
                    deficit.since = self._runtime.clock.seconds()
            self._redundancy.touch(ids)

    def _to_wire(self, deficit: Deficit) -> wire.ChunkCopy:
        record = deficit.record
        alive = [name for name in deficit.holders if self._roster.state(name) is State.LIVE]
        sources = [self._roster[name] for name in alive or deficit.holders]
        self._runtime.random.shuffle(sources)
        return wire.ChunkCopy(
            chunk=record.chunk.to_wire(),
            origin=wire.ChunkOrigin(
                content_id=record.content_id,
                path=self._namespace.path_of(record.content_id),
                index=record.index,
            ),
            sources=[wire.Hop(server=one.name, address=one.address) for one in sources],
        )
