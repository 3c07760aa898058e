"""A head that is preferred to others."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred

from filegrid.client.stat import Stat
from filegrid.election.preference import CALM_SECONDS
from filegrid.errors import Unavailable
from filegrid.head.reign import HAND_OVER_SECONDS
from filegrid.simulation.grid import Machine
from tests.grid.heads import HeadsCase

MOST_PAUSE_SECONDS = 0.3


class Preferred(HeadsCase):
    def prefer(self, machine: Machine) -> None:
        """Start it anew with a priority."""
        self.grid.wait(machine.stop())
        election = replace(machine.settings.election, priority=5)
        machine.settings = replace(machine.settings, election=election)
        self.grid.wait(machine.start())

    def test_takes_over(self) -> None:
        """It gets the lead once it has followed for a while; users see a short pause, and every
        change of theirs is applied once."""
        machine = self.standbys()[0]
        self.prefer(machine)
        begun = self.grid.clock.seconds()
        made, longest = 0, 0.0
        while self.grid.leader() is not machine:
            at = self.grid.clock.seconds()
            self.run_(self.client.mkdir(f"/{made}"))
            longest = max(longest, self.grid.clock.seconds() - at)
            made += 1
            self.grid.advance(0.01)
            self.assertLess(self.grid.clock.seconds() - begun, 3 * CALM_SECONDS)
        self.assertGreater(self.grid.clock.seconds() - begun, CALM_SECONDS)
        self.run_(self.client.mkdir("/last"))
        self.assertLess(longest, MOST_PAUSE_SECONDS)
        self.assertGreater(made, 100)
        self.assertEqual(len(self.names(machine)), made + 1)
        self.grid.advance(5 * CALM_SECONDS)
        self.assertIs(self.grid.leader(), machine)

    def test_catches_up_first(self) -> None:
        """One that was away long takes over only with all that it missed."""
        machine = self.standbys()[0]
        self.prefer(machine)
        machine.kill()
        for number in range(50):
            self.run_(self.client.mkdir(f"/{number}"))
        self.grid.wait(machine.start())
        self.until(lambda: self.grid.leader() is machine, 3 * CALM_SECONDS)
        self.assertEqual(len(self.names(machine)), 50)

    def test_flapping(self) -> None:
        """One that keeps dying is given the lead ever more rarely."""
        machine = self.standbys()[0]
        self.prefer(machine)
        waits = []
        for _ in range(4):
            begun = self.grid.clock.seconds()
            self.until(lambda: self.grid.leader() is machine, 20 * CALM_SECONDS)
            waits.append(self.grid.clock.seconds() - begun)
            machine.kill()
            self.until_another_leads(machine)
            self.grid.wait(machine.start())
        for count, waited in enumerate(waits):
            self.assertLess(abs(waited - CALM_SECONDS * 2**count), 3, waits)

    def hand_over(self, target: Machine) -> Deferred[None]:
        reign = self.node(self.leader())._reign
        assert reign is not None
        return self.begin(reign.hand_over(self.node(target)._council.me))

    def hand_over_to_one_that_hangs(self, target: Machine) -> tuple[Deferred[None], Deferred[Stat]]:
        """A handover that waits for the disk of its target, and a change that waits for it."""
        target.hang_disk()
        self.run_(self.client.mkdir("/a"))
        return self.hand_over(target), self.begin(self.client.mkdir("/b"))

    def test_does_not_get_the_end(self) -> None:
        """Where it does not get the end of the log in time, the lead stays where it is, and what
        waited meanwhile goes on."""
        leader, target = self.leader(), self.standbys()[0]
        handing, making = self.hand_over_to_one_that_hangs(target)
        self.grid.advance(0.9 * HAND_OVER_SECONDS)
        self.assertNoResult(making)
        with self.assertRaises(Unavailable):
            self.grid.wait(handing)
        self.grid.wait(making)
        self.assertIs(self.grid.leader(), leader)
        target.mend_disk()
        self.grid.wait(self.hand_over(target))
        self.until(lambda: self.grid.leader() is target)
        self.assertEqual(self.names(target), ["/a", "/b"])

    def test_nobody_waits_for_it(self) -> None:
        """Where whoever asked for a handover is gone before its end, changes go on."""
        leader, target = self.leader(), self.standbys()[0]
        handing, making = self.hand_over_to_one_that_hangs(target)
        self.grid.advance(0.5 * HAND_OVER_SECONDS)
        handing.addErrback(lambda failure: failure.trap(CancelledError))
        handing.cancel()
        self.grid.wait(making)
        self.assertIs(self.grid.leader(), leader)
