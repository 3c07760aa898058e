"""A range of a file in order, read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred

from filegrid.client.chunk_reader import ChunkReader

AHEAD_BYTES = 8 * 1024 * 1024
"""Held for whoever takes the bytes in order."""

SEGMENT_BYTES = AHEAD_BYTES // 2
"""Fetched by one request: two at a time keep the network busy."""

MOST_AHEAD = 4
"""Requests in flight, where the chunks are short."""


class Reader:
    """Verified bytes in order, a bounded part of them read ahead.

    :param open_chunk: makes the reader of (chunk, start, end in the chunk).
    """

    def __init__(
        self,
        open_chunk: Callable[[int, int, int], ChunkReader],
        chunk_bytes: int,
        offset: int,
        end: int,
    ) -> None:
        self._open_chunk = open_chunk
        self._segments = segments(chunk_bytes, offset, end)
        self._ahead: deque[tuple[int, Deferred[list[memoryview]]]] = deque()
        self._ahead_bytes = 0
        self._ready: deque[memoryview] = deque()

    async def next(self) -> memoryview:
        """The next bytes; empty at the end. Raises as :meth:`Content.pread`."""
        if not self._ready:
            self._read_ahead()
            if not self._ahead:
                return memoryview(b"")
            length, fetching = self._ahead.popleft()
            self._ready.extend(await fetching)
            self._ahead_bytes -= length
            self._read_ahead()
        return self._ready.popleft()

    async def batch(self) -> list[memoryview]:
        """The next bytes and all that are ready behind them; empty at the end."""
        piece = await self.next()
        pieces = [piece, *self._ready] if piece else []
        self._ready.clear()
        return pieces

    def close(self) -> None:
        """Nothing more is wanted."""
        while self._ahead:
            _, fetching = self._ahead.popleft()
            fetching.addErrback(lambda _: None)
            fetching.cancel()

    def _read_ahead(self) -> None:
        while len(self._ahead) < MOST_AHEAD and self._ahead_bytes < AHEAD_BYTES:
            segment = next(self._segments, None)
            if segment is None:
                return
            _, start, end = segment
            self._ahead_bytes += end - start
            self._ahead.append((end - start, Deferred.fromCoroutine(self._fetch(*segment))))

    async def _fetch(self, index: int, start: int, end: int) -> list[memoryview]:
        reader = self._open_chunk(index, start, end)
        pieces: list[memoryview] = []
        try:
            while more := await reader.batch():
                pieces += more
        except Exception:
            reader.close()
            raise
        return pieces


def segments(chunk_bytes: int, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range of a file into (chunk, start, end in the chunk), none longer than a segment."""
    while offset < end:
        index, start = divmod(offset, chunk_bytes)
        # They end at multiples of their length, and so at the ends of blocks.
        stop = start - start % SEGMENT_BYTES + SEGMENT_BYTES
        stop = min(stop, chunk_bytes, start + end - offset)
        yield index, start, stop
        offset += stop - start
