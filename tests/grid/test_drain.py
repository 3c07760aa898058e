"""Draining: servers that are emptied before they are switched off, at no risk."""

from __future__ import annotations

from typing import Any

from filegrid.client.session import GIVEN_UP_SECONDS
from filegrid.errors import InvalidRequest, NotPermitted
from filegrid.head.service import Head
from filegrid.model import Role
from filegrid.protocol.wire.head_pb2 import Status
from tests.grid.case import CHUNK, GridCase, content


class DrainCase(GridCase):
    def setUp(self) -> None:
        super().setUp()
        self.operator = self.new_client("operator", role=Role.OPERATOR)

    def tearDown(self) -> None:
        self.run_(self.operator.close())
        super().tearDown()

    def drain(self, *targets: str, **more: bool) -> list[dict[str, Any]]:
        return self.run_(self.operator.drain(*targets, **more))

    def state(self, name: str) -> str:
        return next(one.state for one in self.leaders_status().chunk_servers if one.name == name)

    def leaders_status(self) -> Status:
        """A head that just started answers without knowing who leads."""
        for _ in range(20):
            status = self.status()
            if status.leader:
                return status
            self.grid.advance(0.5)
        raise AssertionError("no head leads")

    def fill(self, files: int = 12) -> None:
        for number in range(files):
            self.put(f"/f{number}", content(CHUNK, number))

    def staying(self, path: str, gone: str) -> int:
        return len([name for name in self.holders(path) if name != gone])

    def until(self, name: str, state: str, seconds: float = 60.0) -> None:
        """Let time pass until the server has the state; no chunk is ever short meanwhile."""
        begun = self.grid.clock.seconds()
        while self.state(name) != state:
            counts = self.leaders_status().chunks
            self.assertEqual((counts.healthy, counts.under_replicated), (counts.total, 0))
            if self.grid.clock.seconds() - begun > seconds:
                self.fail(f"{name} is {self.state(name)} after {seconds} s")
            self.grid.advance(0.5)


