"""Several disks in a chunk server: one that fails is a partial failure, not a dead server."""

from __future__ import annotations

import errno
from collections.abc import Callable

from filegrid.protocol.wire.head_pb2 import ServerStatus
from filegrid.simulation.grid import Machine
from tests.grid.case import CHUNK, GridCase, content


class DiskCase(GridCase):
    settings = {"collection_grace_seconds": 5, "trash_seconds": 0}
    files = 12

    def setUp(self) -> None:
        super().setUp()
        self.victim = self.grid.machine("chunk-1")
        for number in range(self.files):
            self.put(f"/f{number}", content(CHUNK, number))

    def chunks_on(self, machine: Machine, folder: str) -> int:
        shelves = machine.disk.names(f"{folder}/chunks")
        return sum(len(machine.disk.names(f"{folder}/chunks/{shelf}")) for shelf in shelves)

    def unmount(self, folder: str) -> None:
        """Its disk is gone, and what is left is the empty folder under the mount point."""
        self.victim.disk.unmount(folder)

    def mount(self, folder: str) -> None:
        self.victim.disk.mount(folder)

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(100):
            if condition():
                return
            self.grid.advance(0.5)
        self.fail("never")

    def shown(self) -> ServerStatus:
        return next(one for one in self.status().chunk_servers if one.name == self.victim.name)

    def all_readable(self) -> None:
        for number in range(self.files):
            self.assertEqual(self.read(f"/f{number}"), content(CHUNK, number))


class Several(DiskCase):
    disks = 3

    def test_spread(self) -> None:
        """Chunks go to all disks of a server."""
        for machine in self.grid.chunk_servers:
            used = [self.chunks_on(machine, one) for one in ("/data", "/disk-2", "/disk-3")]
            self.assertGreaterEqual(sum(count > 0 for count in used), 2, used)
        self.assertEqual(len(self.shown().disks), 3)

    def test_lost_mount(self) -> None:
        """An empty folder under a mount point is a missing disk: only what was on it is made anew,
        the server stays, and the disk is taken back with its chunks when it returns."""
        self.assertGreater(self.chunks_on(self.victim, "/disk-2"), 0)
        on_disk = self.chunks_on(self.victim, "/disk-2")
        self.unmount("/disk-2")
        self.grid.advance(4)
        shown = self.shown()
        self.assertEqual(shown.state, "live")
        self.assertIn("disk /disk-2", shown.reason)
        self.assertIn("mount its disk", shown.reason)
        self.until_healthy(30)
        self.assertEqual(self.victim.disk.names("/disk-2"), [])
        self.all_readable()
        self.mount("/disk-2")
        self.grid.advance(15)
        self.assertEqual(self.shown().reason, "")
        self.assertGreaterEqual(self.shown().chunks, on_disk)
        self.assertEqual(self.status().chunks.missing, 0)
        self.all_readable()

    def test_missing_at_start(self) -> None:
        """A server starts without a disk that is missing, and says so."""
        self.grid.wait(self.victim.stop())
        self.unmount("/disk-3")
        self.grid.wait(self.victim.start())
        self.grid.advance(5)
        self.assertIn("disk /disk-3", self.shown().reason)
        self.until_healthy(30)
        self.all_readable()

    def test_read_only(self) -> None:
        """A disk that cannot be written is written no more, and read all the same; the writers do
        not notice."""
        self.victim.disk.fail_next("create", errno.EROFS, times=1)
        for number in range(6):
            self.put(f"/more{number}", content(CHUNK, 100 + number))
        self.all_readable()
        self.victim.disk.heal()
        self.grid.advance(3)
        self.assertEqual(self.shown().reason, "")

    def test_restart(self) -> None:
        """After a restart everything is where it was."""
        self.grid.advance(2)
        chunks = self.shown().chunks
        self.victim.kill()
        self.grid.wait(self.victim.start())
        self.grid.advance(3)
        self.assertEqual(self.shown().chunks, chunks)
        self.assertEqual(self.status().chunks.under_replicated, 0)


class Few(DiskCase):
    """As many servers as replicas: what a lost disk held is made anew on the same server."""

    disks = 3
    chunk_servers = 3

    def on_disks(self) -> dict[str, int]:
        return {one: self.chunks_on(self.victim, one) for one in ("/data", "/disk-2", "/disk-3")}

    def test_lies_there_once(self) -> None:
        """When the disk is back, nothing stays on two disks; and all that is removed is gone."""
        before = self.on_disks()
        self.unmount("/disk-2")
        self.grid.advance(4)
        self.until_healthy(30)
        self.mount("/disk-2")
        self.assertEqual(sum(self.on_disks().values()), self.files + before["/disk-2"])
        self.grid.advance(25)
        self.assertEqual(sum(self.on_disks().values()), self.files)
        self.all_readable()
        for number in range(self.files):
            self.run_(self.client.remove(f"/f{number}"))
        self.grid.advance(60)
        self.assertEqual(sum(self.on_disks().values()), 0)

    def test_the_other_disk_is_lost(self) -> None:
        """While a chunk lies on two disks one of them may go."""
        self.unmount("/disk-2")
        self.grid.advance(4)
        self.until_healthy(30)
        self.mount("/disk-2")
        self.until(lambda: "/disk-2" not in self.shown().reason)
        self.unmount("/disk-3")
        self.until_healthy(30)
        self.all_readable()
        self.mount("/disk-3")
        self.grid.advance(25)
        self.assertEqual(sum(self.on_disks().values()), self.files)
        self.all_readable()

    def test_restart_between(self) -> None:
        """A server that restarts with a chunk on two disks keeps it on one."""
        self.unmount("/disk-2")
        self.grid.advance(4)
        self.until_healthy(30)
        self.victim.kill()
        self.mount("/disk-2")
        self.grid.wait(self.victim.start())
        self.grid.advance(25)
        self.assertEqual(sum(self.on_disks().values()), self.files)
        self.all_readable()


class Single(DiskCase):
    def test_lost_mount(self) -> None:
        """When its only disk is lost a server stays to say so, and has everything back with it."""
        self.grid.advance(2)
        chunks = self.shown().chunks
        self.unmount("/data")
        self.grid.advance(4)
        self.assertIn("mounted", self.shown().reason)
        self.until_healthy(30)
        self.all_readable()
        self.mount("/data")
        self.grid.advance(4)
        self.assertEqual(self.shown().reason, "")
        self.assertGreaterEqual(self.shown().chunks, chunks)
        self.all_readable()

    def test_read_only(self) -> None:
        """A read-only file system is named, gets no new chunks, and serves what it has."""
        self.victim.disk.fail_next("create", errno.EROFS, times=1000)
        for number in range(6):
            self.put(f"/more{number}", content(CHUNK, 100 + number))
        self.grid.advance(3)
        self.assertIn("mount the file system writable", self.shown().reason)
        self.assertEqual(self.shown().state, "live")
        self.all_readable()
        self.victim.disk.heal()
        self.grid.advance(3)
        self.assertEqual(self.shown().reason, "")
