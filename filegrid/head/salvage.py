"""Files out of what chunks say of themselves: the pure part of a rebuild.

A chunk on disk names the version of a file that it was written for (its content id), its place
there and the file's path at the time. That a version is whole shows in its last chunk: it says how
many there are, or is shorter than the others. That the version was ever published, or was removed
since, no chunk says: what comes out is the best that can be made of what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from filegrid.head.sessions import lineage_of
from filegrid.model import BLOCK_BYTES, CHUNK_ID_BYTES, Chunk, ChunkId, ContentId, session_of
from filegrid.protocol.wire.chunk_pb2 import ChunkHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a file, as far as its chunks were found.

    :ivar path: empty where no chunk says it.
    :ivar runs: chunks next to each other, by the place of the first; one run from 0 on where the
        version is whole.
    :ivar chunk_bytes: length of all its chunks but the last.
    """

    content_id: ContentId
    path: str
    written_ms: int
    replication: int
    chunk_bytes: int
    runs: dict[int, Sequence[Chunk]]
    whole: bool


@dataclass(slots=True)
class _Content:
    """What was found of one version; `chunks` by their places."""

    path: str = ""
    written_ms: int = 0
    replication: int = 0
    chunk_bytes: int = 0
    chunk_count: int = 0
    base: bytes = b""
    inherited: int = 0
    chunks: dict[int, Chunk] = field(default_factory=dict)


class Salvage:
    """Gathers headers of chunks; replicas may say different things of one chunk, all are taken.

    All is kept in memory: some 500 bytes a chunk.

    :ivar chunk_ids: of all chunks that are there.
    :ivar highest_lineage: in which one of them was written.
    """

    def __init__(self) -> None:
        self._contents: dict[bytes, _Content] = {}
        self.chunk_ids: set[ChunkId] = set()
        self.highest_lineage = 0

    def add(self, header: ChunkHeader) -> None:
        origin, chunk = header.origin, Chunk.from_wire(header.chunk)
        self.chunk_ids.add(chunk.id)
        if len(origin.content_id) != CHUNK_ID_BYTES or not chunk.length:
            return  # it does not say what it is of, and stays where it is
        self.highest_lineage = max(self.highest_lineage, lineage_of(session_of(origin.content_id)))
        content = self._contents.setdefault(origin.content_id, _Content())
        content.path = content.path or origin.path
        content.written_ms = max(content.written_ms, origin.written_ms)
        content.replication = max(content.replication, origin.replication)
        content.chunk_bytes = content.chunk_bytes or origin.chunk_bytes
        content.chunk_count = max(content.chunk_count, origin.chunk_count)
        if origin.inherited_chunks:
            content.base, content.inherited = origin.base_content_id, origin.inherited_chunks
        known = content.chunks.get(origin.index)
        if known is None or known.id < chunk.id:  # of several tries the last one counted
            content.chunks[origin.index] = chunk

    def take(self, path: str) -> list[Version]:
        """The versions that were written as `path`, and leave them out of :meth:`versions`."""
        ids = [one for one, content in self._contents.items() if content.path == path]
        taken = [self._version(one) for one in ids]
        for one in ids:
            del self._contents[one]
        return taken

    def versions(self) -> Iterator[Version]:
        """All of them, in the order of their ids."""
        for content_id in sorted(self._contents):
            yield self._version(content_id)

    def _version(self, content_id: bytes) -> Version:
        content = self._contents[content_id]
        chunks = self._with_inherited(content)
        places = sorted(chunks)
        chunk_bytes = content.chunk_bytes or _chunk_bytes(list(chunks.values()))
        last = chunks[places[-1]]
        ends = (
            content.chunk_count == places[-1] + 1
            if content.chunk_count
            else last.length < chunk_bytes or bool(last.length % BLOCK_BYTES)
        )
        whole = (
            ends
            and places == list(range(len(places)))
            and all(chunks[place].length == chunk_bytes for place in places[:-1])
        )
        return Version(
            content_id=ContentId(content_id),
            path=content.path,
            written_ms=content.written_ms,
            replication=content.replication,
            chunk_bytes=chunk_bytes,
            runs=dict(_runs(chunks, chunk_bytes)),
            whole=whole,
        )

    def _with_inherited(self, content: _Content) -> dict[int, Chunk]:
        """Its chunks, and those that an append kept of the versions before it."""
        chunks = dict(content.chunks)
        seen, kept = {id(content)}, content.inherited
        while content.inherited:
            base = self._contents.get(content.base)
            if base is None or id(base) in seen:
                break
            seen.add(id(base))
            for place, chunk in base.chunks.items():
                if place < kept:
                    chunks.setdefault(place, chunk)
            content, kept = base, min(kept, base.inherited)
        return chunks


def _chunk_bytes(chunks: Sequence[Chunk]) -> int:
    """For chunks that an earlier release wrote: of the longest, in whole blocks."""
    longest = max(chunk.length for chunk in chunks)
    return -(-longest // BLOCK_BYTES) * BLOCK_BYTES


def _runs(chunks: dict[int, Chunk], chunk_bytes: int) -> Iterator[tuple[int, list[Chunk]]]:
    """Chunks next to each other. A short one ends its run: nothing can follow it in a file."""
    run: list[Chunk] = []
    first = 0
    for place in sorted(chunks):
        if run and (place != first + len(run) or run[-1].length != chunk_bytes):
            yield first, run
            run = []
        if not run:
            first = place
        run.append(chunks[place])
    if run:
        yield first, run
