"""Heads under the eyes of the health nodes, in a whole simulated grid."""

from __future__ import annotations

from filegrid.head.service import Head
from filegrid.health.service import HealthNode
from filegrid.protocol.wire import health_pb2
from filegrid.protocol.wire.health_pb2 import Event
from filegrid.simulation.grid import Machine
from tests.grid.case import GridCase


class HealthCase(GridCase):
    heads = 3
    health = 3

    def setUp(self) -> None:
        super().setUp()
        self.grid.advance(4)  # judges that just started are patient

    def tearDown(self) -> None:
        for machine in self.grid.heads:
            if machine.node is not None:
                machine.mend_disk()
        self.grid.advance(1)  # what waited for a disk holds locks until then
        super().tearDown()

    def leader(self) -> Machine:
        leader = self.grid.leader()
        assert leader is not None
        return leader

    def coordinator(self) -> Machine:
        coordinator = self.grid.coordinator()
        assert coordinator is not None
        return coordinator

    def node(self, machine: Machine) -> HealthNode:
        assert isinstance(machine.node, HealthNode)
        return machine.node

    def verdicts(self, machine: Machine) -> list[Event]:
        return [one for one in self.node(machine).events if one.kind == Event.KIND_VERDICT]

    def all_verdicts(self) -> list[Event]:
        living = [machine for machine in self.grid.health_nodes if machine.node is not None]
        return [verdict for machine in living for verdict in self.verdicts(machine)]

    def goes_on(self, path: str) -> float:
        """Make a folder; how long that took."""
        begun = self.grid.clock.seconds()
        self.run_(self.client.mkdir(path))
        return self.grid.clock.seconds() - begun

    def roles(self) -> list[str]:
        return sorted(member.role for member in self.status().health)


class Useless(HealthCase):
    def test_hanging_disk(self) -> None:
        """A leader whose disk hangs is deposed within seconds, and work goes on under another."""
        old = self.leader()
        old.hang_disk()
        self.assertLess(self.goes_on("/a"), 6)
        self.assertNotEqual(self.leader(), old)
        for machine in self.grid.health_nodes:
            (verdict,) = self.verdicts(machine)
            self.assertEqual((verdict.node, verdict.epoch), (old.name, 1))
            self.assertGreaterEqual(len(verdict.evidence), 2)
            self.assertIn("has not ended", verdict.evidence[0].text)

    def test_calm(self) -> None:
        """Where all is well nothing happens, however long."""
        old = self.leader()
        self.grid.advance(30)
        self.assertEqual((self.leader(), self.all_verdicts()), (old, []))

    def test_mended(self) -> None:
        """A head whose disk answers again is a standby as before, and may lead again."""
        old = self.leader()
        old.hang_disk()
        self.goes_on("/a")
        old.mend_disk()
        self.grid.advance(5)
        (mended,) = [head for head in self.status().heads if head.name == old.name]
        leading = max(head.log_index for head in self.status().heads)
        self.assertEqual((mended.role, mended.log_index), ("standby", leading))
        self.leader().kill()
        self.assertLess(self.goes_on("/b"), 6)

    def test_commits_nothing(self) -> None:
        """A leader that holds its lease and gets no entry through to the others is deposed."""
        old = self.leader()
        assert isinstance(old.node, Head)
        for machine in self.grid.heads:
            if machine is not old:
                self.deafen(machine)
        writing = self.begin(self.client.mkdir("/a"))
        self.grid.advance(2)
        self.assertEqual(self.leader(), old)
        self.grid.advance(2)
        self.assertEqual({verdict.node for verdict in self.all_verdicts()}, {old.name})
        self.assertNotEqual(self.grid.leader(), old)
        for machine in self.grid.heads:
            self.mend(machine)
        self.grid.wait(writing)

    def deafen(self, machine: Machine) -> None:
        """Take no entry of any leader, as where big packets are lost; the election is small."""
        assert isinstance(machine.node, Head)
        methods = dict(machine.node.methods)
        methods.pop("append_entries")
        machine.node.methods = methods

    def mend(self, machine: Machine) -> None:
        node = machine.node
        assert isinstance(node, Head)
        node.methods = node._methods()


