"""Tests for :mod:`filegrid.head.ledger`."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial import unittest

from filegrid.errors import Busy, DiskFailed, GridError, NotLeader, Unavailable
from filegrid.head import ledger as ledger_module
from filegrid.head.headlog import HeadLog
from filegrid.head.journal import Journal, LogSizes
from filegrid.head.ledger import Ledger
from filegrid.head.namespace import Namespace
from filegrid.model import Epoch
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from filegrid.simulation.disk import SimulatedDisk
from tests.head.lanes import SteppedThreads, runtime_of


class LedgerTestCase(unittest.SynchronousTestCase):
    """A head that is its own majority: what is durable is committed."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.disk.make_folders("/node")
        self.clock = Clock()
        self.sizes = LogSizes()
        self.fatal: list[GridError] = []
        self.groups: list[list[int]] = []
        self.start(epoch=1)
        self.propose(create_grid=journal.CreateGrid(grid_id="g", lineage=1))
        self.session = self.propose(open_session=wire.OpenSession()).session
        self.groups.clear()

    def start(self, *, epoch: int) -> None:
        self.threads = SteppedThreads()
        self.journal = Journal.open(self.disk, "/node/log", self.sizes)
        self.namespace = Namespace(self.disk.database("/node/names.db"))
        runtime = runtime_of(self.clock, self.disk, self.threads)
        self.log = HeadLog(
            runtime,
            self.journal,
            self.namespace,
            on_applied=self.on_applied,
            on_fatal=self.fatal.append,
        )
        self.majority = True
        self.log.moved = self.count
        self.successResultOf(Deferred.fromCoroutine(self.log.start()))
        self.ledger = Ledger(runtime, self.log, epoch=Epoch(epoch), node="head-1")
        started = Deferred.fromCoroutine(self.ledger.start())
        self.clock.advance(0)
        self.successResultOf(started)

    def count(self) -> None:
        if self.majority:
            self.log.commit_to(self.log.position.index)

    def on_applied(
        self, entries: Sequence[journal.Entry], outcomes: Sequence[journal.Outcome]
    ) -> None:
        self.assertEqual(len(entries), len(outcomes))
        self.groups.append([entry.index for entry in entries])
        if hasattr(self, "ledger"):
            self.ledger.applied(entries, outcomes)

    def command(self, sequence: int, path: str = "") -> journal.Command:
        return journal.Command(
            once=wire.Once(session=self.session, sequence=sequence),
            make_folder=wire.MakeFolder(path=path or f"/{sequence}"),
        )

    def begin(self, command: journal.Command) -> Deferred[journal.Outcome]:
        """In a turn of its own."""
        proposed = Deferred.fromCoroutine(self.ledger.propose(command))
        self.clock.advance(0)
        return proposed

    def propose(self, **change: object) -> journal.Outcome:
        command = journal.Command(**change)  # type: ignore[arg-type]  # one field of many kinds
        return self.successResultOf(self.begin(command))


