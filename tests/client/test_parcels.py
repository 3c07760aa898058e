"""Small chunks that travel together, and what breaks on their way."""

from __future__ import annotations

import errno
from collections import Counter
from typing import Any

from blake3 import blake3
from twisted.internet.defer import Deferred

from filegrid.chunk import parcel
from filegrid.chunk.service import ChunkServer
from filegrid.client import parcels
from filegrid.client.stat import Stat
from filegrid.errors import IntegrityError, InvalidRequest, NoSpace, Unavailable, from_fault
from filegrid.model import Address, Chunk, ChunkId, Digest, Role, digest_over
from filegrid.net.link import expect
from filegrid.protocol.wire import chunk_pb2 as wire
from tests.grid.case import GridCase, content


class Together(GridCase):
    chunk_servers = 3

    def setUp(self) -> None:
        super().setUp()
        self.put("/first", b"1")  # so that session and connections are there
        self.operator = self.new_client("ann", role=Role.OPERATOR)

    def tearDown(self) -> None:
        self.run_(self.operator.close())
        super().tearDown()

    def begin_many(self, count: int, length: int = 100) -> list[Deferred[Stat]]:
        return [
            self.begin(self.client.write_bytes(f"/f{number}", content(length, number)))
            for number in range(count)
        ]

    def watch_syncs(self) -> Counter[str]:
        """How many groups each server writes from now on."""
        syncs: Counter[str] = Counter()
        for machine in self.grid.chunk_servers:
            assert isinstance(machine.node, ChunkServer)
            (volume,) = machine.node._store
            small = volume.store._small
            write = small._write_group

            def counted(group: Any, name: str = machine.name, write: Any = write) -> None:
                syncs[name] += 1
                write(group)

            self.patch(small, "_write_group", counted)
        return syncs

    def test_one_sync_for_many(self) -> None:
        """Files written at the same time cost each server one sync, not one each."""
        syncs = self.watch_syncs()
        for written in self.begin_many(40):
            self.grid.wait(written)
        self.assertEqual(set(syncs.values()), {1})
        for number in range(40):
            self.assertEqual(self.read(f"/f{number}"), content(100, number))
            self.assertEqual(len(self.holders(f"/f{number}")), 3)

    def test_folders(self) -> None:
        """Files of many folders travel together, and each as the policy of its folder says."""
        folders = [f"/d{number}" for number in range(12)]
        for folder in folders:
            self.run_(self.client.mkdir(folder))
        self.run_(self.operator.set_policy("/d5", replication=2))
        syncs = self.watch_syncs()
        writing = [
            self.begin(self.client.write_bytes(f"{folder}/f{number}", content(100, number)))
            for folder in folders
            for number in range(3)
        ]
        for written in writing:
            self.grid.wait(written)
        self.assertLess(max(syncs.values()), 6)
        for folder in folders:
            wanted = 2 if folder == "/d5" else 3
            for number in range(3):
                self.assertEqual(len(self.holders(f"{folder}/f{number}")), wanted)

    def test_changed_policy(self) -> None:
        """What a folder's policy said is old news after a second."""
        self.put("/f1", b"x")
        self.run_(self.operator.set_policy("/", replication=2))
        self.grid.advance(parcels.PLACEMENT_SECONDS + 0.1)
        self.put("/f2", b"x")
        self.assertEqual(len(self.holders("/f2")), 2)

    def test_bounded(self) -> None:
        """A parcel has a bounded length; what does not fit goes in the next."""
        self.patch(parcels, "MOST_BYTES", 2500)
        self.patch(parcels, "MOST_PATH_BYTES", 20)
        self.patch(parcels, "MOST_CHUNKS", 4)
        syncs = self.watch_syncs()
        for length in (1000, 1, 3000):
            syncs.clear()
            for written in self.begin_many(9, length):
                self.grid.wait(written)
            self.assertGreater(min(syncs.values()), 2)
            for number in range(9):
                self.assertEqual(self.read(f"/f{number}"), content(length, number))
                self.run_(self.client.remove(f"/f{number}"))

    def test_closed(self) -> None:
        """What is on its way when the client closes fails, and says so."""
        client = self.new_client("client-2")
        self.run_(client.write_bytes("/x", b"x"))
        writing = [self.begin(client.write_bytes(f"/y{number}", b"y")) for number in range(5)]
        for one in writing:
            one.addErrback(lambda failure: failure.trap(Unavailable) and None)
        self.run_(client.close())
        self.grid.advance(1)
        self.assertTrue(all(one.called for one in writing))

    def test_cancelled(self) -> None:
        """A write that is cancelled leaves no file, and takes none with it."""
        first, *others = self.begin_many(5)
        first.addErrback(lambda _: None)
        first.cancel()
        for written in others:
            self.grid.wait(written)
        paths = self.run_(self.client.list_page("/"))[0]
        self.assertEqual(len(paths), 5)


