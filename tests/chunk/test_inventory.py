"""The inventory: order, pages, and what listeners hear."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.inventory import Inventory
from filegrid.model import Chunk, ChunkId, Digest, SessionId, unique_id
from filegrid.protocol.wire.chunk_pb2 import Changes


def chunk(number: int) -> Chunk:
    chunk_id = ChunkId(unique_id(SessionId(1), number))
    return Chunk(id=chunk_id, length=number, digest=Digest(bytes([number % 256]) * 32))


class Pages(SynchronousTestCase):
    @settings(max_examples=50, deadline=None, database=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=80), st.integers(1, 7))
    def test_pages_are_the_whole(self, changes: list[tuple[bool, int]], limit: int) -> None:
        """After any changes, all pages together are what is held, each chunk once and in order."""
        inventory, model = Inventory([]), set[int]()
        for add, number in changes:
            if add:
                inventory.add(chunk(number))
                model.add(number)
            else:
                inventory.remove(chunk(number).id)
                model.discard(number)
        found: list[Chunk] = []
        more = True
        while more:
            page, more = inventory.page(found[-1].id if found else b"", limit)
            found += page
        self.assertEqual(found, [chunk(number) for number in sorted(model)])
        self.assertEqual(len(inventory), len(model))


class Listening(SynchronousTestCase):
    def test_each_change_is_told_once(self) -> None:
        """Coming, going and damage are told as they happen; what changes nothing is not."""
        told: list[Changes] = []
        inventory = Inventory([chunk(1)])
        stop = inventory.listen(told.append)
        inventory.add(chunk(2))
        inventory.remove(chunk(1).id)
        inventory.remove(chunk(1).id)
        inventory.condemn(chunk(2).id)
        inventory.condemn(chunk(2).id)
        stop()
        inventory.add(chunk(3))
        self.assertEqual(
            told,
            [
                Changes(added=[chunk(2).to_wire()]),
                Changes(removed=[chunk(1).id]),
                Changes(damaged=[chunk(2).id]),
            ],
        )
