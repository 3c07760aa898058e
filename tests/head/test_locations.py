"""Where replicas are, as chunk servers report them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from twisted.trial import unittest

from filegrid.head.locations import Locations
from filegrid.model import Chunk, ChunkId, Digest
from tests.head.entries import chunk, every_page


class Replicas(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.locations = Locations()
        self.chunk = chunk(1, 1)
        self.other = replace(self.chunk, digest=Digest(b"\x99" * 32))
        self.longer = replace(self.chunk, length=self.chunk.length + 1)

    def test_mismatch(self) -> None:
        """Only what has the manifest's length and digest is a replica (S15); each server's own
        report decides, whoever came first."""
        self.locations.add("chunk-1", [self.other])
        self.locations.add("chunk-2", [self.chunk])
        self.locations.add("chunk-3", [self.longer])
        self.assertEqual(self.locations.holders(self.chunk), ["chunk-2"])
        self.assertEqual(self.locations.holders(self.other), ["chunk-1"])
        self.assertEqual(self.locations.holders(self.longer), ["chunk-3"])
        everybody = ["chunk-1", "chunk-2", "chunk-3"]
        self.assertEqual(self.locations.reporters(self.chunk.id), everybody)
        self.assertEqual(self.locations.holders(chunk(1, 2)), [])

    def test_made_anew(self) -> None:
        """What a server reports last is what it has."""
        for name in ("chunk-1", "chunk-2"):
            self.locations.add(name, [self.other])
            self.locations.add(name, [self.chunk])
        self.assertEqual(self.locations.holders(self.chunk), ["chunk-1", "chunk-2"])
        self.locations.add("chunk-1", [self.other])
        self.assertEqual(self.locations.holders(self.chunk), ["chunk-2"])
        self.locations.remove("chunk-1", [self.chunk.id])
        self.locations.add("chunk-1", [self.chunk])
        self.assertEqual(self.locations.holders(self.chunk), ["chunk-1", "chunk-2"])


class Reports(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.locations = Locations()
        self.chunks = [chunk(1, number) for number in range(10)]
        self.locations.add("chunk-1", self.chunks[:8])
        self.locations.add("chunk-2", self.chunks[:8])

    def held(self, name: str) -> list[ChunkId]:
        return every_page(partial(self.locations.of_server, name))

    def report(self, after: bytes, last: bytes | None, chunks: Sequence[Chunk]) -> list[int]:
        """A page comes; returns the numbers of what was forgotten with it."""
        self.locations.add_page("chunk-1", chunks)
        named = {one.id for one in chunks}
        forgotten: list[int] = []
        following: bytes | None = after
        while following is not None:
            stale, following = self.locations.forget_stale("chunk-1", following, last, named)
            forgotten += (one[-1] for one in stale)
        return forgotten

    def test_stale(self) -> None:
        """What a report does not name is forgotten, with the page that would have named it; what
        came meanwhile stays, and so does what other servers hold."""
        chunks = self.chunks
        self.locations.begin_report("chunk-1")
        self.assertEqual(self.report(b"", chunks[3].id, [chunks[0], chunks[3]]), [1, 2])
        self.locations.add("chunk-1", [chunks[2], chunks[6]])
        self.assertEqual(self.report(chunks[3].id, None, [chunks[9]]), [4, 5, 7])
        self.locations.end_report("chunk-1")
        left = [chunks[number].id for number in (0, 2, 3, 6, 9)]
        self.assertEqual(self.held("chunk-1"), left)
        self.assertEqual(len(self.held("chunk-2")), 8)

    def test_begun_anew(self) -> None:
        """A report that was broken off spares nothing of what comes before the next."""
        self.locations.begin_report("chunk-1")
        self.locations.add("chunk-1", [self.chunks[9]])
        self.locations.begin_report("chunk-1")
        self.assertEqual(self.report(b"", None, self.chunks[:8]), [9])

    def test_nothing(self) -> None:
        """A server that has nothing any more."""
        self.locations.begin_report("chunk-1")
        self.assertEqual(self.report(b"", None, []), list(range(8)))
        self.assertEqual(self.held("chunk-1"), [])
