"""Playbooks of one member: what goes in, and all that comes out."""

from __future__ import annotations

import math
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.bully import Bully
from filegrid.election.events import (
    Claim,
    Configure,
    Effect,
    Event,
    Follow,
    HandOver,
    Lead,
    Received,
    Send,
    StepDown,
    Store,
    Stored,
    Suspect,
    Tick,
    Transfer,
    Unreachable,
)
from filegrid.election.lease import Timing
from filegrid.election.messages import (
    Answer,
    Ballot,
    Coordinator,
    Election,
    LeaseGrant,
    LogPosition,
    Message,
    PreVote,
    Release,
    Renewal,
    Stale,
    TransferLeadership,
    Vote,
    VoteRequest,
)
from filegrid.election.quorum import Member, Membership
from filegrid.election.table import State

A, B, C = (Member(name, b"1") for name in "abc")
D = Member("d", b"1")
WIPED_B = Member("b", b"2")
THREE = Membership(frozenset((A, B, C)))
LOG = LogPosition(4, 10)
TIMING = Timing(lease_seconds=8.0, clock_rate_bound=1.225)
"""Grants last 9.8 seconds, and 0.2 after that one stands."""
"""Grants last 10 seconds, replies take 1, a candidate defers for 8.75, renewals come every 2."""


class MemberTestCase(SynchronousTestCase):
    """Drives member B, which started at 0 in epoch 4."""

    def setUp(self) -> None:
        self.make()

    def make(
        self, membership: Membership = THREE, ballot: Ballot | None = None, priority: int = 0
    ) -> None:
        self.bully = Bully(
            B,
            priority=priority,
            membership=membership,
            ballot=ballot or Ballot(4, A),
            log=LOG,
            timing=TIMING,
            random=Random(1),
            now=0.0,
        )

    def expect(self, event: Event, now: float, *effects: Effect) -> None:
        self.assertEqual(self.bully.handle(event, now), effects)

    def hear(self, sender: Member, message: Message, now: float, *effects: Effect) -> None:
        self.expect(Received(sender, message), now, *effects)

    def assert_state(self, state: State, *, wake_at: float | None = None) -> None:
        self.assertIs(self.bully.state, state)
        if wake_at is not None:
            self.assertEqual(self.bully.wake_at, wake_at)

    def stand(self, now: float = 10.0, epoch: int = 5) -> None:
        election = Election(epoch, LOG, 0)
        self.expect(Tick(), now, Send(A, election), Send(C, election))
        self.assert_state(State.STANDING, wake_at=now + 1)

    def run_for(self, now: float = 10.0) -> None:
        """Backed by A, B votes for itself in epoch 5."""
        self.stand(now)
        self.hear(A, PreVote(5), now)
        self.expect(Tick(), now + 1, Store(Ballot(5, B)))
        self.assert_state(State.CANDIDATE, wake_at=math.inf)

    def lead(self) -> None:
        """B leads epoch 5 from 11 on."""
        self.run_for()
        request = VoteRequest(5, LOG)
        self.expect(Stored(Ballot(5, B)), 11.0, Send(A, request), Send(C, request))
        coordinator = Coordinator(5, 1, 0)
        self.hear(A, Vote(5), 11.0, Lead(5), Send(A, coordinator), Send(C, coordinator))
        self.assert_state(State.LEADING, wake_at=13.0)

    def follow(self, now: float = 1.0) -> None:
        """B follows C in epoch 5."""
        self.hear(C, Coordinator(5, 1, 0), now, Store(Ballot(5)))
        grant = Send(C, LeaseGrant(5, 1))
        self.expect(Stored(Ballot(5)), now, Follow(C, 5), grant)
        self.assert_state(State.FOLLOWING)