class Draining(DrainCase):
    settings = {"collection_grace_seconds": 5}

    def test_drain(self) -> None:
        """A server is emptied without a chunk ever having fewer replicas, and is then safe to
        switch off: nothing has to be repaired."""
        self.fill()
        (left,) = self.drain("chunk-1", dry_run=True)
        self.assertEqual((self.state("chunk-1"), left["blockers"]), ("live", []))
        held = sum("chunk-1" in self.holders(f"/f{number}") for number in range(12))
        self.assertEqual((left["chunks_left"], left["bytes_left"]), (held, held * CHUNK))
        self.drain("chunk-1")
        self.assertEqual(self.state("chunk-1"), "draining")
        self.until("chunk-1", "drained")
        for number in range(12):
            self.assertEqual(self.staying(f"/f{number}", "chunk-1"), 3)
        self.grid.machine("chunk-1").kill()
        self.grid.advance(10)
        status = self.status()
        self.assertEqual((status.chunks.healthy, status.chunks.repairing), (12, 0))
        self.assertEqual(self.state("chunk-1"), "drained")

    def test_no_new_chunks(self) -> None:
        """A server that is to leave gets nothing new; once it may stay, it does again."""
        self.drain("chunk-1", "chunk-2")
        self.fill(6)
        for number in range(6):
            self.assertEqual(sorted(self.holders(f"/f{number}")), ["chunk-3", "chunk-4", "chunk-5"])
        self.drain("chunk-1", "chunk-2", undo=True)
        self.assertEqual(self.state("chunk-1"), "live")
        for number in range(6, 30):
            self.put(f"/f{number}", b"x")
        self.assertIn("chunk-1", {one for n in range(6, 30) for one in self.holders(f"/f{n}")})

    def test_rack(self) -> None:
        """A rack is drained as its servers are."""
        self.fill(4)
        found = self.drain("rack:dc1/r1")
        self.assertEqual([one["server"] for one in found], ["chunk-1", "chunk-4"])
        self.until("chunk-1", "drained")
        self.until("chunk-4", "drained")

    def test_open_upload(self) -> None:
        """An upload that began before goes on; until it ended, the server is not drained."""
        writer = self.run_(self.client.open_write("/f"))
        data = content(3 * CHUNK)
        self.run_(writer.write(data[: 2 * CHUNK]))
        self.grid.advance(1)
        there = [one.name for one in self.grid.chunk_servers if self.stored_chunks(one)]
        self.drain(there[0])
        (left,) = self.drain(there[0], dry_run=True)
        self.assertGreater(left["open_uploads"], 0)
        self.assertIn("uploads", left["blockers"][0])
        self.grid.advance(30)
        self.assertEqual(self.state(there[0]), "draining")
        self.run_(writer.write(data[2 * CHUNK :]))
        self.run_(writer.publish())
        self.until(there[0], "drained")
        self.grid.machine(there[0]).kill()
        self.assertEqual(self.read("/f"), data)

    def test_upload_given_up(self) -> None:
        """What a client stored and gave up holds no server back while the client lives on, and has
        another upload under way: it is taken away."""
        given_up = self.run_(self.client.open_write("/given up"))
        self.run_(given_up.write(content(3 * CHUNK)))
        self.grid.advance(1)
        there = [one.name for one in self.grid.chunk_servers if self.stored_chunks(one)]
        going_on = self.run_(self.client.open_write("/f"))
        self.run_(given_up.abort())
        self.grid.advance(GIVEN_UP_SECONDS)
        self.drain(there[0])
        self.until(there[0], "drained", seconds=90)
        self.run_(going_on.write(content(3 * CHUNK, 2)))
        self.run_(going_on.publish())
        self.assertEqual(self.read("/f"), content(3 * CHUNK, 2))
        self.grid.advance(30)
        self.assertEqual(len(self.all_stored()), 3)

    def test_under_load(self) -> None:
        """Files that are written all the time do not keep a server from being drained."""
        self.fill()
        self.drain("chunk-1")
        for number in range(100):
            for file in range(10):
                self.begin(self.client.write_bytes(f"/{number}-{file}", b"x"))
            self.grid.advance(0.1)
        self.assertEqual(self.state("chunk-1"), "drained")

    def test_too_few_servers(self) -> None:
        """Where too few servers would stay, the dry run says so, and it is never called drained."""
        self.fill(3)
        names = ("chunk-1", "chunk-2", "chunk-3")
        found = self.drain(*names, dry_run=True)
        before = {one for number in range(3) for one in self.holders(f"/f{number}")}
        for name, one in zip(names, found, strict=True):
            if name in before:
                self.assertIn("2 servers would stay", one["blockers"][0])
        self.drain(*names)
        self.grid.advance(30)
        holding = {one for number in range(3) for one in self.holders(f"/f{number}")}
        self.assertTrue(holding.intersection(names))
        for name in names:
            self.assertEqual(self.state(name), "draining" if name in holding else "drained")

    def test_who_may(self) -> None:
        """Only an operator drains, and only what there is."""
        with self.assertRaises(NotPermitted):
            self.run_(self.client.drain("chunk-1"))
        for target in ("chunk-9", "rack:dc2", "rack:dc1/r", "rack:"):
            with self.assertRaises(InvalidRequest):
                self.drain("chunk-1", target)
        self.assertEqual(self.state("chunk-1"), "live")

    def test_last_replica(self) -> None:
        """What is left on draining servers alone is not missing: it can be read."""
        self.put("/f", content(CHUNK))
        leaving, *others = self.holders("/f")
        self.drain(*(one.name for one in self.grid.chunk_servers if one.name not in others))
        for name in others:
            self.grid.machine(name).kill()
        self.grid.advance(8)
        counts = self.leaders_status().chunks
        self.assertEqual((counts.under_replicated, counts.missing), (1, 0))
        self.assertEqual(self.state(leaving), "draining")
        self.assertEqual(self.read("/f"), content(CHUNK))

    def test_dies_while_draining(self) -> None:
        """A server that dies half drained is repaired as any other; what it left is not lost."""
        self.fill()
        self.drain("chunk-1")
        self.grid.advance(0.2)
        self.grid.machine("chunk-1").kill()
        self.grid.advance(8)
        self.assertEqual(self.state("chunk-1"), "dead")
        self.until_healthy(20)


