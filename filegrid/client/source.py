"""One replica as the source of a chunk's bytes, over the shortest way there is."""

from __future__ import annotations

from filegrid.client.access import Access
from filegrid.client.fetching import SmallRead
from filegrid.client.loans import LoanRead
from filegrid.client.parcels import MOST_CHUNK_BYTES
from filegrid.client.replica import ReplicaRead
from filegrid.errors import Busy, GridError, IntegrityError, NoSuchChunk
from filegrid.model import Chunk
from filegrid.protocol.wire.head_pb2 import Replica


class Source:
    """Verified blocks in order. It is opened when the first ones are wanted.

    :param start: a multiple of 64 KiB.
    :param end: likewise, or the chunk's length.
    :ivar failure: why it gives no more blocks; None where it does, as far as is known.
    """

    def __init__(
        self, access: Access, replica: Replica, chunk: Chunk, start: int, end: int
    ) -> None:
        self.server = replica.server
        self.failure: GridError | None = None
        self._access = access
        self._replica = replica
        self._chunk = chunk
        self._start = start
        self._end = end
        self._read: ReplicaRead | LoanRead | SmallRead | None = None

    @property
    def received_bytes(self) -> int:
        """What has come so far, where bytes are seen one by one."""
        return self._read.received_bytes if isinstance(self._read, ReplicaRead) else 0

    async def next(self) -> list[memoryview]:
        """The next blocks. Where there are none to be had here, the head is told why.

        :raises IntegrityError: where they are not what was written.
        :raises GridError: where they cannot be had.
        """
        try:
            if self._read is not None:
                return await self._read.next()
            begun = self._access.runtime.clock.seconds()
            self._read = await self._open()
            blocks = await self._read.next()
        except GridError as error:
            self.failure = error
            self.drop()
            self._tell(error)
            raise
        if not isinstance(self._read, LoanRead):
            self._note_latency(self._access.runtime.clock.seconds() - begun)
        return blocks

    def drop(self) -> None:
        """Nothing more is wanted."""
        if self._read is not None:
            self._read.drop()

    async def _open(self) -> ReplicaRead | LoanRead | SmallRead:
        access, replica, chunk = self._access, self._replica, self._chunk
        if chunk.length <= MOST_CHUNK_BYTES:
            return SmallRead(access, replica, chunk, self._start)
        loan = await access.loans.borrow(replica, chunk)
        if loan is not None:
            return LoanRead(access.runtime, access.loans, loan, self._start, self._end)
        return ReplicaRead(access, replica, chunk, self._start, self._end)

    def _tell(self, error: GridError) -> None:
        if isinstance(error, (IntegrityError, NoSuchChunk)):
            self._access.complain(self._chunk.id, self.server, error)
        elif not isinstance(error, Busy):
            self._access.unreadable.add([self.server])
            self._access.report(self.server, error)

    def _note_latency(self, seconds: float) -> None:
        if reason := self._access.latencies.note(self.server, seconds):
            self._access.unreadable.add([self.server])
            self._access.report_slow(self.server, reason)
