"""Heads that are few, wiped, far behind or follow no more; and the work that goes on meanwhile."""

from __future__ import annotations

from filegrid.client.grid import GridClient
from filegrid.election.table import State
from filegrid.errors import GridError, NotPermitted, OutcomeUnknown, StaleEpoch, Unavailable
from filegrid.model import Identity, Role
from filegrid.protocol.wire import chunk_pb2, head_pb2
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.protocol.wire.replication_pb2 import HandOver
from filegrid.simulation.grid import Machine
from tests.grid.case import CHUNK, content
from tests.grid.heads import HeadsCase


class MajorityLost(HeadsCase):
    def test_two_of_three(self) -> None:
        """Changes fail in time and clearly, what is open can be read; one returns, all goes on."""
        data = content(3 * CHUNK)
        self.put("/f", data)
        hurried = self.new_client("client-2", timeout_seconds=4)
        opened = self.run_(hurried.open_read("/f"))
        self.run_(opened.pread(0, 1))
        dead = self.standbys()
        for machine in dead:
            machine.kill()
        begun = self.grid.clock.seconds()
        with self.assertRaises((Unavailable, OutcomeUnknown)):
            self.run_(hurried.mkdir("/a"))
        with self.assertRaises(Unavailable) as caught:
            self.run_(hurried.mkdir("/never"))
        self.assertIn("no head leads", str(caught.exception))
        self.assertIn("a majority of the heads has to run", str(caught.exception))
        with self.assertRaises(Unavailable):
            self.run_(hurried.stat("/f"))
        self.assertLess(self.grid.clock.seconds() - begun, 14)
        self.assertIsNone(self.grid.leader())
        self.assertEqual(self.run_(opened.pread(0, len(data))), data)
        self.grid.wait(dead[0].start())
        self.run_(hurried.mkdir("/b"))
        self.assertEqual(self.read("/f"), data)
        # What was refused was not done; what was in doubt is there once or not at all.
        self.assertLessEqual({"/b", "/f"}, set(self.names(self.leader())))
        self.assertLessEqual(set(self.names(self.leader())), {"/a", "/b", "/f"})
        self.run_(hurried.close())

    def test_change_in_flight(self) -> None:
        """A change that only the leader's log holds is told as unknown, never as failed."""
        hurried = self.new_client("client-2", timeout_seconds=3)
        self.run_(hurried.mkdir("/a"))
        for machine in self.standbys():
            machine.pause()
        with self.assertRaises(OutcomeUnknown):
            self.run_(hurried.mkdir("/b"))
        for machine in self.grid.heads:
            machine.resume()
        self.run_(hurried.stat("/a"))
        self.run_(hurried.close())

    def test_power_loss_of_all(self) -> None:
        """What was acknowledged outlives the loss of power of all machines in the midst of work."""
        done = []
        for round_ in range(3):
            making = [self.begin(self.client.mkdir(f"/{round_}-{number}")) for number in range(30)]
            self.grid.advance(0.0015 + round_ * 0.0004)
            done += [self.successResultOf(one).path for one in making if one.called]
            for one in making:
                one.addErrback(lambda _: None)
            for machine in (*self.grid.heads, *self.grid.chunk_servers):
                machine.crash()
            self.grid.start()
            self.assertLessEqual(set(done), set(self.names(self.leader())))
        self.grid.advance(1)
        first, *others = [self.names(one) for one in self.grid.heads]
        self.assertEqual(others, [first] * 2)


