"""Counting what health nodes hold of the leader."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.opinion import FRESH_SECONDS, Opinion, Opinions
from filegrid.election.quorum import Member

A = Member("head-1", b"i")
UNFIT = Opinion(leader=A, epoch=5, evidence="silent")
FIT = Opinion(leader=A, epoch=5)


class Counting(SynchronousTestCase):
    def setUp(self) -> None:
        self.opinions = Opinions(["health-1", "health-2", "health-3"])

    def hold(self, *pairs: tuple[int, Opinion | None], now: float = 0.0) -> None:
        for number, opinion in pairs:
            self.opinions.hold(f"health-{number}", opinion, now)

    def test_majority_of_all(self) -> None:
        """It takes a majority of the configured ones, whoever can be reached."""
        self.hold((1, UNFIT))
        self.assertIsNone(self.opinions.condemned(0.0))
        self.hold((3, UNFIT))
        self.assertEqual(self.opinions.condemned(0.0), (A, 5))
        self.assertEqual(
            self.opinions.against(A, 5, 0.0), {"health-1": "silent", "health-3": "silent"}
        )

    def test_last_word(self) -> None:
        """Only the last word of each counts, once."""
        self.hold((1, UNFIT), (1, UNFIT), (2, UNFIT))
        self.hold((2, FIT))
        self.assertIsNone(self.opinions.condemned(0.0))
        self.hold((2, UNFIT), (1, None))
        self.assertIsNone(self.opinions.condemned(0.0))

    def test_strangers(self) -> None:
        """One that is not configured does not count."""
        self.hold((1, UNFIT), (4, UNFIT), (5, UNFIT))
        self.assertIsNone(self.opinions.condemned(0.0))
        self.assertFalse(self.opinions.is_majority(["health-1", "health-4", "health-5"]))

    def test_stale(self) -> None:
        """What was said long ago does not count."""
        self.hold((1, UNFIT))
        self.hold((2, UNFIT), now=2.0)
        self.assertEqual(self.opinions.condemned(FRESH_SECONDS), (A, 5))
        self.assertIsNone(self.opinions.condemned(FRESH_SECONDS + 0.1))

    def test_other_reign(self) -> None:
        """An opinion is about one leader, in one incarnation and epoch."""
        other = Opinion(leader=Member("head-1", b"j"), epoch=5, evidence="silent")
        self.hold((1, UNFIT), (2, other), (3, Opinion(leader=A, epoch=6, evidence="silent")))
        self.assertIsNone(self.opinions.condemned(0.0))

    def test_nobody(self) -> None:
        """Without health nodes nothing is a majority."""
        self.assertFalse(Opinions([]).is_majority([]))

    def test_on_the_wire(self) -> None:
        """An opinion arrives as it was sent."""
        for opinion in (FIT, UNFIT):
            self.assertEqual(Opinion.from_wire(opinion.to_wire()), opinion)
