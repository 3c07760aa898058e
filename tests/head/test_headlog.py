"""Tests for :mod:`filegrid.head.headlog`."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial import unittest

from filegrid.election.messages import LogPosition
from filegrid.election.quorum import Member
from filegrid.errors import DiskFailed, GridError, NotLeader
from filegrid.head.headlog import HeadLog
from filegrid.head.journal import Journal, LogSizes
from filegrid.head.namespace import Namespace
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire.replication_pb2 import Appended, AppendEntries
from filegrid.simulation.disk import SimulatedDisk
from tests.head.lanes import SteppedThreads, runtime_of

A, B, C = (Member(name, b"1") for name in ("head-1", "head-2", "head-3"))


def yes() -> bool:
    return True


def entries(first: int, last: int, epoch: int = 1) -> list[journal.Entry]:
    command = journal.Command(barrier=journal.Barrier(leader=f"of {epoch}"), log_time_ms=first)
    return [
        journal.Entry(epoch=epoch, index=index, command=command) for index in range(first, last + 1)
    ]


def configure(index: int, epoch: int, *members: Member) -> journal.Entry:
    voters = [journal.Voter(name=one.name, incarnation=one.incarnation) for one in members]
    command = journal.Command(configure=journal.Configure(voters=voters))
    return journal.Entry(epoch=epoch, index=index, command=command)


def message(
    prev: int, prev_epoch: int, new: Sequence[journal.Entry] = (), commit: int = 0
) -> AppendEntries:
    return AppendEntries(
        epoch=9, prev_index=prev, prev_epoch=prev_epoch, entries=new, commit_index=commit
    )


class HeadLogTestCase(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.disk.make_folders("/node")
        self.sizes = LogSizes()
        self.fatal: list[GridError] = []
        self.applied: list[int] = []
        self.start()

    def start(self) -> None:
        self.threads = SteppedThreads()
        self.journal = Journal.open(self.disk, "/node/log", self.sizes)
        self.namespace = Namespace(self.disk.database("/node/names.db"))
        self.log = HeadLog(
            runtime_of(Clock(), self.disk, self.threads),
            self.journal,
            self.namespace,
            on_applied=lambda entries, _: self.applied.extend(entry.index for entry in entries),
            on_fatal=self.fatal.append,
        )
        self.successResultOf(Deferred.fromCoroutine(self.log.start()))

    def restart(self) -> None:
        self.disk.crash()
        self.start()

    def begin(self, request: AppendEntries, obeys: Callable[[], bool] = yes) -> Deferred[Appended]:
        return Deferred.fromCoroutine(self.log.follow(request, obeys))

    def follow(self, request: AppendEntries, obeys: Callable[[], bool] = yes) -> Appended:
        return self.successResultOf(self.begin(request, obeys))

    def accept(self, request: AppendEntries) -> int:
        answer = self.follow(request)
        self.assertTrue(answer.accepted and answer.obeyed)
        return answer.last_index

    def refuse(self, request: AppendEntries) -> int:
        """Where to try again."""
        answer = self.follow(request)
        self.assertEqual((answer.accepted, answer.obeyed), (False, True))
        return answer.last_index

    def epochs(self) -> list[int]:
        """Of all entries, as a reader of the log finds them, in memory and on disk."""
        found = self.successResultOf(Deferred.fromCoroutine(self.log.entries_from(1, 1000)))
        stored = self.journal.read(1, 1000)
        self.assertEqual([one.epoch for one in found], [one.epoch for one in stored])
        self.assertEqual([one.index for one in found], [*range(1, len(found) + 1)])
        self.assertEqual(self.log.last_index, len(found))
        self.assertEqual(self.log.last_epoch, found[-1].epoch if found else 0)
        self.assertEqual(self.log.position, LogPosition(self.log.last_epoch, self.log.last_index))
        return [one.epoch for one in found]


class Following(HeadLogTestCase):
    def test_taken(self) -> None:
        """What fits is on stable storage when it is acknowledged, and applied once committed."""
        self.assertEqual(self.accept(message(0, 0, entries(1, 3))), 3)
        self.assertEqual(self.accept(message(3, 1, entries(4, 5), commit=2)), 5)
        self.assertEqual(self.applied, [1, 2])
        self.restart()
        self.assertEqual(self.epochs(), [1] * 5)
        self.assertEqual(self.log.commit_index, 2)
        self.assertEqual(self.accept(message(5, 1, commit=5)), 5)
        self.assertEqual(self.applied, [1, 2, 3, 4, 5])

    def test_acknowledged_when_durable(self) -> None:
        """Nothing is acknowledged, nor offered to elections, before it is on stable storage."""
        self.threads.stepped = True
        answer = self.begin(message(0, 0, entries(1, 3), commit=3))
        again = self.begin(message(0, 0, entries(1, 3), commit=3))
        self.assertNoResult(answer)
        self.assertNoResult(again)
        self.assertEqual(self.log.position, LogPosition())
        self.threads.step("journal")
        self.assertTrue(self.successResultOf(answer).accepted)
        self.assertTrue(self.successResultOf(again).accepted)
        self.assertEqual(self.log.position, LogPosition(1, 3))

    def test_gap(self) -> None:
        """What would leave a gap is refused, with the end of the log as the place to go on."""
        self.accept(message(0, 0, entries(1, 3)))
        self.assertEqual(self.refuse(message(7, 1, entries(8, 9), commit=9)), 3)
        self.assertEqual(self.epochs(), [1] * 3)
        self.assertEqual(self.log.commit_index, 0)

    def test_other_entry_before(self) -> None:
        """What follows another entry than ours is refused; the place to go on is before that."""
        self.accept(message(0, 0, entries(1, 5)))
        self.assertEqual(self.refuse(message(5, 2, entries(6, 6, 2))), 4)
        self.assertEqual(self.refuse(message(4, 2, entries(5, 6, 2))), 3)
        self.assertEqual(self.epochs(), [1] * 5)

    def test_committed_before(self) -> None:
        """Below what is committed there is no need to go back: all logs are alike there."""
        self.accept(message(0, 0, entries(1, 5), commit=4))
        self.assertEqual(self.refuse(message(5, 2, entries(6, 6, 2))), 4)
        self.assertEqual(self.accept(message(2, 1, entries(3, 4) + entries(5, 6, 2))), 6)
        self.assertEqual(self.epochs(), [1, 1, 1, 1, 2, 2])

    def test_conflict(self) -> None:
        """What another leader had sent gives way, with all that came after it."""
        self.accept(message(0, 0, entries(1, 9)))
        self.assertEqual(self.accept(message(5, 1, entries(6, 7, 2))), 7)
        self.assertEqual(self.epochs(), [1] * 5 + [2] * 2)
        self.restart()
        self.assertEqual(self.epochs(), [1] * 5 + [2] * 2)

    def test_conflict_in_the_middle(self) -> None:
        """Of one message the known part stays, and the rest takes the place of what was there."""
        self.accept(message(0, 0, [*entries(1, 4), *entries(5, 9, 2)]))
        newer = [*entries(3, 4), *entries(5, 6, 2), *entries(7, 8, 3)]
        self.assertEqual(self.accept(message(2, 1, newer)), 8)
        self.assertEqual(self.epochs(), [1] * 4 + [2] * 2 + [3] * 2)

    def test_conflict_with_all(self) -> None:
        """A log of which nothing was committed may be replaced from its first entry on."""
        self.accept(message(0, 0, entries(1, 4)))
        self.assertEqual(self.accept(message(0, 0, entries(1, 2, 2))), 2)
        self.assertEqual(self.epochs(), [2, 2])
        self.restart()
        self.assertEqual(self.epochs(), [2, 2])

    def test_repeated(self) -> None:
        """A message that comes twice is acknowledged twice, and written once."""
        again = message(1, 1, entries(2, 4), commit=3)
        self.accept(message(0, 0, entries(1, 1)))
        self.accept(again)
        self.patch(self.journal, "append", self.fail)
        self.assertEqual(self.accept(again), 4)
        self.assertEqual(self.applied, [1, 2, 3])

    def test_late(self) -> None:
        """An older message after a newer one takes nothing back."""
        self.accept(message(0, 0, entries(1, 6), commit=5))
        self.assertEqual(self.accept(message(0, 0, entries(1, 2), commit=1)), 2)
        self.assertEqual(self.accept(message(3, 1)), 3)
        self.assertEqual(self.epochs(), [1] * 6)
        self.assertEqual(self.log.commit_index, 5)

    def test_commit_beyond_what_came(self) -> None:
        """What lies behind the message's end may be another leader's, and is not committed."""
        self.accept(message(0, 0, entries(1, 6)))
        self.accept(message(0, 0, entries(1, 2), commit=6))
        self.assertEqual(self.applied, [1, 2])
        self.accept(message(4, 1, commit=6))
        self.assertEqual(self.applied, [1, 2, 3, 4])

    def test_beyond_memory(self) -> None:
        """Conflicts are found and settled in what is no longer held in memory, too."""
        self.sizes = LogSizes(recent_entries=2)
        self.start()
        self.accept(message(0, 0, entries(1, 9)))
        self.assertEqual(self.refuse(message(4, 2, entries(5, 5, 2))), 3)
        self.assertEqual(self.accept(message(3, 1, entries(4, 5, 2))), 5)
        self.assertEqual(self.epochs(), [1, 1, 1, 2, 2])


class Disobeying(HeadLogTestCase):
    def test_at_once(self) -> None:
        """Entries of somebody who does not lead are not even looked at."""
        self.assertFalse(self.follow(message(0, 0, entries(1, 3)), lambda: False).obeyed)
        self.assertEqual(self.epochs(), [])

    def test_while_it_is_written(self) -> None:
        """Who votes for another while entries are being written acknowledges them no more."""
        obeyed = True
        self.threads.stepped = True
        answer = self.begin(message(0, 0, entries(1, 3), commit=3), lambda: obeyed)
        obeyed = False
        self.threads.step("journal")
        self.assertEqual(self.successResultOf(answer), Appended())
        self.threads.stepped = False
        self.assertEqual(self.epochs(), [1] * 3)
        self.assertEqual(self.log.commit_index, 0)

    def test_while_it_is_read(self) -> None:
        """Who comes to lead while it looks into its log changes nothing in it any more."""

        def obeys() -> bool:
            return obeyed

        self.sizes = LogSizes(recent_entries=1)
        self.start()
        self.accept(message(0, 0, entries(1, 9)))
        obeyed = True
        for request in (
            message(6, 1, entries(7, 11)),
            message(6, 1, entries(7, 8, 2)),
            message(6, 2, entries(7, 8, 2)),
        ):
            obeyed = True
            self.threads.stepped = True
            answer = self.begin(request, obeys)
            self.threads.step("journal")
            obeyed = False
            while self.threads.waiting("journal"):
                self.threads.step("journal")
            self.assertFalse(self.successResultOf(answer).accepted)
            self.threads.stepped = False
            self.assertEqual(self.epochs(), [1] * 9)

    def test_while_it_is_cut(self) -> None:
        """Who comes to lead while its log is being cut adds nothing of another's to it."""
        self.accept(message(0, 0, entries(1, 9)))
        obeyed = True
        self.threads.stepped = True
        answer = self.begin(message(6, 1, entries(7, 8, 2)), lambda: obeyed)
        self.assertEqual(self.log.position, LogPosition(1, 6))
        obeyed = False
        self.threads.step("journal")
        self.assertEqual(self.successResultOf(answer), Appended())
        self.threads.stepped = False
        self.assertEqual(self.epochs(), [1] * 6)


