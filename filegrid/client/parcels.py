"""Small chunks into the grid: what is ready at the same time travels together.

What a small chunk costs is round trips and calls, not bytes. So it goes to all its servers at once
instead of down a pipeline, in a parcel with the other small chunks that are ready, whosever they
are; and the placements that parcels take in turn are asked for ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from filegrid.client.allocation import Allocator, Rule
from filegrid.client.delivery import Delivery
from filegrid.client.patience import Patience
from filegrid.client.session import OpenedSession
from filegrid.errors import Cancelled, GridError, Unavailable, from_fault
from filegrid.hashing import ChunkHasher
from filegrid.model import BLOCK_BYTES, Address, Chunk, ChunkId
from filegrid.net.link import expect
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import head_pb2
from filegrid.runtime import Bytes

if TYPE_CHECKING:
    from filegrid.client.access import Access

MOST_CHUNK_BYTES = 2 * BLOCK_BYTES
"""Of a chunk that goes in a parcel. A longer one would cost a slow uplink more, at each server
once, than the pipeline's round trips."""

MOST_CHUNKS = 64
MOST_BYTES = 1024 * 1024
MOST_PATH_BYTES = 32 * 1024
"""Of one parcel: it fits in a frame's header, and nobody waits long for the others in it."""

PARCELS_IN_FLIGHT = 4
"""While one is synced, others are packed; with more each would hold less."""

PLACEMENTS_AHEAD = 4
PLACEMENT_SECONDS = 1.0
"""Placements serve for so long, in turn: later, the servers' free space and state are old news.
So are the policies of folders."""

MOST_FOLDERS = 1000
"""Of which policies are known; then all are asked for anew."""

SILENCE_SECONDS = 8.0
"""A server that does not answer for so long has failed."""


