"""One version of a file, open for reading."""

from __future__ import annotations

from filegrid.client.access import Access
from filegrid.client.chunk_reader import ChunkReader
from filegrid.client.manifest import Manifest
from filegrid.client.reader import SEGMENT_BYTES, Reader
from filegrid.client.stat import Stat
from filegrid.protocol.wire import head_pb2 as wire


class Content:
    """The version of a file that had the path when it was looked up (S19).

    :ivar stat: of that version.
    :ivar manifest: its chunks.
    :param first_page: of the manifest, where it is known already.
    """

    def __init__(
        self, access: Access, stat: Stat, first_page: wire.ManifestPage | None = None
    ) -> None:
        self.stat = stat
        self.manifest = Manifest(access.session, stat, first_page)
        self._access = access

    async def pread(self, offset: int, length: int) -> bytes:
        """The bytes from `offset` on, up to `length`; fewer only at the end of the file.

        :raises IntegrityError: where every replica is corrupt.
        :raises Unavailable: where no replica could be read while the patience lasted.
        :raises ContentCollected: where this version has been removed for good.
        """
        reader = self._short_reader(offset, length) or self.reader(offset, length)
        pieces: list[memoryview] = []
        try:
            while more := await reader.batch():
                pieces += more
        except Exception:
            reader.close()
            raise
        return b"".join(pieces)

    def _short_reader(self, offset: int, length: int) -> ChunkReader | None:
        """Of a range within one chunk that is too short to be worth reading ahead."""
        end = min(self.stat.size, offset + length)
        if not 0 <= offset < end <= offset + SEGMENT_BYTES:
            return None
        index, start = divmod(offset, self.stat.chunk_bytes)
        if start + end - offset > self.stat.chunk_bytes:
            return None
        return self.chunk_reader(index, start, start + end - offset)

    def reader(self, offset: int = 0, length: int | None = None) -> Reader:
        """The bytes from `offset` on in order, up to `length` or to the end of the file."""
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("offset and length are not negative")
        end = self.stat.size if length is None else min(self.stat.size, offset + length)
        return Reader(self.chunk_reader, self.stat.chunk_bytes, offset, end)

    def chunk_reader(self, index: int, start: int = 0, end: int | None = None) -> ChunkReader:
        """The bytes of chunk `index` from `start` to before `end`, or to its own end."""
        length = min(self.stat.chunk_bytes, self.stat.size - index * self.stat.chunk_bytes)
        return ChunkReader(
            self._access,
            self.manifest,
            self.stat.path,
            index,
            start,
            length if end is None else min(end, length),
        )
