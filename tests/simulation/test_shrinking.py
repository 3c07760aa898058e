"""Fewer strikes that still fail."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.simulation.shrinking import shrink


class Shrinking(SynchronousTestCase):
    @settings(max_examples=100, deadline=None, database=None)
    @given(st.sets(st.integers(1, 60), max_size=4))
    def test_finds_the_few(self, guilty: set[int]) -> None:
        """What is to blame is left, and nothing else."""
        found = shrink(range(1, 61), lambda some: guilty <= set(some), most_tries=10_000)
        self.assertEqual(set(found), guilty)

    def test_bounded(self) -> None:
        """It gives up in time, with what fails for sure."""
        tried: list[Sequence[int]] = []

        def fails(some: Sequence[int]) -> bool:
            tried.append(some)
            return {7, 31} <= set(some)

        found = shrink(range(100), fails, most_tries=5)
        self.assertEqual(len(tried), 5)
        self.assertLessEqual({7, 31}, set(found))
