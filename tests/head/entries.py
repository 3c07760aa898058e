"""Log entries in the shortest way to write them down, and a namespace to apply them to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from blake3 import blake3
from twisted.trial import unittest

from filegrid.errors import GridError, from_fault
from filegrid.head.namespace import Namespace
from filegrid.model import Chunk, ChunkId, Digest, SessionId, digest_over, unique_id
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire

CHUNK_BYTES = 64 * 1024
TRASH_MS = 1000
DEFAULT_REPLICATION = 3


def chunk(session: int, number: int, length: int = CHUNK_BYTES) -> Chunk:
    chunk_id = ChunkId(unique_id(SessionId(session), number))
    return Chunk(id=chunk_id, length=length, digest=Digest(blake3(chunk_id).digest()))


def publication(
    path: str,
    content_id: bytes,
    chunks: Sequence[Chunk],
    *,
    first_index: int = 0,
    before: Sequence[Chunk] = (),
    **more: Any,
) -> wire.Publish:
    """A consistent one; `before` are the chunks that were staged or are inherited."""
    whole = [*before, *chunks]
    fields: dict[str, Any] = {
        "path": path,
        "content_id": content_id,
        "first_index": first_index or len(before),
        "chunks": [one.to_wire() for one in chunks],
        "size": sum(one.length for one in whole),
        "digest": digest_over(one.digest for one in whole),
        "replication": 3,
        "chunk_bytes": CHUNK_BYTES,
    }
    return wire.Publish(**{**fields, **more})


class Driver:
    """A namespace, the log that fed it, and a session with a running sequence."""

    def __init__(self, database: sqlite3.Connection | None = None) -> None:
        self.database = database or sqlite3.connect(":memory:")
        self.namespace = Namespace(self.database)
        self.log: list[journal.Entry] = []
        self.now_ms = 0
        self._numbers = 0
        self._sequences = 1000  # below it are those that a test gives itself
        self.does(create_grid=journal.CreateGrid(grid_id="g", lineage=1))
        self.session = self.open_session()

    def open_session(self, client: str = "ann") -> int:
        return self.does(open_session=wire.OpenSession(), client=client).session

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def new_id(self, session: int | None = None) -> bytes:
        return unique_id(SessionId(session or self.session), self.number())

    def new_chunk(self, length: int = CHUNK_BYTES) -> Chunk:
        return chunk(self.session, self.number(), length)

    def apply(self, command: journal.Command) -> journal.Outcome:
        entry = journal.Entry(epoch=1, index=len(self.log) + 1, command=command)
        self.log.append(entry)
        return self.namespace.apply([entry])[0]

    def does(self, *, client: str = "ann", **change: Any) -> journal.Outcome:
        """Apply a command that is no client's change."""
        return self.apply(journal.Command(log_time_ms=self.now_ms, client=client, **change))

    def once(
        self,
        *,
        session: int | None = None,
        sequence: int | None = None,
        answered_below: int = 0,
        client: str = "ann",
        trash_ms: int = TRASH_MS,
        **change: Any,
    ) -> journal.Outcome:
        """Apply a change of a client, under a new sequence number unless one is given."""
        if sequence is None:
            self._sequences += 1
            sequence = self._sequences
        once = wire.Once(
            session=self.session if session is None else session,
            sequence=sequence,
            answered_below=answered_below,
        )
        command = journal.Command(
            log_time_ms=self.now_ms,
            wall_ms=self.now_ms + 5,
            client=client,
            once=once,
            trash_ms=trash_ms,
            replication=DEFAULT_REPLICATION,
            **change,
        )
        return self.apply(command)

    def put(self, path: str, *chunks: Chunk, **more: Any) -> journal.Outcome:
        content_id = more.pop("content_id", self.new_id())
        return self.once(publish=publication(path, content_id, chunks, **more))

    def make(self, path: str, *, parents: bool = False) -> journal.Outcome:
        return self.once(make_folder=wire.MakeFolder(path=path, parents=parents))

    def rename(self, source: str, target: str, *, replace: bool = False) -> journal.Outcome:
        return self.once(rename=wire.Rename(source=source, target=target, replace=replace))

    def remove(self, path: str, *, recursive: bool = False, now: bool = False) -> journal.Outcome:
        return self.once(remove=wire.Remove(path=path, recursive=recursive, now=now))

    def purge(self, limit: int = 1000) -> journal.Outcome:
        return self.does(purge_trash=journal.PurgeTrash(limit=limit))

    def names(self, path: str = "/") -> list[str]:
        nodes, more = self.namespace.list_folder(path, "", 1000)
        assert not more
        return [node.path for node in nodes]

    def dump(self) -> list[str]:
        return list(self.database.iterdump())


class NamespaceTestCase(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.grid = Driver()
        self.addCleanup(self.grid.database.close)

    def refused(self, outcome: journal.Outcome, kind: type[GridError], subject: str = "") -> None:
        self.assertEqual(outcome.WhichOneof("result"), "fault", outcome)
        error = from_fault(outcome.fault)
        self.assertIs(type(error), kind, str(error))
        if subject:
            self.assertEqual(error.subject, subject)


def every_page(page: Callable[[bytes], tuple[list[ChunkId], ChunkId | None]]) -> list[ChunkId]:
    """All that the pages name, of which each says after which id the next begins."""
    found: list[ChunkId] = []
    after: bytes | None = b""
    while after is not None:
        ids, after = page(after)
        found += ids
    return found
