"""Which chunk server holds which replicas: what the servers reported.

Soft state: it is made anew at every start from the servers' inventories. It is in memory, as it is
written in the reactor's thread, where nothing may wait for a disk: under heavy writeback even an
unsynced write takes long enough to cost a leader its lease (S5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from filegrid.head.replica_table import MARK_BYTES, ReplicaTable
from filegrid.model import Chunk, ChunkId


class Locations:
    """Replicas by chunk and by server.

    A replica counts for a chunk only where length and digest are those of the manifest (S15).
    Nearly always all servers report the same of a chunk, and so one mark of it is kept with all of
    them together; where a server differs, its own.
    """

    def __init__(self) -> None:
        self._table = ReplicaTable()
        self._differing: dict[tuple[ChunkId, int], bytes] = {}
        self._numbers: dict[str, int] = {}
        self._names = [""]
        self._told: dict[str, set[ChunkId]] = {}

    def holders(self, chunk: Chunk) -> list[str]:
        """The servers with a replica of exactly this chunk."""
        row = self._table.get(chunk.id)
        if row is None:
            return []
        mark, numbers = row
        wanted = _mark(chunk)
        return [
            self._names[number]
            for number in numbers
            if self._differing.get((chunk.id, number), mark) == wanted
        ]

    def reporters(self, chunk_id: bytes) -> list[str]:
        """The servers with anything under this id."""
        row = self._table.get(chunk_id)
        return [self._names[number] for number in row[1]] if row is not None else []

    def of_server(self, name: str, after: bytes) -> tuple[list[ChunkId], ChunkId | None]:
        """Some of the next chunks that a server holds, in the order of their ids; there may be none
        among those that were looked at.

        :returns: them, and after which id to go on: None at the end.
        """
        return self._table.of_server(self._number(name), after)

    def add(self, name: str, chunks: Sequence[Chunk]) -> None:
        """A server told that it has these now."""
        if name in self._told:
            self._told[name].update(chunk.id for chunk in chunks)
        self._add(name, chunks)

    def remove(self, name: str, chunk_ids: Iterable[bytes]) -> None:
        number = self._number(name)
        for chunk_id in chunk_ids:
            self._table.remove(chunk_id, number)
            self._differing.pop((ChunkId(chunk_id), number), None)

    # A server's full inventory, a page after the other.

    def begin_report(self, name: str) -> None:
        """An inventory is coming: what it does not name, and nobody adds meanwhile, is gone."""
        self._told[name] = set()

    def add_page(self, name: str, chunks: Sequence[Chunk]) -> None:
        self._add(name, chunks)

    def forget_stale(
        self, name: str, after: bytes, last: bytes | None, named: Collection[ChunkId]
    ) -> tuple[list[ChunkId], ChunkId | None]:
        """Forget some of those replicas of a server behind `after`, and up to `last`, that its
        report, which names these there, does not name.

        :param last: None for all that follow.
        :returns: what was forgotten, and after which id to go on: None at the end.
        """
        ids, following = self.of_server(name, after)
        told = self._told[name]
        stale = [
            chunk_id
            for chunk_id in ids
            if (last is None or chunk_id <= last) and chunk_id not in named and chunk_id not in told
        ]
        self.remove(name, stale)
        is_end = following is None or (last is not None and following >= last)
        return stale, None if is_end else following

    def end_report(self, name: str) -> None:
        self._told.pop(name, None)

    def _add(self, name: str, chunks: Iterable[Chunk]) -> None:
        number = self._number(name)
        for chunk in chunks:
            mark = _mark(chunk)
            if self._table.add(chunk.id, mark, number) != mark:
                self._differing[chunk.id, number] = mark
            elif self._differing:
                self._differing.pop((chunk.id, number), None)

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
        return self._numbers[name]


def _mark(chunk: Chunk) -> bytes:
    """What stands for length and digest. Python hashes bytes with a key of each process, so nobody
    can make up two chunks that look alike."""
    return hash((chunk.length, chunk.digest)).to_bytes(8, "big", signed=True)[:MARK_BYTES]
