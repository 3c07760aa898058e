"""Replicas that are too many go, and replicas move to where room is; never at a risk."""

from __future__ import annotations

from filegrid.config import Balance
from filegrid.head import replica_table
from filegrid.head.service import Head
from filegrid.model import Role
from filegrid.simulation.grid import Machine
from tests.grid.case import CHUNK, GridCase, content

MIB = 1024 * 1024


class SurplusCase(GridCase):
    def replicas(self) -> int:
        """On all disks together."""
        return sum(len(self.stored_chunks(one)) for one in self.grid.chunk_servers)

    def fill(self, files: int) -> None:
        for number in range(files):
            self.put(f"/f{number}", content(CHUNK, number))

    def until(self, replicas: int, seconds: float = 90.0) -> None:
        begun = self.grid.clock.seconds()
        while self.replicas() != replicas:
            if self.grid.clock.seconds() - begun > seconds:
                self.fail(f"{self.replicas()} replicas after {seconds} s, not {replicas}")
            self.grid.advance(0.5)
            counts = self.status().chunks
            self.assertEqual(counts.healthy, counts.total)


class Surplus(SurplusCase):
    def come_back(self) -> Machine:
        """A server is away until all was made anew without it, and comes back with its data."""
        self.fill(10)
        machine = self.grid.machine("chunk-1")
        machine.kill()
        self.grid.advance(8)
        self.until_healthy(30)
        self.assertGreater(len(self.stored_chunks(machine)), 0)
        self.grid.wait(machine.start())
        return machine

    def test_server_returns(self) -> None:
        """What was made anew meanwhile is one too many when a server comes back; it goes."""
        self.come_back()
        self.until(30)
        for number in range(10):
            self.assertEqual(self.read(f"/f{number}"), content(CHUNK, number))
            self.assertEqual(len(self.holders(f"/f{number}")), 3)

    def test_damaged_meanwhile(self) -> None:
        """No replica goes while one of those that stay is bad: that is found first, and healed
        from the others."""
        self.come_back()
        for number in range(10):
            holders = self.holders(f"/f{number}")
            victim = next(name for name in holders if name != "chunk-1")
            self.flip(f"/f{number}", victim)
        self.grid.advance(120)
        self.until_healthy(30)
        for number in range(10):
            self.assertEqual(self.read(f"/f{number}"), content(CHUNK, number))
            self.assertGreaterEqual(len(self.holders(f"/f{number}")), 3)

    def test_not_before_all_reported(self) -> None:
        """While a server has not told this leader what it has, nothing is taken away (S17)."""
        self.come_back()
        self.grid.head.kill()
        self.grid.network.isolate("chunk-5")
        self.grid.wait(self.grid.head.start())
        before = self.replicas()
        self.grid.advance(4)
        self.assertEqual(self.replicas(), before)
        self.grid.network.rejoin("chunk-5")
        self.grid.advance(2)
        self.until(30)


class Uneven(SurplusCase):
    settings = {"chunk_bytes": CHUNK}
    sections = {"balance": Balance(band_percent=3)}
    chunk_servers = 4
    racks = 2

    def setUp(self) -> None:
        super().setUp()
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = (256 + 40) * MIB
        self.grid.advance(2)
        self.fill(40)
        self.grid.advance(2)

    def join(self) -> Machine:
        machine = self.grid.add_chunk_server("dc1/r1")
        machine.disk.capacity_bytes = (256 + 40) * MIB
        self.grid.wait(machine.start())
        return machine

    def spread(self) -> list[int]:
        return sorted(len(self.stored_chunks(one)) for one in self.grid.chunk_servers)

    def test_by_itself(self) -> None:
        """A new server is filled, after a while and until it is within the band; then it stops."""
        new = self.join()
        self.grid.advance(20)
        self.assertEqual(len(self.stored_chunks(new)), 0)
        self.grid.advance(90)
        self.until(120)
        work = [one.kind for one in self.status().work]
        self.assertEqual(work, [])
        mean = 120 / 5
        band = 0.03 * 160  # of 160 chunks that a server has room for
        for count in self.spread():
            self.assertLessEqual(abs(count - mean), band + 1)
        settled = self.spread()
        self.grid.advance(120)
        self.assertEqual(self.spread(), settled)
        for number in range(40):
            self.assertEqual(self.read(f"/f{number}"), content(CHUNK, number))
            self.assertEqual(len(self.holders(f"/f{number}")), 3)

    def test_ordered(self) -> None:
        """An operator need not wait; the status shows how far it is."""
        new = self.join()
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(operator.balance())
        (work,) = self.status().work
        self.assertEqual(work.kind, "balance")
        self.assertGreater(work.bytes_left, 0)
        self.grid.advance(12)
        self.assertGreater(len(self.stored_chunks(new)), 10)
        self.run_(operator.close())
        self.until(120)

    def test_nothing_can_move(self) -> None:
        """Where racks and replicas allow no move, it ends all the same, and says so."""
        self.patch(replica_table, "ROWS_A_LOOK", 10)
        self.patch(replica_table, "MOST_ROWS", 8)
        for machine in self.grid.chunk_servers[1:]:
            machine.disk.capacity_bytes = (256 + 300) * MIB
        for number in range(40):
            self.run_(self.client.remove(f"/f{number}", now=True))
        self.grid.machine("chunk-4").kill()
        self.grid.advance(15)
        self.fill(40)
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(operator.balance())
        self.run_(operator.close())
        self.assertEqual([one.kind for one in self.status().work], ["balance"])
        self.grid.advance(20)
        self.assertEqual([one.kind for one in self.status().work], [])

    def test_back_a_moment_ago(self) -> None:
        """Chunks may be moved from servers at which repair has not looked since they came."""
        self.join()
        self.grid.advance(2)
        head = self.grid.head.node
        assert isinstance(head, Head) and head._reign is not None
        head._reign._balance.start()
        head._reign._repair.work.clear()
        head._reign._balance.turn()
        self.assertGreater(len(head._reign._repair.running), 0)
        self.grid.advance(30)
        self.until(120)

    def test_interrupted(self) -> None:
        """A server that dies in the middle of it leaves no chunk with too few replicas for long."""
        new = self.join()
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(operator.balance())
        self.run_(operator.close())
        self.grid.advance(1.2)
        new.kill()
        self.grid.advance(8)
        self.until_healthy(30)
        for number in range(40):
            self.assertEqual(self.read(f"/f{number}"), content(CHUNK, number))
