"""What a chunk server holds, as one truth.

It is changed and read on the reactor's turn only, so that a page of it and the changes sent beside
it never contradict each other (S17). A chunk enters once it is sealed on disk, and leaves before
its file does.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable

from filegrid.model import Chunk, ChunkId
from filegrid.protocol.wire import chunk_pb2 as wire


class Inventory:
    """Chunks by id, in the order of the ids, and the changes that heads have yet to hear of.

    :ivar bytes: the lengths of all together.
    """

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = {chunk.id: chunk for chunk in chunks}
        self._order = sorted(self._chunks)
        self.bytes = sum(chunk.length for chunk in self._chunks.values())
        self._listeners: list[Callable[[wire.Changes], None]] = []

    def __len__(self) -> int:
        return len(self._order)

    def get(self, chunk_id: bytes) -> Chunk | None:
        return self._chunks.get(ChunkId(chunk_id))

    def ids(self) -> list[ChunkId]:
        return list(self._order)

    def page(self, after: bytes, limit: int) -> tuple[list[Chunk], bool]:
        """The next chunks in order, and whether there are more."""
        start = bisect_right(self._order, ChunkId(after)) if after else 0
        ids = self._order[start : start + limit]
        return [self._chunks[chunk_id] for chunk_id in ids], start + limit < len(self._order)

    def listen(self, listener: Callable[[wire.Changes], None]) -> Callable[[], None]:
        """Hear of each change from now on; call what is returned to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def add(self, *chunks: Chunk) -> None:
        for chunk in chunks:
            before = self._chunks.get(chunk.id)
            if before is None:
                insort(self._order, chunk.id)
            self._chunks[chunk.id] = chunk
            self.bytes += chunk.length - (before.length if before is not None else 0)
        self._tell(wire.Changes(added=[chunk.to_wire() for chunk in chunks]))

    def remove(self, chunk_id: bytes) -> Chunk | None:
        """It is to be deleted."""
        chunk = self._drop(chunk_id)
        if chunk is not None:
            self._tell(wire.Changes(removed=[chunk_id]))
        return chunk

    def condemn(self, chunk_id: bytes) -> Chunk | None:
        """It was found damaged and is served no more."""
        chunk = self._drop(chunk_id)
        if chunk is not None:
            self._tell(wire.Changes(damaged=[chunk_id]))
        return chunk

    def _drop(self, chunk_id: bytes) -> Chunk | None:
        chunk = self._chunks.pop(ChunkId(chunk_id), None)
        if chunk is not None:
            del self._order[bisect_right(self._order, chunk.id) - 1]
            self.bytes -= chunk.length
        return chunk

    def _tell(self, change: wire.Changes) -> None:
        for listener in list(self._listeners):
            listener(change)
