"""Rot: it is found by reading everything back, and healed, without anybody asking."""

from __future__ import annotations

from filegrid.config import Scrub
from tests.grid.case import CHUNK, GridCase, content


class Rot(GridCase):
    sections = {"scrub": Scrub(days=0.0001)}  # 8.64 s
    settings = {"collection_grace_seconds": 5, "trash_seconds": 0}

    def test_healed_unread(self) -> None:
        """A flipped byte that nobody reads is found within the deadline, and healed."""
        data = content(3 * CHUNK)
        self.put("/f", data)
        victim = self.holders("/f", 1)[0]
        self.flip("/f", victim, index=1)
        self.grid.advance(9)
        self.until_healthy(20)
        quarantine = self.grid.machine(victim).disk.names("/data/quarantine")
        self.assertEqual(len(quarantine), 1)
        rot = {one.name: one.scrubbed.rot_found for one in self.status().chunk_servers}
        self.assertEqual({name for name, count in rot.items() if count}, {victim})
        self.assertEqual(self.read("/f"), data)

    def test_everything_is_verified(self) -> None:
        """Once the deadline is over, each replica has been read back since it came."""
        for number in range(10):
            self.put(f"/f{number}", content(1000, number))
        self.grid.advance(10)
        holding = [one for one in self.status().chunk_servers if one.chunks]
        self.assertGreaterEqual(len(holding), 3)
        for server in holding:
            self.assertEqual(server.scrubbed.never_verified, 0)
            self.assertGreater(server.scrubbed.oldest_verified_ms, 0)

    def test_worn_out_sector(self) -> None:
        """A replica that the disk cannot read is made anew as well."""
        self.put("/f", content(CHUNK))
        victim = self.holders("/f")[0]
        chunk_id = self.manifest("/f").chunks[0].chunk.id.hex()
        disk = self.grid.machine(victim).disk
        disk.fail_reads(f"/data/chunks/{chunk_id[-2:]}/{chunk_id}")
        self.grid.advance(9)
        self.until_healthy(20)
        self.assertEqual(disk.names("/data/quarantine"), [chunk_id])


class Never(GridCase):
    sections = {"scrub": Scrub(days=0.0)}

    def test_never(self) -> None:
        """With 0 days nothing is read by itself."""
        self.put("/f", content(CHUNK))
        self.grid.advance(60)
        servers = self.status().chunk_servers
        self.assertEqual(sum(one.scrubbed.never_verified for one in servers), 3)
