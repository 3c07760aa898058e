"""The table of replicas, beside a dictionary."""

from __future__ import annotations

import random
from functools import partial
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from filegrid.head import replica_table
from filegrid.head.replica_table import MARK_BYTES, MOST_SERVERS, ReplicaTable
from filegrid.model import ChunkId, SessionId, unique_id
from tests.head.entries import every_page

ids = st.builds(
    lambda session, number: ChunkId(unique_id(SessionId(session), number)),
    st.sampled_from([1, 2, 3, 0x0100, 2**64 - 1]),
    st.integers(0, 40) | st.integers(0, 2**64 - 1),
)
servers = st.sampled_from([0, 1, 127, 128, 129, 300, MOST_SERVERS - 1])


class Table(unittest.SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), ids, servers), max_size=80), ids)
    @settings(deadline=None)
    def test_as_dictionary(self, changes: list[tuple[bool, ChunkId, int]], other: ChunkId) -> None:
        """Whatever is added and removed, in whatever order; in blocks of four rows, of which two
        are looked at in one turn."""
        table = ReplicaTable()
        rows: dict[ChunkId, tuple[bytes, set[int]]] = {}
        with (
            mock.patch.object(replica_table, "MOST_ROWS", 4),
            mock.patch.object(replica_table, "ROWS_A_LOOK", 8),
        ):
            for number, (is_added, chunk_id, server) in enumerate(changes):
                if is_added:
                    # Marks may look like codes.
                    mark = bytes([1, 128, number % 4, 2, 172, number % 256])
                    row = rows.setdefault(chunk_id, (mark, set()))
                    row[1].add(server)
                    self.assertEqual(table.add(chunk_id, mark, server), row[0])
                else:
                    table.remove(chunk_id, server)
                    if chunk_id in rows:
                        rows[chunk_id][1].discard(server)
                        if not rows[chunk_id][1]:
                            del rows[chunk_id]
            for chunk_id in {other, *(chunk_id for _, chunk_id, _ in changes)}:
                row_there = rows.get(chunk_id)
                expected = (row_there[0], sorted(row_there[1])) if row_there is not None else None
                self.assertEqual(table.get(chunk_id), expected)
            for server in (0, 127, 129, 300, MOST_SERVERS - 1, 77):
                theirs = sorted(one for one, (_, held) in rows.items() if server in held)
                self.assertEqual(every_page(partial(table.of_server, server)), theirs)
                later = [one for one in theirs if one > other]
                some, following = table.of_server(server, other)
                self.assertEqual(some, later[: len(some)])
                self.assertTrue(following is not None or some == later)

    def test_large(self) -> None:
        """Whole blocks: of rows that come in order from several sessions at once, and in none."""
        rng = random.Random(1)
        table = ReplicaTable()
        rows: dict[ChunkId, set[int]] = {}
        chunk_ids = [ChunkId(unique_id(SessionId(1 + n % 3), n // 3)) for n in range(6000)]
        for chunk_id in chunk_ids + rng.sample(chunk_ids, 3000):
            server = rng.randrange(9)
            table.add(chunk_id, bytes(MARK_BYTES), server)
            rows.setdefault(chunk_id, set()).add(server)
        for chunk_id in rng.sample(chunk_ids, 5500):
            for server in rng.sample(range(9), 9):
                table.remove(chunk_id, server)
            del rows[chunk_id]
        for server in range(9):
            theirs = sorted(one for one, held in rows.items() if server in held)
            self.assertEqual(every_page(partial(table.of_server, server)), theirs)