class StandingTests(MemberTestCase):
    """From silence to the lead."""

    def test_waits_after_start(self) -> None:
        """A member that was started neither stands nor backs anybody for one whole grant (S5)."""
        self.assert_state(State.FOLLOWING, wake_at=10.0)
        self.expect(Tick(), 9.9)
        self.hear(C, Election(5, LOG, 0), 1.0)
        self.hear(C, VoteRequest(5, LOG), 1.0)
        self.stand(10.0)

    def test_elected(self) -> None:
        """Elections, backing, the stored vote, requests, votes: then it leads."""
        self.lead()
        self.assertEqual((self.bully.epoch, self.bully.leader), (5, B))

    def test_all_replied(self) -> None:
        """When everybody has replied there is nothing to wait for."""
        self.stand()
        self.hear(A, PreVote(5), 10.1)
        self.hear(C, PreVote(5), 10.2, Store(Ballot(5, B)))

    def test_cut_off(self) -> None:
        """Without a majority behind it a member raises no epoch, and asks again later (S6)."""
        self.stand()
        self.expect(Tick(), 11.0)
        self.assert_state(State.FOLLOWING)
        self.assertTrue(11.5 <= self.bully.wake_at <= 13.0)
        self.assertEqual(self.bully.epoch, 4)
        self.stand(self.bully.wake_at)

    def test_defers_once(self) -> None:
        """One above that answered is waited for, once; then a majority is enough at once (S6)."""
        self.stand()
        self.hear(A, PreVote(5), 10.1)
        self.hear(C, Answer(5), 10.2)
        self.assert_state(State.DEFERRING, wake_at=10.2 + TIMING.defer_seconds)
        self.hear(C, Answer(5), 15.0)
        now = self.bully.wake_at
        self.stand(now)
        self.hear(C, Answer(5), now)
        self.hear(A, PreVote(5), now, Store(Ballot(5, B)))

    def test_insists_and_is_backed(self) -> None:
        """One above that would vote all the same does so for one that has waited."""
        self.stand()
        self.hear(C, Answer(5, backs=True), 10.2)
        now = self.bully.wake_at
        self.stand(now)
        self.hear(C, Answer(5, backs=True), now, Store(Ballot(5, B)))

    def test_unreachable(self) -> None:
        """No reply is awaited of a leader whose link is gone; a majority is needed all the same."""
        self.stand()
        self.expect(Unreachable(A), 10.1)
        self.hear(C, PreVote(5), 10.2, Store(Ballot(5, B)))

    def test_nobody_reachable(self) -> None:
        """Alone a member raises no epoch."""
        self.stand()
        self.expect(Unreachable(A), 10.1)
        self.expect(Unreachable(C), 10.1)
        self.assert_state(State.STANDING)

    def test_late_replies(self) -> None:
        """Replies to another election, and those of wiped members, count for nothing (S2)."""
        self.stand()
        for sender, reply in ((C, Answer(4)), (A, PreVote(4)), (WIPED_B, PreVote(5))):
            self.hear(sender, reply, 10.1)
        self.hear(WIPED_B, Answer(5), 10.2)
        self.assert_state(State.STANDING)
        self.expect(Tick(), 11.0)
        self.assert_state(State.FOLLOWING)

    def test_votes_count_after_own(self) -> None:
        """No vote helps before one's own is stored, nor one of another epoch or stranger (S2)."""
        self.run_for()
        self.hear(A, Vote(5), 11.1)
        self.make()
        self.run_for()
        request = VoteRequest(5, LOG)
        self.expect(Stored(Ballot(5, B)), 11.5, Send(A, request), Send(C, request))
        self.hear(A, Vote(4), 11.6)
        self.hear(WIPED_B, Vote(5), 11.6)
        self.hear(D, Vote(5), 11.6)
        self.assert_state(State.CANDIDATE, wake_at=12.5)
        self.expect(Tick(), 12.5)
        self.assert_state(State.FOLLOWING)

    def test_above_what_others_know(self) -> None:
        """After it heard of a later epoch the next election is above that."""
        self.stand()
        self.hear(A, Stale(9), 10.1)
        self.expect(Tick(), 11.0)
        self.stand(13.0, epoch=10)

    def test_alone(self) -> None:
        """A single voter elects itself."""
        self.make(Membership(frozenset((B,))))
        self.expect(Tick(), 10.0)
        self.expect(Tick(), 11.0, Store(Ballot(5, B)))
        self.expect(Stored(Ballot(5, B)), 11.1, Lead(5))
        self.assertTrue(self.bully.may_serve(1e9))


