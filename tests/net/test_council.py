"""Tests for :mod:`filegrid.net.council`: what it does with the effects of an election."""

from __future__ import annotations

import errno
import random
from typing import cast

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial import unittest

from filegrid.ballot import BallotFile
from filegrid.election.codec import from_wire
from filegrid.election.events import Received, Tick
from filegrid.election.lease import Timing
from filegrid.election.messages import (
    Ballot,
    Coordinator,
    Election,
    LeaseGrant,
    LogPosition,
    PreVote,
    Vote,
    VoteRequest,
)
from filegrid.election.messages import Message as Said
from filegrid.election.quorum import Member
from filegrid.errors import DiskFailed, GridError
from filegrid.model import Role
from filegrid.net.council import Council, incarnate
from filegrid.net.flow import Gate
from filegrid.net.link import Link
from filegrid.protocol.wire import election_pb2, frame_pb2
from filegrid.simulation.disk import SimulatedDisk
from tests.head.lanes import SteppedThreads, runtime_of

A, B, C = (Member(name, b"1") for name in ("head-1", "head-2", "head-3"))
TIMING = Timing(lease_seconds=1.0)
STANDS_SECONDS = TIMING.grant_seconds + TIMING.settle_seconds
"""After its start."""


class Electorate:
    voters = frozenset({A, B, C})
    position = LogPosition(1, 5)


class Part:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def lead(self, epoch: int) -> None:
        self.told.append(("lead", epoch))

    def step_down(self, epoch: int, reason: str) -> None:
        self.told.append(("step down", epoch))

    def follow(self, leader: Member, epoch: int) -> None:
        self.told.append(("follow", leader.name, epoch))

    def hand_over_to(self, target: Member) -> None:
        self.told.append(("hand over", target.name))


class FakeLink:
    """What is said over it, with what was on stable storage at that moment."""

    alive = True

    def __init__(self, case: CouncilTests, to: Member) -> None:
        self.gate = Gate()
        self._case = case
        self._to = to

    def open(self, request: Message, *, timeout_seconds: float) -> FakeLink:
        assert isinstance(request, election_pb2.ElectionMessage)
        stored = BallotFile(self._case.disk, "/node/ballot").read()
        self._case.said.append((self._to, from_wire(request), stored))
        self.answer: Deferred[Message] = Deferred()
        return self


class CouncilTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.disk.make_folders("/node")
        self.disk.create("/node/node").close()
        self.clock = Clock()
        self.threads = SteppedThreads()
        self.part = Part()
        self.electorate = Electorate()
        self.fatal: list[GridError] = []
        self.said: list[tuple[Member, Said, Ballot]] = []
        self.council = Council(
            runtime_of(self.clock, self.disk, self.threads),
            self.electorate,
            self.part,
            me=A,
            role=Role.HEAD,
            others=[],
            member_of=incarnate,
            hello=frame_pb2.Hello,
            ballots=BallotFile(self.disk, "/node/ballot"),
            ballot=Ballot(),
            timing=TIMING,
            priority=0,
            on_fatal=self.fatal.append,
        )
        self.links = {member: FakeLink(self, member) for member in (B, C)}
        self.patch(self.council, "link_to", lambda member: cast(Link, self.links.get(member)))
        self.council.start()

    def messages(self, kind: type[Said]) -> list[tuple[Member, Ballot]]:
        return [(to, stored) for to, message, stored in self.said if isinstance(message, kind)]

    def test_silent_at_the_start(self) -> None:
        """It neither votes nor stands for one lease times the bound after its start (S5)."""
        self.council.handle(Received(B, VoteRequest(4, LogPosition(9, 9))))
        self.clock.advance(STANDS_SECONDS - 0.01)
        self.assertEqual(self.said, [])
        self.clock.advance(0.02)
        self.assertEqual([to for to, _ in self.messages(Election)], [B, C])

    def test_vote(self) -> None:
        """A vote is on stable storage before it is sent."""
        self.clock.advance(STANDS_SECONDS)
        self.threads.stepped = True
        self.council.handle(Received(B, VoteRequest(4, LogPosition(1, 5))))
        self.assertEqual(self.messages(Vote), [])
        self.threads.step("ballot")
        self.assertEqual(self.messages(Vote), [(B, Ballot(4, B))])
        self.disk.crash()
        self.assertEqual(BallotFile(self.disk, "/node/ballot").read(), Ballot(4, B))

    def test_broken_link(self) -> None:
        """A member whose link is gone is not waited for; the vote of one that is left is enough."""
        del self.links[B]
        self.clock.advance(STANDS_SECONDS)
        self.clock.advance(0)
        self.council.handle(Received(C, PreVote(2)))
        self.assertEqual(self.messages(VoteRequest), [(C, Ballot(2, A))])

    def test_own_vote(self) -> None:
        """So is its own, before it asks others for theirs; and it leads only with a majority."""
        self.clock.advance(STANDS_SECONDS)
        self.threads.stepped = True
        self.council.handle(Received(B, PreVote(2)))
        self.council.handle(Received(C, PreVote(2)))
        self.assertEqual(self.messages(VoteRequest), [])
        self.threads.step("ballot")
        self.assertEqual(self.messages(VoteRequest), [(B, Ballot(2, A)), (C, Ballot(2, A))])
        self.assertEqual(self.part.told, [])
        self.council.handle(Received(C, Vote(2)))
        self.assertEqual(self.part.told, [("lead", 2)])
        self.assertEqual([to for to, _ in self.messages(Coordinator)], [B, C])
        self.assertFalse(self.council.may_serve())
        self.council.handle(Received(B, LeaseGrant(2, 1)))
        self.assertTrue(self.council.may_serve())
        self.clock.pump([0.1] * 20)
        self.assertFalse(self.council.may_serve())
        self.assertEqual(self.part.told, [("lead", 2), ("step down", 2)])

    def test_paused(self) -> None:
        """A leader that was stopped past its lease learns of it before anything else is asked."""
        self.test_leads()
        self.clock.rightNow += 5  # no timer ran
        self.assertFalse(self.council.may_serve())
        self.council.handle(Tick())
        self.assertEqual(self.part.told[-1], ("step down", 2))

    def test_leads(self) -> None:
        """With votes and grants it leads and serves."""
        self.clock.advance(STANDS_SECONDS)
        self.council.handle(Received(B, PreVote(2)))
        self.council.handle(Received(C, PreVote(2)))
        self.council.handle(Received(C, Vote(2)))
        self.council.handle(Received(C, LeaseGrant(2, 1)))
        self.assertTrue(self.council.may_serve())

    def test_follow(self) -> None:
        """It grants the lease of a new epoch only once that epoch is stored, and then obeys."""
        self.threads.stepped = True
        self.council.handle(Received(B, Coordinator(7, 1, 0)))
        self.assertEqual(self.said, [])
        self.assertFalse(self.council.obeys(B, 7))
        self.threads.step("ballot")
        self.assertEqual(self.messages(LeaseGrant), [(B, Ballot(7))])
        self.assertTrue(self.council.obeys(B, 7))
        self.assertFalse(self.council.obeys(C, 7))
        self.assertFalse(self.council.obeys(B, 6))
        self.assertEqual(self.part.told, [("follow", "head-2", 7)])

    def test_disk_fails(self) -> None:
        """Where a vote cannot be stored nobody is told of it, and the process ends (S16)."""
        self.clock.advance(STANDS_SECONDS)
        self.disk.fail_next("datasync", errno.EIO)
        self.council.handle(Received(B, VoteRequest(4, LogPosition(1, 5))))
        self.assertEqual(self.messages(Vote), [])
        self.assertEqual([type(error) for error in self.fatal], [DiskFailed])

    def test_shorter_log(self) -> None:
        """A vote goes only to a candidate whose log is at least as long as ours is by now."""
        self.clock.advance(STANDS_SECONDS)
        self.electorate.position = LogPosition(1, 6)
        self.council.log_moved()
        self.council.handle(Received(B, VoteRequest(4, LogPosition(1, 5))))
        self.assertEqual(self.messages(Vote), [])
        self.council.handle(Received(B, VoteRequest(4, LogPosition(1, 6))))
        self.assertEqual(len(self.messages(Vote)), 1)

    def test_stopped(self) -> None:
        """Once stopped it says nothing any more, and leaves no timer behind."""
        self.successResultOf(Deferred.fromCoroutine(self.council.stop()))
        self.clock.advance(60)
        self.council.handle(Received(B, VoteRequest(4, LogPosition(1, 5))))
        self.assertEqual(self.said, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