class Wiped(HeadsCase):
    def wipe(self, machine: Machine) -> None:
        machine.crash()
        machine.disk.wipe()
        self.grid.wait(machine.start())

    def test_one(self) -> None:
        """A head with an empty disk is another one: it gets a vote once it has caught up, and
        neither stands nor votes before (S2)."""
        self.put("/f", content(1000))
        machine = self.standbys()[0]
        before = self.node(machine)._council.me
        self.wipe(machine)
        head = self.node(machine)
        now = head._council.me
        self.assertEqual((now.name, now.incarnation == before.incarnation), (before.name, False))
        seen = []
        while now not in self.node(self.leader())._log.voters:
            self.assertIs(head._council._bully.state, State.PASSIVE)
            self.assertEqual(head._council._bully.epoch, 0)
            seen.append(frozenset(self.node(self.leader())._log.voters))
            self.grid.advance(0.01)
            self.assertLess(len(seen), 500)
        self.assertEqual([len(voters) for voters in dict.fromkeys(seen)], [3, 2])
        self.grid.advance(1)
        self.assertEqual(self.names(machine), ["/f"])
        for other in self.grid.heads:
            if other is not machine and other is not self.leader():
                other.kill()
        self.leader().kill()
        self.grid.wait(next(one for one in self.grid.heads if one.node is None).start())
        self.assertEqual(self.read("/f"), content(1000))

    def test_leader(self) -> None:
        """So is a leader that loses its disk."""
        self.put("/f", b"x")
        machine = self.leader()
        self.wipe(machine)
        self.put("/g", b"y")
        self.until(lambda: self.node(self.leader()).voters == 3)
        self.grid.advance(1)
        self.assertEqual(self.names(machine), ["/f", "/g"])

    def test_two_at_once(self) -> None:
        """Heads that lost their disks together make no empty grid, alone or with the third (S1)."""
        self.put("/f", content(1000))
        third = self.leader()
        wiped = self.standbys()
        third.kill()
        for machine in wiped:
            self.wipe(machine)
        self.grid.advance(15)
        self.assertIsNone(self.grid.leader())
        self.grid.wait(third.start())
        self.grid.advance(15)
        self.assertIsNone(self.grid.leader())
        self.assertEqual(self.names(third), ["/f"])
        self.assertGreater(len(self.all_stored()), 0)
        for machine in wiped:
            self.assertEqual(self.node(machine)._log.last_index, 0)


class OldOrders(HeadsCase):
    settings = {"collection_grace_seconds": 1, "trash_seconds": 0}

    def test_refused(self) -> None:
        """What a former leader orders of a chunk server is not obeyed (S13)."""
        self.put("/f", content(1000))
        old = self.leader()
        chunk = self.manifest("/f").chunks[0].chunk
        holder = self.holders("/f")[0]
        roster = self.node(old)._roster
        order = roster.order(roster[holder])
        self.cut_from_heads(old)
        self.until_another_leads(old)
        self.grid.advance(2)  # its heartbeats raise the fence
        link = roster[holder].link
        assert link is not None
        for request in (
            chunk_pb2.DiscardChunks(order=order, chunk_ids=[chunk.id]),
            chunk_pb2.CopyChunks(order=order),
            chunk_pb2.Heartbeat(order=order),
        ):
            with self.assertRaises(StaleEpoch):
                self.run_(link.call(request, Done, timeout_seconds=5))
        self.assertIn(chunk.id.hex(), self.stored_chunks(self.grid.machine(holder)))

    def test_stopped_while_collecting(self) -> None:
        """A leader that was stopped as it was to remove chunks removes nothing when it goes on."""
        self.put("/f", content(1000))
        self.run_(self.client.remove("/f"))
        old = self.leader()
        self.grid.advance(0.9)
        old.pause()
        new = self.until_another_leads(old)
        new.pause()  # so that nobody collects
        stored = self.all_stored()
        self.assertEqual(len(stored), 1)
        old.resume()
        self.grid.advance(0.5)
        self.assertEqual(self.all_stored(), stored)
        new.resume()
        self.until(lambda: not self.all_stored(), 15)


class MidWork(HeadsCase):
    def test_uploads(self) -> None:
        """Uploads that are under way when the leader dies end well."""
        data = [content(20 * CHUNK, seed) for seed in range(3)]
        uploads = [
            self.begin(self.client.write_bytes(f"/f{number}", one))
            for number, one in enumerate(data)
        ]
        self.grid.advance(0.01)
        self.assertFalse(any(upload.called for upload in uploads))
        self.leader().kill()
        for upload in uploads:
            self.grid.wait(upload)
        for number, one in enumerate(data):
            self.assertEqual(self.read(f"/f{number}"), one)
        self.until_healthy(30)

    def test_repair(self) -> None:
        """A repair that is under way when the leader dies is finished by the next."""
        for number in range(20):
            self.put(f"/f{number}", content(CHUNK, number))
        self.grid.machine("chunk-1").kill()
        for machine in self.grid.chunk_servers[1:]:
            for other in self.grid.chunk_servers[1:]:
                if other is not machine:  # slow enough to be caught at it
                    weather = self.grid.network.weather(machine.name, other.name)
                    weather.bytes_per_second = 1e6
        self.until(lambda: self.status().chunks.repairing > 0, 20)
        old = self.leader()
        old.kill()
        self.until_another_leads(old)
        self.grid.advance(8)
        self.until_healthy(30)
        for number in range(20):
            self.assertEqual(self.read(f"/f{number}"), content(CHUNK, number))

    def test_far_behind(self) -> None:
        """A head that missed thousands of changes catches up by itself, and may lead then."""
        machine = self.standbys()[0]
        machine.kill()
        reign = self.node(self.leader())._reign
        assert reign is not None
        barrier = journal.Command(barrier=journal.Barrier(leader="many"))
        for _ in range(6):
            changes = [self.begin(reign._ledger.propose(barrier)) for _ in range(1000)]
            for change in changes:
                self.grid.wait(change)
        self.put("/f", b"x")
        self.grid.wait(machine.start())
        self.grid.advance(2)
        self.assertEqual(self.names(machine), ["/f"])
        self.assertEqual(
            self.node(machine)._log.applied_index, self.node(self.leader())._log.last_index
        )


