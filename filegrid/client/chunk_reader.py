"""A range of one chunk, from whichever replica gives it whole."""

from __future__ import annotations

from filegrid.client.access import Access
from filegrid.client.fetching import SmallRead
from filegrid.client.loans import LoanRead
from filegrid.client.manifest import Manifest, Placed
from filegrid.client.parcels import MOST_CHUNK_BYTES
from filegrid.client.replica import ReplicaRead
from filegrid.client.session import SEE_STATUS
from filegrid.errors import Busy, GridError, IntegrityError, NoSuchChunk, Unavailable
from filegrid.model import BLOCK_BYTES, Chunk, blocks_in
from filegrid.protocol.wire import head_pb2 as wire

_USABLE = {wire.REPLICA_STATE_GOOD: 0, wire.REPLICA_STATE_SUSPECT: 1}
"""Replicas worth trying, and which first."""


class ChunkReader:
    """Verified bytes in order; whenever a replica fails, the next one goes on where it stopped.

    :param path: of the file, for errors.
    :param index: which of its chunks.
    """

    def __init__(
        self, access: Access, manifest: Manifest, path: str, index: int, start: int, end: int
    ) -> None:
        self._access = access
        self._manifest = manifest
        self._path = path
        self._index = index
        self._at = start
        self._end = end
        self._patience = access.session.patience()
        self._failed: dict[str, GridError] = {}
        self._transfer: ReplicaRead | LoanRead | SmallRead | None = None

    async def batch(self) -> list[memoryview]:
        """The next bytes, in one or more pieces; none at the end.

        :raises IntegrityError: where every replica is corrupt.
        :raises Unavailable: where none could be read while the patience lasted.
        :raises ContentCollected: where this version of the file has been removed for good.
        """
        begun: float | None = None
        while self._at < self._end:
            transfer = self._transfer
            if transfer is None:
                begun = self._access.runtime.clock.seconds()
                transfer = self._transfer = await self._begin()
            try:
                blocks = await transfer.next()
            except GridError as error:
                self.close()
                self._lost(transfer, error)
                continue
            if begun is not None and isinstance(transfer, ReplicaRead):
                self._note_latency(transfer.replica.server, begun)
                begun = None
            self._patience.renew()
            pieces = _part(blocks, self._at % BLOCK_BYTES, self._end - self._at)
            self._at += sum(len(piece) for piece in pieces)
            if self._at == self._end:
                self._transfer = None
            return pieces
        return []

    def close(self) -> None:
        """Nothing more is wanted."""
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.drop()

    async def _begin(self) -> ReplicaRead | LoanRead | SmallRead:
        while True:
            placed = await self._manifest.placed(self._index)
            replica = self._choose(placed)
            if replica is None:
                await self._wait(placed)
                continue
            read = await self._read_of(replica, placed.chunk)
            if isinstance(read, LoanRead):
                return read
            try:
                await read.open()
            except GridError as error:
                self._lost(read, error)
            else:
                return read

    async def _read_of(
        self, replica: wire.Replica, chunk: Chunk
    ) -> ReplicaRead | LoanRead | SmallRead:
        access = self._access
        first = self._at - self._at % BLOCK_BYTES
        if chunk.length <= MOST_CHUNK_BYTES:
            return SmallRead(access, replica, chunk, first)
        end = min(blocks_in(self._end) * BLOCK_BYTES, chunk.length)
        loan = await access.loans.borrow(replica, chunk)
        if loan is not None:
            return LoanRead(access.runtime, access.loans, loan, first, end)
        return ReplicaRead(access, replica, chunk, first, end)

    def _choose(self, placed: Placed) -> wire.Replica | None:
        avoided = self._access.unreadable.servers()
        distant = self._access.loans.distant()
        usable = [
            replica
            for replica in placed.replicas
            if replica.state in _USABLE and replica.server not in self._failed
        ]
        self._access.runtime.random.shuffle(usable)
        return min(
            usable,
            key=lambda replica: (
                _USABLE[replica.state],
                replica.server in avoided,
                replica.server in distant,
            ),
            default=None,
        )

    def _lost(self, read: ReplicaRead | LoanRead | SmallRead, error: GridError) -> None:
        server = read.replica.server
        self._failed[server] = error
        if isinstance(error, (IntegrityError, NoSuchChunk)):
            self._access.complain(read.chunk.id, server, error)
        elif not isinstance(error, Busy):
            self._access.unreadable.add([server])
            self._access.report(server, error)

    def _note_latency(self, server: str, begun: float) -> None:
        seconds = self._access.runtime.clock.seconds() - begun
        if reason := self._access.latencies.note(server, seconds):
            self._access.unreadable.add([server])
            self._access.report_slow(server, reason)

    async def _wait(self, placed: Placed) -> None:
        """Every replica that is known failed: let the head say again where they are.

        :raises IntegrityError: where there is nothing to wait for.
        """
        corrupt = {
            server for server, error in self._failed.items() if isinstance(error, IntegrityError)
        }
        known_corrupt = corrupt | {
            replica.server
            for replica in placed.replicas
            if replica.state == wire.REPLICA_STATE_CORRUPT
        }
        hope = placed.incomplete or any(
            replica.state in _USABLE and replica.server not in corrupt
            for replica in placed.replicas
        )
        if known_corrupt and not (hope and await self._patience.pause()):
            raise IntegrityError(
                f"no good replica of chunk {self._index} is left"
                f" (corrupt on {', '.join(sorted(known_corrupt))})",
                self._path,
                advice="restore the file from elsewhere",
            )
        if not known_corrupt and not await self._patience.pause():
            raise Unavailable(self._why(), self._path, advice=SEE_STATUS)
        self._manifest.forget(self._index)
        self._failed = {server: self._failed[server] for server in corrupt}

    def _why(self) -> str:
        reasons = "; ".join(f"{server}: {error.what}" for server, error in self._failed.items())
        return f"no replica of chunk {self._index} can be read ({reasons or 'none is known'})"


def _part(pieces: list[memoryview], skip: int, most: int) -> list[memoryview]:
    """What the pieces hold behind the first `skip` bytes, up to `most` bytes of it."""
    part = []
    for piece in pieces:
        wanted = piece[skip : skip + most]
        skip = max(0, skip - len(piece))
        most -= len(wanted)
        if wanted:
            part.append(wanted)
    return part
