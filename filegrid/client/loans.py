"""Short-circuit reads: chunks of this machine, read from their files without their servers.

A chunk server on the reader's own machine hands over the open file of a chunk, after the same
authorization as for a read. The reader checks every block as ever (S21). Wherever that does not
work out, bytes come over the network, and nobody is told.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IDelayedCall

from filegrid.client.avoided import Avoided
from filegrid.client.digests import DigestCache
from filegrid.errors import GridError, IntegrityError, Unavailable
from filegrid.hashing import BlockVerifier
from filegrid.model import BLOCK_BYTES, DIGEST_BYTES, Address, Chunk, ChunkId, blocks_in
from filegrid.net.dial import DataPool
from filegrid.net.tasks import claimed
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire.head_pb2 import Replica
from filegrid.runtime import Bytes, LentFile, Runtime

MOST_LOANS = 64
"""Files kept open for the next read."""

IDLE_SECONDS = 30.0
"""A file that nobody read for so long is closed: as long as it is open, its space is not free."""

DISTANT_SECONDS = 300.0
"""A server that is elsewhere, or does not lend, is asked again after so long."""

LEND_SECONDS = 5.0

READ_SECONDS = 5.0
"""A disk that gives nothing for so long is left for another replica."""

BATCH_BYTES = 1024 * 1024
"""Read and checked by one call of a thread; less, and handing over costs more than the work."""

INLINE_BYTES = 4 * BLOCK_BYTES
"""Up to this many bytes that are in memory are taken where we are: a thread would take longer."""


class Loan:
    """An open chunk file of a server on this machine."""

    def __init__(self, replica: Replica, chunk: Chunk, file: LentFile, lent: wire.Lent) -> None:
        self.replica = replica
        self.chunk = chunk
        self.verifier: BlockVerifier | None = None
        self._file = file
        self._lent = lent
        self._users = 0
        self._ended = False

    def load_digests(self) -> BlockVerifier:
        """Blocks. :raises IntegrityError: where they are not what the chunk was made from."""
        length = blocks_in(self.chunk.length) * DIGEST_BYTES
        return BlockVerifier(self.chunk, self._file.pread(length, self._lent.digests_offset))

    def read(self, offset: int, length: int) -> bytes:
        """Whole blocks, checked. Blocks.

        :raises IntegrityError: where they do not match their digests.
        :raises OSError: where they cannot be read.
        """
        data = self._file.pread(length, self._lent.offset + offset)
        self._check(offset, length, data)
        return data

    def read_cached(self, offset: int, length: int) -> Bytes | None:
        """The same where it takes no waiting; else None."""
        data = self._file.pread_cached(length, self._lent.offset + offset)
        if data is not None:
            self._check(offset, length, data)
        return data

    def use(self) -> None:
        self._users += 1

    def leave(self) -> None:
        self._users -= 1
        self._close_unused()

    def end(self) -> None:
        """Close the file once nobody reads it any more."""
        self._ended = True
        self._close_unused()

    def _close_unused(self) -> None:
        if self._ended and not self._users:
            self._file.close()

    def _check(self, offset: int, length: int, data: Bytes) -> None:
        assert self.verifier is not None
        if len(data) < length:
            raise IntegrityError("the file of the chunk ends too early", self.chunk.id.hex())
        self.verifier.check(offset // BLOCK_BYTES, data)


class Loans:
    """The open files that we have, and which servers lend none."""

    def __init__(self, runtime: Runtime, pool: DataPool, digests: DigestCache) -> None:
        self._runtime = runtime
        self._pool = pool
        self._digests = digests
        self._distant = Avoided(runtime.clock, DISTANT_SECONDS)
        self._loans: OrderedDict[ChunkId, tuple[Loan, IDelayedCall]] = OrderedDict()

    def distant(self) -> set[str]:
        """Servers that are known to be elsewhere."""
        return self._distant.servers()

    async def borrow(self, replica: Replica, chunk: Chunk) -> Loan | None:
        """The file of this replica; None where it has to be read over the network."""
        if self._runtime.lending is None:
            return None
        if chunk.id in self._loans:
            return self._touch(chunk.id)
        if replica.server in self._distant.servers():
            return None
        try:
            loan = await self._borrow(replica, chunk)
        except GridError:
            loan = None  # whatever it is, a read over the network meets it too, or goes well
        if loan is None:
            self._distant.add([replica.server])
            return None
        if chunk.id in self._loans:  # another reader was as fast
            loan.end()
            return self._touch(chunk.id)
        timer = self._runtime.clock.callLater(IDLE_SECONDS, self.forget, chunk.id)
        self._loans[chunk.id] = loan, timer
        while len(self._loans) > MOST_LOANS:
            self.forget(next(iter(self._loans)))
        return loan

    def forget(self, chunk_id: ChunkId) -> None:
        """The file is of no use any more."""
        loan, timer = self._loans.pop(chunk_id, (None, None))
        if timer is not None and timer.active():
            timer.cancel()
        if loan is not None:
            loan.end()

    def close(self) -> None:
        for chunk_id in list(self._loans):
            self.forget(chunk_id)

    def _touch(self, chunk_id: ChunkId) -> Loan:
        loan, timer = self._loans[chunk_id]
        timer.reset(IDLE_SECONDS)
        self._loans.move_to_end(chunk_id)
        return loan

    async def _borrow(self, replica: Replica, chunk: Chunk) -> Loan | None:
        lending = self._runtime.lending
        assert lending is not None
        address = Address.parse(replica.address)
        link = await self._pool.acquire(address)
        if not link.is_local:
            self._pool.release(address, link)
            return None
        self._pool.release(address, link)
        request = wire.LendChunk(chunk_id=chunk.id)
        lent = await self._pool.ask(address, request, wire.Lent, timeout_seconds=LEND_SECONDS)
        verifier = self._digests.get(chunk.id)

        def take() -> Loan:
            loan = Loan(replica, chunk, lending.borrow(lent.socket, lent.token), lent)
            try:
                loan.verifier = verifier or loan.load_digests()
            except BaseException:
                loan.end()
                raise
            return loan

        try:
            loan = await claimed(self._runtime.threads.run(take), Loan.end)
        except (GridError, OSError) as error:
            raise Unavailable(f"its file cannot be borrowed ({error})", replica.server) from None
        if loan.verifier is not None and verifier is None:
            self._digests.put(chunk.id, loan.verifier)
        return loan


class LoanRead:
    """One range of a borrowed chunk; as :class:`filegrid.client.replica.ReplicaRead`.

    :param offset: a multiple of 64 KiB.
    :param end: likewise, or the chunk's length.
    """

    def __init__(self, runtime: Runtime, loans: Loans, loan: Loan, offset: int, end: int) -> None:
        self.replica = loan.replica
        self.chunk = loan.chunk
        self._runtime = runtime
        self._loans = loans
        self._loan = loan
        self._offset = offset
        self._end = end

    async def next(self) -> list[memoryview]:
        """The next whole blocks, verified.

        :raises IntegrityError: where they are not what was written.
        :raises Unavailable: where they cannot be read.
        """
        length = min(BATCH_BYTES, self._end - self._offset)
        self._loan.use()
        try:
            data: Bytes | None = None
            if length <= INLINE_BYTES:
                data = self._loan.read_cached(self._offset, length)
            if data is None:
                reading = self._runtime.threads.run(self._loan.read, self._offset, length)
                data = await reading.addTimeout(READ_SECONDS, self._runtime.clock)
        except IntegrityError:
            self._loans.forget(self.chunk.id)
            raise
        except (OSError, TimeoutError) as error:
            self._loans.forget(self.chunk.id)
            raise Unavailable(f"its file cannot be read ({error})", self.replica.server) from None
        finally:
            self._loan.leave()
        self._offset += length
        return [memoryview(data)]

    def drop(self) -> None:
        """Nothing is under way between two calls of :meth:`next`."""
