"""What files are made of what chunks say of themselves."""

from __future__ import annotations

import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.namespace import Namespace
from filegrid.head.rebuilding import Rebuilt, begin_anew, rebuild
from filegrid.head.salvage import Salvage, Version
from filegrid.model import BLOCK_BYTES, SessionId, digest_over, unique_id
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as values
from filegrid.protocol.wire.chunk_pb2 import ChunkHeader, ChunkOrigin
from filegrid.protocol.wire.values_pb2 import ChunkRef

CHUNK = 4 * BLOCK_BYTES
SESSION = SessionId(1 << 48 | 5)


def header(
    content: int,
    index: int,
    *,
    number: int = 0,
    length: int = CHUNK,
    path: str = "/f",
    count: int = 0,
    chunk_bytes: int = CHUNK,
    base: int = 0,
    inherited: int = 0,
    written_ms: int = 0,
    session: SessionId = SESSION,
) -> ChunkHeader:
    chunk_id = unique_id(session, number or content * 100 + index + 1)
    return ChunkHeader(
        grid_id="g",
        chunk=ChunkRef(id=chunk_id, length=length, digest=chunk_id * 2),
        origin=ChunkOrigin(
            content_id=unique_id(session, content),
            path=path,
            index=index,
            chunk_bytes=chunk_bytes,
            chunk_count=count,
            replication=2,
            base_content_id=unique_id(session, base) if base else b"",
            inherited_chunks=inherited,
            written_ms=written_ms or content,
        ),
    )


def salvaged(*headers: ChunkHeader) -> Salvage:
    salvage = Salvage()
    for one in headers:
        salvage.add(one)
    return salvage


def versions(*headers: ChunkHeader) -> list[Version]:
    return list(salvaged(*headers).versions())


class Versions(SynchronousTestCase):
    def test_whole(self) -> None:
        """A version is whole where its chunks are all there, in whatever order they are found."""
        (one,) = versions(header(1, 2, length=9, count=3), header(1, 0), header(1, 1), header(1, 0))
        self.assertTrue(one.whole)
        self.assertEqual([chunk.length for chunk in one.runs[0]], [CHUNK, CHUNK, 9])

    def test_missing(self) -> None:
        """One that lacks its first chunk, one between or its last is not whole, but in runs."""
        for kept, runs in (((1, 2), [1]), ((0, 2), [0, 2]), ((0, 1), [0])):
            (one,) = versions(*(header(1, index, count=3) for index in kept))
            self.assertFalse(one.whole)
            self.assertEqual(sorted(one.runs), runs)

    def test_end_unknown(self) -> None:
        """Where no chunk says how many there are, only a short last one shows the end."""
        for length, whole in ((CHUNK, False), (CHUNK - 1, True), (BLOCK_BYTES, True)):
            (one,) = versions(header(1, 0), header(1, 1, length=length))
            self.assertEqual(one.whole, whole, length)

    def test_older_release(self) -> None:
        """Headers without the newer fields are read; whole is only what shows it."""

        def bare(index: int, length: int) -> ChunkHeader:
            full = header(1, index, length=length)
            origin = ChunkOrigin(content_id=full.origin.content_id, path="/f", index=index)
            return ChunkHeader(grid_id="g", chunk=full.chunk, origin=origin)

        (one,) = versions(bare(0, CHUNK), bare(1, 10))
        self.assertTrue(one.whole)
        self.assertEqual(one.chunk_bytes, CHUNK)
        (one,) = versions(bare(0, 10))
        self.assertEqual((one.whole, one.chunk_bytes), (True, BLOCK_BYTES))
        (one,) = versions(bare(0, CHUNK))
        self.assertFalse(one.whole)

    def test_tries(self) -> None:
        """Of several tries at a chunk the last counts."""
        (one,) = versions(
            header(1, 0, number=900, count=1), header(1, 0, number=901), header(1, 0, number=7)
        )
        self.assertEqual(one.runs[0][0].id, unique_id(SESSION, 901))

    def test_appended(self) -> None:
        """An append has the chunks that it kept, through any number of appends before it."""
        first = [header(1, index, count=3, length=CHUNK if index < 2 else 5) for index in range(3)]
        second = [header(2, 2, base=1, inherited=2), header(2, 3, base=1, inherited=2, length=5)]
        third = header(3, 3, base=2, inherited=3, length=6)
        one, two, three = versions(*first, *second, third)
        self.assertTrue(one.whole and two.whole and three.whole)
        self.assertEqual([chunk.length for chunk in three.runs[0]], [CHUNK, CHUNK, CHUNK, 6])
        self.assertEqual(three.runs[0][2].id, two.runs[0][2].id)
        (alone,) = versions(third)
        self.assertFalse(alone.whole)

    def test_nothing_of_a_base_beyond_what_was_kept(self) -> None:
        """A chunk of a base that the append did not keep is never taken for one of its own."""
        base = [header(1, index, count=3) for index in range(3)]
        two = versions(*base, header(2, 2, base=1, inherited=1, length=5))[1]
        self.assertFalse(two.whole)
        self.assertEqual(sorted(two.runs), [0, 2])
        self.assertEqual(two.runs[2][0].length, 5)

    def test_without_a_content(self) -> None:
        """A chunk that says nothing of a file is let be."""
        self.assertEqual(
            versions(ChunkHeader(chunk=header(1, 0).chunk, origin=ChunkOrigin(path="/f"))), []
        )


