"""The backups that the grid keeps on its own chunk servers."""

from __future__ import annotations

import random
from collections.abc import Callable

from filegrid.backup import HEADER_BYTES, STORED_AS
from filegrid.chunk.store import Store
from filegrid.cli.kept import newest
from filegrid.client.check import Checker, Finding
from filegrid.client.grid import GridClient
from filegrid.config import Backup
from filegrid.head import vault
from filegrid.head.lineage import Birth, begin_lineage, open_image
from filegrid.head.salvage import Salvage
from filegrid.model import Role
from filegrid.protocol.wire.backup_pb2 import BackupHeader
from filegrid.protocol.wire.health_pb2 import Event
from tests.grid.case import CHUNK, content
from tests.grid.heads import HeadsCase

INTERVAL = 12


class Keeping(HeadsCase):
    sections = {"backup": Backup(interval_seconds=INTERVAL)}
    settings = {"collection_grace_seconds": 1, "trash_seconds": 0}

    def kept(self) -> int:
        """As the leader knows it, without asking through the network at every step."""
        leader = self.grid.leader()
        return len(self.node(leader)._namespace.backups()) if leader is not None else -1

    def until_kept(self, count: int) -> None:
        self.until(lambda: self.kept() == count, 2 * INTERVAL)

    def events(self) -> list[Event.Kind.ValueType]:
        found = self.node(self.leader())._namespace.last_events(1000)
        backups = (Event.KIND_BACKUP_FAILED, Event.KIND_BACKUP_KEPT)
        return [one.kind for one in found if one.kind in backups]

    def find(self) -> tuple[BackupHeader, Callable[[int, int], bytes]]:
        """The newest backup, from the disks of the chunk servers alone."""
        salvage, stores = Salvage(), []
        for machine in self.grid.chunk_servers:
            store = Store(machine.disk, "/data", grid_id="simulated")
            for chunk in store.load():
                salvage.add(store.header(chunk.id))
            stores.append(store)
        found = newest(salvage.take(STORED_AS), stores)
        assert found is not None
        return found

    def test_when(self) -> None:
        """One is kept in every interval, on as many servers as a file is, and nobody sees it among
        the files."""
        self.put("/f", content(CHUNK))
        before = self.all_stored()
        self.grid.advance(INTERVAL / 2)
        self.assertEqual(self.kept(), 0)
        self.until_kept(1)
        begun = self.grid.clock.seconds()
        (chunk,) = self.all_stored() - before
        holders = [one for one in self.grid.chunk_servers if chunk in self.stored_chunks(one)]
        self.assertEqual(len(holders), 3)
        self.until_kept(2)
        self.assertLess(abs(self.grid.clock.seconds() - begun - INTERVAL), 1)
        status = self.status()
        self.assertEqual((status.files, status.bytes), (1, CHUNK))
        self.assertGreater(status.backups.last_bytes, HEADER_BYTES)
        self.assertEqual(self.names(self.leader()), ["/f"])
        self.assertEqual(self.events(), [])

    def test_another_leader(self) -> None:
        """A new leader goes on where the old one was: it makes none before it is due, and what one
        that died had begun is made anew and collected."""
        self.until_kept(1)
        known = self.all_stored()
        self.leader().kill()
        self.until(lambda: self.grid.leader() is not None)
        self.grid.advance(INTERVAL / 2)
        self.assertEqual(self.kept(), 1)
        self.until(lambda: self.all_stored() != known, INTERVAL)
        dying = self.leader()
        dying.kill()  # with a majority gone the publication of that one has to wait
        for machine in self.grid.heads:
            if machine.node is None:
                self.grid.wait(machine.start())
        self.until_kept(2)
        self.grid.advance(700)  # past the lease of the session
        self.until(lambda: len(self.all_stored()) == self.kept(), 60)

    def test_the_oldest_go(self) -> None:
        """The last of them stay; the chunks of the others are collected."""
        self.patch(vault, "MOST_KEPT", 3)
        for count in (1, 2, 3):
            self.until_kept(count)
        first = self.node(self.leader())._namespace.backups()[0]
        self.grid.advance(2.5 * INTERVAL)
        kept = self.node(self.leader())._namespace.backups()
        self.assertEqual(len(kept), 3)
        self.assertNotIn(first, kept)
        self.until(lambda: len(self.all_stored()) == 3, 60)
        self.assertEqual(self.status().chunks.total, 3)

    def test_failure(self) -> None:
        """One that cannot be kept is an event and a warning, and is tried again until it can be."""
        for machine in self.grid.chunk_servers[1:]:
            self.grid.wait(machine.stop())
        self.grid.advance(4 * INTERVAL)
        status = self.status()
        self.assertEqual(status.backups.kept, 0)
        self.assertIn("no backup could be kept in the grid", " ".join(status.warnings))
        self.assertEqual(self.events(), [Event.KIND_BACKUP_FAILED])
        for machine in self.grid.chunk_servers[1:]:
            self.grid.wait(machine.start())
        self.until_kept(1)
        self.grid.advance(1)
        self.assertEqual(self.status().backups.failure, "")
        self.assertEqual(self.events(), [Event.KIND_BACKUP_FAILED, Event.KIND_BACKUP_KEPT])

    def test_a_server_dies_meanwhile(self) -> None:
        """It is kept on those that are left, and made whole like a file; its damage is healed, and
        fsck names it."""
        self.until_kept(1)
        (chunk,) = self.all_stored()
        holder = next(one for one in self.grid.chunk_servers if chunk in self.stored_chunks(one))
        holder.kill()
        self.grid.advance(6)
        found: list[Finding] = []
        self.run_(Checker(self.client, found.append).ask("/"))
        self.assertLessEqual({one.path for one in found}, {STORED_AS})
        self.until_healthy()
        others = [one for one in self.grid.chunk_servers if one is not holder]
        self.assertEqual(sum(chunk in self.stored_chunks(one) for one in others), 3)
        self.find()  # also what repair made says what it is

    def test_all_heads_lost(self) -> None:
        """With all heads and their disks gone, the chunk servers give the names back."""
        self.put("/d", content(3 * CHUNK))
        self.run_(self.client.rename("/d", "/renamed"))  # no chunk knows that
        self.until_kept(1)
        self.until_kept(2)
        for machine in self.grid.heads:
            machine.kill()
            machine.disk.wipe()
        header, read = self.find()
        self.assertEqual(header.files, 1)
        first = self.grid.heads[0]
        birth = Birth(grid_id="simulated", name=first.name, lineage=2, rng=random.Random(1))
        begin_lineage(
            first.disk,
            "/data",
            birth,
            lambda path: open_image(
                first.disk, path, lambda length, offset: read(length, HEADER_BYTES + offset)
            ),
        )
        for machine in self.grid.heads:
            self.grid.wait(machine.start())
        self.until(lambda: self.grid.leader() is not None and self.node(self.leader()).voters == 3)
        client: GridClient = self.new_client("client-2")
        self.addCleanup(lambda: self.run_(client.close()))
        self.assertEqual(self.run_(client.read_bytes("/renamed")), content(3 * CHUNK))
        self.until_kept(2)  # the first of this lineage, beside the one that the backup knows of
        operator = self.new_client("ann", role=Role.OPERATOR)
        self.assertEqual(self.run_(operator.discard_unknown()), 1)
        self.run_(operator.close())


class NotKeeping(HeadsCase):
    sections = {"backup": Backup(interval_seconds=0)}
    heads = 1

    def test_never(self) -> None:
        """Where the interval is 0 there are none, and nobody misses them."""
        self.grid.advance(100)
        status = self.status()
        self.assertEqual((status.backups.interval_seconds, status.backups.kept), (0, 0))
        self.assertEqual(self.all_stored(), set())
