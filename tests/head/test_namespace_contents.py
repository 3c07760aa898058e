"""Tests for contents: staged, appended to, thrown away and purged."""

from __future__ import annotations

from typing import Any

from filegrid.errors import (
    ContentCollected,
    FolderNotEmpty,
    InvalidRequest,
    NoSuchPath,
)
from filegrid.head.view import Counts
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from tests.head.entries import CHUNK_BYTES, NamespaceTestCase, publication


class Staging(NamespaceTestCase):
    def stage(self, content_id: bytes, first: int, *chunks: Any) -> journal.Outcome:
        pages = [one.to_wire() for one in chunks]
        stage = wire.StageChunks(content_id=content_id, first_index=first, chunks=pages)
        return self.grid.once(stage_chunks=stage)

    def test_pages(self) -> None:
        """A long manifest is staged in pages, in any order, and published as a whole."""
        chunks = [self.grid.new_chunk() for _ in range(6)]
        content_id = self.grid.new_id()
        self.stage(content_id, 2, *chunks[2:4])
        self.stage(content_id, 0, *chunks[:2])
        self.assertIsNone(self.grid.namespace.chunk(chunks[0].id))
        self.assertRaises(ContentCollected, self.grid.namespace.manifest, content_id, 0, 9)
        publish = publication("/f", content_id, chunks[4:], before=chunks[:4])
        outcome = self.grid.once(publish=publish)
        self.assertEqual(list(outcome.published), [one.id for one in chunks])
        self.assertEqual(self.grid.namespace.manifest(content_id, 0, 9), (chunks, False))

    def test_gaps(self) -> None:
        """Staged pages that overlap or leave a gap are refused."""
        chunks = [self.grid.new_chunk() for _ in range(4)]
        content_id = self.grid.new_id()
        self.stage(content_id, 0, chunks[0])
        self.refused(self.stage(content_id, 0, chunks[1]), InvalidRequest)
        self.refused(self.stage(content_id, 1, chunks[0]), InvalidRequest)
        self.refused(self.stage(content_id, 2**64 - 1, chunks[1]), InvalidRequest)
        self.stage(content_id, 2, chunks[2])
        publish = publication("/f", content_id, chunks[3:], before=chunks[:3])
        self.refused(self.grid.once(publish=publish), InvalidRequest)
        publish = publication("/f", content_id, [], before=chunks[:1])
        self.refused(self.grid.once(publish=publish), InvalidRequest)

    def test_of_another_session(self) -> None:
        """Only the session that made a content id stages for it."""
        other = self.grid.open_session()
        self.refused(self.stage(self.grid.new_id(other), 0, self.grid.new_chunk()), InvalidRequest)

    def test_dropped_with_the_session(self) -> None:
        """What a session staged and did not publish goes with it."""
        content_id = self.grid.new_id()
        before = self.grid.dump()
        self.stage(content_id, 0, self.grid.new_chunk())
        self.grid.once(close_session=wire.CloseSession())
        kept = [line for line in self.grid.dump() if "chunks" in line and "meta" not in line]
        self.assertEqual(kept, [line for line in before if "chunks" in line and "meta" not in line])


class Appending(NamespaceTestCase):
    def test_inherits(self) -> None:
        """An append keeps whole chunks of its base, and both versions name them."""
        one, short = self.grid.new_chunk(), self.grid.new_chunk(9)
        base = self.grid.put("/f", one, short).node
        longer = self.grid.new_chunk(20)
        fields = {"base_version": base.version, "inherited_chunks": 1}
        outcome = self.grid.put("/f", longer, before=[one], **fields)
        self.assertEqual(outcome.node.size, CHUNK_BYTES + 20)
        self.assertEqual(list(outcome.published), [longer.id])
        namespace = self.grid.namespace
        self.assertEqual(namespace.manifest(outcome.node.content_id, 0, 9), ([one, longer], False))
        self.assertEqual(namespace.manifest(base.content_id, 0, 9), ([one, short], False))
        self.assertEqual(namespace.path_of(base.content_id), "")
        self.assertEqual(namespace.counts(), Counts(files=1, bytes=CHUNK_BYTES + 20, chunks=3))

    def test_shared_chunks_stay(self) -> None:
        """A chunk is released only when no content names it any more."""
        one, short = self.grid.new_chunk(), self.grid.new_chunk(9)
        base = self.grid.put("/f", one, short).node
        fields = {"base_version": base.version, "inherited_chunks": 1}
        self.grid.put("/f", before=[one], **fields)
        self.grid.now_ms += 2000
        self.assertEqual(list(self.grid.purge().released), [short.id])
        self.grid.remove("/f", now=True)
        self.assertEqual(list(self.grid.purge().released), [one.id])
        self.assertEqual(self.grid.namespace.counts().chunks, 0)

    def test_refused(self) -> None:
        """Only the chunks of the named base are inherited, and only whole ones before the last."""
        one, short = self.grid.new_chunk(), self.grid.new_chunk(9)
        version = self.grid.put("/f", one, short).node.version
        more = self.grid.new_chunk()
        put = self.grid.put
        self.refused(put("/f", before=[one], replace=True, inherited_chunks=1), InvalidRequest)
        fields = {"base_version": version}
        self.refused(put("/f", before=[one], inherited_chunks=3, **fields), InvalidRequest)
        before = [one, short]
        self.refused(put("/f", more, before=before, inherited_chunks=2, **fields), InvalidRequest)

    def test_highest_replication(self) -> None:
        """A shared chunk is wanted as often as the version says that wants it most."""
        one = self.grid.new_chunk()
        base = self.grid.put("/f", one, replication=5).node
        fields = {"base_version": base.version, "inherited_chunks": 1, "replication": 2}
        self.grid.put("/f", before=[one], **fields)
        record = self.grid.namespace.chunk(one.id)
        assert record is not None
        self.assertEqual(record.replication, 5)
        self.assertEqual(self.grid.namespace.chunks_after(b"", 10), [record])


