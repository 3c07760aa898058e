"""Events, each once and in order."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.chronicle import Chronicle
from filegrid.protocol.wire.health_pb2 import Event


def election(epoch: int, at_ms: int) -> Event:
    return Event(kind=Event.KIND_ELECTION, epoch=epoch, node="head-1", at_ms=at_ms)


def verdict(epoch: int, at_ms: int) -> Event:
    return Event(kind=Event.KIND_VERDICT, epoch=epoch, node="head-1", at_ms=at_ms)


class Chronicles(SynchronousTestCase):
    def test_once(self) -> None:
        """An election that two have noted is one event, a second verdict in an epoch another."""
        chronicle = Chronicle(most=10)
        self.assertTrue(chronicle.add(election(1, 1000)))
        self.assertFalse(chronicle.add(election(1, 1100)))
        self.assertTrue(chronicle.add(verdict(1, 2000)))
        self.assertFalse(chronicle.add(verdict(1, 2000)))
        self.assertTrue(chronicle.add(verdict(1, 9000)))
        self.assertEqual([one.at_ms for one in chronicle.events], [1000, 2000, 9000])

    def test_order_and_bound(self) -> None:
        """The oldest comes first, and goes first."""
        chronicle = Chronicle((election(n, 1000 * n) for n in (3, 1, 2, 5, 4)), most=3)
        self.assertEqual([one.epoch for one in chronicle.events], [3, 4, 5])

    def test_last_verdict(self) -> None:
        """The newest verdict is known, in whatever order they came."""
        chronicle = Chronicle([verdict(2, 2000), election(3, 3000), verdict(1, 1000)], most=10)
        self.assertEqual(chronicle.last_verdict, verdict(2, 2000))
        self.assertIsNone(Chronicle(most=3).last_verdict)
