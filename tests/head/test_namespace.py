"""Tests for :mod:`filegrid.head.namespace`: the tree and the files in it."""

from __future__ import annotations

import sqlite3
from typing import Any

from blake3 import blake3

from filegrid.errors import (
    AlreadyExists,
    FolderNotEmpty,
    InvalidPath,
    InvalidRequest,
    IsAFolder,
    NoSuchPath,
    NotAFolder,
    UnsupportedVersion,
    VersionConflict,
)
from filegrid.head.namespace import Namespace
from filegrid.head.schema import SCHEMA_VERSION
from filegrid.head.view import Counts, Server
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from tests.head.entries import CHUNK_BYTES, NamespaceTestCase, chunk, publication


class Folders(NamespaceTestCase):
    def test_make(self) -> None:
        """A folder that was made is listed, and stat tells its version and its time."""
        outcome = self.grid.make("/a")
        self.assertEqual(self.grid.names(), ["/a"])
        node = self.grid.namespace.stat("/a/")
        self.assertEqual(node, outcome.node)
        self.assertEqual(node.kind, wire.NODE_KIND_FOLDER)
        self.assertEqual((node.version, node.mtime_ms, node.size), (len(self.grid.log), 5, 0))

    def test_make_again(self) -> None:
        """A folder is made once, but with parents one that is there will do."""
        first = self.grid.make("/a")
        self.refused(self.grid.make("/a"), AlreadyExists, "/a")
        self.assertEqual(self.grid.make("/a", parents=True), first)
        self.refused(self.grid.make("/"), AlreadyExists, "/")

    def test_missing_parent(self) -> None:
        """Without parents the first folder that is missing is named."""
        self.grid.make("/a")
        self.refused(self.grid.make("/a/b/c/d"), NoSuchPath, "/a/b")
        self.grid.make("/a/b/c/d", parents=True)
        self.assertEqual(self.grid.names("/a/b"), ["/a/b/c"])
        self.assertEqual(self.grid.names("/a/b/c"), ["/a/b/c/d"])

    def test_file_in_the_way(self) -> None:
        """Nothing is made below a file or in its place."""
        self.grid.put("/f")
        self.refused(self.grid.make("/f"), AlreadyExists, "/f")
        self.refused(self.grid.make("/f/a"), NotAFolder, "/f")
        self.refused(self.grid.make("/f/a/b", parents=True), NotAFolder, "/f")
        self.refused(self.grid.put("/f/g"), NotAFolder, "/f")

    def test_bad_path(self) -> None:
        """What is no path is refused, and a fault changes nothing but its own record."""
        before = self.grid.dump()
        self.refused(self.grid.make("a/../b"), InvalidPath)
        after = [line for line in self.grid.dump() if line not in before]
        self.assertEqual(
            [line for line in after if "results" not in line and "meta" not in line], []
        )

    def test_pages(self) -> None:
        """A listing comes in pages, in the byte order of the names."""
        for name in ("b", "é", "a", "Z", "a b"):
            self.grid.make(f"/d/{name}", parents=True)
        first, more = self.grid.namespace.list_folder("/d", "", 3)
        self.assertEqual([node.path for node in first], ["/d/Z", "/d/a", "/d/a b"])
        self.assertTrue(more)
        last, more = self.grid.namespace.list_folder("/d", "a b", 3)
        self.assertEqual([node.path for node in last], ["/d/b", "/d/é"])
        self.assertFalse(more)

    def test_list_what_is_no_folder(self) -> None:
        """Only folders that exist are listed."""
        self.grid.put("/f")
        self.assertRaises(NotAFolder, self.grid.names, "/f")
        self.assertRaises(NoSuchPath, self.grid.names, "/g")


