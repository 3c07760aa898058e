"""Restraint: when repair waits, for how long, and what ends it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.restraint import TOGETHER_SECONDS, Restraint

RACKS = {f"c{number}": f"r{number % 3}" for number in range(9)}


class Restraints(SynchronousTestCase):
    def setUp(self) -> None:
        self.restraint = Restraint(15.0)

    def die(self, now: float, *names: str, racks: dict[str, str] = RACKS) -> float:
        self.restraint.died(names, racks, now)
        return self.restraint.seconds_left(now)

    def test_one(self) -> None:
        """One server that dies is repaired at once, though it be the only one of its rack, or
        half of all."""
        self.assertEqual(self.die(0.0, "c0"), 0)
        self.assertEqual(self.die(100.0, "a", racks={"a": "r1", "b": "r2"}), 0)

    def test_third(self) -> None:
        """A third of all is not yet too many; more is."""
        self.assertEqual(self.die(0.0, "c0", "c1", "c2"), 0)
        self.assertEqual(self.die(1.0, "c3"), 15)
        self.assertEqual(self.restraint.vanished, ["c0", "c1", "c2", "c3"])

    def test_rack(self) -> None:
        """A whole rack is too many, however few its servers are."""
        racks = {**RACKS, "d1": "r9", "d2": "r9"}
        self.assertEqual(self.die(0.0, "d1", racks=racks), 0)
        self.assertEqual(self.die(0.5, "d2", racks=racks), 15)

    def test_one_after_another(self) -> None:
        """Servers that die apart have each its own cause: nothing is held back."""
        racks = {f"c{number}": "r" for number in range(5)}
        self.assertEqual(self.die(0.0, "c0", racks=racks), 0)
        del racks["c0"]
        self.assertEqual(self.die(TOGETHER_SECONDS + 1, "c1", racks=racks), 0)

    def test_ends(self) -> None:
        """It ends by itself, when one of them returns, and when a person says so."""
        self.assertEqual(self.die(0.0, "c0", "c1", "c2", "c3"), 15)
        self.assertEqual(self.restraint.seconds_left(5.0), 10)
        self.assertEqual(self.restraint.seconds_left(15.0), 0)
        self.assertEqual(self.die(100.0, "c0", "c1", "c2", "c3"), 15)
        self.restraint.returned("c8")
        self.assertEqual(self.restraint.seconds_left(100.0), 15)
        self.restraint.returned("c2")
        self.assertEqual(self.restraint.seconds_left(100.0), 0)
        self.assertEqual(self.die(200.0, "c0", "c1", "c2", "c3"), 15)
        self.restraint.go()
        self.assertEqual(self.restraint.seconds_left(200.0), 0)

    @settings(max_examples=50, deadline=None, database=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 30), st.sampled_from(sorted(RACKS))), min_size=1, max_size=30
        )
    )
    def test_bounded(self, deaths: list[tuple[int, str]]) -> None:
        """Whatever dies when, nothing is held back for longer than the time after the last."""
        self.restraint, now = Restraint(15.0), 0.0
        for seconds, name in deaths:
            now += seconds
            self.restraint.died([name], RACKS, now)
            self.assertLessEqual(self.restraint.seconds_left(now), 15.0)
        self.assertEqual(self.restraint.seconds_left(now + 15.0), 0)