class Groups(LedgerTestCase):
    def test_barrier_first(self) -> None:
        """A reign begins with a barrier of its own epoch (S4)."""
        entry = self.journal.read(1, 1)[0]
        self.assertEqual((entry.epoch, entry.index), (1, 1))
        self.assertEqual(entry.command.barrier.leader, "head-1")
        self.assertEqual(self.log.commit_index, 3)

    def test_turn(self) -> None:
        """What comes in one turn becomes one group, also where nothing is being written."""
        proposed = [
            Deferred.fromCoroutine(self.ledger.propose(self.command(sequence)))
            for sequence in range(1, 4)
        ]
        self.clock.advance(0)
        for one in proposed:
            self.successResultOf(one)
        self.assertEqual(self.groups, [[4, 5, 6]])

    def test_group(self) -> None:
        """What comes while the log is being written becomes one group."""
        self.threads.stepped = True
        first = self.begin(self.command(1))
        others = [self.begin(self.command(sequence)) for sequence in range(2, 10)]
        self.threads.step("journal")
        self.assertNoResult(first)
        self.threads.step("state")
        self.assertEqual(self.successResultOf(first).node.path, "/1")
        self.threads.step("journal")
        self.threads.step("state")
        paths = [self.successResultOf(other).node.path for other in others]
        self.assertEqual(paths, [f"/{sequence}" for sequence in range(2, 10)])
        self.assertEqual(self.groups, [[4], [*range(5, 13)]])

    def test_pipeline(self) -> None:
        """Groups are written while those before them are applied, and applied in their order."""
        self.threads.stepped = True
        first = self.begin(self.command(1))
        second = self.begin(self.command(2))
        self.threads.step("journal")
        self.assertEqual((self.threads.waiting("journal"), self.threads.waiting("state")), (1, 1))
        self.threads.step("journal")
        third = self.begin(self.command(3))
        self.assertEqual((self.threads.waiting("journal"), self.threads.waiting("state")), (1, 1))
        self.threads.step("state")
        self.successResultOf(first)
        self.assertNoResult(second)
        self.threads.step("state")
        self.successResultOf(second)
        self.assertNoResult(third)
        self.threads.step("journal")
        self.threads.step("state")
        self.successResultOf(third)

    def test_bounded_groups(self) -> None:
        """A group ends with the entry that fills it, by number or by bytes."""
        self.patch(ledger_module, "MOST_GROUP_ENTRIES", 3)
        self.patch(ledger_module, "MOST_GROUP_BYTES", 1000)
        self.threads.stepped = True
        for sequence in range(1, 9):
            self.begin(self.command(sequence, "/" + "x" * (1000 if sequence == 6 else 10)))
        for _ in range(4):
            self.threads.step("journal")
            self.threads.step("state")
        self.assertEqual(self.groups, [[4], [5, 6, 7], [8, 9], [10, 11]])

    def test_busy(self) -> None:
        """Above a number of waiting changes callers are told when to come back (S23)."""
        self.patch(ledger_module, "MOST_WAITING", 3)
        self.threads.stepped = True
        for sequence in range(1, 5):  # one is being written, three wait
            self.begin(self.command(sequence))
        error = self.failureResultOf(self.begin(self.command(5)), Busy).value
        self.assertGreater(error.retry_after_seconds, 0)

    def test_withdrawn(self) -> None:
        """A change whose caller has gone is not begun, unless it is on its way already."""
        self.threads.stepped = True
        first, second = self.begin(self.command(1)), self.begin(self.command(2))
        third = self.begin(self.command(3))
        for gone in (first, second):
            gone.cancel()
            self.failureResultOf(gone)
        for _ in range(2):
            self.threads.step("journal")
            self.threads.step("state")
        self.successResultOf(third)
        self.assertEqual(self.groups, [[4], [5]])
        self.assertEqual(self.namespace.stat("/1").path, "/1")

    def test_again(self) -> None:
        """A retry of a change is applied once, and gets the same answer (S10)."""
        first = self.successResultOf(self.begin(self.command(1)))
        self.assertEqual(self.successResultOf(self.begin(self.command(1))), first)
        fault = self.successResultOf(self.begin(self.command(2, "/1")))
        self.assertEqual(fault.fault.code, wire.ERROR_CODE_ALREADY_EXISTS)


class Times(LedgerTestCase):
    def test_log_time(self) -> None:
        """Log time advances by what has elapsed, and goes on from there in the next reign (S9)."""
        self.clock.advance(2.5)
        self.successResultOf(self.begin(self.command(1)))
        self.clock.advance(1)
        self.assertEqual(self.ledger.log_time_ms, 3500)
        self.disk.crash()
        self.clock = Clock()
        self.clock.advance(1e6)
        self.start(epoch=2)
        self.assertEqual(self.ledger.log_time_ms, 2500)
        self.clock.advance(0.25)
        self.successResultOf(self.begin(self.command(2)))
        command = self.journal.read(self.journal.last_index, 1)[0].command
        self.assertEqual((command.log_time_ms, command.wall_ms), (2750, 10**12))


class Restarts(LedgerTestCase):
    def test_roll_forward(self) -> None:
        """What the log has and the state has not is applied at the start (S8)."""
        self.threads.stepped = True
        lost = self.begin(self.command(1))
        self.threads.step("journal")
        self.disk.crash()
        self.assertNoResult(lost)
        self.threads.stepped = False
        self.start(epoch=2)
        self.assertEqual(self.namespace.stat("/1").path, "/1")
        self.assertEqual(self.namespace.registers().applied_epoch, 2)
        self.assertEqual(self.successResultOf(self.begin(self.command(1))).node.path, "/1")

    def test_checkpoint(self) -> None:
        """The log is cut below what was made durable without it, and nothing is lost (S8)."""
        self.sizes = LogSizes(segment_bytes=64, checkpoint_entries=20)
        self.start(epoch=2)
        for sequence in range(1, 31):
            self.successResultOf(self.begin(self.command(sequence)))
        self.assertGreater(self.journal.first_index, 10)
        self.disk.crash()
        self.start(epoch=3)
        self.assertEqual(len(self.namespace.list_folder("/", "", 100)[0]), 30)