class Silent(HealthCase):
    def test_paused(self) -> None:
        """A leader that is stopped is followed by another, and is a standby when it goes on."""
        old = self.leader()
        old.pause()
        self.assertLess(self.goes_on("/a"), 4)
        new = self.leader()
        self.assertNotEqual(new, old)
        old.resume()
        self.grid.advance(3)
        self.assertEqual(self.leader(), new)
        self.assertEqual({head.role for head in self.status().heads}, {"leader", "standby"})

    def test_lost_probes(self) -> None:
        """One lost probe moves nobody, again and again."""
        old = self.leader()
        for _ in range(20):
            for machine in self.grid.health_nodes:
                self.grid.network.cut(machine.name, old.name)
            self.grid.advance(0.3)
            for machine in self.grid.health_nodes:
                self.grid.network.mend(machine.name, old.name)
            self.grid.advance(0.7)
        self.assertEqual((self.leader(), self.all_verdicts()), (old, []))

    def test_minority(self) -> None:
        """One of three health nodes that is cut off from the leader moves nobody."""
        old = self.leader()
        self.grid.network.cut("health-1", old.name)
        self.grid.advance(20)
        self.assertEqual((self.leader(), self.all_verdicts()), (old, []))

    def test_majority(self) -> None:
        """Two of three that are cut off from the leader depose it: so it is promised, once."""
        old = self.leader()
        self.grid.network.cut("health-1", old.name)
        self.grid.network.cut("health-2", old.name)
        self.grid.advance(4)
        self.assertNotEqual(self.leader(), old)
        self.assertLess(self.goes_on("/a"), 1)

    def test_cut_off_health_nodes(self) -> None:
        """Health nodes that reach no head move nobody when they are back."""
        old = self.leader()
        for machine in self.grid.health_nodes:
            for head in self.grid.heads:
                self.grid.network.cut(machine.name, head.name)
        self.grid.advance(8)
        self.assertEqual(self.roles(), ["down"] * 3)
        for machine in self.grid.health_nodes:
            self.grid.network.rejoin(machine.name)
        self.grid.advance(5)
        self.assertEqual((self.leader(), self.all_verdicts()), (old, []))
        self.assertEqual(self.roles(), ["coordinator", "member", "member"])

    def test_paused_judges(self) -> None:
        """Health nodes that were stopped themselves hold that against nobody (S18)."""
        old = self.leader()
        for machine in self.grid.health_nodes:
            machine.pause()
        self.grid.advance(100)
        for machine in self.grid.health_nodes:
            machine.resume()
        self.grid.advance(5)
        self.assertEqual((self.leader(), self.all_verdicts()), (old, []))


class Damping(HealthCase):
    def test_flapping(self) -> None:
        """Whoever leads seems dead to all health nodes; still the lead moves only now and then."""
        for machine in self.grid.health_nodes:
            for head in self.grid.heads:
                self.grid.network.weather(head.name, machine.name).latency_seconds = 0.001
        epochs = set()
        for _ in range(40):
            leader = self.grid.leader()
            for machine in self.grid.health_nodes:
                for head in self.grid.heads:
                    self.grid.network.mend(machine.name, head.name)
                    if head is leader:
                        self.grid.network.cut(machine.name, head.name)
            self.grid.advance(0.5)
            epochs.add(self.status().epoch)
        # Each of the three once in ten seconds, at most.
        self.assertLessEqual(len(epochs), 7)
        self.assertLess(self.goes_on("/a"), 6)


