"""The leader dies, is cut off or stops: users see a pause, and nothing is lost or done twice."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.grid import GridClient
from filegrid.errors import Unavailable
from filegrid.simulation.campaign import Campaign
from filegrid.simulation.grid import Machine
from filegrid.simulation.scenario import Scenario
from tests.grid.heads import HeadsCase

MOST_PAUSE_SECONDS = 3.0


class Failover(SynchronousTestCase):
    """Under load, each once: nothing that was acknowledged is lost, or applied twice."""

    def setUp(self) -> None:
        scenario = Scenario(chunk_servers=4, racks=2, health=0, faults=())
        self.campaign = Campaign(scenario, sum(self.id().encode()))
        self.addCleanup(self.campaign.close)
        self.campaign.begin()

    @property
    def longest_pause_seconds(self) -> float:
        """That a client saw in one operation."""
        return max(one.longest_pause_seconds for one in self.campaign.actors)

    def suffer(self, strike: Callable[[Campaign, Machine], object], seconds: float = 3.5) -> None:
        """Let the leader suffer it while clients work; the pause is bounded, the rest is whole."""
        self.campaign.pass_time(0.5)
        leader = self.campaign.grid.leader()
        assert leader is not None
        strike(self.campaign, leader)
        self.campaign.pass_time(seconds)
        self.assertIsNot(self.campaign.grid.leader(), leader)
        self.assertLess(self.longest_pause_seconds, MOST_PAUSE_SECONDS)
        self.campaign.finish()

    def others(self, campaign: Campaign, leader: Machine) -> list[str]:
        names = [one.name for one in campaign.grid.machines if one is not leader]
        return [*names, *(one.name for one in campaign.actors)]

    def test_killed(self) -> None:
        """The leader is killed."""
        self.suffer(lambda campaign, leader: leader.kill())

    def test_power_loss(self) -> None:
        """The leader loses power, with what it had not synced."""
        self.suffer(lambda campaign, leader: leader.crash())

    def test_isolated(self) -> None:
        """The leader is cut off from everybody, and does not know it."""
        self.suffer(lambda campaign, leader: campaign.grid.network.isolate(leader.name))

    def test_cut_off_from_the_heads(self) -> None:
        """The leader is cut off from the other heads, and still seen by all others."""

        def part(campaign: Campaign, leader: Machine) -> None:
            for other in campaign.grid.heads:
                if other is not leader:
                    campaign.grid.network.cut(leader.name, other.name)

        self.suffer(part)

    def test_not_heard(self) -> None:
        """The leader hears, and is not heard any more."""

        def mute(campaign: Campaign, leader: Machine) -> None:
            for other in self.others(campaign, leader):
                campaign.grid.network.cut(leader.name, other, both_ways=False)

        self.suffer(mute)

    def test_not_hearing(self) -> None:
        """The leader is heard, and hears nothing any more."""

        def deafen(campaign: Campaign, leader: Machine) -> None:
            for other in self.others(campaign, leader):
                campaign.grid.network.cut(other, leader.name, both_ways=False)

        self.suffer(deafen)

    def test_paused(self) -> None:
        """The leader is stopped, and goes on when another one leads."""

        def pause(campaign: Campaign, leader: Machine) -> None:
            leader.pause()
            campaign.grid.clock.callLater(3.0, leader.resume)

        self.suffer(pause)

    def test_disk_failed(self) -> None:
        """The leader's disk does not sync any more: it exits."""
        self.suffer(lambda campaign, leader: leader.disk.fail_next("datasync", 5, times=1))

    def test_handed_over(self) -> None:
        """The leader hands over in good order."""

        def stop(campaign: Campaign, leader: Machine) -> None:
            leader.stop()

        self.suffer(stop)
        self.assertLess(self.longest_pause_seconds, 0.5)

    def test_one_after_the_other(self) -> None:
        """Each leader in turn is killed, and started again when the next one leads."""
        for _ in range(4):
            self.campaign.pass_time(0.3)
            leader = self.campaign.grid.leader()
            assert leader is not None
            leader.kill()
            self.campaign.pass_time(2.0)
            self.campaign.grid.wait(leader.start())
        self.assertLess(self.longest_pause_seconds, MOST_PAUSE_SECONDS)
        self.campaign.finish()


class FiveHeads(HeadsCase):
    heads = 5

    def test_two_killed(self) -> None:
        """Of five heads two may go at once, the leader with them."""
        self.put("/f", b"before")
        for machine in (self.leader(), self.standbys()[0]):
            machine.kill()
        begun = self.grid.clock.seconds()
        self.put("/g", b"after")
        self.assertLess(self.grid.clock.seconds() - begun, MOST_PAUSE_SECONDS)
        self.assertEqual(self.read("/f"), b"before")


class FreshReads(HeadsCase):
    def linked_to(self, machine: Machine, timeout_seconds: float = 2) -> GridClient:
        """A client that sees of the heads this one alone."""
        client = self.new_client("client-2", timeout_seconds=timeout_seconds)
        self.run_(client.stat("/"))
        for other in self.grid.heads:
            if other is not machine:
                self.grid.network.cut("client-2", other.name)
        self.run_(client.stat("/"))
        return client

    def overwrite(self, old: Machine) -> None:
        """As soon as another head leads, by a client that does not see the old one."""
        self.grid.network.cut("client-1", old.name)
        self.put("/f", b"new", overwrite=True)

    def test_cut_off(self) -> None:
        """A leader that was cut off answers nothing any more before another one acknowledges."""
        self.put("/f", b"old")
        old = self.leader()
        reader = self.linked_to(old)
        self.cut_from_heads(old)
        writing = self.begin(self.client.write_bytes("/f", b"new", overwrite=True))
        self.grid.network.cut("client-1", old.name)
        answers = []
        while not writing.called:
            reading = self.begin(reader.read_bytes("/f"))
            self.grid.advance(0.01)
            if reading.called and not isinstance(reading.result, Exception):
                answers.append((writing.called, getattr(reading, "result", None)))
            reading.addErrback(lambda _: None)
            reading.cancel()
        self.grid.wait(writing)
        self.assertGreater(sum(found == b"old" for _, found in answers), 20)
        with self.assertRaises(Unavailable):
            self.run_(reader.read_bytes("/f"))
        self.run_(reader.close())

    def test_paused(self) -> None:
        """What a stopped leader was asked it does not answer as leader when it goes on.

        Whatever it looks at first, its timers or what has come.
        """
        for data_first in (False, True):
            self.put("/f", b"old", overwrite=True)
            old = self.leader()
            reader = self.linked_to(old, timeout_seconds=10)
            old.pause()
            self.overwrite(old)
            self.cut_from_heads(old)  # nobody tells it
            reading = self.begin(reader.stat("/f"))
            self.grid.advance(0.01)
            self.assertNoResult(reading)
            old.resume(data_first=data_first)
            with self.assertRaises(Unavailable):
                self.grid.wait(reading)
            self.run_(reader.close())
            for one in self.grid.heads:
                self.grid.network.rejoin(one.name)
            self.grid.advance(3)

    def test_old_leader_returns(self) -> None:
        """A client that was linked to the old leader finds the new one, and what it wrote there."""
        self.put("/f", b"old")
        old = self.leader()
        reader = self.new_client("client-2")
        self.assertEqual(self.run_(reader.read_bytes("/f")), b"old")
        old.pause()
        self.overwrite(old)
        old.resume()
        self.assertEqual(self.run_(reader.read_bytes("/f")), b"new")
        self.run_(reader.close())
