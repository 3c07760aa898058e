"""Taking away replicas that are more than a file wants, and only where that is safe (S17).

A server that came back after its replicas were made anew, a move to an emptier server, a file that
wants fewer replicas now: all of these leave one too many. It goes only when every server has
reported to this leader in its own epoch, so that no removal of an earlier leader can still be under
way, and when those that stay have been read back from their disks just before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.logger import Logger

from filegrid.errors import GridError
from filegrid.head.liveness import State
from filegrid.head.planning import Work
from filegrid.head.redundancy import Redundancy, Surplus
from filegrid.head.roster import Roster
from filegrid.model import Chunk, ChunkId
from filegrid.net.tasks import Tasks, gather
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import frame_pb2, head_pb2
from filegrid.runtime import Runtime

MOST_AT_ONCE = 16
"""Chunks whose replicas are being read back: each is read by a few servers."""

READ_BACK_SECONDS = 60.0
DISCARD_SECONDS = 30.0

AGAIN_SECONDS = 30.0
"""After a chunk could not be judged: a server did not answer, or its replica was damaged."""

_log = Logger()


def superfluous(holders: Sequence[str], racks: Mapping[str, str], use: Mapping[str, float]) -> str:
    """Which of the replicas to take away: one that no rack is lost with, of the fullest server.

    :param use: how full each server is.
    """

    def merit(name: str) -> tuple[int, float, str]:
        left = {racks.get(other, "") for other in holders if other != name}
        return len(left), use.get(name, 0.0), name

    return max(holders, key=merit)


class Pruning:
    """Removes surplus replicas, for a leader.

    :param work: what each server may read yet; as :class:`filegrid.head.repair.Repair` keeps it.
    """

    def __init__(
        self,
        runtime: Runtime,
        roster: Roster,
        redundancy: Redundancy,
        work: Mapping[str, Work],
    ) -> None:
        self._runtime = runtime
        self._roster = roster
        self._redundancy = redundancy
        self._work = work
        self._busy: set[ChunkId] = set()
        self._not_before: dict[ChunkId, float] = {}
        self._tasks = Tasks("a removal of surplus replicas")

    async def stop(self) -> None:
        await self._tasks.stop()

    def turn(self) -> None:
        """Begin with some of what is too much."""
        surplus = self._redundancy.surplus
        now = self._runtime.clock.seconds()
        self._not_before = {one: at for one, at in self._not_before.items() if at > now}
        if not surplus or not self._redundancy.settled:
            return
        for chunk_id, one in surplus.items():
            if len(self._busy) >= MOST_AT_ONCE:
                break
            if chunk_id in self._busy or chunk_id in self._not_before or not self._may_go(one):
                continue
            victim = superfluous(one.holders, self._roster.racks(), self._roster.use())
            staying = [name for name in one.holders if name != victim]
            if all(self._work[name].read_bytes > 0 for name in staying):
                for name in staying:
                    self._work[name].read_bytes -= one.record.chunk.length
                self._busy.add(chunk_id)
                self._tasks.begin(self._remove(one, victim, staying))

    def _may_go(self, one: Surplus) -> bool:
        """Whether every server's word is of this leader's time, and all holders are here (S17)."""
        return self._roster.complete and all(
            self._roster.state(name) is State.LIVE
            and self._roster[name].reported
            and name in self._work
            for name in one.holders
        )

    async def _remove(self, one: Surplus, victim: str, staying: Sequence[str]) -> None:
        chunk = one.record.chunk
        try:
            good = await gather(self._read_back(name, chunk) for name in staying)
            # While they read, anything may have happened: judge again, and order in the same step.
            now = self._redundancy.surplus.get(chunk.id)
            if not all(good) or now != one or not self._may_go(one):
                self._not_before[chunk.id] = self._runtime.clock.seconds() + AGAIN_SECONDS
                return
            server = self._roster[victim]
            if server.link is None:
                return
            request = wire.DiscardChunks(order=self._roster.order(server), chunk_ids=[chunk.id])
            await server.link.call(request, frame_pb2.Done, timeout_seconds=DISCARD_SECONDS)
        except GridError as error:
            self._not_before[chunk.id] = self._runtime.clock.seconds() + AGAIN_SECONDS
            _log.info("{server} keeps a surplus replica: {error}", server=victim, error=error)
        finally:
            self._busy.discard(chunk.id)
            self._redundancy.touch([chunk.id])

    async def _read_back(self, name: str, chunk: Chunk) -> bool:
        link = self._roster[name].link
        if link is None:
            return False
        answer = await link.call(
            wire.InspectChunks(chunk_ids=[chunk.id], verify=True),
            wire.Inspection,
            timeout_seconds=READ_BACK_SECONDS,
        )
        (found,) = answer.replicas
        return found.state == head_pb2.REPLICA_STATE_GOOD and found.chunk == chunk.to_wire()
