"""Small chunks out of the grid: what is wanted of one server at the same time comes together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from filegrid.client.parcels import MOST_BYTES, MOST_CHUNKS
from filegrid.errors import (
    Cancelled,
    GridError,
    IntegrityError,
    Unavailable,
)
from filegrid.hashing import ChunkHasher
from filegrid.model import Address, Chunk
from filegrid.net.fetching import fetch_chunks
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire.head_pb2 import Replica

if TYPE_CHECKING:
    from filegrid.client.access import Access

FETCHES_IN_FLIGHT = 2
"""Of one server: while one is on its way, others gather for the next."""

SILENCE_SECONDS = 5.0
"""A replica that sends nothing for so long is left for the next one."""


class Fetches:
    """The small chunks that a client reads, by the server."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._servers: dict[str, _Server] = {}
        self._tasks = Tasks("fetching small chunks")

    async def fetch(self, address: str, chunk: Chunk) -> memoryview:
        """All bytes of a small chunk from the server at `address`, unchecked.

        :raises GridError: why it cannot be had there.
        """
        server = self._servers.get(address)
        if server is None:
            server = self._servers[address] = _Server(self._access, address, self._tasks)
        wanted = _Wanted(chunk)
        server.add(wanted)
        return await wanted.answer

    async def close(self) -> None:
        """What is under way fails."""
        for server in self._servers.values():
            server.close()
        await self._tasks.stop()


class SmallRead:
    """As :class:`~filegrid.client.replica.ReplicaRead`, of a chunk that is fetched whole.

    :param start: a multiple of 64 KiB; what is before it is left out.
    """

    def __init__(self, access: Access, replica: Replica, chunk: Chunk, start: int) -> None:
        self.replica = replica
        self.chunk = chunk
        self._access = access
        self._start = start

    async def next(self) -> list[memoryview]:
        """Its blocks, verified; all at once.

        :raises IntegrityError: where they are not what was written.
        :raises GridError: where they cannot be had.
        """
        data = await self._access.fetches.fetch(self.replica.address, self.chunk)
        check_whole(self.chunk, data)
        return [data[self._start :]]

    def drop(self) -> None:
        pass


class _Wanted:
    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.answer: Deferred[memoryview] = Deferred(lambda _: None)

    def fail(self, error: GridError) -> None:
        if not self.answer.called:  # by being cancelled
            self.answer.errback(Failure(error))


class _Server:
    def __init__(self, access: Access, address: str, tasks: Tasks) -> None:
        self._clock = access.runtime.clock
        self._pool = access.pool
        self._address = Address.parse(address)
        self._tasks = tasks
        self._waiting: deque[_Wanted] = deque()
        self._soon: IDelayedCall | None = None
        self._in_flight = 0
        self._closed = False

    def add(self, wanted: _Wanted) -> None:
        if self._closed:
            wanted.fail(Unavailable("this client is closed", advice="connect again"))
            return
        self._waiting.append(wanted)
        if self._soon is None and self._in_flight < FETCHES_IN_FLIGHT:
            self._soon = self._clock.callLater(0, self._send_off)

    def close(self) -> None:
        self._closed = True
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        while self._waiting:
            self._waiting.popleft().fail(Unavailable("this client was closed"))

    def _send_off(self) -> None:
        self._soon = None
        while self._in_flight < FETCHES_IN_FLIGHT and (wanted := self._gather()):
            self._in_flight += 1
            self._tasks.begin(self._carry(wanted))

    def _gather(self) -> list[_Wanted]:
        gathered: list[_Wanted] = []
        size = 0
        while self._waiting and len(gathered) < MOST_CHUNKS:
            size += self._waiting[0].chunk.length
            if gathered and size > MOST_BYTES:
                break
            wanted = self._waiting.popleft()
            if not wanted.answer.called:
                gathered.append(wanted)
        return gathered

    async def _carry(self, wanted: Sequence[_Wanted]) -> None:
        try:
            await self._fetch(wanted)
        except GridError as error:
            for one in wanted:
                one.fail(error)
        except CancelledError:
            for one in wanted:
                one.fail(Cancelled("this client was closed"))
            raise
        finally:
            self._in_flight -= 1
            if self._soon is None:
                self._send_off()

    async def _fetch(self, wanted: Sequence[_Wanted]) -> None:
        chunks = [one.chunk for one in wanted]
        found = await fetch_chunks(
            self._pool, self._address, chunks, timeout_seconds=SILENCE_SECONDS
        )
        for one, data in zip(wanted, found, strict=True):
            if isinstance(data, GridError):
                one.fail(data)
            elif not one.answer.called:
                one.answer.callback(data)


def check_whole(chunk: Chunk, data: memoryview) -> None:
    """:raises IntegrityError: where these are not the chunk's bytes."""
    hasher = ChunkHasher()
    hasher.update(data)
    if hasher.length != chunk.length or hasher.digest() != chunk.digest:
        raise IntegrityError("the bytes do not match the digest", chunk.id.hex())
