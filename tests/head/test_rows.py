"""Many rows in one statement."""

from __future__ import annotations

import sqlite3

from twisted.trial import unittest

from filegrid.head.rows import MOST_ROWS, read_rows, write_rows


class Rows(unittest.SynchronousTestCase):
    def test_any_number(self) -> None:
        """However many rows there are, each is written once and found by its key."""
        for count in (0, 1, 2, 3, MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1, 3 * MOST_ROWS + 37):
            database = sqlite3.connect(":memory:")
            database.execute("CREATE TABLE pairs (key INTEGER PRIMARY KEY, value TEXT)")
            rows = [(number, f"v{number}") for number in range(count)]
            write_rows(database, "INSERT INTO pairs VALUES (ROWS)", rows)
            find = "SELECT key, value FROM pairs WHERE key IN (ROWS)"
            wanted = [(number,) for number in range(0, count + 5, 2)]
            self.assertEqual(sorted(read_rows(database, find, wanted)), rows[::2])
            write_rows(database, "DELETE FROM pairs WHERE key IN (ROWS)", wanted)
            self.assertEqual(database.execute("SELECT * FROM pairs").fetchall(), rows[1::2])
            database.close()