class Leading(HeadLogTestCase):
    def append(
        self, new: Sequence[journal.Entry], leads: Callable[[], bool] = yes
    ) -> Deferred[None]:
        return Deferred.fromCoroutine(self.log.append(new, leads))

    def test_shipped_before_durable(self) -> None:
        """Entries can be shipped while they are written, and count here only afterwards."""
        grown: list[int] = []
        self.log.grown = lambda: grown.append(self.log.last_index)
        self.threads.stepped = True
        added = self.append(entries(1, 3))
        self.assertEqual(grown, [3])
        self.assertEqual(self.log.position, LogPosition())
        shipped = self.successResultOf(Deferred.fromCoroutine(self.log.entries_from(1, 9)))
        self.assertEqual(len(shipped), 3)
        self.log.commit_to(3)  # by the others alone
        self.threads.step("journal")
        self.successResultOf(added)
        self.assertEqual(self.log.position, LogPosition(1, 3))
        self.threads.step("state")
        self.assertEqual(self.applied, [1, 2, 3])

    def test_after_the_reign(self) -> None:
        """What was numbered in a reign that has ended does not come into the log any more.

        Not even where its number fits: the entry before it may be another leader's by now.
        """
        self.successResultOf(self.append(entries(1, 4)))
        leads = True
        self.threads.stepped = True
        following = self.begin(message(3, 1, entries(4, 4, 2)))
        waiting = self.append(entries(5, 5), lambda: leads)
        leads = False
        self.threads.step("journal")
        self.threads.step("journal")
        self.successResultOf(following)
        self.failureResultOf(waiting, NotLeader)
        self.threads.stepped = False
        self.assertEqual(self.epochs(), [1, 1, 1, 2])
        self.failureResultOf(self.append(entries(7, 7)), NotLeader)

    def test_log_time(self) -> None:
        """A new leader goes on from the log's time, also in what is not applied yet (S9)."""
        self.accept(message(0, 0, [*entries(1, 3), *entries(40, 40)][:3]))
        time = self.successResultOf(Deferred.fromCoroutine(self.log.last_log_time_ms()))
        self.assertEqual(time, 1)
        late = journal.Entry(epoch=1, index=4, command=journal.Command(log_time_ms=700))
        self.accept(message(3, 1, [late]))
        time = self.successResultOf(Deferred.fromCoroutine(self.log.last_log_time_ms()))
        self.assertEqual(time, 700)


