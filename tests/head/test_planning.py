"""The repair plan: what is copied first, to where, from where, and how much at once."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.deficits import Deficit, Deficits
from filegrid.head.placement import Candidate
from filegrid.head.planning import COPIES_PER_SERVER, MOST_LOOKED_AT, Copy, Plan, Work, plan
from filegrid.head.view import ChunkRecord
from filegrid.model import Chunk, ChunkId, ContentId, Digest, SessionId, unique_id

NOW = 1000.0
RACKS = {f"c{number}": f"r{number % 3}" for number in range(6)}
CANDIDATES = [
    Candidate(name=name, rack=rack, capacity_bytes=1 << 40, free_bytes=1 << 39)
    for name, rack in RACKS.items()
]


def deficit(
    number: int,
    *holders: str,
    leaving: tuple[str, ...] = (),
    length: int = 1000,
    ready_at: float = NOW - 60,
    replication: int = 3,
) -> Deficit:
    chunk_id = ChunkId(unique_id(SessionId(1), number))
    record = ChunkRecord(
        chunk=Chunk(id=chunk_id, length=length, digest=Digest(b"d" * 32)),
        content_id=ContentId(b"c" * 16),
        index=0,
        replication=replication,
        released_ms=None,
    )
    return Deficit(
        record=record,
        holders=holders,
        leaving=leaving,
        racks=len({RACKS[name] for name in (*holders, *leaving)}),
        since=NOW - 60,
        ready_at=ready_at,
    )


def allowance(size: float = 1e12) -> dict[str, Work]:
    return {name: Work(read_bytes=size, write_bytes=size) for name in RACKS}


def planned(
    deficits: list[Deficit],
    *,
    running: set[ChunkId] = frozenset(),  # type: ignore[assignment]  # never changed
    work: dict[str, Work] | None = None,
    live: set[str] | None = None,
    suspect: set[str] = frozenset(),  # type: ignore[assignment]  # never changed
    seed: int = 0,
) -> Plan:
    ordered = Deficits()
    for one in deficits:
        ordered.put(one)
    return plan(
        ordered.by_urgency(),
        CANDIDATES,
        RACKS,
        work=work if work is not None else allowance(),
        running=running,
        live=live if live is not None else set(RACKS),
        suspect=suspect,
        now=NOW,
        random=random.Random(seed),
    )


def copies(deficits: list[Deficit], **more: object) -> list[Copy]:
    return planned(deficits, **more).copies  # type: ignore[arg-type]


class Order(SynchronousTestCase):
    def test_fewest_replicas_first(self) -> None:
        """Chunks on one replica come first, then those on one rack, then the oldest need."""
        two, one = deficit(1, "c0", "c1"), deficit(2, "c0")
        same_rack, later = deficit(3, "c0", "c3"), deficit(4, "c1", "c2")
        found = [copy.deficit for copy in copies([two, later, one, same_rack])]
        self.assertEqual(found, [one, same_rack, two, later])

    def test_leaving_replicas_count(self) -> None:
        """A replica on a server that is being drained is still one: others are more urgent."""
        moving, two = deficit(1, "c0", "c1", leaving=("c2",)), deficit(2, "c0", "c1")
        self.assertEqual([copy.deficit for copy in copies([moving, two])], [two, moving])

    def test_changed_urgency(self) -> None:
        """A chunk that lost one more replica overtakes; one whose copy failed goes to the end."""
        order = Deficits()
        first, second, third = (deficit(number, "c0", "c1") for number in (1, 2, 3))
        for one in (first, second, third):
            order.put(one)
        order.put(deficit(3, "c0"))
        order.postpone(first.record.chunk.id, NOW)
        self.assertEqual(
            [one[-1] for one in order],
            [3, 2, 1],
        )
        self.assertGreater(first.ready_at, NOW)
        order.drop(third.record.chunk.id)
        self.assertEqual(len(order), 2)


class Limits(SynchronousTestCase):
    def test_no_source(self) -> None:
        """What no live server has cannot be copied, and is told."""
        lost, silent = deficit(1), deficit(2, "c0")
        found = planned([lost, silent], live=set(RACKS) - {"c0"})
        self.assertEqual(found.copies, [])
        self.assertEqual(found.stuck, [silent.record.chunk.id, lost.record.chunk.id])

    def test_lost_do_not_hold_up_others(self) -> None:
        """However many are lost for good, what can be repaired is."""
        lost = [deficit(number) for number in range(MOST_LOOKED_AT + 1)]
        found = planned([*lost, deficit(MOST_LOOKED_AT + 7, "c0")])
        self.assertEqual(len(found.copies), 1)

    def test_no_target(self) -> None:
        """A chunk that all have cannot be had once more, and does not hold up others."""
        everywhere = deficit(1, *RACKS, replication=9)
        other = deficit(2, *sorted(RACKS)[:5], replication=9)
        found = planned([everywhere, other])
        self.assertEqual(found.stuck, [everywhere.record.chunk.id])
        self.assertEqual([copy.target for copy in found.copies], ["c5"])

    def test_not_ready(self) -> None:
        """What was published a moment ago may only not have been reported yet."""
        self.assertEqual(copies([deficit(1, "c0", ready_at=NOW + 1)]), [])

    def test_under_way(self) -> None:
        """A chunk that is being copied is not ordered again."""
        one = deficit(1, "c0")
        self.assertEqual(copies([one], running={one.record.chunk.id}), [])

    def test_write_limit(self) -> None:
        """A server gets no more than it may write, the last chunk whole."""
        work = allowance()
        for name in RACKS:
            work[name].write_bytes = 250 if name == "c1" else 0
        many = [deficit(number, "c0", "c2", length=100) for number in range(10)]
        found = copies(many, work=work)
        self.assertEqual([copy.target for copy in found], ["c1"] * 3)

    def test_read_limit(self) -> None:
        """A server that has read enough is not read from; another holder is."""
        work = allowance()
        work["c0"].read_bytes = 0
        found = copies([deficit(1, "c0", "c1"), deficit(2, "c0")], work=work)
        self.assertEqual([copy.sources[0] for copy in found], ["c1"])

    def test_last_replica(self) -> None:
        """Chunks on their last replica are copied four times as fast; others as ever."""
        work = allowance(1000)
        last = [deficit(number, "c0", length=100) for number in range(50)]
        others = [deficit(number, "c1", "c2", length=100) for number in range(50, 100)]
        found = copies([*last, *others], work=work)
        read = Counter(copy.sources[0] for copy in found)
        self.assertEqual(read["c0"], 4 * 1000 / 100)
        self.assertEqual(read["c1"] + read["c2"], 2 * 1000 / 100)

    def test_suspect_source(self) -> None:
        """A server that may fail is read from where there is no other, however busy that is."""
        work = allowance()
        work["c1"].read_bytes = 1
        found = copies([deficit(1, "c0", "c1"), deficit(2, "c0")], work=work, suspect={"c0"})
        self.assertEqual(sorted(copy.sources for copy in found), [("c0",), ("c1", "c0")])

    def test_spread(self) -> None:
        """Many chunks on the same servers are read from all of these, and go to many."""
        found = copies([deficit(number, "c0", "c1") for number in range(60)])
        self.assertEqual({copy.sources[0] for copy in found}, {"c0", "c1"})
        self.assertEqual({copy.target for copy in found}, {"c2", "c5"})


class Laws(SynchronousTestCase):
    @settings(max_examples=40, deadline=None, database=None)
    @given(
        st.lists(
            st.tuples(
                st.sets(st.sampled_from(sorted(RACKS)), min_size=1, max_size=3),
                st.integers(0, 1),
            ),
            max_size=500,
        ),
        st.sets(st.sampled_from(sorted(RACKS)), min_size=1),
        st.dictionaries(st.sampled_from(sorted(RACKS)), st.integers(0, 100_000)),
        st.integers(),
    )
    def test_laws(
        self,
        chunks: list[tuple[set[str], int]],
        live: set[str],
        allowed: dict[str, int],
        seed: int,
    ) -> None:
        """A target never has the chunk already, is never overloaded, and goes to another rack
        where one has room; sources are live holders; nobody exceeds what it may by a chunk."""
        deficits = []
        for number, (held, leaving) in enumerate(chunks):
            names = sorted(held)
            stay = names[leaving:] if len(names) > 1 else names
            gone = tuple(names[:leaving]) if len(names) > 1 else ()
            deficits.append(deficit(number, *stay, leaving=gone))
        work = allowance(1e6)
        for name, size in allowed.items():
            work[name] = Work(read_bytes=size, write_bytes=size)
        found = copies(deficits, live=live, work=work, seed=seed)
        self.assertEqual(len({copy.deficit.record.chunk.id for copy in found}), len(found))
        for copy in found:
            self.assertNotIn(copy.target, copy.deficit.sources)
            self.assertTrue(copy.sources)
            self.assertLessEqual(set(copy.sources), set(copy.deficit.sources) & live)
            held = {RACKS[name] for name in copy.deficit.holders}
            elsewhere = set(RACKS.values()) - held
            possible = {
                RACKS[name] for name in RACKS if name not in copy.deficit.sources
            } & elsewhere
            if possible:
                self.assertNotIn(RACKS[copy.target], held)
        for one in work.values():
            self.assertLessEqual(one.copies, COPIES_PER_SERVER)
            self.assertGreater(one.write_bytes, -1000)
            self.assertGreater(one.read_bytes, -1000)

    @settings(max_examples=20, deadline=None, database=None)
    @given(st.lists(st.integers(1, 3), min_size=1, max_size=50), st.integers())
    def test_all_is_planned(self, counts: list[int], seed: int) -> None:
        """With room and allowance for all, every chunk that can be repaired is, in one plan."""
        names = sorted(RACKS)
        deficits = [
            deficit(number, *names[:count], replication=4) for number, count in enumerate(counts)
        ]
        self.assertEqual(len(copies(deficits, seed=seed)), len(deficits))
