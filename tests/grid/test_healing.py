"""How the grid heals when servers go: one, several, in good order or not, and come back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, cycle

from filegrid.chunk import copying, pace
from filegrid.config import Repair
from filegrid.errors import GridError, NotPermitted
from filegrid.head.planning import Copy
from filegrid.model import Address, Chunk, Role
from filegrid.net.dial import DataPool
from filegrid.net.fetching import fetch_chunks
from filegrid.protocol.wire.chunk_pb2 import ChunkCopy
from tests.grid.case import CHUNK, GridCase, content


class HealingCase(GridCase):
    def fill(self, files: int) -> None:
        for number in range(files):
            self.put(f"/f{number}", content(CHUNK, number))

    def stop(self, *names: str) -> None:
        for name in names:
            self.grid.wait(self.grid.machine(name).stop())

    def kill(self, *names: str) -> None:
        for name in names:
            self.grid.machine(name).kill()

    def good(self, number: int) -> list[str]:
        page = self.manifest(f"/f{number}")
        return [one.server for one in page.chunks[0].replicas if one.state == 1]

    def check(self, files: int) -> None:
        for number in range(files):
            self.assertEqual(self.read(f"/f{number}"), content(CHUNK, number))


class Maintenance(HealingCase):
    heads = 3

    def test_short_stop(self) -> None:
        """A server that was stopped in good order is waited for: nothing is copied."""
        self.fill(10)
        before = self.all_copies()
        self.stop("chunk-1")
        self.grid.advance(40)
        self.assertEqual(self.all_copies(), before)
        warnings = " ".join(self.status().warnings)
        self.assertIn("chunk-1 was stopped in good order", warnings)
        self.grid.wait(self.grid.machine("chunk-1").start())
        self.grid.advance(60)
        self.assertEqual(self.all_copies(), before)
        self.check(10)

    def test_certificates(self) -> None:
        """A warning comes 30 days ahead, and goes with the renewal: no server starts anew."""
        server = self.grid.machine("chunk-1")
        for days, expected in ((20.5, True), (365, False)):
            expires = 1_700_000_000 + self.grid.clock.seconds() + days * 86_400
            self.patch(server.node, "_certificate_expires_ms", lambda at=expires: int(at * 1000))
            self.grid.advance(3)
            warnings = " ".join(self.status().warnings)
            self.assertEqual("certificate of chunk-1 expires in 20 days" in warnings, expected)

    def test_long_stop(self) -> None:
        """One that stays away for longer than it may is repaired like any other."""
        self.fill(10)
        self.stop("chunk-1")
        self.grid.advance(62)
        self.until_healthy(20)
        for number in range(10):
            self.assertEqual(len(self.good(number)), 3)

    def test_no_waiting(self) -> None:
        """An operator who knows better need not wait; others may not say so."""
        self.fill(10)
        self.stop("chunk-1")
        with self.assertRaises(NotPermitted):
            self.run_(self.client.repair_now())
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.grid.advance(6)
        self.run_(operator.repair_now())
        self.run_(operator.close())
        self.grid.advance(1)
        self.until_healthy(10)
        for number in range(10):
            self.assertEqual(len(self.good(number)), 3)

    def test_failover(self) -> None:
        """The next leader knows who left; and what else dies meanwhile is repaired."""
        self.fill(10)
        self.stop("chunk-1")
        leader = self.grid.leader()
        assert leader is not None
        leader.kill()
        self.grid.advance(15)
        before = self.all_copies()
        self.grid.advance(10)
        self.assertEqual(self.all_copies(), before)
        self.kill("chunk-2")
        self.grid.advance(8)
        self.until_healthy(20)
        for number in range(10):
            self.assertGreaterEqual(len(set(self.good(number)) - {"chunk-1"}), 2)

    def all_copies(self) -> dict[str, int]:
        return {one.name: len(self.stored_chunks(one)) for one in self.grid.chunk_servers}


class MassVanishing(HealingCase):
    settings = {"replication": 3}

    def setUp(self) -> None:
        super().setUp()
        self.fill(20)
        self.on_both = [n for n in range(20) if {"chunk-1", "chunk-2"} <= set(self.good(n))]
        self.on_one = [n for n in range(20) if len({"chunk-1", "chunk-2"} & set(self.good(n))) == 1]
        self.assertTrue(self.on_both and self.on_one)

    def test_two_of_five(self) -> None:
        """What was on both is repaired at once; the rest waits for them, but not for ever."""
        self.kill("chunk-1", "chunk-2")
        self.grid.advance(9)
        for number in self.on_both:
            self.assertEqual(len(self.good(number)), 2, number)
        for number in self.on_one:
            self.assertEqual(len(self.good(number)), 2, number)
        (work,) = self.status().work
        self.assertIn("chunk-1, chunk-2", work.waits_for)
        self.grid.advance(12)
        self.until_healthy(10)
        self.check(20)

    def test_one_returns(self) -> None:
        """Where one comes back, the rest is repaired without further waiting."""
        self.kill("chunk-1", "chunk-2")
        self.grid.advance(9)
        self.grid.wait(self.grid.machine("chunk-2").start())
        self.until_healthy(8)
        self.check(20)

    def test_told_to_go_on(self) -> None:
        """Where a person says so, nothing waits."""
        self.kill("chunk-1", "chunk-2")
        self.grid.advance(8)
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(operator.repair_now())
        self.run_(operator.close())
        self.until_healthy(6)

    def test_one_after_another(self) -> None:
        """Servers that die one after the other, until three are left, are each repaired at once."""
        for name in ("chunk-1", "chunk-2"):
            self.kill(name)
            self.grid.advance(8)
            self.until_healthy(6)
            self.grid.advance(10)
        self.check(20)
        for number in range(20):
            self.assertEqual(sorted(self.good(number)), ["chunk-3", "chunk-4", "chunk-5"])

    def test_fewer_than_replicas(self) -> None:
        """With two servers left writes go on, and the status says that they have too few replicas;
        when a third is back all is made whole."""
        self.kill("chunk-1", "chunk-2", "chunk-3")
        self.grid.advance(30)
        self.put("/late", content(CHUNK, 99))
        self.grid.advance(3)
        self.assertIn("new files get 2 replicas, not 3", " ".join(self.status().warnings))
        self.assertEqual(len(self.holders("/late")), 2)
        self.grid.wait(self.grid.machine("chunk-3").start())
        self.grid.advance(3)
        self.until_healthy(20)
        self.assertEqual(len(self.holders("/late")), 3)


class UnderLoad(HealingCase):
    """No error and no lost byte, whichever servers are killed amid uploads and downloads, and
    everything is fully redundant again by itself."""

    TRANSFERS = 64

    def setUp(self) -> None:
        super().setUp()
        self.old = [content(CHUNK, number) for number in range(self.TRANSFERS // 2)]
        for number, data in enumerate(self.old):
            self.put(f"/old{number}", data)

    def test_any_two_of_five(self) -> None:
        for first, second in combinations(range(1, 6), 2):
            self.lose(f"chunk-{first}", f"chunk-{second}")
            for name in (f"chunk-{first}", f"chunk-{second}"):
                self.grid.wait(self.grid.machine(name).start())
            self.until_healthy(30)

    def test_one_after_the_other(self) -> None:
        """Until only three are left."""
        self.lose("chunk-4")
        self.lose("chunk-2")

    def lose(self, *names: str) -> None:
        tag = "-".join(names)
        new = [content(CHUNK + 1, 100 + number) for number in range(self.TRANSFERS // 2)]
        writing = [
            self.begin(self.client.write_bytes(f"/new-{tag}-{number}", data))
            for number, data in enumerate(new)
        ]
        reading = [
            self.begin(self.client.read_bytes(f"/old{number}")) for number in range(len(self.old))
        ]
        self.grid.advance(0.002)
        self.assertFalse(any(one.called for one in writing))
        self.assertFalse(all(one.called for one in reading))
        self.kill(*names)
        for upload in writing:
            self.grid.wait(upload)
        for download, data in zip(reading, self.old, strict=True):
            self.assertEqual(self.grid.wait(download), data)
        for number, data in enumerate(new):
            self.assertEqual(self.read(f"/new-{tag}-{number}"), data)
        self.grid.advance(8)
        self.until_healthy(30)


class Yielding(HealingCase):
    sections = {"repair": Repair(mib_per_second=100)}

    def test_clients_first(self) -> None:
        """While a client reads, replicas are made slowly."""
        self.patch(pace, "YIELDING_BYTES_PER_SECOND", CHUNK)
        self.fill(100)
        undisturbed = self.heal("chunk-1", reading=False)
        self.assertGreater(self.heal("chunk-2", reading=True), 2 * undisturbed)

    def heal(self, name: str, *, reading: bool) -> float:
        """Lose a server, and get it back afterwards; how long making replicas took."""
        paths = cycle([f"/f{number}" for number in range(100)])

        def while_short(is_short: bool) -> float:
            begun = self.grid.clock.seconds()
            while bool(self.status().chunks.under_replicated) is is_short:
                if reading:
                    self.read(next(paths))
                self.grid.advance(0.1)
            return self.grid.clock.seconds() - begun

        self.kill(name)
        while_short(False)
        took = while_short(True)
        self.grid.wait(self.grid.machine(name).start())
        self.grid.advance(5)
        self.until_healthy()
        return took


class ReadBack(HealingCase):
    def test_bad_copy(self) -> None:
        """A copy that is not on the disk as it should be never counts: it is made anew."""
        self.put("/f0", content(CHUNK, 0))
        holders = self.good(0)
        damaged: list[str] = []
        for machine in self.grid.chunk_servers:
            if machine.name not in holders:
                store = machine.node._store  # type: ignore[union-attr]
                whole = store.verify

                def verify(chunk, machine=machine, whole=whole):  # type: ignore[no-untyped-def]
                    if not damaged:
                        damaged.append(machine.name)
                        name = chunk.id.hex()
                        machine.disk.flip_bits(f"/data/chunks/{name[-2:]}/{name}", 9000)
                    whole(chunk)

                self.patch(store, "verify", verify)
        self.kill(holders[0])
        self.grid.advance(8)
        self.until_healthy(20)
        self.assertEqual(len(damaged), 1)
        (bad,) = damaged
        self.assertEqual(len(self.grid.machine(bad).disk.names("/data/quarantine")), 1)
        self.assertEqual(self.read("/f0"), content(CHUNK, 0))


class DamagedAndShort(HealingCase):
    chunk_servers = 3

    def test_replaced_where_it_was(self) -> None:
        """Once a damaged replica is made anew on its own server, a chunk is short of what else it
        lacks, and not corrupt any more."""
        self.put("/f0", content(CHUNK, 0))
        dead, bad, _ = self.good(0)
        self.kill(dead)
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.grid.advance(10)
        self.flip("/f0", bad, offset=3)
        for _ in range(9):  # one of them comes upon it
            self.assertEqual(self.read("/f0"), content(CHUNK, 0))
        self.run_(operator.repair_now())
        self.grid.advance(10)
        self.assertIn(bad, self.good(0))
        counts = self.status().chunks
        self.assertEqual((counts.corrupt, counts.under_replicated, counts.missing), (0, 1, 0))
        servers = [one.server for one in self.manifest("/f0").chunks[0].replicas]
        self.assertEqual(len(servers), len(set(servers)))
        told = [one["kind"] for one in self.run_(operator.events())["events"]]
        self.assertIn("rot_healed", told)
        self.run_(operator.close())


class Together(HealingCase):
    def setUp(self) -> None:
        super().setUp()
        self.questions: list[int] = []

        async def counted(
            pool: DataPool, address: Address, chunks: Sequence[Chunk], *, timeout_seconds: float
        ) -> list[memoryview | GridError]:
            self.questions.append(len(chunks))
            return await fetch_chunks(pool, address, chunks, timeout_seconds=timeout_seconds)

        self.patch(copying, "fetch_chunks", counted)
        self.names = [f"/small/{number:02}" for number in range(60)]
        self.run_(self.client.mkdir("/small"))
        for name in self.names:
            self.put(name, name.encode() * 20)

    def heal(self) -> None:
        self.kill("chunk-1")
        self.grid.advance(8)
        self.until_healthy(20)
        for name in self.names:
            self.assertEqual(self.read(name), name.encode() * 20)
            self.assertEqual(len(set(self.holders(name)) - {"chunk-1"}), 3)

    def test_questions(self) -> None:
        """Small chunks are copied many at a time, each with what it says of its file."""
        lost = len(self.stored_chunks(self.grid.machine("chunk-1")))
        self.heal()
        self.assertEqual(sum(self.questions), lost)
        self.assertLess(len(self.questions), lost / 2)

    def test_one_is_bad(self) -> None:
        """One that its source has damaged comes from another; the others come all the same."""
        victim = next(name for name in self.names if "chunk-1" in self.holders(name))
        source = next(name for name in self.holders(victim) if name != "chunk-1")
        for name in self.names:
            if {"chunk-1", source} <= set(self.holders(name)):
                self.flip(name, source, offset=3)
        self.heal()
        quarantined = self.grid.machine(source).disk.names("/data/quarantine")
        self.assertGreater(len(quarantined), 0)

    def test_source_is_silent(self) -> None:
        """What a source does not give in time comes from another one."""
        victim = next(name for name in self.names if "chunk-1" in self.holders(name))
        source = next(name for name in self.holders(victim) if name != "chunk-1")
        others = [one.name for one in self.grid.chunk_servers if one.name != source]
        for name in others:
            self.grid.network.cut(source, name)
        self.heal()


class Returning(HealingCase):
    sections = {"repair": Repair(mib_per_second=1)}

    def test_planned_copies_are_void(self) -> None:
        """What was to be copied is not, once the server that had it is back."""
        self.fill(30)
        self.kill("chunk-1")
        lost = len(self.stored_chunks(self.grid.machine("chunk-1")))
        ordered: list[Copy] = []
        leader = self.grid.leader()
        assert leader is not None
        repair = leader.node._reign._repair  # type: ignore[union-attr]
        to_wire = repair._to_wire

        def counted(copy: Copy) -> ChunkCopy:
            ordered.append(copy)
            return to_wire(copy)

        self.patch(repair, "_to_wire", counted)
        self.grid.advance(6)
        self.assertGreater(len(ordered), 0)
        self.grid.wait(self.grid.machine("chunk-1").start())
        self.grid.advance(20)
        self.assertLess(len(ordered), lost)
        self.until_healthy(5)
        for number in range(30):
            self.assertEqual(len(self.good(number)), 3)
