"""What if, and why: what people are told of the grid's redundancy is what then happens."""

from __future__ import annotations

from typing import Any

from filegrid.client.explain import explain
from filegrid.errors import IntegrityError, InvalidRequest, IsAFolder, Unavailable
from tests.grid.case import CHUNK, GridCase, content


class WhatIf(GridCase):
    def what_if(self, *down: str) -> dict[str, Any]:
        return self.run_(self.client.what_if(*down))

    def test_comes_true(self) -> None:
        """What is said of two servers is what happens when they are gone."""
        for number in range(12):
            self.put(f"/f{number}", content(CHUNK, number), replication=2 if number % 2 else 3)
        self.put("/one", content(10), replication=1)
        names = ("chunk-1", "chunk-2")
        holders = {f"/f{number}": set(self.holders(f"/f{number}")) for number in range(12)}
        holders["/one"] = set(self.holders("/one"))
        found = self.what_if(*names)
        left = {path: len(held - set(names)) for path, held in holders.items()}
        unreadable = sorted(path for path, count in left.items() if not count)
        single = sorted(path for path, count in left.items() if count == 1 < len(holders[path]))
        self.assertEqual((found["unreadable"], found["one_replica"]), (unreadable, single))
        self.assertEqual(found["chunks"], 13)
        short = [path for path, count in left.items() if count < len(holders[path])]
        self.assertEqual(found["under_replicated_chunks"], len(short))
        copies = sum(
            (len(holders[path]) - left[path]) * (CHUNK if path != "/one" else 10)
            for path in short
            if left[path]
        )
        self.assertEqual(found["repair"]["bytes"], copies)
        self.assertTrue(found["writable"] and found["repair"]["fits"])
        self.assertEqual(found["repair"]["full_redundancy"], not unreadable)
        # Both are held back for. What is on its last replica is copied four times as fast.
        rate = 200 * 1024 * 1024 * found["servers_left"]
        seconds = 5 + 15 + (copies - 0.75 * len(single) * CHUNK) / rate
        self.assertGreater(len(single), 0)
        self.assertAlmostEqual(found["repair"]["seconds"], seconds)

    def test_racks(self) -> None:
        """Racks mean their servers; those that do not exist are refused."""
        self.put("/f", b"x")
        self.assertEqual(self.what_if("rack:dc1/r1")["down"], ["chunk-1", "chunk-4"])
        self.assertEqual(len(self.what_if("rack:dc1", "chunk-1")["down"]), 5)
        with self.assertRaises(InvalidRequest):
            self.what_if("rack:dc1/r9")

    def test_no_more_writes(self) -> None:
        """With fewer servers than min_replicas nothing that wants two could be written."""
        self.put("/f", b"x")
        self.put("/one", b"x", replication=1)
        found = self.what_if("chunk-1", "chunk-2", "chunk-3", "chunk-4")
        self.assertFalse(found["writable"])
        self.assertEqual(found["unwritable"], ["/f"])
        self.assertFalse(found["repair"]["full_redundancy"])

    def test_trash_and_shared(self) -> None:
        """A chunk that several versions name affects all of them; removed ones have no path."""
        self.put("/f", content(CHUNK))
        self.run_(self.client.append("/f", b"more"))
        found = self.what_if(*self.holders("/f"))
        self.assertEqual(found["unreadable"], ["", "/f"])

    def test_empty(self) -> None:
        """Where nothing is stored nothing can be lost."""
        found = self.what_if("rack:dc1")
        self.assertEqual((found["chunks"], found["unreadable"]), (0, []))
        self.assertEqual(found["repair"]["seconds"], 0)


class Explain(GridCase):
    racks = 2

    def explain(self, path: str) -> dict[str, Any]:
        return self.run_(explain(self.client, path))

    def test_healthy(self) -> None:
        """Each chunk is told with its servers, racks, and what it survives."""
        self.put("/f", content(CHUNK + 10))
        found = self.explain("/f")
        self.assertEqual([chunk["length"] for chunk in found["chunks"]], [CHUNK, 10])
        for index, chunk in enumerate(found["chunks"]):
            servers = [replica["server"] for replica in chunk["replicas"]]
            self.assertEqual(sorted(servers), sorted(self.holders("/f", index)))
            self.assertEqual(chunk["survives"], {"servers": 2, "racks": 1})
            self.assertIn("2 racks have live servers, for 3 replicas", " ".join(chunk["why"]))
            self.assertEqual({one["state"] for one in chunk["replicas"]}, {"good"})

    def test_lost_server(self) -> None:
        """What a dead server takes away is said."""
        self.put("/f", content(CHUNK))
        holder = self.holders("/f")[0]
        self.grid.machine(holder).kill()
        self.grid.advance(1)
        (chunk,) = self.explain("/f")["chunks"]
        self.assertEqual(chunk["survives"]["servers"], 1)
        why = " ".join(chunk["why"])
        self.assertIn(f"the replica on {holder} cannot be had now", why)
        self.assertIn("1 more of 3 replicas are to be made", why)

    def test_survival_is_true(self) -> None:
        """A chunk that survives two servers is read when two are gone, and not when three are."""
        self.put("/f", content(CHUNK))
        holders = self.holders("/f")
        self.assertEqual(self.explain("/f")["chunks"][0]["survives"]["servers"], 2)
        for name in holders[:2]:
            self.grid.machine(name).kill()
        self.assertEqual(self.read("/f"), content(CHUNK))
        self.grid.machine(holders[2]).kill()
        hurried = self.new_client("client-2", timeout_seconds=3)
        with self.assertRaises((Unavailable, IntegrityError)):
            self.run_(hurried.read_bytes("/f"))
        self.run_(hurried.close())

    def test_folder(self) -> None:
        """A folder has no chunks to explain."""
        with self.assertRaises(IsAFolder):
            self.explain("/")
