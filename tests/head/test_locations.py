"""Where replicas are, as chunk servers report them."""

from __future__ import annotations

import sqlite3

from twisted.trial import unittest

from filegrid.head.locations import Locations
from tests.head.entries import chunk


class Reports(unittest.SynchronousTestCase):
    def test_stale(self) -> None:
        """What a new report does not name is forgotten, page by page; what came meanwhile stays,
        and so does what other servers hold."""
        locations = Locations(sqlite3.connect(":memory:"))
        chunks = [chunk(1, number) for number in range(10)]
        locations.begin_report("chunk-1")
        locations.add("chunk-1", chunks[:8])
        locations.add("chunk-2", chunks[:8])
        locations.begin_report("chunk-1")
        locations.add("chunk-1", [chunks[0], chunks[3], chunks[9]])
        forgotten, pages = [], 0
        after: bytes | None = b""
        while after is not None:
            stale, after = locations.forget_stale("chunk-1", after, 3)
            forgotten += stale
            pages += 1
        gone = [chunks[number].id for number in (1, 2, 4, 5, 6, 7)]
        self.assertEqual((forgotten, pages), (gone, 4))
        left = locations.of_server("chunk-1", b"", 100)
        self.assertEqual(left, [chunks[number].id for number in (0, 3, 9)])
        self.assertEqual(len(locations.of_server("chunk-2", b"", 100)), 8)