class Parcels:
    """The small chunks of one client."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._folders: dict[tuple[int, int, str], _Folder] = {}
        self._lanes: dict[tuple[int, Rule], _Lane] = {}
        self._tasks = Tasks("storing small chunks")
        self._closed = False

    async def store(
        self, session: OpenedSession, replication: int, origin: wire.ChunkOrigin, data: Bytes
    ) -> Chunk:
        """Write a chunk; return once it is durable on enough servers (S16).

        :param replication: 0 for what the policy of its folder says.
        :raises Unavailable: when no try succeeded while the patience lasted.
        :raises NoSpace: when the grid has no room for it.
        """
        if self._closed:
            raise Unavailable("this client is closed", advice="connect again")
        rule = await self._rule(session, replication, origin.path, len(data))
        small = _Small(origin, data, self._access.session.patience())
        self._lane(session, rule).add(small)
        return await small.answer

    async def _rule(self, session: OpenedSession, replication: int, path: str, length: int) -> Rule:
        """What placements for the folder of this file follow: policies may be changed.

        What the head answers names placements as well, which the lane takes.
        """
        key = (session.id, replication, path.rpartition("/")[0])
        folder = self._folders.get(key)
        if folder is None:
            if len(self._folders) >= MOST_FOLDERS:
                self._folders.clear()
            folder = self._folders[key] = _Folder()
        clock = self._access.runtime.clock
        if (rule := folder.rule(clock.seconds())) is not None:
            return rule
        async with folder.asking:
            if (rule := folder.rule(clock.seconds())) is not None:
                return rule
            allocator = Allocator(self._access, session, replication, path)
            placements, rule = await allocator.find(PLACEMENTS_AHEAD, length)
            folder.answered(rule, clock.seconds())
            self._lane(session, rule).place(placements)
            return rule

    def _lane(self, session: OpenedSession, rule: Rule) -> _Lane:
        lane = self._lanes.get((session.id, rule))
        if lane is None:
            for idle in [key for key, lane in self._lanes.items() if lane.idle]:
                del self._lanes[idle]  # of sessions that ended, as a rule
            allocator = Allocator(self._access, session, rule.replication, "", rule.spread)
            lane = self._lanes[session.id, rule] = _Lane(self._access, allocator, self._tasks)
            if self._closed:
                lane.close()
        return lane

    async def close(self) -> None:
        """What is under way fails."""
        self._closed = True
        for lane in self._lanes.values():
            lane.close()
        await self._tasks.stop()


class _Folder:
    """What is known of the policy of a folder."""

    def __init__(self) -> None:
        self.asking = DeferredLock()
        self._rule: Rule | None = None
        self._answered_at = 0.0

    def rule(self, now: float) -> Rule | None:
        return self._rule if now - self._answered_at <= PLACEMENT_SECONDS else None

    def answered(self, rule: Rule, now: float) -> None:
        self._rule, self._answered_at = rule, now


class _Small:
    """A chunk to be stored, until somebody hears what came of it."""

    def __init__(self, origin: wire.ChunkOrigin, data: Bytes, patience: Patience) -> None:
        hasher = ChunkHasher()
        hasher.update(data)
        self.origin = origin
        self.data = data
        self.digest = hasher.digest()
        self.answer: Deferred[Chunk] = Deferred(lambda _: None)
        self.patience = patience

    def done(self, chunk: Chunk) -> None:
        if not self.answer.called:  # by being cancelled
            self.answer.callback(chunk)

    def fail(self, error: GridError) -> None:
        if not self.answer.called:
            self.answer.errback(Failure(error))


class _Lane:
    """The small chunks of one session whose placements follow the same rule."""

    def __init__(self, access: Access, allocator: Allocator, tasks: Tasks) -> None:
        self._clock = access.runtime.clock
        self._pool = access.pool
        self._report = access.report
        self._allocator = allocator
        self._tasks = tasks
        self._closed = False
        self._waiting: deque[_Small] = deque()
        self._soon: IDelayedCall | None = None
        self._in_flight = 0
        self._placements: deque[Sequence[head_pb2.Target]] = deque()
        self._placed_at = 0.0

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._in_flight

    def add(self, small: _Small) -> None:
        if self._closed:
            small.fail(Unavailable("this client was closed"))
            return
        self._waiting.append(small)
        if self._soon is None and self._in_flight < PARCELS_IN_FLIGHT:
            self._soon = self._clock.callLater(0, self._send_off)

    def place(self, placements: Sequence[Sequence[head_pb2.Target]]) -> None:
        """These may be used from now on."""
        self._placements, self._placed_at = deque(placements), self._clock.seconds()

    def close(self) -> None:
        self._closed = True
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        while self._waiting:
            self._waiting.popleft().fail(Unavailable("this client was closed"))

    def _send_off(self) -> None:
        self._soon = None
        while self._in_flight < PARCELS_IN_FLIGHT and (parcel := self._pack()):
            self._in_flight += 1
            self._tasks.begin(self._carry(parcel))

    def _pack(self) -> list[_Small]:
        parcel: list[_Small] = []
        size = path_bytes = 0
        while self._waiting and len(parcel) < MOST_CHUNKS:
            small = self._waiting[0]
            size += len(small.data)
            path_bytes += len(small.origin.path.encode())
            if parcel and (size > MOST_BYTES or path_bytes > MOST_PATH_BYTES):
                break
            self._waiting.popleft()
            if not small.answer.called:
                parcel.append(small)
        return parcel

    async def _carry(self, parcel: list[_Small]) -> None:
        try:
            await self._try(parcel)
        except GridError as error:
            for small in parcel:
                small.fail(error)
        except CancelledError:
            for small in parcel:
                small.fail(Cancelled("this client was closed"))
            raise
        finally:
            self._in_flight -= 1
            self._send_off()

    async def _try(self, parcel: list[_Small]) -> None:
        """One try, each chunk under a new id (S15)."""
        targets = await self._targets(sum(len(small.data) for small in parcel))
        session = self._allocator.session
        chunks = [
            Chunk(id=ChunkId(session.unique_id()), length=len(small.data), digest=small.digest)
            for small in parcel
        ]
        request = wire.StoreChunks(
            chunks=[
                wire.SmallChunk(chunk=chunk.to_wire(), origin=small.origin)
                for chunk, small in zip(chunks, parcel, strict=True)
            ]
        )
        body = memoryview(b"".join(small.data for small in parcel))
        sent = {
            target.server: Deferred.fromCoroutine(self._send(target, request, body))
            for target in targets
        }
        # All but one, or as many as must have it: those that are late then are late by themselves.
        # Where they are needed, others are tried.
        enough = max(1, min(self._allocator.least_replicas, len(sent) - 1))
        delivery = Delivery(self._clock, sent, enough)
        await delivery.over
        for server, answer in delivery.left.items():
            self._tasks.begin(self._wait_for(server, answer))
        stored = dict.fromkeys([chunk.id for chunk in chunks], 0)
        failures: dict[str, GridError] = {}
        for server, outcome in delivery.outcomes.items():
            if isinstance(outcome, GridError):
                failures[server] = outcome
                continue
            for chunk_id in stored:
                if chunk_id not in outcome:
                    stored[chunk_id] += 1
                else:
                    failures[server] = outcome[chunk_id]
        for server, failure in failures.items():
            if server not in delivery.left:
                self._report(server, failure)
        if failures:
            self._allocator.avoid(failures)
            self._placements.clear()
        few = _too_few(failures)
        for chunk, small in zip(chunks, parcel, strict=True):
            if stored[chunk.id] >= self._allocator.least_replicas:
                small.done(chunk)
            else:
                self._tasks.begin(self._again(small, few))

    async def _send(
        self, target: head_pb2.Target, request: wire.StoreChunks, body: memoryview
    ) -> Mapping[ChunkId, GridError]:
        """Store all at one server; which could not be, and why."""
        address = Address.parse(target.address)
        link = await self._pool.acquire(address)
        try:
            exchange = link.open(request, timeout_seconds=SILENCE_SECONDS)
            exchange.write(body, last=True)
            stored = expect(wire.Stored, await exchange.answer, link.peer)
        except Exception:
            self._pool.drop(link)
            raise
        self._pool.release(address, link)
        return {ChunkId(one.chunk_id): from_fault(one.fault) for one in stored.failures}

    async def _wait_for(self, server: str, answer: Deferred[Mapping[ChunkId, GridError]]) -> None:
        """Nobody waits for a server that is late, but the head hears of it where it fails."""
        try:
            await answer
        except GridError as error:
            self._report(server, error)

    async def _again(self, small: _Small, error: GridError) -> None:
        if await small.patience.pause(error.retry_after_seconds):
            self.add(small)
        else:
            small.fail(error)

    async def _targets(self, length: int) -> Sequence[head_pb2.Target]:
        now = self._clock.seconds()
        if not self._placements or now - self._placed_at > PLACEMENT_SECONDS:
            placements, _ = await self._allocator.find(PLACEMENTS_AHEAD, length)
            self.place(placements)
        self._placements.rotate(-1)
        return self._placements[0]


def _too_few(failures: dict[str, GridError]) -> Unavailable:
    why = "; ".join(f"{server}: {error.what}" for server, error in failures.items())
    waits = max((error.retry_after_seconds for error in failures.values()), default=0.0)
    return Unavailable(f"too few chunk servers stored the chunk ({why})", retry_after_seconds=waits)
