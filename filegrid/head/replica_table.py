"""A table in memory from chunk ids to the servers that hold them: some 15 bytes a chunk.

There may be ten million rows, each of which would be several objects of Python's. So rows lie side
by side, in the order of their ids, in blocks of some hundred; a block keeps only what its ids
differ in, which is little, as sessions number their chunks one after the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

from filegrid.model import CHUNK_ID_BYTES, ChunkId

MARK_BYTES = 6

MOST_ROWS = 256
"""In a block: to insert into one moves some 4 KiB."""

ROWS_A_LOOK = 4096
FOUND_A_LOOK = 256
"""Rows to look through, and to find, in one turn: about a millisecond."""

MOST_SERVERS = 127 * 128

_CODE_BYTES = 2


class ReplicaTable:
    """Rows by chunk id, in order: of each a mark of `MARK_BYTES` bytes, and at least one server,
    by its number below `MOST_SERVERS`."""

    def __init__(self) -> None:
        self._firsts: list[ChunkId] = []
        self._blocks: list[_Block] = []

    def get(self, chunk_id: bytes) -> tuple[bytes, list[int]] | None:
        """The mark of a row, and its servers in order."""
        index, start = self._find(chunk_id)
        return self._blocks[index].read(start) if start >= 0 else None

    def add(self, chunk_id: ChunkId, mark: bytes, server: int) -> bytes:
        """Add a server to a row, or a row; returns the row's mark: it keeps its first."""
        code = _code(server)
        if not self._blocks:
            self._blocks, self._firsts = [_Block([(chunk_id, mark + code)])], [chunk_id]
            return mark
        index, start = self._find(chunk_id)
        block = self._blocks[index]
        if start >= 0:
            return block.add(start, code)
        block.insert(chunk_id, mark + code)
        parts = [block]
        if len(block) > MOST_ROWS:
            # What comes in order leaves full blocks behind, as inventories and uploads do.
            parts = block.split(MOST_ROWS if block.id(-1) == chunk_id else MOST_ROWS // 2)
        self._blocks[index : index + 1] = parts
        self._firsts[index : index + 1] = [part.id(0) for part in parts]
        return mark

    def remove(self, chunk_id: bytes, server: int) -> None:
        """Take a server from a row, and the row if that was its last, where they are there."""
        index, start = self._find(chunk_id)
        if start < 0:
            return
        block = self._blocks[index]
        block.remove(start, _code(server))
        if len(block):
            self._firsts[index] = block.id(0)
        else:
            del self._blocks[index], self._firsts[index]

    def of_server(self, server: int, after: bytes) -> tuple[list[ChunkId], ChunkId | None]:
        """Some of the next chunks that a server holds, in order; there may be none among those
        that were looked at.

        :returns: them, and after which id to go on: None at the end.
        """
        code = _code(server)
        found: list[ChunkId] = []
        looked = 0
        for index in range(self._index(after), len(self._blocks)):
            if looked >= ROWS_A_LOOK or len(found) >= FOUND_A_LOOK:
                return found, self._blocks[index - 1].id(-1)
            block = self._blocks[index]
            looked += len(block)
            ids = block.with_server(code)
            found += ids if after < self._firsts[index] else (one for one in ids if one > after)
        return found, None

    def _find(self, chunk_id: bytes) -> tuple[int, int]:
        """Which block has this id, or would, and where its row starts there: -1 where none does."""
        index = self._index(chunk_id)
        return index, self._blocks[index].find(chunk_id) if self._blocks else -1

    def _index(self, chunk_id: bytes) -> int:
        return max(0, bisect_right(self._firsts, chunk_id) - 1)


class _Block:
    """Some rows, each as wide as the others: what follows the prefix in its id, its mark, and its
    servers' codes, with zeros behind them. Starts are those of a row's bytes."""

    __slots__ = ("_id_bytes", "_prefix", "_rows", "_width")

    def __init__(self, rows: Sequence[tuple[ChunkId, bytes]]) -> None:
        """:param rows: ids, and marks with codes."""
        self._fill(rows)

    def _fill(self, rows: Sequence[tuple[ChunkId, bytes]]) -> None:
        first, last = rows[0][0], rows[-1][0]
        unlike = int.from_bytes(first, "big") ^ int.from_bytes(last, "big")
        self._id_bytes = (unlike.bit_length() + 7) // 8
        self._prefix = first[: CHUNK_ID_BYTES - self._id_bytes]
        rest_bytes = max(len(rest) for _, rest in rows)
        self._width = self._id_bytes + rest_bytes
        self._rows = bytearray().join(
            chunk_id[len(self._prefix) :] + rest.ljust(rest_bytes, b"\0") for chunk_id, rest in rows
        )

    def __len__(self) -> int:
        return len(self._rows) // self._width

    def id(self, position: int) -> ChunkId:
        return self._id(position % len(self) * self._width)

    def rows(self) -> list[tuple[ChunkId, bytes]]:
        return [
            (self._id(start), bytes(self._rows[start + self._id_bytes : start + self._width]))
            for start in range(0, len(self._rows), self._width)
        ]

    def find(self, chunk_id: bytes) -> int:
        """Where the row with this id starts; -1 where there is none."""
        if not chunk_id.startswith(self._prefix):
            return -1
        rest = chunk_id[len(self._prefix) :]
        start = self._rows.find(rest)
        while start >= 0 and start % self._width:
            start = self._rows.find(rest, start + 1)
        return start

    def read(self, start: int) -> tuple[bytes, list[int]]:
        codes, end = self._codes(start)
        used = self._rows[codes:end].rstrip(b"\0")
        return self._mark(start), sorted(map(_number, used[::2], used[1::2]))

    def insert(self, chunk_id: ChunkId, rest: bytes) -> None:
        after = bisect_right(range(0, len(self._rows), self._width), chunk_id, key=self._id)
        start = after * self._width
        if chunk_id.startswith(self._prefix):
            room = self._width - self._id_bytes
            self._rows[start:start] = chunk_id[len(self._prefix) :] + rest.ljust(room, b"\0")
        else:
            rows = self.rows()
            rows.insert(after, (chunk_id, rest))
            self._fill(rows)

    def add(self, start: int, code: bytes) -> bytes:
        """Add a server to a row; returns the row's mark."""
        codes, end = self._codes(start)
        mark = self._mark(start)
        if self._rows.find(code, codes, end) >= 0:
            return mark
        free = self._rows.find(0, codes, end)
        if free >= 0:
            self._rows[free : free + _CODE_BYTES] = code
        else:
            rows = self.rows()
            chunk_id, rest = rows[start // self._width]
            rows[start // self._width] = (chunk_id, rest + code)
            self._fill(rows)
        return mark

    def remove(self, start: int, code: bytes) -> None:
        """Take a server from a row; the row, too, if it was the last."""
        codes, end = self._codes(start)
        left = self._rows[codes:end].replace(code, b"").ljust(end - codes, b"\0")
        if left[0]:
            self._rows[codes:end] = left
        else:
            del self._rows[start:end]

    def with_server(self, code: bytes) -> list[ChunkId]:
        """The ids of the rows with this server, in order."""
        ids = []
        at = self._rows.find(code)
        while at >= 0:
            start = at - at % self._width
            if at >= start + self._id_bytes + MARK_BYTES:
                ids.append(self._id(start))
            at = self._rows.find(code, at + 1)
        return ids

    def split(self, position: int) -> list[_Block]:
        rows = self.rows()
        return [_Block(rows[:position]), _Block(rows[position:])]

    def _id(self, start: int) -> ChunkId:
        return ChunkId(self._prefix + self._rows[start : start + self._id_bytes])

    def _mark(self, start: int) -> bytes:
        mark = start + self._id_bytes
        return bytes(self._rows[mark : mark + MARK_BYTES])

    def _codes(self, start: int) -> tuple[int, int]:
        """Where the codes of a row begin and end."""
        return start + self._id_bytes + MARK_BYTES, start + self._width


@cache
def _code(server: int) -> bytes:
    """Seven bits in each byte. None is 0, as what is free is, and the first bytes are not of those
    that the second ones are, so that a search for a code finds no other's halves."""
    high, low = divmod(server, 128)
    return bytes((1 + high, 128 + low))


def _number(first: int, second: int) -> int:
    return (first - 1) * 128 + second - 128
