"""What breaks, and what users see of it: nothing but a pause."""

from __future__ import annotations

import errno
import io
from pathlib import Path

from twisted.internet.defer import CancelledError

from filegrid.chunk.service import ChunkServer
from filegrid.errors import (
    Cancelled,
    IntegrityError,
    InvalidRequest,
    NoSpace,
    NoSuchPath,
    OutcomeUnknown,
    Unavailable,
)
from tests.grid.case import CHUNK, GridCase, content

GRACE = {"collection_grace_seconds": 5, "trash_seconds": 0}


class ServersFail(GridCase):
    def test_killed_during_uploads(self) -> None:
        """Uploads go on, and end well, when a server is killed in their middle; then all heals."""
        data = [content(6 * CHUNK, seed) for seed in range(4)]
        uploads = [
            self.begin(self.client.write_bytes(f"/f{number}", one))
            for number, one in enumerate(data)
        ]
        self.grid.advance(0.004)
        self.assertFalse(all(upload.called for upload in uploads))
        self.grid.machine("chunk-2").kill()
        for upload in uploads:
            self.grid.wait(upload)
        for number, one in enumerate(data):
            self.assertEqual(self.read(f"/f{number}"), one)
        self.until_healthy(30)

    def test_killed_during_downloads(self) -> None:
        """Downloads go on at other replicas when a server is killed in their middle."""
        data = content(20 * CHUNK)
        self.put("/f", data)
        download = self.begin(self.client.read_bytes("/f"))
        self.grid.advance(0.004)
        self.assertFalse(download.called)
        for name in ("chunk-1", "chunk-3"):
            self.grid.machine(name).kill()
        self.assertEqual(self.grid.wait(download), data)

    def test_stalled_during_an_upload(self) -> None:
        """A server that is cut off without a word is given up after some seconds."""
        data = content(6 * CHUNK)
        upload = self.begin(self.client.write_bytes("/f", data))
        self.grid.advance(0.004)
        self.grid.network.isolate("chunk-3")
        self.grid.wait(upload, seconds=60)
        self.assertEqual(self.read("/f"), data)

    def test_begun_on_a_hanging_disk(self) -> None:
        """A chunk that was given up while a disk hung is not being written there for ever."""
        machine = self.grid.machine("chunk-1")
        machine.hang_disk()
        other = self.new_client("client-2", timeout_seconds=2)
        uploads = [self.begin(other.write_bytes(f"/f{n}", content(CHUNK))) for n in range(9)]
        self.grid.advance(5)
        self.run_(other.close())
        for upload in uploads:
            upload.addErrback(lambda _: None)
        self.grid.advance(20)
        assert isinstance(machine.node, ChunkServer)
        machine.mend_disk()
        self.grid.advance(2)
        self.assertEqual(machine.node._store.writers, 0)

    def test_slow_links(self) -> None:
        """Slow, jittery links that split the bytes anyhow change nothing but the time."""
        for one in self.grid.chunk_servers:
            for pair in (("client-1", one.name), (one.name, "client-1")):
                weather = self.grid.network.weather(*pair)
                weather.splits = True
                weather.jitter_seconds = 0.001
                weather.bytes_per_second = 2e6
        data = content(CHUNK + 5)
        self.put("/f", data)
        self.assertEqual(self.read("/f"), data)

    def test_dead_server_is_replaced(self) -> None:
        """What a dead server held is made anew elsewhere, by itself."""
        for number in range(20):
            self.put(f"/f{number}", content(1000, number))
        self.grid.machine("chunk-1").kill()
        self.grid.advance(8)
        self.until_healthy(20)
        for number in range(20):
            self.assertNotIn("chunk-1", self.good_holders(f"/f{number}"))

    def good_holders(self, path: str) -> list[str]:
        good = 1  # REPLICA_STATE_GOOD
        return [one.server for one in self.manifest(path).chunks[0].replicas if one.state == good]

    def test_two_dead_of_five(self) -> None:
        """Two servers killed at once cost nothing; full redundancy comes back by itself."""
        data = [content(2 * CHUNK, number) for number in range(8)]
        for number, one in enumerate(data):
            self.put(f"/f{number}", one)
        self.grid.machine("chunk-1").kill()
        self.grid.machine("chunk-2").kill()
        for number, one in enumerate(data):
            self.assertEqual(self.read(f"/f{number}"), one)
        self.grid.advance(8)
        self.until_healthy(40)

    def test_server_returns(self) -> None:
        """A server that comes back with its data counts again."""
        self.put("/f", content(1000))
        name = self.holders("/f")[0]
        self.grid.machine(name).kill()
        self.grid.advance(3)
        self.grid.wait(self.grid.machine(name).start())
        self.grid.advance(3)
        self.assertIn(name, self.good_holders("/f"))
        self.assertEqual(self.status().chunks.healthy, 1)

    def test_power_loss_of_every_machine(self) -> None:
        """An acknowledged file survives the loss of power of all machines at once."""
        data = content(3 * CHUNK)
        self.put("/f", data)
        for machine in (self.grid.head, *self.grid.chunk_servers):
            machine.crash()
        self.grid.start()
        self.assertEqual(self.read("/f"), data)
        self.until_healthy(30)

    def test_too_few_servers(self) -> None:
        """With fewer servers than min_replicas a write fails with the reason; reads go on."""
        self.put("/f", b"x", replication=5)
        for number in (1, 2, 3, 4):
            self.grid.machine(f"chunk-{number}").kill()
        hurried = self.new_client("client-2", timeout_seconds=5)
        with self.assertRaises(Unavailable) as raised:
            self.run_(hurried.write_bytes("/g", b"y"))
        self.assertIn("2 are needed", str(raised.exception))
        self.assertEqual(self.run_(hurried.read_bytes("/f")), b"x")
        self.run_(hurried.close())