class Ends(LedgerTestCase):
    def end(self) -> None:
        self.ledger.end(NotLeader("this head leads no more"))

    def test_waiting(self) -> None:
        """What was not begun when the reign ended is refused for sure; nothing more is taken."""
        self.ledger.pause()
        waiting = [self.begin(self.command(sequence)) for sequence in range(1, 4)]
        self.assertNoResult(waiting[0])
        self.end()
        for one in waiting:
            self.failureResultOf(one, NotLeader)
        self.failureResultOf(self.begin(self.command(9)), NotLeader)
        self.assertEqual(self.log.last_index, 3)
        self.successResultOf(Deferred.fromCoroutine(self.ledger.drained()))

    def test_in_the_log(self) -> None:
        """What is in the log may yet be committed, and its callers are told no less than that."""
        self.majority = False
        change = self.begin(self.command(1))
        self.assertNoResult(change)
        self.end()
        error = self.failureResultOf(change, Unavailable).value
        self.assertNotIsInstance(error, NotLeader)
        self.assertIn("may be in the log", str(error))
        self.log.commit_to(4)  # by the next leader
        self.assertEqual(self.namespace.stat("/1").path, "/1")

    def test_being_written(self) -> None:
        """What is on its way to the disk is in the log for all that anybody knows."""
        self.threads.stepped = True
        written, waiting = self.begin(self.command(1)), self.begin(self.command(2))
        self.end()
        self.assertNotIsInstance(self.failureResultOf(written, Unavailable).value, NotLeader)
        self.failureResultOf(waiting, NotLeader)
        drained = Deferred.fromCoroutine(self.ledger.drained())
        self.assertNoResult(drained)
        self.threads.step("journal")
        self.successResultOf(drained)
        self.assertEqual(self.log.last_index, 4)

    def test_twice(self) -> None:
        """A reign ends once, whatever is said afterwards; the first reason stays."""
        self.end()
        self.ledger.end(NotLeader("another reason"))
        error = self.failureResultOf(self.begin(self.command(1)), NotLeader).value
        self.assertIn("leads no more", str(error))

    def test_pause(self) -> None:
        """Pausing finishes what was begun."""
        self.threads.stepped = True
        begun, waiting = self.begin(self.command(1)), self.begin(self.command(2))
        self.ledger.pause()
        self.threads.step("journal")
        self.threads.step("state")
        self.successResultOf(begun)
        self.assertNoResult(waiting)
        self.assertEqual(self.threads.waiting("journal"), 0)

    def test_full(self) -> None:
        """With a majority cut off no more is taken than a bound (S23)."""
        self.patch(ledger_module, "MOST_UNANSWERED", 3)
        self.majority = False
        for sequence in range(1, 4):
            self.begin(self.command(sequence)).addErrback(lambda _: None)
        self.failureResultOf(self.begin(self.command(4)), Busy)

    def test_cancelled_in_the_log(self) -> None:
        """An outcome for which nobody waits any more troubles nobody."""
        self.majority = False
        change = self.begin(self.command(1))
        change.cancel()
        self.failureResultOf(change, CancelledError)
        self.log.commit_to(4)
        self.assertEqual(self.namespace.stat("/1").path, "/1")
        self.end()


class Failures(LedgerTestCase):
    def test_journal_fails(self) -> None:
        """When the log cannot be synced the head stops; each caller hears what is true (S16)."""
        self.threads.stepped = True
        written = self.begin(self.command(1))
        waiting = self.begin(self.command(2))
        self.disk.fail_next("datasync", errno.EIO)
        self.threads.step("journal")
        self.assertNotIsInstance(self.failureResultOf(written, Unavailable).value, NotLeader)
        self.failureResultOf(waiting, NotLeader)
        self.failureResultOf(self.begin(self.command(3)), NotLeader)
        self.assertEqual([type(error) for error in self.fatal], [DiskFailed])
        self.successResultOf(Deferred.fromCoroutine(self.ledger.drained()))

    def test_state_fails(self) -> None:
        """When the state cannot follow the log the head exits; nobody is told that it was done."""
        self.threads.stepped = True
        first = self.begin(self.command(1))
        self.patch(self.namespace, "apply", lambda entries: 1 // 0)
        self.threads.step("journal")
        self.threads.step("state")
        self.assertNoResult(first)
        self.assertEqual(len(self.fatal), 1)
