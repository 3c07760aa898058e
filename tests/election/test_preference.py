"""When a preferred member asks for the lead."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.preference import (
    CALM_SECONDS,
    MOST_CALM_SECONDS,
    REMEMBERED_SECONDS,
    Preference,
    calm_seconds,
    losses,
)


class Calm(SynchronousTestCase):
    def asked(self, *, lost: int, steady: range | None = None, seconds: int = 400) -> list[int]:
        """In which seconds it asks, while it is steady in those given."""
        preference = Preference()
        return [
            now
            for now in range(seconds)
            if preference.asks(
                steady=steady is None or now in steady, lost=lambda: lost, now=float(now)
            )
        ]

    def test_first(self) -> None:
        """It waits until all was calm for a while; where nothing comes of it, it asks again."""
        self.assertEqual(self.asked(lost=0, seconds=16), [5, 10, 15])

    def test_damped(self) -> None:
        """Each loss of the lead doubles the wait, up to a bound."""
        self.assertEqual(self.asked(lost=3, seconds=100), [40, 80])
        self.assertEqual(calm_seconds(10**6), MOST_CALM_SECONDS)

    def test_interrupted(self) -> None:
        """One that follows only now and then never asks."""
        self.assertEqual(self.asked(lost=0, steady=range(2, 7)), [])
        self.assertEqual(self.asked(lost=0, steady=range(2, 8)), [7])


class Losses(SynchronousTestCase):
    def test_counted(self) -> None:
        """A loss is another's election after one's own; being elected again is none."""
        elections = [("a", 1.0), ("b", 2.0), ("a", 3.0), ("a", 4.0), ("b", 5.0), ("c", 6.0)]
        self.assertEqual(losses(elections, "a", 10.0), 2)
        self.assertEqual(losses(elections, "b", 10.0), 2)
        self.assertEqual(losses(elections, "c", 10.0), 0)

    def test_forgotten(self) -> None:
        """After some hours it counts no more, and the longest calm is over before that."""
        elections = [("a", 1.0), ("b", 2.0)]
        self.assertEqual(losses(elections, "a", 3.0 + REMEMBERED_SECONDS), 0)
        self.assertGreater(REMEMBERED_SECONDS, MOST_CALM_SECONDS + CALM_SECONDS)