class Configurations(HeadLogTestCase):
    def test_newest(self) -> None:
        """The newest configuration in the log counts, committed or not, also after a restart."""
        self.assertEqual(self.log.voters, frozenset())
        self.accept(message(0, 0, [configure(1, 1, A), *entries(2, 3), configure(4, 1, A, B)]))
        self.assertEqual(self.log.voters, {A, B})
        self.assertEqual(self.log.configuration_index, 4)
        self.restart()
        self.assertEqual(self.log.voters, {A, B})

    def test_taken_back(self) -> None:
        """With the entry that made it, a configuration goes, and the one before it is back."""
        moved: list[frozenset[Member]] = []
        self.accept(message(0, 0, [configure(1, 1, A, B), *entries(2, 2)], commit=1))
        self.accept(message(2, 1, [configure(3, 1, A, B, C), *entries(4, 4)]))
        self.assertEqual(self.log.voters, {A, B, C})
        self.log.moved = lambda: moved.append(self.log.voters)
        self.accept(message(2, 1, entries(3, 3, 2)))
        self.assertEqual(self.log.voters, {A, B})
        self.assertEqual(self.log.configuration_index, 1)
        self.assertEqual(moved[0], {A, B})
        self.restart()
        self.assertEqual(self.log.voters, {A, B})


class Failing(HeadLogTestCase):
    def test_sync(self) -> None:
        """A head whose log cannot be synced acknowledges nothing any more, and exits (S16)."""
        self.accept(message(0, 0, entries(1, 2)))
        self.disk.fail_next("datasync", errno.EIO)
        self.failureResultOf(self.begin(message(2, 1, entries(3, 3))), DiskFailed)
        self.failureResultOf(self.begin(message(2, 1, entries(3, 4))), DiskFailed)
        self.assertEqual([type(error) for error in self.fatal], [DiskFailed])
        self.assertEqual(self.log.position, LogPosition(1, 2))

    def test_state(self) -> None:
        """A head whose state cannot follow its log exits."""
        self.patch(self.namespace, "apply", lambda entries: 1 // 0)
        self.accept(message(0, 0, entries(1, 2), commit=2))
        self.assertEqual(len(self.fatal), 1)