class Removing(NamespaceTestCase):
    def test_file(self) -> None:
        """A removed file is gone from the tree, stays readable, and is purged when it is due."""
        one = self.grid.new_chunk()
        node = self.grid.put("/f", one).node
        self.assertEqual(self.grid.remove("/f").count, 1)
        namespace = self.grid.namespace
        self.assertRaises(NoSuchPath, namespace.stat, "/f")
        self.assertEqual(namespace.manifest(node.content_id, 0, 9), ([one], False))
        self.assertEqual(namespace.counts(), Counts(files=0, bytes=0, chunks=1))
        self.assertFalse(namespace.purge_due(999))
        self.assertTrue(namespace.purge_due(1000))
        self.grid.now_ms = 999
        self.assertEqual(self.grid.purge().count, 0)
        self.grid.now_ms = 1000
        outcome = self.grid.purge()
        self.assertEqual((outcome.count, list(outcome.released)), (2, [one.id]))
        self.assertRaises(ContentCollected, namespace.manifest, node.content_id, 0, 9)
        self.assertEqual(namespace.counts(), Counts(files=0, bytes=0, chunks=0))
        record = namespace.chunk(one.id)
        assert record is not None
        self.assertEqual((record.chunk, record.released_ms), (one, 1000))

    def test_collected(self) -> None:
        """A released chunk is told of until its collection is logged."""
        one = self.grid.new_chunk()
        self.grid.put("/f", one)
        self.grid.remove("/f", now=True)
        self.grid.now_ms = 50
        self.grid.purge()
        released_before = self.grid.namespace.released_before
        self.assertEqual(released_before(50, 10), [])
        self.assertEqual(released_before(51, 10), [one])
        forget = journal.ForgetReleased(chunk_ids=[one.id])
        self.assertEqual(self.grid.does(forget_released=forget).count, 1)
        self.assertEqual(released_before(51, 10), [])

    def test_folder(self) -> None:
        """A folder with something in it is removed only on purpose, whatever is below."""
        self.grid.make("/a/b", parents=True)
        self.grid.put("/a/b/f", self.grid.new_chunk())
        self.refused(self.grid.remove("/a"), FolderNotEmpty, "/a")
        self.refused(self.grid.remove("/x"), NoSuchPath, "/x")
        self.refused(self.grid.remove("/", recursive=True), InvalidRequest, "/")
        self.grid.remove("/a", recursive=True)
        self.assertEqual(self.grid.namespace.counts(), Counts(files=0, bytes=0, chunks=1))
        self.grid.make("/a")
        self.grid.remove("/a")
        self.assertEqual(self.grid.names(), [])

    def test_purged_in_steps(self) -> None:
        """A purge takes no more than its limit, and tells by its count that there is more."""
        self.grid.make("/a/b/c", parents=True)
        chunks = [self.grid.new_chunk() for _ in range(5)]
        self.grid.put("/a/b/f", *chunks)
        self.grid.put("/a/g")
        self.grid.remove("/a", recursive=True, now=True)
        clean = ["meta", "results", "released"]
        released: list[bytes] = []
        counts = []
        while self.grid.namespace.purge_due(0):
            outcome = self.grid.purge(3)
            counts.append(outcome.count)
            released += outcome.released
        self.assertEqual(counts, [3, 3, 3, 1])
        self.assertEqual(released, [one.id for one in chunks])
        rows = [line for line in self.grid.dump() if line.startswith("INSERT")]
        left = [line for line in rows if not any(f'"{name}"' in line for name in clean)]
        self.assertEqual(sum('"nodes"' in line for line in left), 2)
        self.assertEqual(sum('"folders"' in line for line in left), 1)
        self.assertEqual(len(left), 4)  # and the session

    def test_partly_purged(self) -> None:
        """A version that was partly taken apart is never read as if it were whole (S19)."""
        chunks = [self.grid.new_chunk() for _ in range(3)]
        node = self.grid.put("/f", *chunks).node
        self.grid.remove("/f", now=True)
        self.grid.purge(1)
        namespace = self.grid.namespace
        self.assertRaises(ContentCollected, namespace.manifest, node.content_id, 0, 9)

    def test_without_trash(self) -> None:
        """Without a stay in the trash what was replaced is due at once."""
        one = self.grid.new_chunk()
        self.grid.put("/f", one)
        publish = publication("/f", self.grid.new_id(), [], replace=True)
        self.grid.once(publish=publish, trash_ms=0)
        self.assertEqual(list(self.grid.purge().released), [one.id])