class HeadFails(GridCase):
    def test_restart(self) -> None:
        """A head that is killed and started again goes on where it was; clients see a pause."""
        self.put("/f", b"before")
        self.grid.head.kill()
        reading = self.begin(self.client.read_bytes("/f"))
        writing = self.begin(self.client.write_bytes("/g", b"after"))
        self.grid.advance(1)
        self.grid.wait(self.grid.head.start())
        self.assertEqual(self.grid.wait(reading), b"before")
        self.grid.wait(writing)
        self.assertEqual(self.read("/g"), b"after")
        self.assertEqual(self.status().epoch, 2)

    def test_lost_data(self) -> None:
        """A lone head whose data is gone refuses to start, rather than make an empty grid (S1)."""
        self.grid.head.crash()
        self.grid.head.disk.wipe()
        with self.assertRaises(InvalidRequest) as caught:
            self.grid.head.start()
        self.assertIn("there is no grid in this head's data", str(caught.exception))

    def test_lost_reply(self) -> None:
        """A change whose reply was lost is not applied twice, and not reported as failed."""
        self.run_(self.client.mkdir("/a"))
        for number in range(10):
            renaming = self.begin(self.client.mkdir(f"/a/{number}"))
            self.grid.advance(0.0003)  # it is on its way, or applied, or answered
            self.grid.network.cut("head-1", "client-1", both_ways=False)
            self.grid.advance(6)
            self.grid.network.mend("head-1", "client-1", both_ways=False)
            self.grid.wait(renaming)

    def test_unreachable(self) -> None:
        """Without a head, a read is unavailable and a change that was sent is unknown, in time."""
        hurried = self.new_client("client-2", timeout_seconds=4)
        self.run_(hurried.mkdir("/a"))
        self.grid.network.isolate("head-1")
        begun = self.grid.clock.seconds()
        with self.assertRaises(Unavailable):
            self.run_(hurried.stat("/a"))
        with self.assertRaises((OutcomeUnknown, Unavailable)):
            self.run_(hurried.mkdir("/b"))
        self.assertLess(self.grid.clock.seconds() - begun, 12)
        self.grid.network.rejoin("head-1")
        self.run_(hurried.close())

    def test_unknown_is_not_missing(self) -> None:
        """A head that just started calls no chunk missing before the servers had their time."""
        self.put("/f", content(1000))
        for machine in (self.grid.head, *self.grid.chunk_servers):
            machine.kill()
        self.grid.wait(self.grid.head.start())
        self.grid.advance(2)  # it leads again only when what it may have granted has ended (S5)
        status = self.status()
        self.assertEqual((status.chunks.missing, status.chunks.under_replicated), (0, 0))
        self.assertIn("not all chunk servers have reported", status.warnings[0])
        self.grid.advance(8)
        self.assertEqual(self.status().chunks.missing, 1)