class Files(NamespaceTestCase):
    def test_publish(self) -> None:
        """A published file has what was published, and its chunks know where they belong."""
        chunks = [self.grid.new_chunk(), self.grid.new_chunk(10)]
        outcome = self.grid.put("/f", *chunks)
        node = self.grid.namespace.stat("/f")
        self.assertEqual(node, outcome.node)
        self.assertEqual(node.size, CHUNK_BYTES + 10)
        self.assertEqual((node.chunk_count, node.replication), (2, 3))
        self.assertEqual(list(outcome.published), [one.id for one in chunks])
        namespace = self.grid.namespace
        self.assertEqual(namespace.manifest(node.content_id, 0, 9), (chunks, False))
        self.assertEqual(namespace.manifest(node.content_id, 0, 1), (chunks[:1], True))
        self.assertEqual(namespace.manifest(node.content_id, 1, 1), (chunks[1:], False))
        self.assertEqual(namespace.manifest(node.content_id, 2**63, 5), ([], False))
        self.assertEqual(namespace.path_of(node.content_id), "/f")
        record = namespace.chunk(chunks[1].id)
        assert record is not None
        self.assertEqual((record.chunk, record.index), (chunks[1], 1))
        self.assertEqual((record.content_id, record.replication), (node.content_id, 3))
        self.assertIsNone(record.released_ms)
        self.assertEqual(namespace.counts(), Counts(files=1, bytes=CHUNK_BYTES + 10, chunks=2))

    def test_empty(self) -> None:
        """An empty file has no chunks, and the digest of nothing."""
        node = self.grid.put("/f").node
        self.assertEqual((node.size, node.chunk_count), (0, 0))
        self.assertEqual(node.digest, blake3(b"").digest())
        self.assertEqual(self.grid.namespace.manifest(node.content_id, 0, 9), ([], False))

    def test_exists(self) -> None:
        """A file is replaced only where that was asked for, and a folder never."""
        self.grid.put("/f")
        self.grid.make("/d")
        self.refused(self.grid.put("/f"), AlreadyExists, "/f")
        self.refused(self.grid.put("/d", replace=True), IsAFolder, "/d")
        self.refused(self.grid.put("/", replace=True), IsAFolder, "/")
        self.refused(self.grid.put("/a/f"), NoSuchPath, "/a")
        self.grid.put("/f", self.grid.new_chunk(), replace=True)
        self.assertEqual(self.grid.namespace.stat("/f").size, CHUNK_BYTES)
        self.assertEqual(self.grid.namespace.counts().files, 1)

    def test_base_version(self) -> None:
        """A change that is based on a version is made to that version only (S11)."""
        version = self.grid.put("/f").node.version
        self.refused(self.grid.put("/f", base_version=version + 1), VersionConflict, "/f")
        newer = self.grid.put("/f", base_version=version).node.version
        self.refused(self.grid.put("/f", base_version=version), VersionConflict, "/f")
        self.grid.remove("/f")
        self.refused(self.grid.put("/f", base_version=newer), VersionConflict, "/f")

    def test_inconsistent(self) -> None:
        """What does not add up is refused."""
        whole, short = self.grid.new_chunk(), self.grid.new_chunk(10)
        wrong: list[dict[str, Any]] = [
            {"size": CHUNK_BYTES + 11},
            {"size": CHUNK_BYTES},
            {"size": 0},
            {"size": 2**64 - 1},
            {"digest": bytes(32)},
            {"digest": b""},
            {"replication": 17},
            {"chunk_bytes": 0},
            {"chunk_bytes": CHUNK_BYTES + 1},
            {"chunk_bytes": 2 * CHUNK_BYTES},
            {"chunk_bytes": 2**63},
            {"first_index": 1},
            {"first_index": 2**64 - 1},
            {"inherited_chunks": 1},
            {"inherited_chunks": 2**64 - 1},
            {"content_id": b""},
            {"content_id": b"x" * 16},
            {"content_id": b"\xff" * 16},
        ]
        for fields in wrong:
            self.refused(self.grid.put("/f", whole, short, **fields), InvalidRequest)
        self.refused(self.grid.put("/f", short, whole), InvalidRequest)
        self.refused(self.grid.put("/f", self.grid.new_chunk(0)), InvalidRequest)
        self.grid.put("/f", whole, short)
        self.assertEqual(self.grid.names(), ["/f"])

    def test_chunks_are_new(self) -> None:
        """A chunk is of the caller's session, and is published once (S14)."""
        other = self.grid.open_session()
        self.refused(self.grid.put("/f", chunk(other, 1)), InvalidRequest)
        one = self.grid.new_chunk()
        self.refused(self.grid.put("/f", one, one), InvalidRequest)
        self.grid.put("/f", one)
        self.refused(self.grid.put("/g", one), InvalidRequest)
        self.grid.remove("/f", now=True)
        self.refused(self.grid.put("/g", one), InvalidRequest)
        self.grid.purge()
        self.refused(self.grid.put("/g", one), InvalidRequest)
        self.grid.does(forget_released=journal.ForgetReleased(chunk_ids=[one.id]))
        self.assertIsNone(self.grid.namespace.chunk(one.id))
        self.refused(self.grid.put("/g", one), InvalidRequest)
        content_id = self.grid.put("/f").node.content_id
        again = publication("/g", content_id, [])
        self.refused(self.grid.once(publish=again), InvalidRequest)


