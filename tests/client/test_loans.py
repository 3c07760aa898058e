"""Short-circuit reads, with a lender and files in memory."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.digests import DigestCache
from filegrid.client.loans import (
    BATCH_BYTES,
    DISTANT_SECONDS,
    IDLE_SECONDS,
    MOST_LOANS,
    READ_SECONDS,
    Loan,
    LoanRead,
    Loans,
)
from filegrid.errors import IntegrityError, NoSuchChunk, Unavailable
from filegrid.hashing import ChunkHasher
from filegrid.model import BLOCK_BYTES, Address, Chunk, ChunkId
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire.head_pb2 import Replica
from filegrid.runtime import Runtime
from filegrid.simulation.disk import SimulatedDisk
from filegrid.simulation.network import SimulatedNetwork
from filegrid.simulation.process import SimulatedThreads

T = TypeVar("T")

DATA = random.Random(7).randbytes(BATCH_BYTES + 2 * BLOCK_BYTES + 100)
REPLICA = Replica(server="chunk-1", address="host:1")
OFFSET = 8192


def chunk_of(number: int, data: bytes = DATA) -> tuple[Chunk, bytes]:
    """A chunk, and the file that it is in."""
    hasher = ChunkHasher()
    hasher.update(data)
    chunk = Chunk(id=ChunkId(bytes(15) + bytes([number])), length=len(data), digest=hasher.digest())
    return chunk, bytes(OFFSET) + data + hasher.digests


class MemoryFile:
    """A lent file."""

    def __init__(self, content: bytes, *, cached: bool = True) -> None:
        self.content = bytearray(content)
        self.cached = cached
        self.closed = False
        self.broken = False

    def pread(self, length: int, offset: int) -> bytes:
        if self.broken or self.closed:
            raise OSError("broken")
        return bytes(self.content[offset : offset + length])

    def pread_cached(self, length: int, offset: int) -> bytes | None:
        return self.pread(length, offset) if self.cached else None

    def close(self) -> None:
        self.closed = True


class Lender:
    """The lending, the pool and the link of a server on this machine, in one."""

    def __init__(self) -> None:
        self.files: dict[ChunkId, MemoryFile] = {}
        self.is_local = True
        self.asked = 0

    async def acquire(self, address: Address) -> Lender:
        return self

    def release(self, address: Address, link: Lender) -> None:
        pass

    async def ask(
        self, address: Address, request: wire.LendChunk, answer: type, *, timeout_seconds: float
    ) -> wire.Lent:
        self.asked += 1
        chunk_id = ChunkId(request.chunk_id)
        if chunk_id not in self.files:
            raise NoSuchChunk("not here", chunk_id.hex())
        return wire.Lent(
            socket="desk", token=chunk_id, offset=OFFSET, digests_offset=OFFSET + len(DATA)
        )

    def borrow(self, where: str, token: bytes) -> MemoryFile:
        return self.files[ChunkId(token)]


class LoansTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lender = Lender()
        lending: Any = self.lender
        network = SimulatedNetwork(self.clock, random.Random(1))
        self.runtime = Runtime(
            clock=self.clock,
            network=network.host("me", None),  # type: ignore[arg-type]  # nobody dials
            disk=SimulatedDisk(random.Random(2)),
            threads=SimulatedThreads(self.clock),
            random=random.Random(3),
            wall_seconds=self.clock.seconds,
            lending=lending,
        )
        self.loans = Loans(self.runtime, lending, DigestCache())
        self.chunk, content = chunk_of(1)
        self.file = self.lender.files[self.chunk.id] = MemoryFile(content)

    def run_(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        running = Deferred.fromCoroutine(work)
        for _ in range(50):
            self.clock.advance(0.001)
        return self.successResultOf(running)

    def borrow(self, chunk: Chunk | None = None) -> Loan | None:
        return self.run_(self.loans.borrow(REPLICA, chunk or self.chunk))

    def read(self, offset: int, end: int) -> bytes:
        loan = self.borrow()
        assert loan is not None
        read = LoanRead(self.runtime, self.loans, loan, offset, end)
        found = b""
        while len(found) < end - offset:
            found += b"".join(self.run_(read.next()))
        return found

    def test_reads(self) -> None:
        """The bytes come from the file, in batches and from the middle, with one request."""
        self.assertEqual(self.read(0, len(DATA)), DATA)
        self.assertEqual(self.read(BLOCK_BYTES, 2 * BLOCK_BYTES), DATA[BLOCK_BYTES:][:BLOCK_BYTES])
        self.file.cached = False
        self.assertEqual(self.read(BLOCK_BYTES, 2 * BLOCK_BYTES), DATA[BLOCK_BYTES:][:BLOCK_BYTES])
        self.assertEqual(self.lender.asked, 1)

    def refused(self, kind: type[Exception]) -> None:
        """A read of the second block fails so, and the file is let go."""
        loan = self.borrow()
        assert loan is not None
        read = LoanRead(self.runtime, self.loans, loan, BLOCK_BYTES, 2 * BLOCK_BYTES)
        running = Deferred.fromCoroutine(read.next())
        self.clock.advance(0.01)
        self.failureResultOf(running, kind)
        self.assertTrue(self.file.closed)

    def test_verifies(self) -> None:
        """A flipped bit is never handed on, whether it is in memory or not (S21)."""
        self.file.content[OFFSET + BLOCK_BYTES + 5] ^= 1
        self.refused(IntegrityError)
        self.file.closed, self.file.cached = False, False
        self.refused(IntegrityError)

    def test_ends_too_early(self) -> None:
        """A file that was cut is damaged."""
        self.borrow()
        del self.file.content[OFFSET + BLOCK_BYTES + 5 :]
        self.refused(IntegrityError)

    def test_disk_fails(self) -> None:
        """What cannot be read says nothing about the replica."""
        self.borrow()
        self.file.broken = True
        self.refused(Unavailable)

    def test_disk_hangs(self) -> None:
        """A disk that gives nothing is left for another replica after some seconds."""
        loan = self.borrow()
        assert loan is not None
        self.file.cached = False
        never: Deferred[object] = Deferred()
        self.patch(self.runtime.threads, "run", lambda *_: never)
        read = LoanRead(self.runtime, self.loans, loan, 0, BLOCK_BYTES)
        running = Deferred.fromCoroutine(read.next())
        self.clock.advance(READ_SECONDS)
        self.failureResultOf(running, Unavailable)

    def test_damaged_digests(self) -> None:
        """Block digests that do not make up the chunk's are not believed: the network is used."""
        self.file.content[-1] ^= 1
        self.assertIsNone(self.borrow())
        self.assertTrue(self.file.closed)

    def test_falls_back(self) -> None:
        """A server that lends nothing is not asked again for some time; nor one elsewhere."""
        other, _ = chunk_of(2)
        self.assertIsNone(self.borrow(other))
        self.assertIsNone(self.borrow())
        self.assertEqual((self.lender.asked, self.loans.distant()), (1, {"chunk-1"}))
        self.clock.advance(DISTANT_SECONDS)
        self.lender.is_local = False
        self.assertIsNone(self.borrow())
        self.assertEqual(self.lender.asked, 1)

    def test_closes_what_nobody_reads(self) -> None:
        """A file is closed some time after the last read, so that its space can be free."""
        self.borrow()
        self.clock.advance(IDLE_SECONDS - 1)
        self.read(0, BLOCK_BYTES)
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertFalse(self.file.closed)
        self.clock.advance(1)
        self.assertTrue(self.file.closed)

    def test_bounded(self) -> None:
        """Only so many files are open; a read that is under way keeps its own."""
        loan = self.borrow()
        assert loan is not None
        loan.use()
        for number in range(2, MOST_LOANS + 2):
            chunk, content = chunk_of(number)
            self.lender.files[chunk.id] = MemoryFile(content)
            self.borrow(chunk)
        opened = [file for file in self.lender.files.values() if not file.closed]
        self.assertEqual(len(opened), MOST_LOANS + 1)
        loan.leave()
        self.assertTrue(self.file.closed)
        self.loans.close()
        self.assertTrue(all(file.closed for file in self.lender.files.values()))
