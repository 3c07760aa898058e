"""All disks of a chunk server, as one store: each chunk lies on one of them.

A disk that is lost takes its chunks with it and nothing else: the server goes on with the others,
and reports those replicas gone, so that they are made anew. When it comes back, what it holds is
there again. All methods but those that say so block and run in threads.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress

from twisted.logger import Logger

from filegrid.chunk.small import Writer
from filegrid.chunk.store import ChunkReader, Store
from filegrid.chunk.volume import Checked, Condition, Volume
from filegrid.errors import DiskFailed, GridError, NoSpace, NoSuchChunk
from filegrid.model import Chunk, ChunkId
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Bytes

MOST_BEGUN = 32768
"""Chunks begun and not heard of again that are remembered: far more than are written at once."""

_log = Logger()


class Volumes:
    """The disks, the first of them in the server's own data folder."""

    def __init__(self, volumes: Sequence[Volume], rng: random.Random) -> None:
        self._volumes = volumes
        self._random = rng
        self._where: dict[ChunkId, Volume] = {}
        self._doubles: dict[ChunkId, list[Volume]] = {}
        self._begun: OrderedDict[ChunkId, Volume] = OrderedDict()

    def __iter__(self) -> Iterator[Volume]:
        return iter(self._volumes)

    def __len__(self) -> int:
        return len(self._volumes)

    @property
    def damaged(self) -> list[ChunkId]:
        return [chunk_id for volume in self for chunk_id in volume.store.damaged]

    @property
    def small_bytes(self) -> int:
        """Chunks up to this length can be stored many at a time."""
        return min(volume.store.small_bytes for volume in self)

    @property
    def writers(self) -> int:
        return sum(volume.store.writers for volume in self)

    def load(self) -> list[Chunk]:
        """Read what is there; once, before all else. Disks that are missing are left out.

        :raises GridError: where that is the first one.
        """
        found: list[Chunk] = []
        for volume in self:
            try:
                chunks = volume.attach()
            except GridError as error:
                if volume is self._volumes[0]:
                    raise
                _log.error("{path} is missing: {error}", path=volume.path, error=error)
                volume.last = Checked(condition=Condition.LOST, trouble=str(error))
            else:
                self.came(volume, chunks)
                found += chunks
        return found

    # Which disk a chunk lies on. These do not block, and are called on the reactor's turn.

    def came(self, volume: Volume, chunks: Sequence[Chunk]) -> None:
        """A disk was attached, with these on it.

        While it was away some may have been made anew on another disk of this server. Those were
        read back then; so the old ones are too many, and :meth:`tidy` removes them.
        """
        for chunk in chunks:
            if self._where.setdefault(chunk.id, volume) is not volume:
                self._doubles.setdefault(chunk.id, []).append(volume)

    def lost(self, volume: Volume) -> list[ChunkId]:
        """A disk is gone; returns what was on it and nowhere else."""
        for chunk_id, others in list(self._doubles.items()):
            left = [one for one in others if one is not volume]
            if left and self._where.get(chunk_id) is volume:
                self._where[chunk_id] = left.pop()
            self._doubles[chunk_id] = left
        gone = [chunk_id for chunk_id, where in self._where.items() if where is volume]
        for chunk_id in gone:
            del self._where[chunk_id]
        return gone

    def changed(self, change: wire.Changes) -> None:
        """What the inventory tells."""
        for ref in change.added:
            added = ChunkId(ref.id)
            volume = self._begun.pop(added, None)
            if volume is not None:
                before = self._where.get(added, volume)
                if before is not volume:  # it came back with its disk in the meantime
                    self._doubles.setdefault(added, []).append(before)
                self._where[added] = volume
        for chunk_id in (*change.removed, *change.damaged):
            # Its file is still to be removed, or put aside.
            if (volume := self._where.pop(ChunkId(chunk_id), None)) is not None:
                self._remember(ChunkId(chunk_id), volume)

    def _remember(self, chunk_id: ChunkId, volume: Volume) -> None:
        self._begun[chunk_id] = volume
        while len(self._begun) > MOST_BEGUN:
            self._begun.popitem(last=False)

    def _of(self, chunk_id: ChunkId) -> Store:
        volume = self._where.get(chunk_id) or self._begun.get(chunk_id)
        if volume is None:
            if len(self) == 1:
                return self._volumes[0].store
            raise NoSuchChunk("the chunk is not on this server", chunk_id.hex())
        if volume.last.condition is Condition.LOST:
            raise DiskFailed("its disk is lost", chunk_id.hex(), advice=volume.last.trouble)
        return volume.store

    # What a store does.

    def begin(self, chunk_id: ChunkId, origin: wire.ChunkOrigin, most_bytes: int) -> Writer:
        """As :meth:`Store.begin`, on a disk that has room: the more, the likelier."""
        error: GridError = NoSpace("no disk can be written to", chunk_id.hex())
        for volume in self._choice():
            try:
                writer = volume.store.begin(chunk_id, origin, most_bytes)
            except NoSpace as full:
                error = full
            except DiskFailed as failure:
                error = failure
                volume.blame(failure)
            else:
                self._remember(chunk_id, volume)
                return writer
        raise error

    def store(
        self, chunks: Sequence[tuple[Chunk, wire.ChunkOrigin, Bytes]]
    ) -> list[GridError | None]:
        """As :meth:`Store.store`; what one disk fails to take goes to the next."""
        errors: list[GridError | None] = [
            NoSpace("no disk can be written to", chunk.id.hex()) for chunk, _, _ in chunks
        ]
        left = list(range(len(chunks)))
        for volume in self._choice():
            try:
                outcomes = volume.store.store([chunks[place] for place in left])
            except DiskFailed as failure:
                outcomes = [failure] * len(left)
            for place, outcome in zip(left, outcomes, strict=True):
                errors[place] = outcome
                if outcome is None:
                    self._remember(chunks[place][0].id, volume)
                elif isinstance(outcome, DiskFailed):
                    volume.blame(outcome)
            left = [place for place in left if isinstance(errors[place], (NoSpace, DiskFailed))]
            if not left:
                break
        return errors

    def _choice(self) -> list[Volume]:
        """All that can be written to, in an order drawn by their free space."""
        left = [one for one in self if one.last.condition is Condition.GOOD]
        if len(self) == 1:
            return [*self]  # it says itself what is wrong
        order = []
        while left:
            weights = [max(1, one.last.free_bytes) for one in left]
            order.append(self._random.choices(left, weights)[0])
            left.remove(order[-1])
        return order

    def blame(self, chunk_id: ChunkId, error: Exception) -> None:
        """Writing this chunk failed, by its disk or otherwise."""
        volume = self._begun.get(chunk_id)
        if volume is not None and isinstance(error, DiskFailed):
            volume.blame(error)

    def open_reader(self, chunk: Chunk) -> ChunkReader:
        return self._of(chunk.id).open_reader(chunk)

    def read_many(self, chunks: Sequence[Chunk]) -> list[bytes | GridError]:
        """All bytes of each, unchecked, or why they cannot be read."""
        found: list[bytes | GridError] = []
        for chunk in chunks:
            try:
                found.append(self._of(chunk.id).read(chunk, 0, chunk.length))
            except GridError as error:
                found.append(error)
        return found

    def block_digests(self, chunk: Chunk) -> bytes:
        return self._of(chunk.id).block_digests(chunk)

    def verify(self, chunk: Chunk) -> None:
        self._of(chunk.id).verify(chunk)

    def verify_many(self, chunks: Sequence[Chunk]) -> list[GridError | None]:
        """For each None, or what :meth:`verify` raised."""
        outcomes: list[GridError | None] = []
        for chunk in chunks:
            try:
                self.verify(chunk)
            except GridError as error:
                outcomes.append(error)
            else:
                outcomes.append(None)
        return outcomes

    def quarantine(self, chunk_id: ChunkId, reason: str) -> None:
        with suppress(NoSuchChunk, DiskFailed):  # a disk that is lost is read when it is back
            self._of(chunk_id).quarantine(chunk_id, reason)

    def remove(self, chunk_id: ChunkId) -> None:
        with suppress(NoSuchChunk, DiskFailed):  # likewise
            self._of(chunk_id).remove(chunk_id)

    def tidy(self) -> None:
        """As :meth:`Store.tidy`; and remove what lies on two disks from one of them."""
        for chunk_id in list(self._doubles):
            for volume in self._doubles.pop(chunk_id, ()):
                if volume.last.condition is not Condition.LOST:  # or it tells of it again
                    volume.store.remove(chunk_id)
        for volume in self:
            if volume.last.condition is not Condition.LOST:
                volume.store.tidy()

    def ids(self) -> list[ChunkId]:
        """Of all chunks on disks that are not lost."""
        here = [one for one in self if one.last.condition is not Condition.LOST]
        return [chunk_id for volume in here for chunk_id in volume.store.ids()]

    def compact(self, most_bytes: int) -> tuple[bool, list[Chunk]]:
        """As :meth:`Store.compact`, of the first disk that has something to do."""
        for volume in self:
            if volume.last.condition is Condition.GOOD:
                more, damaged = volume.store.compact(most_bytes)
                if more or damaged:
                    return more, damaged
        return False, []

    def locate(self, chunks: Sequence[Chunk]) -> list[tuple[str, int] | GridError]:
        """As :meth:`Store.locate`, or what it raised; on further disks the absolute path."""
        found: list[tuple[str, int] | GridError] = []
        for chunk in chunks:
            try:
                found.append(self._place(chunk.id))
            except GridError as error:
                found.append(error)
        return found

    def _place(self, chunk_id: ChunkId) -> tuple[str, int]:
        store = self._of(chunk_id)
        file, offset = store.locate(chunk_id)
        first = self._volumes[0]
        if store is first.store:
            return file, offset
        path = next(one.path for one in self if one.store is store)
        return f"{path}/{file}", offset