class Renaming(NamespaceTestCase):
    def test_tree(self) -> None:
        """A whole folder is moved, and what is in it keeps its version."""
        self.grid.make("/a/b", parents=True)
        node = self.grid.put("/a/b/f", self.grid.new_chunk()).node
        self.grid.make("/c")
        outcome = self.grid.rename("/a/b", "/c/d")
        self.assertEqual(outcome.node.path, "/c/d")
        self.assertEqual(self.grid.names("/a"), [])
        self.assertEqual(self.grid.namespace.stat("/c/d/f").version, node.version)
        self.assertEqual(self.grid.namespace.path_of(node.content_id), "/c/d/f")
        self.assertEqual(self.grid.namespace.totals("/a"), (0, 0))
        self.assertEqual(self.grid.namespace.totals("/c"), (1, CHUNK_BYTES))

    def test_nowhere(self) -> None:
        """Nothing is moved from or to where nothing is, into itself, or over the root."""
        self.grid.make("/a")
        self.refused(self.grid.rename("/x", "/y"), NoSuchPath, "/x")
        self.refused(self.grid.rename("/a", "/y/z"), NoSuchPath, "/y")
        self.refused(self.grid.rename("/a", "/a/b"), InvalidRequest, "/a")
        self.refused(self.grid.rename("/", "/b"), InvalidRequest)
        self.refused(self.grid.rename("/a", "/", replace=True), FolderNotEmpty, "/")

    def test_to_itself(self) -> None:
        """A move to where it is already changes nothing."""
        self.grid.make("/a")
        self.assertEqual(self.grid.rename("/a", "/a/").node, self.grid.namespace.stat("/a"))

    def test_replace_file(self) -> None:
        """A file takes another's place only where that was asked for; the other is trash."""
        source = self.grid.put("/a", self.grid.new_chunk(1)).node
        target = self.grid.put("/b", self.grid.new_chunk(2)).node
        self.refused(self.grid.rename("/a", "/b"), AlreadyExists, "/b")
        self.grid.rename("/a", "/b", replace=True)
        self.assertEqual(self.grid.names(), ["/b"])
        self.assertEqual(self.grid.namespace.stat("/b").content_id, source.content_id)
        self.assertEqual(self.grid.namespace.path_of(target.content_id), "")
        self.assertEqual(self.grid.namespace.counts(), Counts(files=1, bytes=1, chunks=2))

    def test_replace_folder(self) -> None:
        """A folder takes the place of an empty folder alone, and kinds do not mix."""
        self.grid.make("/a/x", parents=True)
        self.grid.make("/b/y", parents=True)
        self.grid.put("/f")
        self.refused(self.grid.rename("/a", "/b", replace=True), FolderNotEmpty, "/b")
        self.refused(self.grid.rename("/a", "/f", replace=True), NotAFolder, "/f")
        self.refused(self.grid.rename("/f", "/a", replace=True), IsAFolder, "/a")
        self.refused(self.grid.rename("/a", "/b/y"), AlreadyExists, "/b/y")
        self.grid.rename("/a", "/b/y", replace=True)
        self.assertEqual(self.grid.names("/b/y"), ["/b/y/x"])


class TheRest(NamespaceTestCase):
    def test_one_creation(self) -> None:
        """A grid is created once (S1), and no session is opened before."""
        again = self.grid.does(create_grid=journal.CreateGrid(grid_id="h", lineage=2))
        self.refused(again, AlreadyExists)
        self.assertEqual(self.grid.namespace.registers().grid_id, "g")
        empty = Namespace(sqlite3.connect(":memory:"))
        command = journal.Command(open_session=wire.OpenSession())
        (outcome,) = empty.apply([journal.Entry(epoch=1, index=1, command=command)])
        self.assertEqual(outcome.fault.code, wire.ERROR_CODE_UNAVAILABLE)

    def test_servers(self) -> None:
        """A chunk server is known by its last registration."""
        first = journal.RegisterServer(name="chunk-1", incarnation=b"i", rack="r", address="h:1")
        self.assertEqual(self.grid.does(register_server=first).count, 1)
        self.assertEqual(self.grid.does(register_server=first).count, 0)
        moved = journal.RegisterServer(name="chunk-1", incarnation=b"i", rack="r", address="h:2")
        self.grid.does(register_server=moved)
        server = Server(name="chunk-1", incarnation=b"i", rack="r", address="h:2")
        self.assertEqual(self.grid.namespace.servers(), [server])

    def test_sweep(self) -> None:
        """All named chunks are seen, each once, in pages."""
        chunks = [self.grid.new_chunk() for _ in range(5)]
        self.grid.put("/f", *chunks[:3])
        self.grid.put("/g", *chunks[3:])
        seen: list[bytes] = []
        while page := self.grid.namespace.chunks_after(seen[-1] if seen else b"", 2):
            seen += [record.chunk.id for record in page]
        self.assertEqual(seen, [one.id for one in chunks])

    def test_unknown_command(self) -> None:
        """A command without a change that this release knows is a fault, not a crash."""
        self.refused(self.grid.does(), InvalidRequest)

    def test_newer_schema(self) -> None:
        """A database of a later release is refused by name (S24)."""
        database = sqlite3.connect(":memory:")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.assertRaises(UnsupportedVersion, Namespace, database)
