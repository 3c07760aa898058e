"""The arithmetic of leases and quorums."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.lease import Abstention, Hold, Timing
from filegrid.election.quorum import Member, Membership

A, B, C, D, E = (Member(name, b"1") for name in "abcde")
FIVE = Membership(frozenset((A, B, C, D, E)))
TIMING = Timing(lease_seconds=8.0, clock_rate_bound=1.25)


class QuorumTests(SynchronousTestCase):
    """Who counts, and how many are enough."""

    def test_majority(self) -> None:
        """More than half of all voters is a majority, whatever can be reached."""
        sizes = {n: Membership(frozenset(map(Member, "abcdefg"[:n]))).majority for n in range(1, 8)}
        self.assertEqual(sizes, {1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4})

    def test_incarnations(self) -> None:
        """A member whose disk was wiped counts no more, nor does a stranger or a learner (S2)."""
        learner = Member("f", b"1")
        membership = Membership(FIVE.voters, frozenset((learner,)))
        others = (Member("c", b"2"), Member("x", b"1"), learner)
        self.assertFalse(membership.has_majority((A, B, *others)))
        self.assertTrue(membership.has_majority((A, B, D, *others)))
        self.assertEqual(membership.besides(A), [B, C, D, E, learner])
        self.assertEqual(membership.voters_besides(A), [B, C, D, E])

    def test_neighbours_share_a_member(self) -> None:
        """Majorities of two memberships that differ in one voter always meet (S7)."""
        for n in range(1, 8):
            smaller = Membership(frozenset(map(Member, "abcdefgh"[:n])))
            larger = Membership(frozenset(map(Member, "abcdefgh"[: n + 1])))
            self.assertGreater(smaller.majority + larger.majority, n + 1)


class HoldTests(SynchronousTestCase):
    """The lease as its leader counts it."""

    def test_counts_from_sending(self) -> None:
        """A grant is worth one lease from when its renewal was sent, however late it comes (S5)."""
        hold = Hold(TIMING, 100.0)
        first = hold.renew(100.0)
        hold.granted(B, first)
        self.assertEqual(hold.until(A, FIVE), -math.inf)
        hold.granted(C, first)
        self.assertEqual(hold.until(A, FIVE), 108.0)

    def test_least_of_the_majority(self) -> None:
        """The lease ends with the oldest grant that a majority needs."""
        hold = Hold(TIMING, 0.0)
        numbers = [hold.renew(at) for at in (0.0, 1.0, 2.0)]
        for member, number in zip((B, C, D), numbers, strict=True):
            hold.granted(member, number)
        self.assertEqual(hold.until(A, FIVE), 9.0)
        hold.granted(D, numbers[0])  # overtaken by the later one
        self.assertEqual(hold.until(A, FIVE), 9.0)
        hold.granted(Member("e", b"2"), numbers[2])
        self.assertEqual(hold.until(A, FIVE), 9.0)

    def test_forgets(self) -> None:
        """Grants of renewals older than a lease, or never sent, are worth nothing."""
        hold = Hold(TIMING, 0.0)
        old = hold.renew(0.0)
        hold.renew(8.0)
        for number in (old, 77):
            hold.granted(B, number)
            hold.granted(C, number)
        self.assertEqual(hold.until(A, FIVE), -math.inf)

    def test_lapse(self) -> None:
        """A new leader has one lease's time for its first majority, then what that granted it."""
        hold = Hold(TIMING, 10.0)
        self.assertEqual(hold.lapses_at(A, FIVE), 18.0)
        number = hold.renew(12.0)
        hold.granted(B, number)
        hold.granted(C, number)
        self.assertEqual(hold.lapses_at(A, FIVE), 20.0)

    def test_alone(self) -> None:
        """A single voter needs nobody's grant."""
        self.assertEqual(Hold(TIMING, 0.0).until(A, Membership(frozenset((A,)))), math.inf)


class AbstentionTests(SynchronousTestCase):
    """The lease as those count it who grant it."""

    def test_after_start(self) -> None:
        """For one lease times the bound after a start there is no vote for anybody (S5)."""
        abstention = Abstention(TIMING, 5.0)
        self.assertEqual(abstention.ends_at(), 15.0)
        self.assertFalse(abstention.allows(B, 1, 14.9))
        self.assertTrue(abstention.allows(B, 1, 15.0))

    def test_while_a_grant_runs(self) -> None:
        """None but the leader itself, for a later epoch, gets a vote while its lease runs (S5)."""
        abstention = Abstention(TIMING, 0.0)
        abstention.granted(B, 3, 20.0)
        self.assertEqual(abstention.ends_at(), 30.0)
        self.assertFalse(abstention.allows(C, 4, 29.9))
        self.assertFalse(abstention.allows(B, 3, 29.9))
        self.assertTrue(abstention.allows(B, 4, 29.9))
        self.assertTrue(abstention.allows(C, 4, 30.0))

    def test_release(self) -> None:
        """Only the leader's own word for that epoch or a later one ends its grant early."""
        for leader, epoch, ended in ((C, 3, False), (B, 2, False), (B, 3, True), (B, 4, True)):
            abstention = Abstention(TIMING, 0.0)
            abstention.granted(B, 3, 20.0)
            abstention.released(leader, epoch)
            self.assertEqual(abstention.allows(D, 9, 20.0), ended)

    @settings(max_examples=50, deadline=None, database=None)
    @given(
        lease=st.floats(0.1, 60),
        bound=st.floats(1, 2),
        leader_rate=st.floats(0, 1),
        grantor_rate=st.floats(0, 1),
        way=st.floats(0, 100),
    )
    def test_ends_before_another_vote(
        self, lease: float, bound: float, leader_rate: float, grantor_rate: float, way: float
    ) -> None:
        """Within the bound on rates no grantor is free before its leader's count has ended."""
        timing = Timing(lease_seconds=lease, clock_rate_bound=bound)
        leader_clock, grantor_clock = (1 + r * (bound - 1) for r in (leader_rate, grantor_rate))
        hold = Hold(timing, 0.0)
        hold.granted(B, hold.renew(0.0))
        ended_at = hold.until(A, Membership(frozenset((A, B, C)))) / leader_clock
        abstention = Abstention(timing, -1000.0)
        abstention.granted(A, 1, way * grantor_clock)
        self.assertLessEqual(ended_at, abstention.ends_at() / grantor_clock * (1 + 1e-9))
