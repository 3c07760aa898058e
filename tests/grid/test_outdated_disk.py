"""A head whose disk comes back as it was before."""

from __future__ import annotations

from filegrid.errors import OutdatedDisk
from filegrid.simulation.grid import Machine
from filegrid.simulation.inode import Folder
from tests.grid.heads import HeadsCase

LEASE_SECONDS = 1.0


class Outdated(HeadsCase):
    def change(self, count: int) -> None:
        for _ in range(count):
            self.made = getattr(self, "made", 0) + 1
            self.run_(self.client.mkdir(f"/{self.made}"))
        self.grid.advance(0.5)  # until all know that it is committed

    def go_back(self, machine: Machine, image: Folder) -> None:
        machine.kill()
        machine.disk.put_back(image)
        self.grid.wait(machine.start())

    def assertRefused(self, machine: Machine) -> None:
        """It ends, by an error that says what to do, before it can have voted."""
        begun = self.grid.clock.seconds()
        self.until(lambda: machine.node is None)
        self.assertLess(self.grid.clock.seconds() - begun, LEASE_SECONDS)
        self.assertIsInstance(machine.fatal, OutdatedDisk)
        self.assertIn("empty its data folder", str(machine.fatal))

    def test_log(self) -> None:
        """One that lacks entries is refused, again and again; emptied, it joins as a new one."""
        machine = self.standbys()[0]
        image = machine.disk.image()
        self.change(3)
        self.go_back(machine, image)
        self.assertRefused(machine)
        for _ in range(4):
            self.grid.wait(machine.start())
            self.assertRefused(machine)
        machine.disk.wipe()
        self.grid.wait(machine.start())
        self.until(lambda: self.node(self.leader()).voters == 3)
        self.until(lambda: len(self.names(machine)) == 3)

    def test_vote(self) -> None:
        """One that has forgotten its vote gives no other in that epoch."""
        self.change(1)
        machine = self.standbys()[0]
        image = machine.disk.image()
        leader = self.leader()
        leader.kill()
        self.until_another_leads(leader)
        self.grid.wait(leader.start())
        self.grid.advance(2)
        self.go_back(machine, image)
        self.assertRefused(machine)

    def test_leader(self) -> None:
        """Also the one that led: another takes over, and nothing is lost."""
        machine = self.leader()
        image = machine.disk.image()
        self.change(3)
        self.go_back(machine, image)
        self.assertRefused(machine)
        self.until_another_leads(machine)
        self.change(1)
        self.assertEqual(len(self.names(self.leader())), 4)

    def test_copied_long_ago(self) -> None:
        """A disk of several starts ago is refused by its number of starts alone."""
        machine = self.standbys()[0]
        image = machine.disk.image()
        for _ in range(3):
            machine.kill()
            self.grid.wait(machine.start())
            self.grid.advance(1)
        self.go_back(machine, image)
        self.assertRefused(machine)

    def test_nothing_happened_since(self) -> None:
        """A disk that has all that was ever said of it is as good as any."""
        machine = self.standbys()[0]
        self.change(3)
        image = machine.disk.image()
        self.go_back(machine, image)
        self.change(3)
        self.assertEqual(len(self.names(machine)), 6)
        for one in self.grid.heads:
            one.kill()
            self.grid.wait(one.start())
        self.grid.advance(3)
        self.change(1)
        self.assertEqual([one.fatal for one in self.grid.heads], [None] * 3)
