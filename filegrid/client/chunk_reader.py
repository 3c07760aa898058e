"""A range of one chunk, from whichever replica gives it whole."""

from __future__ import annotations

from collections.abc import Sequence

from filegrid.client.access import Access
from filegrid.client.manifest import Manifest, Placed
from filegrid.client.session import SEE_STATUS
from filegrid.client.source import Source
from filegrid.errors import GridError, IntegrityError, Unavailable
from filegrid.model import BLOCK_BYTES, blocks_in
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
        self._tried: list[Source] = []
        self._placed: Placed
        self._source: Source | None = None

    async def batch(self) -> list[memoryview]:
        """The next bytes, in one or more pieces; none at the end.

        :raises IntegrityError: where every replica is corrupt.
        :raises Unavailable: where none could be read while the patience lasted.
        :raises ContentCollected: where this version of the file has been removed for good.
        """
        while self._at < self._end:
            source = self._source or await self._begin()
            try:
                self._source, blocks = await self._access.hedges.next(source, self._another)
            except GridError:
                self._source = None
                continue
            self._patience.renew()
            pieces = _part(blocks, self._at % BLOCK_BYTES, self._end - self._at)
            self._at += sum(len(piece) for piece in pieces)
            return pieces
        return []

    def close(self) -> None:
        """Nothing more is wanted."""
        if self._source is not None:
            self._source.drop()

    async def _begin(self) -> Source:
        while True:
            self._placed = await self._manifest.placed(self._index)
            usable = self._usable()
            if usable:
                self._source = self._source_of(usable[0])
                return self._source
            await self._wait(self._placed)

    def _another(self) -> Source | None:
        """One beside that which is late, where there is one with nothing against it."""
        late = self._source
        avoided = self._avoided()
        for replica in self._usable():
            is_good = replica.state == wire.REPLICA_STATE_GOOD and replica.server not in avoided
            if is_good and (late is None or replica.server != late.server):
                return self._source_of(replica)
        return None

    def _source_of(self, replica: wire.Replica) -> Source:
        chunk = self._placed.chunk
        start = self._at - self._at % BLOCK_BYTES
        end = min(blocks_in(self._end) * BLOCK_BYTES, chunk.length)
        source = Source(self._access, replica, chunk, start, end)
        self._tried.append(source)
        return source

    def _usable(self) -> list[wire.Replica]:
        """The replicas worth trying, the best first."""
        failed = self._failures()
        avoided = self._avoided()
        distant = self._access.loans.distant()
        usable = [
            replica
            for replica in self._placed.replicas
            if replica.state in _USABLE and replica.server not in failed
        ]
        self._access.runtime.random.shuffle(usable)
        usable.sort(
            key=lambda replica: (
                _USABLE[replica.state],
                replica.server in avoided,
                replica.server in distant,
            )
        )
        return usable

    def _avoided(self) -> set[str]:
        return self._access.unreadable.servers() | self._access.hedges.owing()

    def _failures(self) -> dict[str, GridError]:
        return {
            source.server: source.failure for source in self._tried if source.failure is not None
        }

    async def _wait(self, placed: Placed) -> None:
        """Every replica that is known failed: let the head say again where they are.

        :raises IntegrityError: where there is nothing to wait for.
        """
        corrupt = {
            server
            for server, failure in self._failures().items()
            if isinstance(failure, IntegrityError)
        }
        known_corrupt = corrupt | {
            replica.server
            for replica in placed.replicas
            if replica.state == wire.REPLICA_STATE_CORRUPT
        }
        # Of those that cannot be reached, or are on servers that are down, nobody knows anything.
        down = [one.server for one in placed.replicas if one.state == wire.REPLICA_STATE_MISSING]
        hope = (
            placed.incomplete
            or down
            or any(
                replica.state in _USABLE and replica.server not in corrupt
                for replica in placed.replicas
            )
        )
        if known_corrupt and not hope:
            raise IntegrityError(
                f"no good replica of chunk {self._index} is left"
                f" (corrupt on {', '.join(sorted(known_corrupt))})",
                self._path,
                advice="restore the file from elsewhere",
            )
        if not await self._patience.pause():
            raise Unavailable(self._why(down), self._path, advice=SEE_STATUS)
        self._manifest.forget(self._index)
        self._tried = [source for source in self._tried if source.server in corrupt]

    def _why(self, down: Sequence[str]) -> str:
        reasons = [f"{server}: {why.what}" for server, why in self._failures().items()]
        reasons += [f"{server} is down" for server in down]
        return (
            f"no replica of chunk {self._index} can be read"
            f" ({'; '.join(reasons) or 'none is known'})"
        )


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
