"""When the coordinator gives a verdict."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.opinion import Opinion, Opinions
from filegrid.election.quorum import Member
from filegrid.health.deliberation import CALM_SECONDS, QUIET_SECONDS, Deliberation, Verdict

NAMES = ("health-1", "health-2", "health-3")
A, B = Member("head-1", b"i"), Member("head-2", b"i")


class DeliberationCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 50.0
        self.opinions = Opinions(NAMES)
        self.deliberation = Deliberation()

    def turn(self, leader: Member, epoch: int, *against: str) -> Verdict | None:
        """A fifth of a second later these find the leader unfit, and the others fit."""
        self.now += 0.2
        for name in NAMES:
            evidence = f"seen by {name}" if name in against else ""
            opinion = Opinion(leader=leader, epoch=epoch, evidence=evidence)
            self.opinions.hold(name, opinion, self.now)
        return self.deliberation.decide(self.opinions, epoch, self.now)

    def turns(self, count: int, leader: Member, epoch: int, *against: str) -> list[Verdict]:
        found = (self.turn(leader, epoch, *against) for _ in range(count))
        return [verdict for verdict in found if verdict is not None]


class Deliberations(DeliberationCase):
    def test_minority(self) -> None:
        """One of three moves nobody, however long it insists."""
        self.assertEqual(self.turns(100, A, 5, "health-2"), [])

    def test_majority(self) -> None:
        """Two of three do, at the second look, with the evidence of both."""
        self.assertIsNone(self.turn(A, 5, "health-1", "health-3"))
        evidence = {"health-1": "seen by health-1", "health-3": "seen by health-3"}
        verdict = Verdict(leader=A, epoch=5, evidence=evidence)
        self.assertEqual(self.turn(A, 5, "health-1", "health-3"), verdict)

    def test_moment(self) -> None:
        """What passes at once was a hiccup."""
        for _ in range(50):
            self.assertIsNone(self.turn(A, 5, *NAMES))
            self.assertIsNone(self.turn(A, 5))

    def test_once(self) -> None:
        """A verdict is given once, and again only after a long while."""
        turns = round(QUIET_SECONDS / 0.2)
        self.assertEqual(len(self.turns(turns, A, 5, *NAMES)), 1)
        self.assertEqual(len(self.turns(turns, A, 5, *NAMES)), 1)

    def test_flapping(self) -> None:
        """A head that comes back to lead is not thrown out again before its time."""
        self.assertEqual(len(self.turns(2, A, 5, *NAMES)), 1)
        self.assertEqual(self.turns(20, A, 7, *NAMES), [])

    def test_next_leader(self) -> None:
        """The next leader has its time to begin."""
        self.assertEqual(len(self.turns(2, A, 5, *NAMES)), 1)
        self.assertEqual(self.turns(round(CALM_SECONDS / 0.2) - 1, B, 6, *NAMES), [])
        self.assertEqual(len(self.turns(2, B, 6, *NAMES)), 1)

    def test_given_elsewhere(self) -> None:
        """A new coordinator minds the verdicts of the one before it."""
        self.deliberation.given(A.name, self.now)
        self.assertEqual(self.turns(20, A, 7, *NAMES), [])

    def test_over(self) -> None:
        """Over an epoch that has passed nobody sits any more."""
        self.turn(A, 5, *NAMES)
        self.assertIsNone(self.deliberation.decide(self.opinions, 6, self.now + 0.2))

    def test_changed_subject(self) -> None:
        """Opinions on different reigns do not add up."""
        self.now += 1
        for name, epoch in zip(NAMES, (5, 6, 7), strict=True):
            opinion = Opinion(leader=A, epoch=epoch, evidence="silent")
            self.opinions.hold(name, opinion, self.now)
        self.assertIsNone(self.opinions.condemned(self.now))
