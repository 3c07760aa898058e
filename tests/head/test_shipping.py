"""Tests for :mod:`filegrid.head.shipping`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import cast
from unittest.mock import Mock

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial import unittest

from filegrid.election.quorum import Member
from filegrid.errors import DeadlineExceeded, GridError, Unavailable
from filegrid.head import shipping as shipping_module
from filegrid.head.headlog import HeadLog
from filegrid.head.journal import Journal
from filegrid.head.namespace import Namespace
from filegrid.head.shipping import Shipping, committed
from filegrid.head.witness import Witness
from filegrid.net.link import Link
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire.replication_pb2 import Appended, AppendEntries
from filegrid.simulation.disk import SimulatedDisk
from filegrid.simulation.process import SimulatedThreads
from tests.head.lanes import runtime_of

A, B, C, D, E = (Member(f"head-{number}", b"1") for number in range(1, 6))


class Committed(unittest.SynchronousTestCase):
    def test_majority(self) -> None:
        """Committed is what a majority of the voters holds; who is not known holds nothing."""
        three = {A, B, C}
        self.assertEqual(committed({A: 7}, {A}), 7)
        self.assertEqual(committed({A: 7}, {A, B}), 0)
        self.assertEqual(committed({A: 7, B: 5}, {A, B}), 5)
        self.assertEqual(committed({A: 7, B: 5}, three), 5)
        self.assertEqual(committed({A: 7, B: 5, C: 6}, three), 6)
        self.assertEqual(committed({A: 7, B: 5, C: 6, D: 3}, {*three, D}), 5)
        self.assertEqual(committed({A: 9, B: 8, C: 2, D: 1, E: 0}, {*three, D, E}), 2)
        self.assertEqual(committed({A: 7}, set()), 0)

    def test_no_vote(self) -> None:
        """Heads without a vote, and other incarnations, do not count (S2)."""
        another = Member(B.name, b"2")
        self.assertEqual(committed({A: 7, another: 7, D: 7}, {A, B, C}), 0)


class Head:
    """A log, on a disk and in threads of its own."""

    def __init__(self, clock: Clock, me: Member, log: Sequence[journal.Entry]) -> None:
        self.me = me
        self.fatal: list[GridError] = []
        disk = SimulatedDisk(random.Random(1))
        disk.make_folders("/node")
        opened = Journal.open(disk, "/node/log")
        if log:
            opened.append(log)
        self.namespace = Namespace(disk.database("/node/names.db"))
        self.runtime = runtime_of(clock, disk, SimulatedThreads(clock))
        self.log = HeadLog(
            self.runtime,
            opened,
            self.namespace,
            on_applied=lambda entries, outcomes: None,
            on_fatal=self.fatal.append,
        )
        self.started = Deferred.fromCoroutine(self.log.start())


class Wire:
    """What the leader sees of a link to a follower: requests are lost, answers are lost."""

    def __init__(self, clock: Clock, follower: Head) -> None:
        self.sent: list[AppendEntries] = []
        self.obeyed = True
        self.fate: Callable[[], str] = lambda: "arrives"
        self.seconds = 0.0
        self._clock = clock
        self._follower = follower

    async def call(
        self, request: Message, answer: type[Appended], *, timeout_seconds: float
    ) -> Appended:
        assert isinstance(request, AppendEntries)
        self.sent.append(request)
        fate = self.fate()
        if self.seconds:
            await deferLater(self._clock, self.seconds)
        if fate == "lost":
            raise DeadlineExceeded("no answer")
        result = await self._follower.log.follow(request, lambda: self.obeyed)
        if fate == "unanswered":
            raise Unavailable("the link was lost")
        return result


def entries(epochs: Sequence[int]) -> list[journal.Entry]:
    """Entry i has the i-th epoch, and says by whom it was made."""
    return [
        journal.Entry(
            epoch=epoch,
            index=place + 1,
            command=journal.Command(barrier=journal.Barrier(leader=f"{epoch}")),
        )
        for place, epoch in enumerate(epochs)
    ]


def configured(epochs: Sequence[int], *voters: Member) -> list[journal.Entry]:
    log = entries(epochs)
    name_voters(log[0], *voters)
    return log


def name_voters(entry: journal.Entry, *voters: Member) -> None:
    for voter in voters:
        entry.command.configure.voters.add(name=voter.name, incarnation=voter.incarnation)


class ShippingCase(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def world(
        self, ours: Sequence[journal.Entry], theirs: Sequence[journal.Entry], *, epoch: int
    ) -> None:
        self.leader = Head(self.clock, A, ours)
        self.follower = Head(self.clock, B, theirs)
        self.pass_time(1)
        self.wire = Wire(self.clock, self.follower)
        self.linked = True
        self.shipping = Shipping(
            self.leader.runtime,
            self.leader.log,
            me=A,
            epoch=epoch,
            first_index=self.leader.log.last_index + 1,
            link_to=lambda member: cast(Link, self.wire) if self.linked and member == B else None,
            install=self.install,
            witness=Mock(spec=Witness),
        )
        self.leader.log.grown = self.shipping.tell
        self.leader.log.moved = self.shipping.count

    def follow(self) -> None:
        """A leader and one other head, which has all of its log."""
        self.world(configured([1], A, B), [], epoch=1)
        self.shipping.serve({B})
        self.append(self.entry(1))
        self.pass_time(1)

    async def install(self, link: Link, epoch: int) -> int:
        raise AssertionError("the log is whole")

    def pass_time(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.calls and self.clock.calls[0].getTime() <= end:
            self.clock.advance(max(0.0, self.clock.calls[0].getTime() - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def append(self, new: Sequence[journal.Entry]) -> None:
        added = Deferred.fromCoroutine(self.leader.log.append(new, lambda: True))
        self.pass_time(0.01)
        self.successResultOf(added)

    def entry(self, epoch: int) -> list[journal.Entry]:
        barrier = journal.Command(barrier=journal.Barrier(leader=f"{epoch}"))
        index = self.leader.log.last_index + 1
        return [journal.Entry(epoch=epoch, index=index, command=barrier)]

    def whole(self, head: Head) -> list[journal.Entry]:
        async def read() -> list[journal.Entry]:
            return list(await head.log.entries_from(1, 10_000))

        reading = Deferred.fromCoroutine(read())
        self.pass_time(0.01)
        return self.successResultOf(reading)

    def finish(self) -> None:
        self.shipping.end()
        ended = Deferred.fromCoroutine(self.shipping.ended())
        self.pass_time(1)
        self.successResultOf(ended)


class Ships(ShippingCase):
    def test_commits(self) -> None:
        """An entry of its own epoch that a majority holds commits itself and all before it (S4)."""
        self.world(configured([1, 1, 2], A, B, C), [], epoch=3)
        self.shipping.serve({B, C})
        self.pass_time(1)
        self.assertEqual(self.follower.log.last_index, 3)
        self.assertEqual(self.leader.log.commit_index, 0)  # though a majority holds all of it
        self.append(self.entry(3))
        self.pass_time(0.1)
        self.assertEqual(self.leader.log.commit_index, 4)
        self.assertEqual(self.follower.log.commit_index, 4)
        self.assertEqual(self.follower.log.applied_index, 4)
        self.finish()

    def test_not_without_a_majority(self) -> None:
        """What the leader alone holds is not committed, however long it takes."""
        self.world(configured([1], A, B, C), [], epoch=2)
        self.linked = False
        self.shipping.serve({B, C})
        self.append(self.entry(2))
        self.pass_time(10)
        self.assertEqual(self.leader.log.commit_index, 0)
        self.linked = True
        self.pass_time(1)
        self.assertEqual(self.leader.log.commit_index, 2)
        self.finish()

    def test_refused_and_sent_again(self) -> None:
        """In a log with other entries the place is found from where on it is to be made ours."""
        self.world(configured([1, 1, 1, 3, 3, 3], A, B), configured([1, 1, 2, 2], A, B), epoch=4)
        self.shipping.serve({B})
        self.append(self.entry(4))
        self.pass_time(1)
        self.assertEqual(self.whole(self.follower), self.whole(self.leader))
        self.assertEqual(self.leader.log.commit_index, 7)
        self.finish()

    def test_far_behind(self) -> None:
        """One that lacks thousands of entries gets them in bounded messages, without searching."""
        self.world(configured([1] * 5000, A, B), [], epoch=1)
        self.shipping.serve({B})
        self.pass_time(2)
        self.assertEqual(self.follower.log.last_index, 5000)
        most = max(len(request.entries) for request in self.wire.sent)
        self.assertLessEqual(most, shipping_module.MOST_ENTRIES)
        self.assertLess(len(self.wire.sent), 5000 / most + 10)
        self.finish()

    def test_large_entries(self) -> None:
        """A message ends before it grows large, and has one entry at least."""
        self.patch(shipping_module, "MOST_BYTES", 100)
        self.world(configured([1] * 9, A, B), [], epoch=1)
        for one in self.whole(self.leader)[3:5]:
            one.command.barrier.leader = "x" * 200
        self.shipping.serve({B})
        self.pass_time(1)
        self.assertEqual(self.follower.log.last_index, 9)
        self.finish()

    def test_disobeyed(self) -> None:
        """What somebody who follows another answers counts for nothing."""
        self.world(configured([1], A, B), configured([1], A, B), epoch=2)
        self.wire.obeyed = False
        self.shipping.serve({B})
        self.append(self.entry(2))
        self.pass_time(1)
        self.assertEqual(self.leader.log.commit_index, 0)
        self.assertLess(len(self.wire.sent), 50)
        self.finish()

    def test_unanswered(self) -> None:
        """What came and was not answered is sent again, and is there once."""
        self.world(configured([1], A, B), [], epoch=2)
        fates = iter(["unanswered", "lost"])
        self.wire.fate = lambda: next(fates, "arrives")
        self.shipping.serve({B})
        self.append(self.entry(2))
        self.pass_time(1)
        self.assertEqual(self.whole(self.follower), self.whole(self.leader))
        self.assertEqual(self.leader.log.commit_index, 2)
        self.finish()

    def test_idle(self) -> None:
        """With nothing new, nothing is sent."""
        self.follow()
        sent = len(self.wire.sent)
        self.pass_time(60)
        self.assertEqual(len(self.wire.sent), sent)
        self.finish()

    def test_no_waiting(self) -> None:
        """An entry is on its way at once, also while a commit waits to be told."""
        self.world(configured([1], A, B), [], epoch=1)
        self.shipping.serve({B})
        self.append(self.entry(1))
        for _ in range(10):
            begun = self.clock.seconds()
            adding = Deferred.fromCoroutine(self.leader.log.append(self.entry(1), lambda: True))
            while self.leader.log.commit_index < self.leader.log.last_index:
                self.pass_time(0.0001)
            self.assertLess(self.clock.seconds() - begun, 0.002)
            self.successResultOf(adding)
        self.finish()

    def test_removed(self) -> None:
        """A head that is to have no vote any more hears of it only when that is committed."""
        self.world(configured([1], A, B, C), [], epoch=1)
        self.shipping.serve({B, C})
        self.append(self.entry(1))
        self.pass_time(1)
        without = self.entry(1)
        name_voters(without[0], A, C)
        sent = len(self.wire.sent)
        self.append(without)
        self.pass_time(60)
        self.assertEqual((self.leader.log.last_index, self.follower.log.last_index), (3, 2))
        self.assertLess(len(self.wire.sent) - sent, 5)
        self.leader.log.commit_to(3)
        self.shipping.tell()
        self.pass_time(1)
        self.assertEqual(self.follower.log.last_index, 3)
        self.assertEqual(self.follower.log.commit_index, 3)
        self.finish()

    def test_new_head_before_any_commit(self) -> None:
        """An empty head without a vote waits for the first commit of a reign, quietly."""
        self.world(configured([1], A, C), [], epoch=2)
        self.shipping.serve({B, C})
        self.append(self.entry(2))
        self.pass_time(10)
        self.assertEqual(self.follower.log.last_index, 0)
        self.assertLess(len(self.wire.sent), 5)
        self.finish()

    def test_far_away(self) -> None:
        """Entries do not wait for the answers to those before; a few messages are on their way."""
        self.follow()
        self.wire.seconds = 1.0
        sent = len(self.wire.sent)
        first = self.leader.log.last_index
        for _ in range(6):
            self.append(self.entry(1))
        self.assertEqual(len(self.wire.sent) - sent, shipping_module.MOST_UNANSWERED)
        self.pass_time(1)
        self.assertEqual(self.leader.log.commit_index, first + shipping_module.MOST_UNANSWERED)
        self.pass_time(1.1)
        self.assertEqual(self.leader.log.commit_index, first + 6)
        self.finish()

    def test_lost_on_the_way(self) -> None:
        """Where one of several messages is lost, all from it on are sent again."""
        self.follow()
        self.wire.seconds = 1.0
        fates = iter(["arrives", "lost", "arrives", "unanswered"])
        self.wire.fate = lambda: next(fates, "arrives")
        for _ in range(6):
            self.append(self.entry(1))
        self.pass_time(10)
        self.assertEqual(self.whole(self.follower), self.whole(self.leader))
        self.assertEqual(self.leader.log.commit_index, self.leader.log.last_index)
        self.finish()

    def test_after_the_end(self) -> None:
        """Once the reign has ended nothing is sent, and nothing more is committed by it."""
        self.world(configured([1], A, B), [], epoch=2)
        self.linked = False
        self.shipping.serve({B})
        self.append(self.entry(2))
        self.shipping.end()
        self.linked = True
        self.pass_time(1)
        self.assertEqual(self.wire.sent, [])
        self.shipping.count()
        self.assertEqual(self.leader.log.commit_index, 0)
        self.finish()

    def test_end_while_reading(self) -> None:
        """What is read while the reign ends is not sent: it may be of two logs."""
        self.world(configured([1] * 3, A, B), [], epoch=2)
        self.leader.log._recent.clear()  # so that the log is read from the disk
        self.shipping.serve({B})
        self.shipping.end()
        self.pass_time(1)
        self.assertEqual(self.wire.sent, [])
        self.finish()

    def test_one_that_is_served_no_more(self) -> None:
        """A head that has left gets nothing, and can come back."""
        self.world(configured([1], A, B), [], epoch=1)
        self.shipping.serve({B})
        self.pass_time(1)
        self.shipping.serve(set())
        self.append(self.entry(1))
        self.pass_time(1)
        self.assertEqual(self.follower.log.last_index, 1)
        self.assertEqual(self.shipping.matched(B), 0)
        self.shipping.serve({B})
        self.pass_time(1)
        self.assertEqual(self.follower.log.last_index, 2)
        self.finish()


class AnyLogs(ShippingCase):
    @settings(max_examples=40, deadline=None, database=None)
    @given(
        shared=st.integers(1, 6),
        ours=st.lists(st.integers(2, 6), max_size=8),
        theirs=st.lists(st.integers(2, 6), max_size=8),
        seconds=st.sampled_from((0.0, 0.1)),
        seed=st.integers(0, 2**16),
    )
    def test_alike(
        self, shared: int, ours: list[int], theirs: list[int], seconds: float, seed: int
    ) -> None:
        """Whatever two logs hold, and whatever is lost, the follower's becomes the leader's."""
        rng = random.Random(seed)
        # Each epoch has one leader, whose entries are the same everywhere: even ones are ours.
        mine = configured([1] * shared + sorted(epoch * 2 for epoch in ours), A, B)
        other = configured([1] * shared + sorted(epoch * 2 + 1 for epoch in theirs), A, B)
        self.world(mine, other, epoch=20)
        self.wire.fate = lambda: rng.choice(("arrives", "arrives", "lost", "unanswered"))
        self.wire.seconds = seconds
        self.shipping.serve({B})
        for _ in range(6):
            self.append(self.entry(20))
        self.pass_time(20)
        self.assertEqual(self.whole(self.follower), self.whole(self.leader))
        self.assertEqual(self.leader.log.commit_index, self.leader.log.last_index)
        self.assertEqual(self.follower.log.applied_index, self.leader.log.last_index)
        self.assertEqual([*self.leader.fatal, *self.follower.fatal], [])
        self.finish()
