"""Reading the namespace: what every question is answered from.

Each method is one look at the last committed state. Where a question takes several statements
they are of a kind that may see two states next to each other without harm, or are one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from filegrid.backup import STORED_AS
from filegrid.election.quorum import Member
from filegrid.errors import ContentCollected, GridError, InvalidPath, NoSuchPath, NotAFolder
from filegrid.head import chronicle, policies, shelf, trash
from filegrid.head.membership import RegisteredHead
from filegrid.head.nodes import (
    WANTED,
    Stored,
    children,
    find_at_once,
    find_folder,
    names_to,
    need,
    totals,
)
from filegrid.head.rows import read_rows
from filegrid.head.schema import ROOT, Registers, open_schema, read_registers
from filegrid.head.sessions import SESSION_LEASE_MS, Session, get_session, was_opened
from filegrid.model import (
    Chunk,
    ChunkId,
    ContentId,
    Digest,
    SessionId,
    join_path,
    session_of,
    split_path,
)
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from filegrid.protocol.wire.chunk_pb2 import ChunkOrigin
from filegrid.protocol.wire.health_pb2 import Event

_COUNT = "SELECT chunk_count, node FROM contents WHERE content_id = ?"
_ORIGIN = """SELECT id, chunk_bytes, chunk_count, replication, mtime_ms
    FROM contents JOIN nodes ON id = node WHERE contents.content_id = ?"""
_PAGE = """SELECT chunk_id, length, digest FROM chunks
    WHERE content_id = ? AND position >= ? ORDER BY position LIMIT ?"""
_CHUNK = """SELECT chunk_id, length, chunks.digest, content_id, position, replication
    FROM chunks JOIN contents USING (content_id)
    WHERE chunk_id = ? ORDER BY replication DESC, content_id LIMIT 1"""
_RELEASED = """SELECT chunk_id, length, digest, released_ms FROM released
    WHERE chunk_id = ? AND collected = 0"""
_CHUNKS_OF = """SELECT chunk_id, length, chunks.digest, content_id, position, replication
    FROM chunks INDEXED BY chunks_by_id CROSS JOIN contents USING (content_id)
    WHERE chunk_id IN ({}) ORDER BY content_id"""
_RELEASED_OF = """SELECT chunk_id, length, digest, released_ms FROM released
    WHERE chunk_id IN ({}) AND collected = 0"""
_CONTENTS_OF = """SELECT DISTINCT content_id, node
    FROM chunks INDEXED BY chunks_by_id CROSS JOIN contents USING (content_id)
    WHERE chunk_id = ? ORDER BY content_id"""
_SWEEP = """SELECT chunk_id, length, chunks.digest, content_id, position, max(replication)
    FROM chunks INDEXED BY chunks_by_id CROSS JOIN contents USING (content_id)
    WHERE chunk_id > ? GROUP BY chunk_id ORDER BY chunk_id LIMIT ?"""
_RELEASED_BEFORE = """SELECT chunk_id, length, digest FROM released
    WHERE released_ms < ? AND collected = 0 ORDER BY released_ms, chunk_id LIMIT ?"""
_DUE_SESSIONS = "SELECT id FROM sessions WHERE renewed_ms < ? ORDER BY id LIMIT ?"
_VOTERS = "SELECT name, incarnation FROM voters ORDER BY name"
_HEADS = "SELECT name, address, wanted FROM heads ORDER BY name"
_SERVERS = "SELECT name, incarnation, rack, address, standing FROM servers ORDER BY name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """A chunk that contents name, or that was released and not yet collected."""

    chunk: Chunk
    content_id: ContentId
    """One of the contents that name it; empty when it is released."""
    index: int
    """Its place there."""
    replication: int
    """The most that any of its contents wants; 0 when it is released."""
    released_ms: int | None
    """Log time at which the last content that named it was taken apart."""


class Standing(Enum):
    """Whether a chunk server is to keep what it holds; values of journal.Standing."""

    SERVING = journal.STANDING_SERVING
    DRAINING = journal.STANDING_DRAINING
    DRAINED = journal.STANDING_DRAINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A chunk server as it was last registered."""

    name: str
    incarnation: bytes
    rack: str
    address: str
    standing: Standing = Standing.SERVING


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What is in the namespace, known without counting."""

    files: int
    bytes: int
    chunks: int
    """Different chunks, those of files in the trash with them; the other two are without it."""


class View:
    """Answers from one connection; for one thread at a time."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """:raises UnsupportedVersion: where the tables are of another release, or missing."""
        open_schema(database, writable=False)
        self._reads = database

    # Names

    def stat(self, path: str) -> wire.Node:
        """:raises InvalidPath, NoSuchPath, NotAFolder: as they say."""
        names = split_path(path)
        found = find_at_once(self._reads, names)
        if found is None:
            with self._moment():
                found = need(self._reads, names)
        return found.to_wire(join_path(names))

    def stat_many(self, paths: Sequence[str]) -> list[wire.Node | GridError]:
        """For each what :meth:`stat` says or raises, all of one moment: every folder is found
        once, and what is in them by few statements."""
        wanted: dict[tuple[int, bytes], None] = {}
        places: list[tuple[int, bytes] | GridError] = []
        folders: dict[str, int | GridError] = {}
        with self._moment():
            for path in paths:
                place = self._place(path, folders)
                places.append(place)
                if isinstance(place, tuple):
                    wanted[place] = None
            rows = read_rows(self._reads, WANTED, list(wanted))
            found = {(row[0], row[1]): Stored._make(row) for row in rows}
        answers: list[wire.Node | GridError] = []
        for path, place in zip(paths, places, strict=True):
            if isinstance(place, GridError):
                answers.append(place)
            elif place in found:
                answers.append(found[place].to_wire(path.rstrip("/") or "/"))
            else:
                answers.append(NoSuchPath("no such file or folder", path))
        return answers

    def _place(
        self, path: str, folders: dict[str, int | GridError]
    ) -> tuple[int, bytes] | GridError:
        """The folder and name of a path; or why it has none.

        :param folders: those that were looked for already.
        """
        try:
            names = split_path(path)
        except InvalidPath as error:
            return error
        if not names:
            return (0, b"")
        if path.endswith("/"):
            path = join_path(names)
        above = path.rpartition("/")[0]
        folder = folders.get(above)
        if folder is None:
            try:
                folder = find_folder(self._reads, names[:-1])
            except GridError as error:
                folder = error
            folders[above] = folder
        return folder if isinstance(folder, GridError) else (folder, names[-1].encode())

    def list_folder(self, path: str, after: str, limit: int) -> tuple[list[wire.Node], bool]:
        """A page of names greater than `after`, in byte order; and whether more follow.

        :raises InvalidPath, NoSuchPath, NotAFolder: as they say.
        """
        names = split_path(path)
        with self._moment():
            folder = need(self._reads, names)
            if not folder.is_folder:
                raise NotAFolder("this is a file, not a folder", join_path(names))
            found = children(self._reads, folder.id, after=after.encode(), limit=limit + 1)
        above = "".join(f"/{name}" for name in names)
        nodes = [node.to_wire(f"{above}/{node.name.decode()}") for node in found[:limit]]
        return nodes, len(found) > limit

    def totals(self, path: str) -> tuple[int, int]:
        """Files and bytes below a folder, at any depth, without looking at them; 1 of a file.

        :raises InvalidPath, NoSuchPath, NotAFolder: as they say.
        """
        names = split_path(path)
        with self._moment():
            node = need(self._reads, names)
            return totals(self._reads, node.id) if node.is_folder else (1, node.size or 0)

    def path_of(self, content_id: bytes) -> str:
        """Where the file with this content is now; empty when it is in the trash or gone."""
        with self._moment():
            row = self._reads.execute(_COUNT, (content_id,)).fetchone()
            return self._path_to(row[1]) if row else ""

    def _path_to(self, node: int) -> str:
        """Where it is; for a backup that the grid keeps what its chunks say, where no path leads,
        and nothing for what is in the trash."""
        names = names_to(self._reads, node)
        if names is not None:
            return join_path(names)
        return STORED_AS if shelf.is_kept(self._reads, node) else ""

    def origin(self, record: ChunkRecord) -> ChunkOrigin:
        """What a replica of the chunk says of itself on disk."""
        origin = ChunkOrigin(content_id=record.content_id, index=record.index)
        with self._moment():
            row = self._reads.execute(_ORIGIN, (record.content_id,)).fetchone()
            if row is None:
                return origin
            origin.path = self._path_to(row[0])
        _, origin.chunk_bytes, origin.chunk_count, origin.replication, origin.written_ms = row
        return origin

    def policy_of(self, path: str) -> policies.Policy:
        """What holds for a file of this path, also where its folders are to be made yet."""
        names = split_path(path)[:-1]
        with self._moment():
            return policies.effective(self._reads, policies.nearest_folder(self._reads, names))

    def list_policies(self, after: int, limit: int) -> list[policies.Listed]:
        """Folders that say something, in the order of their numbers; from after `after` on."""
        with self._moment():
            return policies.list_policies(self._reads, after, limit)

    def policies_to_apply(self) -> bool:
        """Whether there are files that may not follow the policy of their folder yet."""
        return policies.work_left(self._reads) > 0

    # Chunks

    def manifest(self, content_id: bytes, first: int, limit: int) -> tuple[list[Chunk], bool]:
        """A page of a manifest, from the chunk `first` on; and whether more follow.

        :raises ContentCollected: where the content is unknown, or partly taken apart (S19).
        """
        with self._moment():
            row = self._reads.execute(_COUNT, (content_id,)).fetchone()
            count = row[0] if row else 0
            expected = max(0, min(limit, count - first))
            rows = self._reads.execute(_PAGE, (content_id, min(first, count), expected)).fetchall()
        if row is None or len(rows) < expected:
            raise ContentCollected("this version of the file is gone", advice="open the file again")
        return [Chunk(id=row[0], length=row[1], digest=row[2]) for row in rows], (
            first + expected < count
        )

    def chunk(self, chunk_id: bytes) -> ChunkRecord | None:
        """None for what no content names and what was collected; staged chunks are not named."""
        with self._moment():
            row = self._reads.execute(_CHUNK, (chunk_id,)).fetchone()
            if row is not None:
                return _record(row)
            row = self._reads.execute(_RELEASED, (chunk_id,)).fetchone()
        return _released(row) if row is not None else None

    def records(self, chunk_ids: Sequence[bytes]) -> dict[ChunkId, ChunkRecord]:
        """As :meth:`chunk`, of many at once; those that are None there are left out."""
        marks = ",".join("?" * len(chunk_ids))
        found: dict[ChunkId, ChunkRecord] = {}
        with self._moment():
            for row in self._reads.execute(_RELEASED_OF.format(marks), chunk_ids):
                found[row[0]] = _released(row)
            for row in self._reads.execute(_CHUNKS_OF.format(marks), chunk_ids):
                known = found.get(row[0])
                if known is None or known.released_ms is not None or row[5] > known.replication:
                    found[row[0]] = _record(row)
        return found

    def contents_of(self, chunk_id: bytes) -> list[tuple[ContentId, str]]:
        """All contents that name a chunk, with their paths; empty for those in the trash."""
        with self._moment():
            found = self._reads.execute(_CONTENTS_OF, (chunk_id,)).fetchall()
            names = [names_to(self._reads, node) for _, node in found]
        return [
            (ContentId(row[0]), join_path(way) if way is not None else "")
            for row, way in zip(found, names, strict=True)
        ]

    def chunks_after(self, chunk_id: bytes, limit: int) -> list[ChunkRecord]:
        """Chunks that contents name, each once, in the order of their ids."""
        return [_record(row) for row in self._reads.execute(_SWEEP, (chunk_id, limit))]

    def released_before(self, log_time_ms: int, limit: int) -> list[Chunk]:
        """Released and not yet collected, the longest released first."""
        rows = self._reads.execute(_RELEASED_BEFORE, (log_time_ms, limit))
        return [Chunk(id=ChunkId(row[0]), length=row[1], digest=Digest(row[2])) for row in rows]

    # The rest

    def session(self, session: int) -> Session | None:
        return get_session(self._reads, session)

    def may_be_published(self, unique: bytes) -> bool:
        """Whether a later command could name this chunk or content, which nothing names yet: its
        session lives and has not said that this upload has ended (S14)."""
        session = self.session(session_of(unique))
        return session is not None and session.may_publish(unique)

    def session_was_opened(self, session: SessionId) -> bool:
        """Whether this history saw it being opened; what others made is never collected (S14)."""
        return was_opened(self.registers(), session)

    def sessions_due(self, log_time_ms: int, limit: int = 1000) -> list[SessionId]:
        """Sessions whose lease has run out and that nobody has ended yet."""
        rows = self._reads.execute(_DUE_SESSIONS, (log_time_ms - SESSION_LEASE_MS, limit))
        return [row[0] for row in rows]

    def servers(self) -> list[Server]:
        return [
            Server(
                name=name,
                incarnation=incarnation,
                rack=rack,
                address=address,
                standing=Standing(standing),
            )
            for name, incarnation, rack, address, standing in self._reads.execute(_SERVERS)
        ]

    def voters(self) -> list[Member]:
        """The heads that vote, as of the last committed configuration; none before the first."""
        return [Member(name, incarnation) for name, incarnation in self._reads.execute(_VOTERS)]

    def heads(self) -> list[RegisteredHead]:
        """What operators said of heads."""
        return [
            RegisteredHead(name=name, address=address, wanted=bool(wanted))
            for name, address, wanted in self._reads.execute(_HEADS)
        ]

    def counts(self) -> Counts:
        with self._moment():
            files, size = totals(self._reads, ROOT)
            return Counts(files=files, bytes=size, chunks=self.registers().chunks)

    def backups(self) -> list[shelf.Kept]:
        """Those that the grid keeps in itself, the oldest first."""
        with self._moment():
            return shelf.kept(self._reads)

    def list_trash(self, after: int, limit: int) -> list[trash.Thrown]:
        """What can be restored, in the order of the numbers; from after `after` on."""
        with self._moment():
            return trash.list_trash(self._reads, after, limit, self.registers().log_time_ms)

    def purge_due(self, log_time_ms: int) -> bool:
        return trash.is_due(self._reads, log_time_ms)

    def last_events(self, limit: int) -> list[Event]:
        """What the log has noted last, the oldest first."""
        return chronicle.last_events(self._reads, limit)

    def elections(self) -> list[tuple[str, float]]:
        """Who was elected, and when in seconds since 1970; the last of them, the oldest first."""
        return chronicle.elections(self._reads)

    def last_event(self, node: str, kinds: Sequence[Event.Kind.ValueType]) -> Event | None:
        """The last of a node that is of one of these kinds."""
        return chronicle.last_event(self._reads, node, kinds)

    def registers(self) -> Registers:
        """Grid id, lineage, the applied (epoch, index), log time."""
        return read_registers(self._reads)

    @contextmanager
    def _moment(self) -> Iterator[None]:
        """All statements inside see one state, also while another connection writes."""
        if self._reads.in_transaction:  # the writer's own connection, inside its transaction
            yield
            return
        self._reads.execute("BEGIN")
        try:
            yield
        finally:
            self._reads.execute("COMMIT")


def _record(row: tuple[bytes, int, bytes, bytes, int, int]) -> ChunkRecord:
    chunk_id, length, digest, content_id, index, replication = row
    return ChunkRecord(
        chunk=Chunk(id=ChunkId(chunk_id), length=length, digest=Digest(digest)),
        content_id=ContentId(content_id),
        index=index,
        replication=replication,
        released_ms=None,
    )


def _released(row: tuple[bytes, int, bytes, int]) -> ChunkRecord:
    chunk_id, length, digest, released_ms = row
    return ChunkRecord(
        chunk=Chunk(id=ChunkId(chunk_id), length=length, digest=Digest(digest)),
        content_id=ContentId(b""),
        index=0,
        replication=0,
        released_ms=released_ms,
    )