class Damage(GridCase):
    def test_flipped_bits(self) -> None:
        """A read is right although a replica is not; the replica is set aside and healed."""
        data = content(2 * CHUNK)
        self.put("/f", data)
        for server in self.holders("/f")[:2]:
            self.flip("/f", server)
        for _ in range(10):  # until each replica was tried
            self.assertEqual(self.read("/f"), data)
        self.grid.advance(10)
        self.until_healthy(20)
        quarantined = [
            name
            for machine in self.grid.chunk_servers
            for name in machine.disk.names("/data/quarantine")
        ]
        self.assertEqual(len(quarantined), 2)

    def test_no_good_replica(self) -> None:
        """Where every replica is damaged, no byte of them is delivered."""
        self.put("/f", content(CHUNK))
        for server in self.holders("/f"):
            self.flip("/f", server)
        hurried = self.new_client("client-2", timeout_seconds=5)
        with self.assertRaises(IntegrityError):
            self.run_(hurried.read_bytes("/f"))
        self.run_(hurried.close())
        self.grid.advance(1)
        self.assertEqual(self.status().chunks.corrupt, 1)


class OthersAreDown(GridCase):
    chunk_servers = 3

    def test_not_lost(self) -> None:
        """Where the one replica that can be reached is damaged, and the others are on servers that
        are down, that is said, and nothing is called lost."""
        data = content(CHUNK)
        self.put("/f", data)
        self.flip("/f", "chunk-1")
        for name in ("chunk-2", "chunk-3"):
            self.grid.machine(name).kill()
        self.grid.advance(10)
        hasty = self.new_client("client-2", timeout_seconds=2)
        for _ in range(2):
            with self.assertRaises(Unavailable) as raised:
                self.run_(hasty.read_bytes("/f"))
            self.assertIn("chunk-3 is down", str(raised.exception))
        self.grid.wait(self.grid.machine("chunk-3").start())
        self.assertEqual(self.run_(hasty.read_bytes("/f")), data)
        self.run_(hasty.close())


class FullDisks(GridCase):
    def test_one_full_disk(self) -> None:
        """A server whose disk fills up in the middle of a write is left out."""
        self.grid.machine("chunk-2").disk.fail_next("pwrite", errno.ENOSPC, times=1000)
        data = content(6 * CHUNK)
        self.put("/f", data)
        self.assertEqual(self.read("/f"), data)

    def test_all_full(self) -> None:
        """Where no server has room, a write says so, and removing makes room again."""
        self.put("/f", content(4 * CHUNK))
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = 262 * 1024 * 1024  # of which 256 MiB are held back
        self.grid.advance(2)
        hurried = self.new_client("client-2", timeout_seconds=5)
        with self.assertRaises(NoSpace):
            self.run_(hurried.put(io.BytesIO(content(200 * CHUNK)), "/g"))
        with self.assertRaises(NoSuchPath):
            self.run_(hurried.stat("/g"))
        self.run_(hurried.close())
        self.run_(self.client.remove("/f", now=True))

    def test_failed_sync(self) -> None:
        """A replica whose fsync failed is dropped and never acknowledged (S16)."""
        self.grid.machine("chunk-1").disk.fail_next("datasync", errno.EIO, times=1000)
        data = content(3 * CHUNK)
        self.put("/f", data)
        for index in range(3):
            self.assertNotIn("chunk-1", self.holders("/f", index))
        self.assertEqual(self.read("/f"), data)