class VotingTests(MemberTestCase):
    """What others are told, and who gets the vote."""

    def test_answers_one_below(self) -> None:
        """One below is told to wait and is backed, and whoever is above it stands itself."""
        stands = Election(5, LOG, 0)
        effects = (Send(A, Answer(5, backs=True)), Send(A, stands), Send(C, stands))
        self.hear(A, Election(5, LOG, 0), 20.0, *effects)
        self.assert_state(State.STANDING)

    def test_order(self) -> None:
        """The order is that of the log, then priority, then name; a longer log is not backed."""
        above, below = Send(A, PreVote(5)), Send(A, Answer(5, backs=True))
        cases = (
            (LogPosition(5, 1), -1, above),
            (LogPosition(4, 11), -1, above),
            (LOG, 1, above),
            (LOG, 0, below),
            (LOG, -1, below),
            (LogPosition(4, 9), 7, Send(A, Answer(5))),
            (LogPosition(3, 99), 7, Send(A, Answer(5))),
        )
        for log, priority, reply in cases:
            self.make()
            effects = self.bully.handle(Received(A, Election(5, log, priority)), 20.0)
            self.assertEqual(effects[0], reply)
            self.assertEqual(len(effects) > 1, reply is not above)  # whoever is above stands

    def test_answers_shortly_before_it_is_free(self) -> None:
        """While it will be free in time to stand it answers; before that it keeps still."""
        self.hear(A, Election(5, LOG, 0), 4.9)
        self.hear(A, Election(5, LOG, 0), 7.5, Send(A, Answer(5)))
        self.assert_state(State.FOLLOWING)

    def test_stores_then_votes(self) -> None:
        """A vote is said once it is stored; asked again it is said again."""
        request = VoteRequest(5, LOG)
        self.hear(C, request, 20.0, Store(Ballot(5, C)))
        self.assert_state(State.FOLLOWING, wake_at=math.inf)
        self.hear(C, request, 20.1, Send(C, Stale(5)))
        self.hear(A, VoteRequest(6, LOG), 20.1)
        self.hear(A, Election(6, LOG, 0), 20.1)
        self.expect(Stored(Ballot(5, C)), 20.2, Send(C, Vote(5)))
        self.hear(C, request, 20.3, Send(C, Vote(5)))
        self.assert_state(State.FOLLOWING, wake_at=20.0 + TIMING.patience_seconds)

    def test_once_an_epoch(self) -> None:
        """There is no second vote in an epoch, none in an older one, none for a shorter log."""
        self.make(ballot=Ballot(5, C))
        self.hear(A, VoteRequest(5, LOG), 20.0, Send(A, Stale(5)))
        self.hear(A, VoteRequest(4, LOG), 20.0, Send(A, Stale(5)))
        self.hear(A, VoteRequest(6, LogPosition(4, 9)), 20.0)
        self.hear(C, VoteRequest(5, LOG), 20.0, Send(C, Vote(5)))

    def test_not_against_a_lease(self) -> None:
        """While a grant runs its leader alone may have the vote, above its epoch (S5)."""
        self.follow(20.0)
        self.hear(A, VoteRequest(6, LOG), 29.7)
        self.hear(A, Election(6, LOG, 1), 29.7)
        self.hear(C, VoteRequest(6, LOG), 29.9, Store(Ballot(6, C)))
        self.make()
        self.follow(20.0)
        self.hear(A, VoteRequest(6, LOG), 30.0, Store(Ballot(6, A)))

    def test_without_a_vote(self) -> None:
        """One in another incarnation than the configured one neither stands nor grants (S2)."""
        self.make(Membership(frozenset((A, WIPED_B, C))))
        self.assert_state(State.PASSIVE, wake_at=math.inf)
        self.hear(C, Coordinator(5, 1, 0), 20.0, Follow(C, 5))
        self.hear(C, Renewal(5, 2, 0), 20.0)
        self.hear(A, Renewal(3, 2, 0), 20.0, Send(A, Stale(4)))
        self.assertTrue(self.bully.obeys(C, 5))
        self.expect(Configure(THREE), 21.0)
        self.assertFalse(self.bully.obeys(C, 5))
        self.hear(C, Renewal(5, 3, 0), 22.0, Store(Ballot(5)))
        self.expect(Stored(Ballot(5)), 22.0, Follow(C, 5), Send(C, LeaseGrant(5, 3)))
        self.assertTrue(self.bully.obeys(C, 5))

    def test_named_by_others(self) -> None:
        """One that has not heard yet that it has a vote gives it: whoever asks has heard (S2)."""
        self.make(Membership(frozenset((A, WIPED_B, C))))
        lower = LogPosition(4, 9)
        self.hear(A, Election(6, lower, 0), 20.0)
        self.hear(A, VoteRequest(6, lower), 20.0)
        self.hear(A, Election(6, LOG, 0), 20.0, Send(A, PreVote(6)))
        self.hear(A, VoteRequest(6, LOG), 20.0, Store(Ballot(6, A)))
        self.expect(Stored(Ballot(6, A)), 20.0, Send(A, Vote(6)))
        self.hear(C, VoteRequest(6, LOG), 20.0, Send(C, Stale(6)))
        self.hear(C, Renewal(5, 2, 0), 20.1, Send(C, Stale(6)))
        self.hear(A, Coordinator(6, 1, 0), 20.1, Follow(A, 6))
        self.assert_state(State.PASSIVE, wake_at=math.inf)


