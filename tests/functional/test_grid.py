"""A grid of real processes, sockets and disks, with kill -9."""

from __future__ import annotations

import filecmp
import json
import random
import time

from tests.functional.case import MIB, RealGrid


class LifeOfAGrid(RealGrid):
    def test_life_of_a_grid(self) -> None:
        """Files survive chunk servers killed under load, a killed head, damage, and down and up."""
        self.up()
        big = self.make_file("big", 48 * MIB + 12345)
        empty = self.make_file("empty", 0)
        tree = self.files / "tree"
        (tree / "sub").mkdir(parents=True)
        for number in range(60):
            folder = tree / "sub" if number % 2 else tree
            (folder / f"{number}").write_bytes(random.Random(number).randbytes(number * 100))

        uploads = [
            self.begin("put", str(big), "/big"),
            self.begin("put", "-r", str(tree), "/tree"),
        ]
        time.sleep(0.7)
        self.node("kill", "chunk-2")
        for upload in uploads:
            _, err = upload.communicate(timeout=120)
            self.assertEqual(upload.returncode, 0, err)
        self.filegrid("put", str(empty), "/empty")
        self.until_clean(30)

        # Down to two good servers of four while a download runs.
        download = self.begin("get", "/big", str(self.files / "big.out"))
        time.sleep(0.3)
        self.node("kill", "chunk-3")
        _, err = download.communicate(timeout=120)
        self.assertEqual(download.returncode, 0, err)
        self.assertSame(big, self.files / "big.out")
        self.node("start", "chunk-2")
        self.node("start", "chunk-3")
        self.until_clean(30)

        # The head is killed under a waiting client, and comes back.
        self.node("kill", "head-1")
        waiting = self.begin("get", "-r", "/tree", str(self.files / "tree.out"))
        self.node("start", "head-1")
        _, err = waiting.communicate(timeout=120)
        self.assertEqual(waiting.returncode, 0, err)
        compared = filecmp.dircmp(tree, self.files / "tree.out")
        self.assertEqual(
            (compared.left_only, compared.right_only, compared.diff_files), ([], [], [])
        )

        # A replica rots.
        stat = json.loads(self.filegrid("stat", "/big", "--json"))
        replica = stat["chunks"][0]["replicas"][0]
        rotten = self.home / "nodes" / replica["server"] / replica["file"]
        with open(rotten, "r+b") as file:
            file.seek(replica["offset"] + 1000)
            byte = file.read(1)
            file.seek(replica["offset"] + 1000)
            file.write(bytes([byte[0] ^ 1]))
        self.filegrid("fsck", "--verify", code=6)
        self.until_clean(30)
        self.assertTrue(list((self.home / "nodes" / replica["server"] / "quarantine").iterdir()))

        # Everything is still there after a night.
        self.filegrid("down", "--home", str(self.home))
        self.up()
        self.filegrid("get", "/big", str(self.files / "big.again"))
        self.assertSame(big, self.files / "big.again")
        self.assertEqual(self.filegrid("cat", "/empty"), "")
        self.assertEqual(self.filegrid("digest", str(big)).split()[0], stat["digest"])
        self.assertEqual(self.status()["chunks"]["missing"], 0)
