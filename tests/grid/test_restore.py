"""A new lineage: what a grid is after all its heads were lost and one was made of a backup."""

from __future__ import annotations

import random
from pathlib import Path

from filegrid.backup import HEADER_BYTES, verify
from filegrid.client.grid import GridClient
from filegrid.errors import InvalidRequest, NoSuchPath, StaleEpoch, Unavailable, WrongGrid
from filegrid.head.lineage import Birth, begin_lineage, open_image
from filegrid.head.schema import Registers
from filegrid.model import Role
from filegrid.protocol.wire import chunk_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.simulation.grid import Machine
from tests.grid.case import CHUNK, content
from tests.grid.heads import HeadsCase


class Restoring(HeadsCase):
    settings = {"collection_grace_seconds": 1, "trash_seconds": 0}

    def setUp(self) -> None:
        super().setUp()
        self.operator = self.new_client("ann", role=Role.OPERATOR)
        self.before: GridClient | None = None
        self.file = Path(self.mktemp())

    def tearDown(self) -> None:
        self.run_(self.operator.close())
        if self.before is not None:
            self.run_(self.before.close())
        super().tearDown()

    def back_up(self) -> None:
        self.run_(self.operator.backup(self.file))

    def begin_lineage(
        self, machine: Machine, lineage: int = 2, grid_id: str = "simulated"
    ) -> Registers:
        data = self.file.read_bytes()
        verify(lambda length, offset: data[offset : offset + length], "backup")
        image = data[HEADER_BYTES:]
        birth = Birth(grid_id=grid_id, name=machine.name, lineage=lineage, rng=random.Random(1))
        return begin_lineage(
            machine.disk,
            "/data",
            birth,
            lambda path: open_image(
                machine.disk, path, lambda length, offset: image[offset : offset + length]
            ),
        )

    def lose_heads(self) -> None:
        for machine in self.grid.heads:
            if machine.node is not None:
                machine.kill()
            machine.disk.wipe()

    def restore(self) -> None:
        """Lose all heads, and make the first anew of the backup; the others join it."""
        self.lose_heads()
        self.begin_lineage(self.grid.heads[0])
        for machine in self.grid.heads:
            self.grid.wait(machine.start())
        self.until(lambda: self.grid.leader() is not None and self.node(self.leader()).voters == 3)
        self.before = self.client  # its session is over
        self.client = self.new_client("client-2")

    def test_names_and_contents(self) -> None:
        """What the backup has is there, whole, with three heads; and the grid takes changes."""
        self.run_(self.client.mkdir("/d"))
        self.put("/d/f", content(3 * CHUNK))
        self.put("/g", content(1000, 2))
        self.back_up()
        self.run_(self.client.remove("/g"))
        self.restore()
        self.until_healthy()
        self.assertEqual(self.read("/d/f"), content(3 * CHUNK))
        self.put("/new", content(CHUNK, 3))
        self.leader().kill()
        self.until(lambda: self.grid.leader() is not None)
        self.assertEqual(self.read("/new"), content(CHUNK, 3))
        self.assertEqual(sorted(self.names(self.leader())), ["/d", "/g", "/new"])

    def test_born_after_the_backup(self) -> None:
        """Chunks that the backup does not know stay until an operator gives them up (S12)."""
        self.put("/old", content(1000))
        self.back_up()
        known = self.all_stored()
        self.put("/young", content(2 * CHUNK, 2))
        young = self.all_stored() - known
        self.restore()
        self.put("/removed", content(1000, 3))
        self.run_(self.client.remove("/removed"))
        self.grid.advance(700)  # past the lease of every session
        self.assertEqual(self.all_stored(), known | young)
        self.assertIn("2 chunks of before the restore", " ".join(self.status().warnings))
        self.assertEqual(self.run_(self.operator.discard_unknown(dry_run=True)), 2)
        self.grid.advance(10)
        self.assertEqual(self.all_stored(), known | young)
        self.run_(self.operator.discard_unknown())
        self.until(lambda: self.all_stored() == known, 30)
        self.assertEqual(self.read("/old"), content(1000))
        self.assertNotIn("restore", " ".join(self.status().warnings))

    def test_old_heads_are_fenced_off(self) -> None:
        """A head of the lineage before is not obeyed, whatever its epoch (S12, S13)."""
        self.put("/f", content(1000))
        self.back_up()
        leader = self.leader()
        for _ in range(3):  # the old heads come to epochs that the new ones never see
            leader.kill()
            self.until_another_leads(leader)
            self.grid.wait(leader.start())
            leader = self.leader()
        self.grid.advance(2)
        epoch = self.node(leader)._council.leader_epoch
        self.restore()
        new = self.node(self.leader())
        self.assertLess(new._council.leader_epoch, epoch)
        self.grid.advance(2)  # its heartbeats raise the fence
        server = self.holders("/f")[0]
        link = new._roster[server].link
        assert link is not None
        order = new._roster.order(new._roster[server])
        order.lineage, order.epoch = 1, epoch + 10
        with self.assertRaises(StaleEpoch):
            self.run_(link.call(chunk_pb2.Heartbeat(order=order), Done, timeout_seconds=5))

    def test_sessions_are_over(self) -> None:
        """An upload that was under way when the backup was made is never published."""
        upload = self.run_(self.client.open_write("/f"))
        self.run_(upload.write(content(2 * CHUNK)))
        self.back_up()
        self.restore()
        with self.assertRaises(Unavailable) as caught:
            self.run_(upload.publish())
        self.assertIn("nothing was published", str(caught.exception))
        with self.assertRaises(NoSuchPath):
            self.run_(self.client.stat("/f"))
        self.put("/f", b"x")

    def test_refused(self) -> None:
        """A lineage is only ever left for a higher one; another grid's backup, and a head that has
        data, are refused."""
        self.back_up()
        self.lose_heads()
        first, second, third = self.grid.heads
        with self.assertRaises(InvalidRequest):
            self.begin_lineage(first, lineage=1)
        with self.assertRaises(WrongGrid):
            self.begin_lineage(second, grid_id="another")
        self.assertEqual(self.begin_lineage(third, lineage=7).lineage, 7)