class LeadingTests(MemberTestCase):
    """The lease, and its ends."""

    def test_serves_on_grants(self) -> None:
        """It serves for one lease from when it sent what a majority granted (S5)."""
        self.lead()
        self.assertFalse(self.bully.may_serve(11.0))
        self.hear(A, LeaseGrant(5, 1), 12.9)
        self.assertTrue(self.bully.may_serve(18.9))
        self.assertFalse(self.bully.may_serve(19.0))
        renewal = Renewal(5, 2, 0)
        self.expect(Tick(), 13.0, Send(A, renewal), Send(C, renewal))
        self.hear(C, LeaseGrant(5, 2), 14.0)
        self.assertTrue(self.bully.may_serve(20.9))

    def test_counts_voters_only(self) -> None:
        """Grants of other epochs, wiped members and strangers do not count (S2)."""
        self.lead()
        for sender, epoch in ((A, 4), (WIPED_B, 5), (D, 5), (Member("a", b"2"), 5)):
            self.hear(sender, LeaseGrant(epoch, 1), 11.5)
        self.assertFalse(self.bully.may_serve(11.5))

    def test_paused(self) -> None:
        """One that was paused past its lease steps down before it takes in anything else (S5)."""
        self.lead()
        self.hear(A, LeaseGrant(5, 1), 11.5)
        stepped = StepDown(5, "no majority renewed the lease")
        self.hear(A, LeaseGrant(5, 1), 19.0, stepped)
        self.assert_state(State.FOLLOWING)
        self.assertFalse(self.bully.may_serve(18.0))

    def test_never_granted(self) -> None:
        """One that gets no grants votes for nobody for one lease; then it is as all others."""
        self.lead()
        self.hear(A, VoteRequest(6, LOG), 18.9)
        stepped = StepDown(5, "no majority renewed the lease")
        self.hear(A, VoteRequest(6, LOG), 19.0, stepped, Store(Ballot(6, A)))

    def test_another_was_elected(self) -> None:
        """It follows whoever was elected after it."""
        self.lead()
        stepped = StepDown(5, "another was elected")
        self.hear(C, Coordinator(7, 1, 0), 12.0, stepped, Store(Ballot(7)))
        self.expect(Stored(Ballot(7)), 12.0, Follow(C, 7), Send(C, LeaseGrant(7, 1)))

    def test_two_in_one_epoch(self) -> None:
        """Two leaders of one epoch are a broken invariant, and nothing goes on from there."""
        self.lead()
        self.assertRaises(AssertionError, self.bully.handle, Received(C, Renewal(5, 1, 0)), 12.0)

    def test_overtaken(self) -> None:
        """A voter in a later epoch makes it stand again above that, for a stranger it does not."""
        self.lead()
        self.hear(D, Stale(8), 12.0)
        self.hear(C, Stale(5), 12.0)
        self.hear(C, Stale(8), 12.0, StepDown(5, "a member is in a later epoch"))
        self.stand(12.0, epoch=9)

    def test_found_unfit(self) -> None:
        """A verdict on it in its epoch ends its reign and its lease; a stale one does not (S6)."""
        self.lead()
        self.expect(Suspect(B, 4), 12.0)
        self.expect(Suspect(A, 5), 12.0)
        release = Release(5, None)
        stepped = StepDown(5, "a majority of the health nodes finds it unfit")
        self.expect(Suspect(B, 5), 12.0, stepped, Send(A, release), Send(C, release))
        self.assert_state(State.FOLLOWING, wake_at=12.0 + TIMING.rest_seconds)

    def test_hands_over(self) -> None:
        """A preferred voter that asks is passed on, and the lead handed over releases the lease."""
        self.lead()
        self.hear(C, TransferLeadership(5, 0), 12.0)
        self.hear(C, TransferLeadership(4, 1), 12.0)
        self.hear(D, TransferLeadership(5, 1), 12.0)
        self.hear(C, TransferLeadership(5, 1), 12.0, Transfer(C))
        stepped, release = StepDown(5, "handed over"), Release(5, C)
        self.expect(HandOver(C), 12.0, stepped, Send(A, release), Send(C, release))
        self.assert_state(State.FOLLOWING, wake_at=12.0 + TIMING.patience_seconds)
        self.hear(C, VoteRequest(6, LOG), 12.1, Store(Ballot(6, C)))

    def test_loses_its_vote(self) -> None:
        """A leader that is taken out of the configuration stops, and releases its lease."""
        self.lead()
        stepped, release = StepDown(5, "it has no vote any more"), Release(5, None)
        without = Membership(frozenset((A, C)))
        self.expect(Configure(without), 12.0, stepped, Send(A, release), Send(C, release))
        self.assert_state(State.PASSIVE)


