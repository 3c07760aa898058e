"""Histories that one order explains, and histories that none does."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.simulation.linearizability import UNKNOWN, Kind, Operation, TooLong, is_linearizable


def wrote(value: object, began: float, ended: float = UNKNOWN) -> Operation:
    return Operation(client="a", began=began, ended=ended, kind=Kind.WRITE, value=str(value))


def appended(value: object, began: float, ended: float = UNKNOWN) -> Operation:
    return Operation(client="c", began=began, ended=ended, kind=Kind.APPEND, value=str(value))


def read(value: object, began: float, ended: float) -> Operation:
    found = None if value is None else str(value)
    return Operation(client="b", began=began, ended=ended, kind=Kind.READ, value=found)


class Histories(SynchronousTestCase):
    def test_in_turn(self) -> None:
        """One after the other, each read finds the last write."""
        self.assertTrue(is_linearizable([wrote(1, 0, 1), read(1, 2, 3), wrote(2, 4, 5)]))
        self.assertFalse(is_linearizable([wrote(1, 0, 1), wrote(2, 2, 3), read(1, 4, 5)]))
        self.assertFalse(is_linearizable([wrote(1, 0, 1), read(None, 2, 3)]))

    def test_at_the_same_time(self) -> None:
        """What overlaps may come in either order, but in the same for everybody."""
        both = [wrote(1, 0, 10), wrote(2, 0, 10)]
        self.assertTrue(is_linearizable([*both, read(1, 11, 12)]))
        self.assertTrue(is_linearizable([*both, read(1, 1, 2), read(2, 3, 4)]))
        self.assertFalse(is_linearizable([*both, read(1, 1, 2), read(2, 3, 4), read(1, 5, 6)]))
        self.assertFalse(is_linearizable([*both, read(1, 11, 12), read(2, 13, 14)]))

    def test_unknown(self) -> None:
        """What may have been done takes effect whenever it explains something, or never; once."""
        late = [wrote(1, 0), wrote(2, 1, 2)]
        self.assertTrue(is_linearizable([*late, read(2, 3, 4)]))
        self.assertTrue(is_linearizable([*late, read(2, 3, 4), read(1, 5, 6)]))
        self.assertFalse(is_linearizable([*late, read(1, 3, 4), read(2, 5, 6), read(1, 7, 8)]))
        self.assertFalse(is_linearizable([read(1, 0, 1), wrote(1, 2)]))

    def test_appended(self) -> None:
        """What is added is there once, behind what was there before, and nothing of it is lost."""
        both = [wrote(1, 0, 1), appended(2, 2, 10), appended(3, 2, 10)]
        self.assertTrue(is_linearizable([*both, read(123, 11, 12)]))
        self.assertTrue(is_linearizable([*both, read(13, 3, 4), read(132, 11, 12)]))
        self.assertFalse(is_linearizable([*both, read(13, 11, 12)]))
        self.assertFalse(is_linearizable([*both, read(13, 3, 4), read(123, 11, 12)]))
        self.assertFalse(is_linearizable([appended(1, 0), read(11, 2, 3)]))
        self.assertTrue(is_linearizable([appended(1, 0), read(1, 2, 3)]))

    def test_too_long(self) -> None:
        """A search that would not end says so."""
        many = [wrote(number, 0) for number in range(30)]
        with self.assertRaises(TooLong):
            is_linearizable([*many, read("never", 1, 2)], most_states=1000)

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.integers(0, 1 << 32))
    def test_of_a_register(self, seed: int) -> None:
        """What a real register did is always explained; with one stale read in it, it is not."""
        rng = random.Random(seed)
        value: str | None = None
        history = []
        for number in range(20):
            at = float(number)
            began, ended = at - rng.uniform(0, 3), at + rng.uniform(0, 3)
            chance = rng.random()
            if chance < 0.3:
                value = str(number)
                history.append(wrote(value, began, rng.choice((ended, UNKNOWN))))
            elif chance < 0.5:
                value = f"{value or ''}{number}"
                history.append(appended(number, began, rng.choice((ended, UNKNOWN))))
            else:
                history.append(read(value, began, ended))
        self.assertTrue(is_linearizable(history))
        stale = [wrote("old", 30, 31), wrote("new", 32, 33), read("old", 34, 35)]
        self.assertFalse(is_linearizable([*history, *stale]))
