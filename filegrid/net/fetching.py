"""Several small chunks from one chunk server, with one question."""

from __future__ import annotations

from collections.abc import Sequence

from filegrid.errors import GridError, MalformedFrame, from_fault
from filegrid.model import Address, Chunk
from filegrid.net.dial import DataPool
from filegrid.net.link import expect
from filegrid.protocol.connection import DataReceived
from filegrid.protocol.wire import chunk_pb2 as wire


async def fetch_chunks(
    pool: DataPool, address: Address, chunks: Sequence[Chunk], *, timeout_seconds: float
) -> list[memoryview | GridError]:
    """All bytes of each, unchecked, or why that one cannot be had there.

    :param chunks: no more than fit in a parcel (:mod:`filegrid.chunk.parcel`).
    :raises GridError: where none can be had.
    """
    request = wire.FetchChunks(chunk_ids=[chunk.id for chunk in chunks])
    link = await pool.acquire(address)
    sink = _Sink(sum(chunk.length for chunk in chunks))
    try:
        exchange = link.open(request, timeout_seconds=timeout_seconds, sink=sink)
        answer = expect(wire.Fetched, await exchange.answer, link.peer)
        data, at = sink.whole(), 0
        failed = {one.chunk_id: from_fault(one.fault) for one in answer.failures}
        found: list[memoryview | GridError] = []
        for chunk in chunks:
            if (error := failed.get(chunk.id)) is not None:
                found.append(error)
                continue
            found.append(data[at : at + chunk.length])
            at += chunk.length
        if at != len(data):
            raise MalformedFrame("the chunk server sent other lengths than it should")
    except Exception:
        pool.drop(link)
        raise
    pool.release(address, link)
    return found


class _Sink:
    """What came; no more of it than was asked for."""

    def __init__(self, most_bytes: int) -> None:
        self._pieces: list[memoryview] = []
        self._left_bytes = most_bytes

    def data_received(self, data: DataReceived) -> None:
        self._left_bytes -= len(data.piece)
        if self._left_bytes >= 0:
            self._pieces.append(data.piece)

    def data_lost(self, error: GridError) -> None:
        self._pieces.clear()

    def whole(self) -> memoryview:
        if self._left_bytes < 0:
            raise MalformedFrame("the chunk server sent more than was asked for")
        return memoryview(b"".join(self._pieces))
