"""Scrubbing: the pace, the order over restarts, and the database of times."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.inventory import Inventory
from filegrid.chunk.load import Meter
from filegrid.chunk.scrub import BUSY_TRANSFERS, LATE, MOST_HURRY, ROUND, Scrub, pace
from filegrid.chunk.verified import Verifications, open_verifications
from filegrid.config import DAY_SECONDS
from filegrid.disk import RealDisk
from filegrid.errors import DiskFailed, GridError
from filegrid.model import Chunk
from filegrid.runtime import Runtime
from filegrid.simulation.clock import SimulatedClock
from filegrid.simulation.disk import SimulatedDisk
from filegrid.simulation.grid import SimulatedGrid
from tests.chunk.test_inventory import chunk

MIB = 1024 * 1024
DAYS = 0.01
DEADLINE = DAYS * DAY_SECONDS


class Pace(SynchronousTestCase):
    @settings(max_examples=100, deadline=None, database=None)
    @given(st.floats(1, 1e15), st.floats(0.1, 1e8), st.floats(0, 3))
    def test_bounds(self, cost: float, deadline: float, waited: float) -> None:
        """A round fits in the deadline; never slower than usual, never faster than allowed."""
        usual = cost / (ROUND * deadline)
        found = pace(cost_bytes=cost, deadline_seconds=deadline, waited_seconds=waited * deadline)
        self.assertTrue(usual <= found <= MOST_HURRY * usual)
        if waited < LATE:
            self.assertEqual(found, usual)


class Times(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.times = open_verifications(self.disk, "/v")

    def tearDown(self) -> None:
        self.times.close()

    def test_turns(self) -> None:
        """The one that has waited longest is next; what came, or was tried, waits from then on."""
        a, b, c = (chunk(number).id for number in (1, 2, 3))
        self.times.begin([a, b], 100)
        self.times.verified([a], 200)
        self.times.change([c], [], 150)
        order = []
        for now in (300, 400, 500):
            turn = self.times.next()
            assert turn is not None
            order.append((turn.chunk_id, turn.since_ms))
            self.times.tried(turn.chunk_id, now)
        self.assertEqual(order, [(b, 100), (c, 150), (a, 200)])
        self.assertEqual([self.times.last(one) for one in (a, b, c)], [200, 0, 0])

    def test_clock_leaps_back(self) -> None:
        """Everybody has a turn although the clock stands before what is noted."""
        ids = [chunk(number).id for number in range(3)]
        self.times.begin(ids, 1000)
        order = []
        for now in (5, 6, 7):
            turn = self.times.next()
            assert turn is not None
            order.append(turn.chunk_id)
            self.times.verified([turn.chunk_id], now)
        self.assertEqual(order, ids)

    def test_again_after_a_restart(self) -> None:
        """A restart keeps the times of what is still there, and forgets what has gone."""
        a, b, c = (chunk(number).id for number in (1, 2, 3))
        self.times.begin([a, b], 100)
        self.times.verified([a], 200)
        self.times.close()
        self.times = open_verifications(self.disk, "/v")
        self.times.begin([a, c], 1000)
        self.assertEqual([self.times.last(one) for one in (a, b, c)], [200, None, 0])

    @settings(max_examples=50, deadline=None, database=None)
    @given(st.lists(st.tuples(st.sampled_from("agv"), st.integers(0, 5))))
    def test_summary(self, steps: list[tuple[str, int]]) -> None:
        """The summary that is kept is the one that counting would give."""
        with closing(Verifications(sqlite3.connect(":memory:", isolation_level=None))) as times:
            model: dict[bytes, int] = {}
            times.begin([], 0)
            for now, (step, number) in enumerate(steps, 1):
                one = chunk(number).id
                if step == "a":
                    times.change([one], [], now)
                    model[one] = 0
                elif step == "g":
                    times.change([], [one], now)
                    model.pop(one, None)
                elif one in model:
                    times.verified([one], now)
                    model[one] = now
            found = times.summary()
            self.assertEqual(found.never, sum(not at for at in model.values()))
            self.assertEqual(found.oldest_ms, min(filter(None, model.values()), default=0))

    def test_damaged_database(self) -> None:
        """A file that is no database is begun anew: everything is due, and nothing worse."""
        path = Path(self.mktemp())
        path.write_bytes(b"not a database at all" * 300)
        with closing(open_verifications(RealDisk(), str(path.resolve()))) as times:
            times.begin([chunk(1).id], 5)
            self.assertEqual(times.summary().never, 1)


class Rounds(SynchronousTestCase):
    """Ten chunks of a MiB, on a server of its own that has a quarter of an hour."""

    def setUp(self) -> None:
        grid = SimulatedGrid(chunk_servers=1)
        self.clock: SimulatedClock = grid.clock
        self.advance: Callable[[float], None] = grid.advance
        machine = grid.chunk_servers[0]
        self.runtime: Runtime = grid.runtime(machine.identity, machine.disk)
        self.chunks = [
            Chunk(id=chunk(number).id, length=MIB, digest=chunk(number).digest)
            for number in range(10)
        ]
        self.inventory = Inventory(self.chunks)
        self.read: list[tuple[float, bytes]] = []
        self.broken = False
        self.begin()

    def begin(self) -> None:
        self.meter = Meter(self.clock, lambda: 0.0)
        self.scrub = Scrub(
            self.runtime,
            self.inventory,
            self.meter,
            days=DAYS,
            rot_found=0,
            verify=self.verify,
            open=lambda: open_verifications(self.runtime.disk, "/v"),
        )
        self.scrub.start()

    def stop(self) -> None:
        stopped = Deferred.fromCoroutine(self.scrub.stop())
        self.advance(1)
        self.successResultOf(stopped)

    def tearDown(self) -> None:
        self.stop()

    async def verify(self, chunks: Sequence[Chunk]) -> list[GridError | None]:
        self.read += [(self.clock.seconds(), one.id) for one in chunks]
        if self.broken:
            return [DiskFailed("the disk is away")] * len(chunks)
        await self.scrub.verified(chunks)
        return [None] * len(chunks)

    def test_round(self) -> None:
        """All are read within the deadline, each once, spread over it, and then again."""
        self.advance(DEADLINE)
        first_ten = self.read[:10]
        self.assertEqual({one for _, one in first_ten}, {one.id for one in self.chunks})
        gaps = [(b[0] - a[0]) / DEADLINE for a, b in pairwise(first_ten)]
        self.assertTrue(all(0.06 < gap < 0.08 for gap in gaps), gaps)
        self.assertEqual(self.scrub.report.never_verified, 0)
        self.assertLess(self.read[10][0], DEADLINE)

    def test_restart(self) -> None:
        """After a restart it goes on where it was."""
        self.advance(DEADLINE * 0.36)
        half = len(self.read)
        self.assertTrue(4 <= half <= 7, half)
        self.stop()
        self.begin()
        self.advance(DEADLINE * 0.36)
        self.assertEqual(len({one for _, one in self.read[:10]}), 10)

    def test_busy(self) -> None:
        """Under load nothing is read, until the deadline comes near: then nothing stops it."""
        self.meter.transfers = BUSY_TRANSFERS
        self.advance(DEADLINE * LATE - 10)
        self.assertEqual(self.read, [])
        self.advance(DEADLINE - self.clock.seconds() + 60)
        self.assertEqual(len({one for _, one in self.read}), 10)

    def test_comes_and_goes(self) -> None:
        """What came is read in its turn; what has gone is not."""
        self.inventory.remove(self.chunks[3].id)
        late = Chunk(id=chunk(77).id, length=MIB, digest=chunk(7).digest)
        self.inventory.add(late)
        self.inventory.condemn(self.chunks[4].id)
        self.advance(DEADLINE)
        read = [one for _, one in self.read]
        self.assertIn(late.id, read)
        self.assertNotIn(self.chunks[3].id, read)
        self.assertNotIn(self.chunks[4].id, read)
        self.assertEqual(self.scrub.report.rot_found, 1)

    def test_disk_fails(self) -> None:
        """A disk that fails blames no replica and stops no round: others have their turn."""
        self.broken = True
        self.advance(DEADLINE)
        self.assertEqual(len({one for _, one in self.read}), 10)
        self.assertEqual(self.scrub.report.never_verified, 10)
        waiting = self.scrub.last_verified_ms(self.chunks[:1])
        self.advance(1)
        self.assertEqual(self.successResultOf(waiting), [0])