class Absent(DrainCase):
    settings = {"collection_grace_seconds": 5}

    def test_after_another_left(self) -> None:
        """A server that was drained and switched off is missed by nobody: others can be drained,
        and what is removed afterwards is forgotten."""
        self.fill()
        (removed,) = self.manifest("/f0").chunks
        self.drain("chunk-1")
        self.until("chunk-1", "drained")
        self.grid.machine("chunk-1").kill()
        self.grid.advance(10)
        self.run_(self.client.remove("/f0", now=True))
        self.grid.advance(30)
        leader = self.grid.leader()
        assert leader is not None and isinstance(leader.node, Head)
        self.assertIsNone(leader.node._namespace.chunk(removed.chunk.id))
        self.drain("chunk-2")
        self.until("chunk-2", "drained")

    def test_another_is_dead(self) -> None:
        """Nor does one that is dead, and may come back with what was removed meanwhile."""
        self.fill()
        self.grid.machine("chunk-1").kill()
        self.grid.advance(20)
        self.run_(self.client.remove("/f0", now=True))
        self.grid.advance(30)
        self.drain("chunk-2")
        self.until("chunk-2", "drained")

    def test_never_comes_back(self) -> None:
        """A dead server can be written off once all that it held is elsewhere; should it come back
        after all, it can stay."""
        self.fill()
        (removed,) = self.manifest("/f0").chunks
        self.grid.machine("chunk-1").kill()
        self.grid.advance(6)
        self.drain("chunk-1")
        self.assertEqual(self.state("chunk-1"), "dead")
        self.until_healthy(30)
        self.until("chunk-1", "drained")
        self.assertEqual(list(self.leaders_status().because), [])
        self.run_(self.client.remove("/f0", now=True))
        self.grid.advance(30)
        leader = self.grid.leader()
        assert leader is not None and isinstance(leader.node, Head)
        self.assertIsNone(leader.node._namespace.chunk(removed.chunk.id))
        self.grid.wait(self.grid.machine("chunk-1").start())
        self.grid.advance(30)
        self.assertEqual(self.state("chunk-1"), "drained")
        self.drain("chunk-1", undo=True)
        self.until("chunk-1", "live")
        self.assertNotIn(removed.chunk.id.hex(), self.stored_chunks(self.grid.machine("chunk-1")))

    def test_may_have_what_is_missing(self) -> None:
        """A dead server is not written off while a chunk is missing: it may have it."""
        self.fill(3)
        holders = self.holders("/f0")
        for name in holders:
            self.grid.machine(name).kill()
        self.grid.advance(60)
        self.drain(*holders)
        self.grid.advance(30)
        self.assertEqual([self.state(name) for name in holders], ["dead"] * 3)
        (found, *_) = self.drain(holders[0], dry_run=True)
        self.assertIn("lack replicas that it may have", found["blockers"][0])
        self.grid.wait(self.grid.machine(holders[0]).start())
        self.drain(holders[0], undo=True)
        self.until_healthy(30)
        self.until(holders[1], "drained")
        self.until(holders[2], "drained")


class Failover(DrainCase):
    heads = 3

    def test_outlives_the_leader(self) -> None:
        """A drain goes on under the next leader, and after all heads were restarted."""
        self.fill()
        self.drain("chunk-1")
        leader = self.grid.leader()
        assert leader is not None
        leader.kill()
        self.grid.advance(3)
        self.assertIn(self.state("chunk-1"), ("draining", "suspect"))
        self.grid.wait(leader.start())
        self.until("chunk-1", "drained")
        for machine in self.grid.heads:
            machine.kill()
        for machine in self.grid.heads:
            self.grid.wait(machine.start())
        self.grid.advance(10)
        self.assertEqual(self.state("chunk-1"), "drained")
        for number in range(12):
            self.assertEqual(self.staying(f"/f{number}", "chunk-1"), 3)
