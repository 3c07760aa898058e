"""The laws of placement, whatever the servers."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.placement import SPARE_FRACTION, Candidate, place

GIB = 1 << 30
CHUNK_BYTES = 64 << 20


@st.composite
def servers(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 12))
    return [
        Candidate(
            name=f"chunk-{number}",
            rack=f"r{draw(st.integers(1, 4))}",
            capacity_bytes=100 * GIB,
            free_bytes=draw(st.integers(0, 100)) * GIB,
            transfers=draw(st.integers(0, 50)),
        )
        for number in range(count)
    ]


def choose(
    candidates: list[Candidate],
    count: int,
    seed: int = 0,
    holders: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> list[Candidate]:
    racks = {one.name: one.rack for one in candidates}
    return place(
        candidates,
        count,
        chunk_bytes=CHUNK_BYTES,
        random=random.Random(seed),
        holders=holders,
        holder_racks=[racks[name] for name in holders],
        exclude=exclude,
    )


class Laws(SynchronousTestCase):
    @settings(max_examples=50, deadline=None, database=None)
    @given(servers(), st.integers(1, 5), st.integers(), st.integers(0, 3), st.integers(0, 3))
    def test_laws(
        self, candidates: list[Candidate], count: int, seed: int, held: int, excluded: int
    ) -> None:
        """No server twice, none that holds a replica, was excluded or is full; racks are spread."""
        holders = tuple(one.name for one in candidates[:held])
        exclude = tuple(one.name for one in candidates[held : held + excluded])
        chosen = choose(candidates, count, seed, holders, exclude)
        names = [one.name for one in chosen]
        self.assertEqual(len(names), len(set(names)))
        self.assertFalse(set(names) & {*holders, *exclude})
        for one in chosen:
            self.assertGreaterEqual(
                one.free_bytes - CHUNK_BYTES, one.capacity_bytes * SPARE_FRACTION
            )
        usable = [
            one
            for one in candidates
            if one.name not in (*holders, *exclude) and one.has_room(CHUNK_BYTES)
        ]
        self.assertEqual(len(chosen), min(count, len(usable)))
        held_racks = {one.rack for one in candidates[:held]}
        if len(chosen) + len(held_racks) >= 2 and chosen:
            reachable = held_racks | {one.rack for one in usable}
            used = held_racks | {one.rack for one in chosen}
            self.assertGreaterEqual(len(used), min(2, len(reachable)))

    def test_same_seed_same_choice(self) -> None:
        """The choice is a function of what is seen and of the random numbers given."""
        candidates = [
            Candidate(name=f"c{n}", rack=f"r{n % 3}", capacity_bytes=GIB, free_bytes=GIB)
            for n in range(9)
        ]
        self.assertEqual(choose(candidates, 3, seed=5), choose(candidates, 3, seed=5))

    def test_free_space_decides_the_odds(self) -> None:
        """A server with three times the free space gets about three times the chunks."""
        candidates = [
            Candidate(name="small", rack="r1", capacity_bytes=100 * GIB, free_bytes=20 * GIB),
            Candidate(name="large", rack="r1", capacity_bytes=100 * GIB, free_bytes=60 * GIB),
        ]
        chosen = Counter(choose(candidates, 1, seed)[0].name for seed in range(1000))
        self.assertGreater(chosen["large"], 2 * chosen["small"])
        self.assertGreater(chosen["small"], 150)  # the large one is not stormed

    def test_racks_are_even(self) -> None:
        """Three replicas over three racks are one in each."""
        candidates = [
            Candidate(name=f"c{n}", rack=f"r{n % 3}", capacity_bytes=GIB, free_bytes=GIB)
            for n in range(9)
        ]
        for seed in range(20):
            self.assertEqual(len({one.rack for one in choose(candidates, 3, seed)}), 3)
