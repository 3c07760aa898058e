"""Chunks that were read lately, kept open: reading more of them from memory takes no thread."""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from filegrid.chunk.inventory import Inventory
from filegrid.chunk.store import ChunkReader
from filegrid.model import ChunkId
from filegrid.protocol.wire import chunk_pb2 as wire

MOST_OPEN = 64

IDLE_SECONDS = 15.0
"""What nobody read between two looks so far apart is closed: an open file keeps its disk busy."""


class OpenFiles:
    """A bounded number of readers, each of a chunk of the inventory.

    Used on the reactor's turn only. A chunk that leaves the inventory is closed at once: its space
    is to be free, and what may come under its id again, as after damage, is another file.
    """

    def __init__(self, clock: IReactorTime, inventory: Inventory) -> None:
        self._clock = clock
        self._inventory = inventory
        self._readers: OrderedDict[ChunkId, ChunkReader] = OrderedDict()  # longest unread first
        self._unread: set[ChunkId] = set()  # since the last look
        self._look: IDelayedCall | None = None
        self._closed = False
        self._stop_listening = inventory.listen(self._changed)

    def __len__(self) -> int:
        return len(self._readers)

    def get(self, chunk_id: ChunkId) -> ChunkReader | None:
        """To be used before anything is awaited."""
        reader = self._readers.get(chunk_id)
        if reader is not None:
            self._readers.move_to_end(chunk_id)
            self._unread.discard(chunk_id)
        return reader

    def keep(self, reader: ChunkReader) -> None:
        """It is ours from now on, and is closed where it is not needed."""
        chunk = reader.chunk
        is_ours = self._inventory.get(chunk.id) is chunk  # and not another under the same id
        if self._closed or not is_ours or chunk.id in self._readers:
            reader.close()
            return
        self._readers[chunk.id] = reader
        if len(self._readers) > MOST_OPEN:
            self._close(next(iter(self._readers)))
        if self._look is None:
            self._look = self._clock.callLater(IDLE_SECONDS, self._close_idle)

    def close(self) -> None:
        self._closed = True
        self._stop_listening()
        for chunk_id in list(self._readers):
            self._close(chunk_id)
        if self._look is not None:
            self._look.cancel()

    def _changed(self, changes: wire.Changes) -> None:
        for chunk_id in (*changes.removed, *changes.damaged):
            self._close(ChunkId(chunk_id))

    def _close_idle(self) -> None:
        self._look = None
        for chunk_id in self._unread:
            self._close(chunk_id)
        self._unread = set(self._readers)
        if self._readers:
            self._look = self._clock.callLater(IDLE_SECONDS, self._close_idle)

    def _close(self, chunk_id: ChunkId) -> None:
        reader = self._readers.pop(chunk_id, None)
        if reader is not None:
            reader.close()