class FollowingTests(MemberTestCase):
    """Under another leader."""

    def test_grants(self) -> None:
        """A new epoch is stored, then granted and obeyed; renewals wait for no disk (S5)."""
        self.hear(C, Coordinator(5, 1, 0), 1.0, Store(Ballot(5)))
        self.assertFalse(self.bully.obeys(C, 5))
        self.hear(C, Renewal(5, 2, 0), 1.5)
        self.expect(Stored(Ballot(5)), 2.0, Follow(C, 5), Send(C, LeaseGrant(5, 1)))
        self.assertTrue(self.bully.obeys(C, 5))
        self.hear(C, Renewal(5, 3, 0), 3.0, Send(C, LeaseGrant(5, 3)))
        self.assert_state(State.FOLLOWING, wake_at=13.0)

    def test_refuses_the_past(self) -> None:
        """A leader of an older epoch is told so, and not obeyed."""
        self.follow()
        self.hear(A, Renewal(4, 9, 0), 2.0, Send(A, Stale(5)))
        self.assertFalse(self.bully.obeys(A, 4))
        self.assertEqual(self.bully.leader, C)

    def test_obeys_until_it_votes(self) -> None:
        """From when a vote is decided the old leader's entries are acknowledged no more."""
        self.follow()
        self.hear(A, VoteRequest(6, LOG), 11.0, Store(Ballot(6, A)))
        self.assertFalse(self.bully.obeys(C, 5))
        self.expect(Stored(Ballot(6, A)), 11.0, Send(A, Vote(6)))
        self.hear(C, Renewal(5, 2, 0), 11.1, Send(C, Stale(6)))
        self.assertFalse(self.bully.obeys(C, 5))

    def test_verdict(self) -> None:
        """A suspected leader gets no more grants in that epoch, and is left when those end (S6)."""
        self.follow(1.0)
        self.expect(Suspect(C, 4), 2.0)
        self.hear(C, Renewal(5, 2, 0), 3.0, Send(C, LeaseGrant(5, 2)))
        self.expect(Suspect(C, 5), 4.0)
        self.hear(C, Renewal(5, 3, 0), 5.0)
        self.assert_state(State.FOLLOWING, wake_at=13.0)
        self.stand(13.0, epoch=6)
        self.hear(C, Coordinator(7, 1, 0), 13.5, Store(Ballot(7)))

    def test_verdict_of_few(self) -> None:
        """A leader that outlives a verdict is followed again: a majority goes on with it."""
        self.follow(1.0)
        self.expect(Suspect(C, 5), 2.0)
        ends_at = 2.0 + TIMING.rest_seconds
        self.hear(C, Renewal(5, 2, 0), ends_at - 0.1)
        self.hear(C, Renewal(5, 3, 0), ends_at, Send(C, LeaseGrant(5, 3)))

    def test_handed_over_to(self) -> None:
        """The target of a handover stands at once and waits for no answers."""
        self.follow(20.0)
        election = Election(6, LOG, 0)
        self.hear(C, Release(5, B), 21.0, Send(A, election), Send(C, election))
        self.hear(A, Answer(6), 21.1)
        self.hear(C, PreVote(6), 21.1, Store(Ballot(6, B)))

    def test_handed_over_to_after_a_vote(self) -> None:
        """The target stands at once also where it just left the way to that very leader."""
        self.follow(20.0)
        self.bully._rests_until = 99.0
        election = Election(6, LOG, 0)
        self.hear(C, Release(5, B), 21.0, Send(A, election), Send(C, election))

    def test_gives_way(self) -> None:
        """The others give the target time; a release of something else changes nothing."""
        self.follow(20.0)
        self.hear(C, Release(4, A), 21.0)
        self.hear(A, Release(5, A), 21.0)
        self.assert_state(State.FOLLOWING, wake_at=30.0)
        self.hear(C, Release(5, A), 21.0)
        self.assert_state(State.FOLLOWING, wake_at=21.0 + TIMING.patience_seconds)
        self.hear(A, VoteRequest(6, LOG), 21.1, Store(Ballot(6, A)))

    def test_claims(self) -> None:
        """Only a preferred member asks its leader for the lead."""
        self.follow()
        self.expect(Claim(), 2.0)
        self.make(priority=1)
        self.follow()
        self.expect(Claim(), 2.0, Send(C, TransferLeadership(5, 1)))
