"""The repair plan: what is copied first, to where, and how much at once."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.placement import Candidate
from filegrid.head.redundancy import Deficit
from filegrid.head.repair import COPIES_PER_SERVER, SETTLE_SECONDS, Copy, plan
from filegrid.head.view import ChunkRecord
from filegrid.model import Chunk, ChunkId, ContentId, Digest, SessionId, unique_id

NOW = 1000.0
RACKS = {f"c{number}": f"r{number % 3}" for number in range(6)}
CANDIDATES = [
    Candidate(name=name, rack=rack, capacity_bytes=1 << 40, free_bytes=1 << 39)
    for name, rack in RACKS.items()
]


def deficit(number: int, *holders: str, age: float = 60.0, length: int = 1000) -> Deficit:
    chunk_id = ChunkId(unique_id(SessionId(1), number))
    record = ChunkRecord(
        chunk=Chunk(id=chunk_id, length=length, digest=Digest(b"d" * 32)),
        content_id=ContentId(b"c" * 16),
        index=0,
        replication=3,
        released_ms=None,
    )
    return Deficit(record=record, holders=holders, since=NOW - age)


def planned(
    deficits: list[Deficit],
    running: dict[ChunkId, str] | None = None,
    most_bytes: float = 1e12,
    seed: int = 0,
) -> list[Copy]:
    return plan(
        deficits,
        CANDIDATES,
        RACKS,
        running=running or {},
        now=NOW,
        most_bytes=most_bytes,
        random=random.Random(seed),
    )


class Planning(SynchronousTestCase):
    def test_fewest_replicas_first(self) -> None:
        """Chunks on one replica come before chunks on two, then the oldest need comes first."""
        two, one, older = deficit(1, "c0", "c1"), deficit(2, "c0"), deficit(3, "c1", age=90)
        self.assertEqual([copy.deficit for copy in planned([two, one, older])], [older, one, two])

    def test_no_source(self) -> None:
        """What no server has cannot be copied."""
        self.assertEqual(planned([deficit(1)]), [])

    def test_settling(self) -> None:
        """What was published a moment ago may only not have been reported yet."""
        self.assertEqual(planned([deficit(1, "c0", age=SETTLE_SECONDS / 2)]), [])

    def test_under_way(self) -> None:
        """A chunk that is being copied is not ordered again."""
        one = deficit(1, "c0")
        self.assertEqual(planned([one], running={one.record.chunk.id: "c3"}), [])

    def test_byte_limit(self) -> None:
        """No more is ordered than the limit allows, the last chunk whole."""
        many = [deficit(number, "c0", length=100) for number in range(10)]
        self.assertEqual(len(planned(many, most_bytes=250)), 3)

    @settings(max_examples=30, deadline=None, database=None)
    @given(
        st.lists(st.sets(st.sampled_from(sorted(RACKS)), min_size=1, max_size=2), max_size=400),
        st.integers(),
    )
    def test_laws(self, holders: list[set[str]], seed: int) -> None:
        """A target never holds the chunk already, goes to another rack, and is never overloaded."""
        deficits = [deficit(number, *sorted(held)) for number, held in enumerate(holders)]
        copies = planned(deficits, seed=seed)
        per_target: dict[str, int] = {}
        for copy in copies:
            self.assertNotIn(copy.target, copy.deficit.holders)
            per_target[copy.target] = per_target.get(copy.target, 0) + 1
        self.assertLessEqual(max(per_target.values(), default=0), COPIES_PER_SERVER)
        if len(deficits) < COPIES_PER_SERVER:  # nobody is full yet
            self.assertEqual(len(copies), len(deficits))
            for copy in copies:
                held = {RACKS[name] for name in copy.deficit.holders}
                self.assertNotIn(RACKS[copy.target], held)