class HandingOver(HeadsCase):
    def operator(self) -> GridClient:
        identity = Identity("simulated", Role.OPERATOR, "ann")
        runtime, _ = self.grid.client_runtime("ann")
        host = self.grid.network.host("ann", identity)
        object.__setattr__(runtime, "network", host)
        return GridClient(runtime, identity, [*self.grid.head_addresses])

    def test_by_an_operator(self) -> None:
        """It takes less than 200 ms, and loses nothing that was under way."""
        operator = self.operator()
        self.run_(operator.stat("/"))
        for target in [one.name for one in self.standbys()]:
            self.grid.advance(2)  # a head that just got a vote, or gave one, does not stand at once
            making = [self.begin(self.client.mkdir(f"/{target}-{n}")) for n in range(20)]
            begun = self.grid.clock.seconds()
            request = HandOver(head=target)
            self.run_(operator.access.session.call(request, Done))
            while self.grid.leader() is None:
                self.grid.advance(0.005)
            self.run_(self.client.mkdir(f"/{target}"))
            self.assertLess(self.grid.clock.seconds() - begun, 0.2)
            self.assertEqual(self.leader().name, target)
            for one in making:
                self.grid.wait(one)
        self.assertEqual(len(self.names(self.leader())), 42)
        self.run_(operator.close())

    def test_not_possible(self) -> None:
        """A head that is away, or unknown, is refused, and all stays as it is."""
        operator = self.operator()
        leader, away = self.leader(), self.standbys()[0]
        away.kill()
        self.grid.advance(0.1)
        for name in (away.name, "head-9"):
            with self.assertRaises(GridError):
                self.run_(operator.access.session.call(HandOver(head=name), Done))
        self.assertIs(self.grid.leader(), leader)
        self.run_(self.client.mkdir("/a"))
        self.run_(operator.close())

    def test_not_by_a_client(self) -> None:
        """Handing over is for operators."""
        with self.assertRaises(NotPermitted):
            self.run_(self.client.access.session.call(HandOver(head="head-2"), Done))


class AnyHead(HeadsCase):
    def ask(self, machine: Machine) -> head_pb2.Status:
        """The status, of this very head."""
        runtime, identity = self.grid.client_runtime("client-2")
        client = GridClient(runtime, identity, [machine.settings.address], timeout_seconds=5)
        status = self.run_(client.access.session.call(head_pb2.GetStatus(), head_pb2.Status))
        self.run_(client.close())
        return status

    def test_status(self) -> None:
        """Every head tells the state of the grid, as the leader sees it."""
        self.put("/f", b"x")
        self.grid.advance(1)  # until the last head to join has heard who leads
        leader = self.leader()
        for machine in self.grid.heads:
            status = self.ask(machine)
            roles = {one.name: one.role for one in status.heads}
            self.assertEqual(
                roles,
                {one.name: "leader" if one is leader else "standby" for one in self.grid.heads},
            )
            self.assertEqual((status.leader, status.files), (leader.name, 1))

    def test_without_a_leader(self) -> None:
        """Without a leader it says so."""
        last, *others = self.grid.heads
        for machine in others:
            machine.kill()
        self.grid.advance(3)
        status = self.ask(last)
        self.assertEqual(status.leader, "")
        self.assertIn("no head leads", status.warnings[0])
