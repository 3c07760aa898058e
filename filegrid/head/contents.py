"""Contents of files: which chunks they are made of, and which chunks nobody names any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from filegrid.errors import InvalidRequest
from filegrid.head.rows import Row, read_rows, write_rows
from filegrid.head.schema import MOST_INTEGER, RegisterFile
from filegrid.model import (
    BLOCK_BYTES,
    CHUNK_ID_BYTES,
    MOST_REPLICATION,
    Chunk,
    ChunkId,
    Digest,
    SessionId,
    digest_over,
    session_of,
    unique_id,
)
from filegrid.protocol.wire import values_pb2 as wire

MOST_CHUNK_BYTES = 4 * 1024**3
"""A repair copies whole chunks: above this one copy takes minutes on a common network."""

_USED_CHUNKS = (
    "SELECT chunk_id FROM chunks WHERE chunk_id IN (ROWS)",
    "SELECT chunk_id FROM released WHERE chunk_id IN (ROWS)",
)
_USED_CONTENTS = (
    "SELECT content_id FROM contents WHERE content_id IN (ROWS)",
    "SELECT content_id FROM staged WHERE content_id IN (ROWS)",
)
_IS_NAMED = "SELECT 1 FROM chunks WHERE chunk_id = ? LIMIT 1"
_IS_CONTENT = "SELECT 1 FROM contents WHERE content_id = ?"
_ASKED = "SELECT asked FROM contents WHERE content_id = ?"
_RESIZE = """UPDATE contents SET replication = ?1
    WHERE content_id = ?2 AND replication <> ?1 AND asked = 0"""
_IS_STAGED_AT = (
    "SELECT 1 FROM chunks WHERE content_id = ? AND position >= ? AND position < ? LIMIT 1"
)
_STAGED_RANGE = "SELECT count(*), min(position), max(position) FROM chunks WHERE content_id = ?"
_STAGED_IDS = "SELECT chunk_id FROM chunks WHERE content_id = ? ORDER BY position"
_STAGED_BELOW = "SELECT content_id FROM staged WHERE content_id >= ? AND content_id < ?"
_SHAPES = """SELECT length, digest FROM chunks WHERE content_id = ? AND position < ?
    ORDER BY position"""
_ADD_CONTENT = "INSERT INTO contents VALUES (ROWS)"
_ADD_CHUNK = "INSERT INTO chunks VALUES (ROWS)"
_INHERIT = """INSERT INTO chunks SELECT ?, position, chunk_id, length, digest FROM chunks
    WHERE content_id = ? AND position < ?"""
_ADD_STAGED = "INSERT OR IGNORE INTO staged VALUES (?)"
_DROP_STAGED = "DELETE FROM staged WHERE content_id = ?"
_DROP_CONTENT = "DELETE FROM contents WHERE content_id = ?"
_DROP_CHUNKS = "DELETE FROM chunks WHERE content_id = ?"
_FIRST_CHUNKS = """SELECT position, chunk_id, length, digest FROM chunks WHERE content_id = ?
    ORDER BY position LIMIT ?"""
_DROP_CHUNK = "DELETE FROM chunks WHERE content_id = ? AND position = ?"
_RELEASE = "INSERT INTO released VALUES (?, ?, ?, ?, 0)"
_COLLECTED = "UPDATE released SET collected = 1 WHERE chunk_id = ?"
_FORGET = "DELETE FROM released WHERE chunk_id = ?"
_FORGET_COLLECTED = """DELETE FROM released
    WHERE chunk_id >= ? AND chunk_id < ? AND collected = 1"""


class Contents:
    """Changes of the contents. What looks raises InvalidRequest; what changes cannot fail.

    Published contents and their chunks are in the tables only after :meth:`write`.

    :param first_open: the least id that a session may still publish: uploads below have ended.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        registers: RegisterFile,
        first_open: Callable[[SessionId], bytes] = lambda session: b"",
    ) -> None:
        self._database = database
        self._registers = registers
        self._first_open = first_open
        self._unused: set[bytes] = set()  # ids of contents and chunks that nothing has
        self._new_contents: list[Row] = []
        self._new_chunks: list[Row] = []

    # Looking

    def fetch(self, publishes: Sequence[wire.Publish]) -> None:
        """See at once which ids of these are unused."""
        contents = {one.content_id for one in publishes}
        chunks = {ref.id for one in publishes for ref in one.chunks}
        for ids, statements in ((contents, _USED_CONTENTS), (chunks, _USED_CHUNKS)):
            keys = [(one,) for one in ids]
            if len(keys) > 1:
                used = {
                    row[0] for say in statements for row in read_rows(self._database, say, keys)
                }
                self._unused |= ids - used

    def check_id(self, content_id: bytes, session: SessionId) -> None:
        if len(content_id) != CHUNK_ID_BYTES or session_of(content_id) != session:
            raise InvalidRequest("a content id of another session", content_id.hex())
        if content_id < self._first_open(session):
            raise InvalidRequest("its client said that this upload has ended", content_id.hex())
        if content_id in self._unused:
            return
        self.write()
        if self._database.execute(_IS_CONTENT, (content_id,)).fetchone():
            raise InvalidRequest("this content was published before", content_id.hex())

    def new_chunks(self, refs: Iterable[wire.ChunkRef], session: SessionId) -> list[Chunk]:
        """The chunks, of which nobody has heard before and which `session` made (S14)."""
        chunks = [Chunk.from_wire(ref) for ref in refs]
        first_open = self._first_open(session)
        for chunk in chunks:
            if session_of(chunk.id) != session:
                raise InvalidRequest("a chunk of another session", chunk.id.hex())
            if chunk.id < first_open:
                raise InvalidRequest("a chunk of an upload that has ended", chunk.id.hex())
            if not 0 < chunk.length <= MOST_CHUNK_BYTES:
                raise InvalidRequest("a chunk of an impossible length", chunk.id.hex())
            if chunk.id not in self._unused and self._is_used(chunk.id):
                raise InvalidRequest("this chunk was used before", chunk.id.hex())
        if len({chunk.id for chunk in chunks}) < len(chunks):
            raise InvalidRequest("a chunk that is named twice")
        return chunks

    def _is_used(self, chunk_id: bytes) -> bool:
        self.write()
        return any(
            next(read_rows(self._database, statement, [(chunk_id,)]), None)
            for statement in _USED_CHUNKS
        )

    def check_free(self, content_id: bytes, first: int, count: int) -> None:
        """No chunk was staged in these places yet."""
        if first > MOST_INTEGER - count:
            raise InvalidRequest("chunks too far out", content_id.hex())
        places = (content_id, first, first + count)
        if self._database.execute(_IS_STAGED_AT, places).fetchone():
            raise InvalidRequest("these chunks were staged before", content_id.hex())

    def check_staged(self, content_id: bytes, first: int, end: int) -> None:
        """Chunks were staged in just the places from `first` to before `end`."""
        if first == end and content_id in self._unused:
            return
        count, low, high = self._database.execute(_STAGED_RANGE, (content_id,)).fetchone()
        if count != end - first or (count and (low, high) != (first, end - 1)):
            raise InvalidRequest("the staged chunks leave a gap or overlap", content_id.hex())

    def check_whole(
        self, publish: wire.Publish, replication: int, base: bytes, chunks: Sequence[Chunk]
    ) -> int:
        """The manifest is consistent in itself; returns how many chunks it has.

        :param base: the content whose first `publish.inherited_chunks` are kept.
        """
        size, chunk_bytes = publish.size, publish.chunk_bytes
        if not 1 <= replication <= MOST_REPLICATION:
            raise InvalidRequest(f"replication is 1 to {MOST_REPLICATION}", publish.path)
        if not 0 < chunk_bytes <= MOST_CHUNK_BYTES or chunk_bytes % BLOCK_BYTES:
            raise InvalidRequest(f"chunk_bytes is a multiple of {BLOCK_BYTES}", publish.path)
        count = -(-size // chunk_bytes)
        lengths: list[int] = []

        def digests() -> Iterator[Digest]:
            for length, digest in self._shapes(publish, base, chunks):
                lengths.append(length)
                yield digest

        digest = digest_over(digests())
        last = size - (count - 1) * chunk_bytes
        if len(lengths) != count or any(
            length != (last if position == count - 1 else chunk_bytes)
            for position, length in enumerate(lengths)
        ):
            raise InvalidRequest("the chunks do not add up to the size", publish.path)
        if digest != publish.digest:
            raise InvalidRequest("the digest is not that of the chunks", publish.path)
        return count

    def _shapes(
        self, publish: wire.Publish, base: bytes, chunks: Sequence[Chunk]
    ) -> Iterator[tuple[int, Digest]]:
        if publish.first_index:
            self.write()
        if publish.inherited_chunks:
            yield from self._database.execute(_SHAPES, (base, publish.inherited_chunks))
        if publish.first_index > publish.inherited_chunks:
            yield from self._database.execute(_SHAPES, (publish.content_id, publish.first_index))
        yield from ((chunk.length, chunk.digest) for chunk in chunks)

    def asked(self, content_id: bytes | None) -> bool:
        """Whether the writer of a content asked for its replication."""
        self.write()
        row = self._database.execute(_ASKED, (content_id,)).fetchone()
        return bool(row and row[0])

    # Changing

    def stage(self, content_id: bytes, first: int, chunks: Sequence[Chunk]) -> None:
        self._unused.discard(content_id)
        self._database.execute(_ADD_STAGED, (content_id,))
        self._add_chunks(content_id, first, chunks)

    def publish(
        self,
        publish: wire.Publish,
        *,
        node: int,
        replication: int,
        asked: bool,
        base: bytes,
        chunks: Sequence[Chunk],
        count: int,
    ) -> list[ChunkId]:
        """Returns the chunks that came into the namespace, those that were staged with them.

        :param asked: whether the writer asked for the replication.
        """
        content_id, first = publish.content_id, publish.first_index
        new: list[ChunkId] = []
        if first > publish.inherited_chunks:
            new += [row[0] for row in self._database.execute(_STAGED_IDS, (content_id,))]
            self._database.execute(_DROP_STAGED, (content_id,))
        if publish.inherited_chunks:
            self.write()
            self._database.execute(_INHERIT, (content_id, base, publish.inherited_chunks))
        self._add_chunks(content_id, first, chunks)
        new += [chunk.id for chunk in chunks]
        row = (
            content_id,
            node,
            publish.size,
            publish.digest,
            replication,
            publish.chunk_bytes,
            count,
            int(asked),
        )
        self._unused.discard(content_id)
        self._new_contents.append(row)
        self._registers.now.chunks += len(new)
        return new

    def resize(self, content_id: bytes, replication: int) -> bool:
        """Give a content this replication, unless its writer asked for one; whether it changed."""
        self.write()
        return self._database.execute(_RESIZE, (replication, content_id)).rowcount > 0

    def take_apart(self, content_id: bytes, limit: int, released: list[ChunkId]) -> int:
        """Drop up to `limit` chunks, first the first, and after the last the content itself.

        :param released: where the chunks that no content names any more are added.
        :returns: how many chunks were dropped; fewer than `limit` only where the content is gone.
        """
        rows = self._database.execute(_FIRST_CHUNKS, (content_id, limit)).fetchall()
        for position, chunk_id, length, digest in rows:
            self._database.execute(_DROP_CHUNK, (content_id, position))
            if not self._database.execute(_IS_NAMED, (chunk_id,)).fetchone():
                log_time_ms = self._registers.now.log_time_ms
                self._database.execute(_RELEASE, (chunk_id, log_time_ms, length, digest))
                self._registers.now.chunks -= 1
                released.append(chunk_id)
        if len(rows) < limit:
            self._database.execute(_DROP_CONTENT, (content_id,))
        return len(rows)

    def forget_released(self, chunk_id: bytes, *, may_be_named: bool) -> int:
        """While its session could name the chunk again it is only marked (S14)."""
        statement = _COLLECTED if may_be_named else _FORGET
        return self._database.execute(statement, (chunk_id,)).rowcount

    def end_uploads(self, session: int, below: int = 2**64 - 1) -> None:
        """Drop what the session had staged under lower numbers, and what was remembered only
        because it might have named it again."""
        self.write()
        ended = unique_id(SessionId(session), 0), unique_id(SessionId(session), below)
        for (content_id,) in self._database.execute(_STAGED_BELOW, ended).fetchall():
            self._database.execute(_DROP_CHUNKS, (content_id,))
            self._database.execute(_DROP_STAGED, (content_id,))
        self._database.execute(_FORGET_COLLECTED, ended)

    def _add_chunks(self, content_id: bytes, first: int, chunks: Sequence[Chunk]) -> None:
        for position, chunk in enumerate(chunks, first):
            self._unused.discard(chunk.id)
            self._new_chunks.append((content_id, position, chunk.id, chunk.length, chunk.digest))

    # Transactions

    def write(self) -> None:
        """Bring the tables up to all changes so far."""
        contents, self._new_contents = self._new_contents, []
        chunks, self._new_chunks = self._new_chunks, []
        write_rows(self._database, _ADD_CONTENT, contents)
        write_rows(self._database, _ADD_CHUNK, chunks)

    def end(self) -> None:
        """The transaction ends: all is in the tables."""
        self.write()
        self._unused.clear()

    def forget(self) -> None:
        """After a rollback: drop what was noted."""
        self._unused.clear()
        self._new_contents.clear()
        self._new_chunks.clear()