class Rebuilding(SynchronousTestCase):
    def setUp(self) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.namespace = Namespace(self.database)
        self.index = 0

    def apply(self, **change: object) -> journal.Outcome:
        self.index += 1
        command = journal.Command(wall_ms=50, client="c", **change)  # type: ignore[arg-type]
        entry = journal.Entry(epoch=1, index=self.index, command=command)
        (outcome,) = self.namespace.apply([entry])
        self.assertFalse(outcome.HasField("fault"), outcome)
        return outcome

    def publish(self, once: values.Once, *headers: ChunkHeader) -> None:
        origin = headers[0].origin
        publish = values.Publish(
            path=origin.path,
            content_id=origin.content_id,
            chunks=[one.chunk for one in headers],
            size=sum(one.chunk.length for one in headers),
            digest=digest_over(one.chunk.digest for one in headers),
            replication=2,
            chunk_bytes=CHUNK,
        )
        self.apply(publish=publish, once=once)

    def rebuild(self, *headers: ChunkHeader) -> Rebuilt:
        return rebuild(self.database, salvaged(*headers), replication=3)

    def listed(self, path: str = "/") -> dict[str, int]:
        nodes, _ = self.namespace.list_folder(path, "", 100)
        return {node.path: node.size for node in nodes}

    def check_counts(self) -> None:
        (chunks,) = self.database.execute(
            "SELECT count(DISTINCT chunk_id) FROM chunks JOIN contents USING (content_id)"
        ).fetchone()
        self.assertEqual(self.namespace.counts().chunks, chunks)
        files, size = self.database.execute(
            "SELECT count(*), total(size) FROM contents JOIN nodes ON id = node WHERE kind = 1"
        ).fetchone()
        self.assertEqual(self.namespace.counts().files, files)
        self.assertEqual(self.namespace.counts().bytes, size)

    def test_from_nothing(self) -> None:
        """Whole files get their paths, with the folders above; the rest goes to /lost+found."""
        begin_anew(self.database, "g")
        rebuilt = self.rebuild(
            header(1, 0, path="/a/b/f", count=2),
            header(1, 1, path="/a/b/f", length=7),
            header(2, 1, path="/g", count=3),
            header(3, 0, path="", count=1),
        )
        self.assertEqual((rebuilt.found, len(rebuilt.lost)), (1, 2))
        self.assertEqual(self.listed("/a/b"), {"/a/b/f": CHUNK + 7})
        node = self.namespace.stat("/a/b/f")
        chunks, _ = self.namespace.manifest(node.content_id, 0, 10)
        self.assertEqual([chunk.length for chunk in chunks], [CHUNK, 7])
        self.assertEqual(node.digest, digest_over(chunk.digest for chunk in chunks))
        self.assertEqual(node.replication, 2)
        self.assertEqual(sorted(rebuilt.lost), sorted(
            [f"/lost+found/g.{unique_id(SESSION, 2).hex()}/",
             f"/lost+found/unnamed.{unique_id(SESSION, 3).hex()}"]
        ))  # fmt: skip
        parts = self.listed(rebuilt.lost[0].rstrip("/"))
        self.assertEqual(list(parts.values()), [CHUNK])
        self.check_counts()

    def test_newest_gets_the_path(self) -> None:
        """Of two versions the newer has the path; the older is kept."""
        begin_anew(self.database, "g")
        rebuilt = self.rebuild(
            header(1, 0, count=1, length=1, written_ms=20),
            header(2, 0, count=1, length=2, written_ms=10),
        )
        self.assertEqual(self.listed()["/f"], 1)
        self.assertEqual(list(self.listed("/lost+found").values()), [2])
        self.assertEqual(rebuilt.found, 2)
        self.check_counts()

    def test_in_the_way(self) -> None:
        """A file whose folder is a file, or whose name a folder has, is kept in /lost+found."""
        begin_anew(self.database, "g")
        rebuilt = self.rebuild(
            header(1, 0, count=1, path="/lost+found"),
            header(2, 0, count=1, path="/a"),
            header(3, 0, count=1, path="/a/b"),
            header(4, 0, count=1, path="/c/d"),
            header(5, 0, count=1, path="/c"),
            header(6, 0, count=1, path="not/absolute"),
        )
        self.assertEqual((rebuilt.found, len(rebuilt.lost)), (3, 3))
        self.assertEqual(set(self.listed()), {"/a", "/c", "/lost+found", "/lost+found.1"})
        self.assertEqual(len(self.listed("/lost+found.1")), 3)
        self.check_counts()

    def test_on_a_backup(self) -> None:
        """What the backup has stays; what it saw given up is left; what is newer is added."""
        self.apply(
            create_grid=journal.CreateGrid(grid_id="g", lineage=1, founding=bytes(16)),
        )
        ended = self.apply(open_session=values.OpenSession()).session
        alive = self.apply(open_session=values.OpenSession()).session
        old = [
            header(1, 0, session=SessionId(alive), path="/old"),
            header(1, 1, session=SessionId(alive), path="/old", length=3),
        ]
        self.publish(values.Once(session=alive, sequence=1), *old)
        self.apply(close_session=values.CloseSession(), once=values.Once(session=ended, sequence=1))
        later = SessionId(alive + 1)
        rebuilt = self.rebuild(
            old[0],
            header(2, 0, session=SessionId(ended), path="/refused", count=1),
            header(3, 0, session=SessionId(alive), path="/new", count=1),
            header(4, 0, session=later, path="/old", count=1, length=8, written_ms=60),
        )
        self.assertEqual((rebuilt.found, rebuilt.given_up, rebuilt.lacking), (2, 1, 1))
        self.assertEqual(set(self.listed()), {"/new", "/old", "/lost+found"})
        self.assertEqual(self.listed()["/old"], 8)
        self.assertEqual(list(self.listed("/lost+found").values()), [CHUNK + 3])
        self.check_counts()

    def test_appended_and_incomplete(self) -> None:
        """Versions that share chunks are each there, and each chunk counts once."""
        begin_anew(self.database, "g")
        rebuilt = self.rebuild(
            header(1, 0, count=2, written_ms=1),
            header(1, 1, length=5, count=2, written_ms=1),
            header(2, 1, base=1, inherited=1, length=9, count=2, written_ms=2),
            header(3, 3, base=1, inherited=1, length=9, count=4, written_ms=3),
        )
        self.assertEqual(self.listed()["/f"], CHUNK + 9)
        self.assertEqual(len(rebuilt.lost), 2)
        self.check_counts()
