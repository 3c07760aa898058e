"""Heads that come and go while the grid goes on."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from filegrid.client.grid import GridClient
from filegrid.election.table import State
from filegrid.errors import GridError, InvalidRequest, NotPermitted
from filegrid.head.service import Head
from filegrid.head.sessions import SESSION_LEASE_MS
from filegrid.model import Role
from filegrid.simulation.grid import Machine
from tests.grid.heads import HeadsCase

CHANGE_SECONDS = 20.0


class Members(HeadsCase):
    def setUp(self) -> None:
        super().setUp()
        self.operator = self.new_client("ann", role=Role.OPERATOR)
        self.made = 0
        self.making: list[Deferred[object]] = []

    def tearDown(self) -> None:
        self.run_(self.operator.close())
        super().tearDown()

    def voters(self) -> list[str]:
        """As the leader has them, once that is committed."""
        leader = self.grid.leader()
        if leader is None:
            return []
        log = self.node(leader)._log
        if log.configuration_index > log.commit_index:
            return []
        return sorted(one.name for one in log.voters)

    def until_voters(self, *numbers: int) -> None:
        names = [f"head-{number}" for number in numbers]
        self.until(lambda: self.voters() == names, CHANGE_SECONDS)

    def new_head(self) -> Machine:
        machine = self.grid.add_head()
        self.grid.wait(machine.start())
        return machine

    def add(self, machine: Machine) -> None:
        self.run_(self.operator.add_head(machine.name, str(machine.settings.address)))

    def remove(self, machine: Machine) -> None:
        self.run_(self.operator.remove_head(machine.name))

    def work(self, count: int = 20) -> None:
        """Begin some changes, whatever happens meanwhile."""
        for _ in range(count):
            self.making.append(self.begin(self.client.mkdir(f"/{self.made}")))
            self.made += 1

    def check_work(self) -> None:
        """All of them were made, once each, and every head that votes has them."""
        for one in self.making:
            self.grid.wait(one)
        self.grid.advance(1)
        for machine in self.grid.heads:
            if isinstance(machine.node, Head) and machine.name in self.voters():
                self.assertEqual(len(self.names(machine)), self.made, machine.name)

    def test_added(self) -> None:
        """A new head gets a vote, once it has all; chunk servers and clients find it, and it may
        lead."""
        self.put("/f", b"x")
        self.made += 1
        machine = self.new_head()
        self.grid.advance(3)
        self.assertEqual(len(self.voters()), 3)  # nobody has said that it is to have one
        self.work()
        self.add(machine)
        self.until_voters(1, 2, 3, 4)
        self.check_work()
        self.until(lambda: self.node(machine).live_chunk_servers == self.chunk_servers)
        self.run_(self.operator.hand_over(machine.name))
        self.until(lambda: self.grid.leader() is machine)
        self.assertEqual(self.read("/f"), b"x")
        self.put("/g", b"y")
        roles = {one.name: one.role for one in self.status().heads}
        self.assertEqual(roles["head-4"], "leader")

    def test_catches_up_first(self) -> None:
        """It does not count before: while it cannot be reached, and while it is behind, the old
        heads decide alone."""
        machine = self.grid.add_head()
        self.add(machine)
        self.grid.advance(3)
        self.assertEqual(len(self.voters()), 3)
        self.assertIn("cannot be reached", " ".join(self.status().warnings))
        self.grid.wait(machine.start())
        machine.hang_disk()
        self.grid.advance(3)
        self.assertEqual(len(self.voters()), 3)
        self.work()
        self.check_work()
        machine.mend_disk()
        self.until_voters(1, 2, 3, 4)

    def test_all_replaced(self) -> None:
        """Each head in turn is replaced by a new one, the leader with them, under load; the grid
        that is left has all and lives without the old ones."""
        for number in (1, 2, 3):
            new = self.new_head()
            self.work()
            self.add(new)
            old = self.grid.machine(f"head-{number}")
            self.remove(old)
            names = sorted(f"head-{one}" for one in range(number + 1, number + 4))
            self.until(lambda names=names: self.voters() == names, CHANGE_SECONDS)  # type: ignore[misc]
            self.check_work()
            self.until(lambda new=new: self.node(new).live_chunk_servers == 4)  # type: ignore[misc]
            if number == 3:
                self.grid.advance(SESSION_LEASE_MS / 3000 + 1)  # so also an idle client has heard
            self.grid.wait(old.stop())
        self.work()
        self.leader().kill()
        self.check_work()

    def test_leader_removed(self) -> None:
        """A leader that is removed lets another lead first, and has no part in anything after."""
        old = self.leader()
        self.work()
        self.remove(old)
        self.until(lambda: len(self.voters()) == 2, CHANGE_SECONDS)
        self.check_work()
        self.assertIsNot(self.grid.leader(), old)
        self.grid.advance(3)
        self.assertIs(self.node(old)._council._bully.state, State.PASSIVE)
        self.assertIn(f"{old.name} was removed and still runs", " ".join(self.status().warnings))
        self.assertNotIn(old.name, [one.name for one in self.status().heads])
        self.assertNotIn("down", " ".join(self.status().because))
        leader = self.leader()
        self.grid.wait(old.stop())
        self.grid.wait(old.start())
        self.grid.advance(5)
        self.assertIs(self.grid.leader(), leader)
        self.assertEqual(len(self.voters()), 2)
        self.add(old)  # and back
        self.until_voters(1, 2, 3)

    def test_leader_is_new_to_a_chunk_server(self) -> None:
        """A chunk server that never heard the leader who added a head finds that head all the same,
        through those that it can hear."""
        machine, old = self.new_head(), self.leader()
        self.grid.network.cut("chunk-1", old.name)
        self.add(machine)
        self.until_voters(1, 2, 3, 4)
        self.run_(self.operator.hand_over(machine.name))
        self.until(lambda: self.grid.leader() is machine, CHANGE_SECONDS)
        self.grid.advance(10)
        states = {one.name: one.state for one in self.status().chunk_servers}
        self.assertEqual(states["chunk-1"], "live")

    def test_dead_one_removed(self) -> None:
        """One that is dead for good is removed first; then another takes its place."""
        dead = self.standbys()[0]
        dead.kill()
        self.add(self.new_head())
        self.grid.advance(5)
        self.assertEqual(len(self.voters()), 3)
        self.assertIn(f"no vote before {dead.name} can be", " ".join(self.status().warnings))
        self.remove(dead)
        self.until(lambda: "head-4" in self.voters(), CHANGE_SECONDS)
        self.assertEqual(len(self.voters()), 3)
        self.work()
        self.check_work()

    def test_needed(self) -> None:
        """One without which the others could not decide is removed only once they can."""
        away, leaving = self.standbys()
        away.kill()
        self.remove(leaving)
        self.grid.advance(5)
        self.assertEqual(len(self.voters()), 3)
        self.assertIn(f"{leaving.name} is being removed", " ".join(self.status().warnings))
        self.work()
        self.grid.wait(away.start())
        self.until(lambda: len(self.voters()) == 2, CHANGE_SECONDS)
        self.check_work()

    def change_and_lose_leader(self, *, reaches: int) -> None:
        """The leader dies as soon as a new configuration is in its log, and reached so many."""
        machine = self.new_head()
        self.work()
        self.add(machine)
        leader = self.leader()
        log = self.node(leader)._log
        while len(log.voters) == 3:
            if reaches == 0 and self.node(leader)._reign is not None:
                reign = self.node(leader)._reign
                assert reign is not None
                if reign._is_ready(self.node(machine)._council.me):
                    self.cut_from_heads(leader)
            self.grid.advance(0.0001)
        if reaches:
            others = [self.node(one)._log for one in self.standbys()]
            while not any(len(one.voters) == 4 for one in others):
                self.grid.advance(0.0001)
        self.assertGreater(log.configuration_index, log.commit_index)
        leader.crash()
        self.until_another_leads(leader)
        self.grid.network.rejoin(leader.name)
        self.grid.wait(leader.start())
        self.until_voters(1, 2, 3, 4)
        self.check_work()

    def test_leader_dies_alone_with_the_change(self) -> None:
        """A configuration that only a dead leader had is taken back; the next one makes it anew."""
        self.change_and_lose_leader(reaches=0)

    def test_leader_dies_when_some_have_the_change(self) -> None:
        """One that others have, and nobody committed, is committed or taken back by the next."""
        self.change_and_lose_leader(reaches=1)

    def test_known_already(self) -> None:
        """One that is there keeps its address, however an operator spells it."""
        self.run_(self.operator.add_head("head-2", "elsewhere:9"))
        self.grid.advance(3)
        (said,) = self.node(self.leader())._namespace.heads()
        self.assertEqual((said.name, said.address), ("head-2", "head-2:7000"))
        self.assertEqual(len(self.voters()), 3)
        self.work()
        self.check_work()

    def test_refused(self) -> None:
        """The last head is not removed, nor one that is not there; and only operators may."""
        with self.assertRaises(InvalidRequest):
            self.run_(self.operator.remove_head("head-9"))
        with self.assertRaises(InvalidRequest):
            self.run_(self.operator.add_head("head-4", "nowhere"))
        client: GridClient = self.client
        with self.assertRaises(NotPermitted):
            self.run_(client.remove_head("head-1"))
        for machine in self.standbys():
            self.remove(machine)
        with self.assertRaises(GridError):
            self.remove(self.leader())
        self.until(lambda: len(self.voters()) == 1, CHANGE_SECONDS)
        self.work()
        self.check_work()
