"""How fast replicas are made: evenly, and slower while clients are served."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.load import CLIENTS_GONE_SECONDS, LENT_SECONDS, Meter
from filegrid.chunk.pace import YIELDING_BYTES_PER_SECOND, Pace
from filegrid.config import CRITICAL_FACTOR
from filegrid.simulation.grid import SimulatedGrid

MIB = 1024 * 1024
FAST = 1000


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        grid = SimulatedGrid(chunk_servers=1)
        machine = grid.chunk_servers[0]
        self.clock = grid.clock
        self.runtime = grid.runtime(machine.identity, machine.disk)
        self.meter = Meter(self.clock, lambda: 0.0)

    def seconds(self, pace: Pace, size: int, *, critical: bool = False) -> float:
        """How long so much takes when it comes piece by piece, as fast as it may."""
        begun = self.clock.seconds()
        for _ in range(size // (64 * 1024)):
            self.clock.advance(pace.spend(64 * 1024, critical=critical))
        return self.clock.seconds() - begun

    def test_even(self) -> None:
        """The limit holds over any time, short or long: there are no bursts."""
        pace = Pace(self.runtime, self.meter, 4)
        for _ in range(3):
            self.assertAlmostEqual(self.seconds(pace, MIB), 0.25, places=2)
            self.clock.advance(10)

    def test_critical(self) -> None:
        """Chunks on their last replica come faster."""
        pace = Pace(self.runtime, self.meter, 4)
        self.assertAlmostEqual(
            self.seconds(pace, 4 * MIB, critical=True), 1 / CRITICAL_FACTOR, places=2
        )

    def test_no_limit(self) -> None:
        """Nothing is held back."""
        with self.meter.client():
            self.assertEqual(self.seconds(Pace(self.runtime, self.meter, 0), 4 * MIB), 0)

    def test_clients_first(self) -> None:
        """While clients are served, and a moment longer, copies take no more than a part."""
        pace = Pace(self.runtime, self.meter, FAST)
        size = 16 * MIB
        with self.meter.client():
            slowly = self.seconds(pace, size)
        self.assertAlmostEqual(slowly, size / YIELDING_BYTES_PER_SECOND, 2)
        self.assertAlmostEqual(self.seconds(pace, size), slowly, 2)
        self.clock.advance(CLIENTS_GONE_SECONDS)
        self.assertAlmostEqual(self.seconds(pace, size), size / MIB / FAST, 2)

    def test_borrowed(self) -> None:
        """Who borrowed a file reads it unseen."""
        pace = Pace(self.runtime, self.meter, FAST)
        self.meter.lent()
        self.clock.advance(LENT_SECONDS / 2)
        self.assertGreater(self.seconds(pace, MIB), MIB / YIELDING_BYTES_PER_SECOND / 2)