class Collection(GridCase):
    settings = GRACE

    def test_removed(self) -> None:
        """The chunks of a removed file go from the servers, after the grace and not before."""
        self.put("/f", content(3 * CHUNK))
        self.put("/kept", content(CHUNK, seed=2))
        self.run_(self.client.remove("/f"))
        self.grid.advance(4)
        self.assertEqual(len(self.all_stored()), 4)
        self.grid.advance(6)
        self.assertEqual(len(self.all_stored()), 1)
        self.assertEqual(self.read("/kept"), content(CHUNK, seed=2))

    def test_interrupted_upload(self) -> None:
        """An upload that was cancelled leaves nothing to see, and its space is given back."""
        other = self.new_client("client-2")
        upload = self.begin(other.write_bytes("/f", content(40 * CHUNK)))
        self.grid.advance(0.03)
        self.assertFalse(upload.called)
        upload.cancel()
        with self.assertRaises((Cancelled, CancelledError)):
            self.grid.wait(upload)
        self.run_(other.close())
        with self.assertRaises(NoSuchPath):
            self.run_(self.client.stat("/f"))
        self.assertGreater(len(self.all_stored()), 0)
        self.grid.advance(20)
        self.assertEqual(self.all_stored(), set())
        for machine in self.grid.chunk_servers:
            self.assertEqual(machine.disk.names("/data/tmp"), [])

    def test_running_upload_is_kept(self) -> None:
        """Chunks of an upload that is under way are not collected, however long it takes."""

        class Slow(io.RawIOBase):
            """Gives a chunk each time that it is allowed to."""

        writer = self.run_(self.client.open_write("/f"))
        data = content(4 * CHUNK)
        for start in range(0, len(data), CHUNK):
            self.run_(writer.write(data[start : start + CHUNK]))
            self.grid.advance(30)
        self.run_(writer.publish())
        self.assertEqual(self.read("/f"), data)

    def test_dead_client(self) -> None:
        """What a client uploaded that died is collected once its session has expired."""
        runtime, identity = self.grid.client_runtime("client-9")
        from filegrid.client.grid import GridClient
        from filegrid.simulation.process import ProcessClock

        dying = GridClient(runtime, identity, [*self.grid.head_addresses])
        upload = self.begin(dying.write_bytes("/f", content(40 * CHUNK)))
        self.grid.advance(0.03)
        self.assertFalse(upload.called)
        assert isinstance(runtime.clock, ProcessClock)
        runtime.clock.end()
        self.grid.network.crash("client-9")
        self.assertGreater(len(self.all_stored()), 0)
        self.grid.advance(11 * 60)
        self.assertEqual(self.all_stored(), set())
        upload.addErrback(lambda _: None)

    def test_collection_spares_shared_chunks(self) -> None:
        """A chunk that an append took over stays when the version before it goes."""
        self.put("/f", content(2 * CHUNK))
        self.run_(self.client.append("/f", b"more"))
        self.grid.advance(20)
        self.assertEqual(self.read("/f"), content(2 * CHUNK) + b"more")


class LocalFiles(GridCase):
    def test_destination_stays_whole(self) -> None:
        """A download that fails leaves the old local file as it was, and nothing beside it."""
        self.put("/f", content(CHUNK))
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "f").write_bytes(b"old")
        for server in self.holders("/f"):
            self.flip("/f", server)
        hurried = self.new_client("client-2", timeout_seconds=3)
        with self.assertRaises(IntegrityError):
            self.run_(hurried.get("/f", folder / "f"))
        self.run_(hurried.close())
        self.assertEqual([one.name for one in folder.iterdir()], ["f"])
        self.assertEqual((folder / "f").read_bytes(), b"old")

    def test_cannot_write(self) -> None:
        """A destination that cannot be written is an error that names it."""
        self.put("/f", b"x")
        with self.assertRaises(OSError) as raised:
            self.run_(self.client.get("/f", Path(self.mktemp()) / "missing" / "f"))
        self.assertIn("missing", str(raised.exception))