class HealthNodesFail(HealthCase):
    def test_one_dead(self) -> None:
        """With one health node dead the others do as before."""
        self.coordinator().kill()
        self.grid.advance(3)
        self.assertEqual(self.roles(), ["coordinator", "down", "member"])
        old = self.leader()
        old.hang_disk()
        self.assertLess(self.goes_on("/a"), 6)
        self.assertNotEqual(self.leader(), old)

    def test_all_dead(self) -> None:
        """Without health nodes the grid goes on, and fails over by lease."""
        for machine in self.grid.health_nodes:
            machine.kill()
        self.assertLess(self.goes_on("/a"), 1)
        self.leader().kill()
        self.assertLess(self.goes_on("/b"), 4)
        self.assertEqual(self.roles(), ["down"] * 3)

    def test_two_dead(self) -> None:
        """One of three alone is no majority, and says nothing."""
        for machine in self.grid.health_nodes[1:]:
            machine.kill()
        old = self.leader()
        old.hang_disk()
        writing = self.begin(self.client.mkdir("/a"))
        self.grid.advance(15)
        self.assertEqual((self.leader(), self.all_verdicts()), (old, []))
        old.mend_disk()
        self.grid.wait(writing)

    def test_coordinator_dies_in_time(self) -> None:
        """A coordinator that dies before its verdict is replaced by one that gives it."""
        old = self.leader()
        old.hang_disk()
        writing = self.begin(self.client.mkdir("/a"))
        self.grid.advance(3.0)
        self.coordinator().kill()
        self.grid.advance(4.0)
        self.assertNotEqual(self.leader(), old)
        self.grid.wait(writing)

    def test_restart(self) -> None:
        """A health node that comes back knows what it kept, and takes part again."""
        self.leader().hang_disk()
        self.goes_on("/a")
        machine = self.grid.health_nodes[0]
        kept = self.verdicts(machine)
        machine.crash()
        self.grid.advance(1)
        self.grid.wait(machine.start())
        self.grid.advance(3)
        self.assertEqual(self.verdicts(machine), kept)
        self.assertEqual(self.roles(), ["coordinator", "member", "member"])

    def test_wiped(self) -> None:
        """One that lost its disk takes part again, and learns the last verdict from the others."""
        self.leader().hang_disk()
        self.goes_on("/a")
        machine = self.coordinator()
        kept = self.verdicts(machine)
        machine.kill()
        self.grid.advance(1)
        machine.disk.wipe()
        self.grid.wait(machine.start())
        self.grid.advance(6)
        self.assertEqual(self.verdicts(machine), kept)
        self.assertEqual(self.roles(), ["coordinator", "member", "member"])


LEADING = (Event.KIND_COORDINATOR, Event.KIND_ELECTION, Event.KIND_VERDICT)


class Told(HealthCase):
    def events(self) -> list[Event]:
        call = self.client.access.session.call(health_pb2.GetEvents(), health_pb2.Events)
        return list(self.run_(call).events)

    def test_story(self) -> None:
        """Events tell in order who coordinated, who led, and why that one was deposed."""
        old = self.leader()
        old.hang_disk()
        self.goes_on("/a")
        self.grid.advance(2)
        new = self.leader()
        self.assertEqual(
            [(one.kind, one.node) for one in self.events() if one.kind in LEADING],
            [
                (Event.KIND_COORDINATOR, self.coordinator().name),
                (Event.KIND_ELECTION, old.name),
                (Event.KIND_VERDICT, old.name),
                (Event.KIND_ELECTION, new.name),
            ],
        )
        (verdict,) = self.run_(self.client.status())["verdicts"]
        self.assertEqual((verdict["kind"], verdict["node"]), ("verdict", old.name))
        self.assertIn("has not ended", verdict["evidence"]["health-1"])

    def test_without_the_witness(self) -> None:
        """What one health node alone has kept is told by it, what all have by any."""
        before = self.events()
        for machine in self.grid.health_nodes[:2]:
            machine.kill()
        self.assertEqual(self.events(), before)
        self.assertTrue(self.run_(self.client.events())["incomplete"])
        self.grid.health_nodes[2].kill()
        self.grid.advance(1)
        told = self.run_(self.client.events())
        self.assertNotIn("coordinator", {one["kind"] for one in told["events"]})
        self.assertTrue(told["incomplete"])

    def test_no_leader(self) -> None:
        """Events and health nodes are shown also while no head leads."""
        for machine in self.grid.heads[:2]:
            machine.kill()
        self.grid.advance(3)
        self.assertIn(Event.KIND_ELECTION, [one.kind for one in self.events()])
        status = self.run_(self.client.status())
        self.assertIsNone(status["leader"])
        self.assertIn("coordinator", [member["role"] for member in status["health"]])


class WithoutHealth(GridCase):
    heads = 3

    def test_none(self) -> None:
        """A grid without health nodes has what the heads tell, and nothing is missed."""
        told = self.run_(self.client.events())
        self.assertEqual({one["kind"] for one in told["events"]}, {"election", "joined"})
        self.assertFalse(told["incomplete"])
        self.assertEqual(self.run_(self.client.status())["health"], [])