class Failing(GridCase):
    def test_server_dies(self) -> None:
        """Whoever dies with small chunks on their way is gone on without; then all heals."""
        self.put("/first", b"1")
        writing = [
            self.begin(self.client.write_bytes(f"/f{number}", content(100, number)))
            for number in range(100)
        ]
        self.grid.advance(0.002)
        self.grid.machine("chunk-2").kill()
        for written in writing:
            self.grid.wait(written)
        for number in range(100):
            self.assertEqual(self.read(f"/f{number}"), content(100, number))
        self.until_healthy(30)

    def test_failed_sync(self) -> None:
        """Where too few servers can sync, the chunk is tried again, under a new id (S15, S16)."""
        for machine in self.grid.chunk_servers[:2]:
            machine.disk.fail_next("datasync", errno.EIO, times=3)
        for number in range(10):
            self.put(f"/f{number}", content(100, number))
        self.until_healthy(30)
        ids = [self.manifest(f"/f{number}").chunks[0].chunk.id for number in range(10)]
        self.assertEqual(len(set(ids)), 10)
        for number in range(10):
            self.assertEqual(self.read(f"/f{number}"), content(100, number))
            self.assertEqual(len(self.holders(f"/f{number}")), 3)

    def test_no_space(self) -> None:
        """A server without room is gone on without."""
        machine = self.grid.machine("chunk-1")
        machine.disk.capacity_bytes = 1000
        for number in range(10):
            self.put(f"/f{number}", content(1000, number))
            self.assertEqual(self.read(f"/f{number}"), content(1000, number))

    def test_no_space_anywhere(self) -> None:
        """Where no server has room, it says for how much, and of which file."""
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = 1000
        self.grid.advance(2)
        hurried = self.new_client("client-2", timeout_seconds=1)
        with self.assertRaises(NoSpace) as refused:
            self.run_(hurried.write_bytes("/f", content(300)))
        self.assertIn("300 bytes", str(refused.exception))
        self.assertIn("/f", str(refused.exception))
        self.run_(hurried.close())


class OneServer(GridCase):
    """What a server makes of a parcel, right or wrong."""

    chunk_servers = 3

    def store(self, chunks: list[Chunk], data: bytes) -> wire.Stored:
        async def ask() -> wire.Stored:
            pool = self.client.access.pool
            machine = self.grid.chunk_servers[0]
            address = Address(machine.name, 7000)
            link = await pool.acquire(address)
            request = wire.StoreChunks(
                chunks=[wire.SmallChunk(chunk=chunk.to_wire()) for chunk in chunks]
            )
            exchange = link.open(request, timeout_seconds=5)
            exchange.write(data, last=True)
            try:
                return expect(wire.Stored, await exchange.answer, link.peer)
            finally:
                pool.release(address, link)

        return self.run_(ask())

    def chunk(self, number: int, data: bytes) -> Chunk:
        digest = digest_over([blake3(data).digest()])
        return Chunk(id=ChunkId(number.to_bytes(16, "big")), length=len(data), digest=digest)

    def test_one_of_them_damaged(self) -> None:
        """A chunk that was damaged on its way is refused; the others are stored."""
        good, bad = self.chunk(1, b"abc"), self.chunk(2, b"abc")
        stored = self.store([good, bad], b"abcabd")
        (failure,) = stored.failures
        self.assertEqual(failure.chunk_id, bad.id)
        self.assertIsInstance(from_fault(failure.fault), IntegrityError)
        again = self.store([good], b"abc")
        self.assertIsInstance(from_fault(again.failures[0].fault), InvalidRequest)

    def test_other_lengths(self) -> None:
        """Bytes that are too few, too many, or too much at once are refused."""
        for data in (b"ab", b"abcd", b""):
            with self.assertRaises(InvalidRequest):
                self.store([self.chunk(3, b"abc")], data)
        large = Chunk(id=ChunkId(bytes(16)), length=parcel.MOST_BYTES + 1, digest=Digest(bytes(32)))
        with self.assertRaises(InvalidRequest):
            self.store([large], b"")
        with self.assertRaises(InvalidRequest):
            self.store([self.chunk(4, b"")] * (parcel.MOST_CHUNKS + 1), b"")
