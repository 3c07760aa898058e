"""The fence lets no head pass that no longer leads."""

from __future__ import annotations

import errno
import random
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk import fence as fence_module
from filegrid.chunk.fence import Fence
from filegrid.disk import read_file, replace_file
from filegrid.errors import DiskFailed, IntegrityError, StaleEpoch, UnsupportedVersion
from filegrid.model import Epoch
from filegrid.simulation.disk import SimulatedDisk


class FenceTests(SynchronousTestCase):
    """What it admits, and what it remembers."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.disk.make_folders("/d")
        self.disk.create("/d/node").close()
        self.fence = self.load()

    def load(self) -> Fence:
        fence = Fence(self.disk, "/d/fence")
        fence.load()
        return fence

    def obey(self, lineage: int, epoch: int) -> bool:
        admitted = self.fence.admit(lineage, Epoch(epoch))
        self.fence.store()
        return admitted

    def test_only_upwards(self) -> None:
        """A higher order has to be stored, an equal one passes, a lower one is refused."""
        self.assertTrue(self.obey(1, 5))
        self.assertFalse(self.fence.admit(1, Epoch(5)))
        self.assertRaises(StaleEpoch, self.fence.admit, 1, Epoch(4))
        self.assertTrue(self.obey(2, 1))  # a lineage counts before its epochs
        self.assertRaises(StaleEpoch, self.fence.admit, 1, Epoch(9))

    def test_survives_any_crash(self) -> None:
        """What was stored is refused to older heads after a crash too."""
        for epoch in range(1, 20):
            self.obey(1, epoch)
            self.disk.crash()
            self.fence = self.load()
            self.assertEqual(self.fence.highest, (1, epoch))
            self.assertRaises(StaleEpoch, self.fence.admit, 1, Epoch(epoch - 1))

    def test_crash_while_storing(self) -> None:
        """A crash while it is stored leaves the old fence or the new one."""
        for operations in range(8):
            for seed in range(10):
                self.disk = SimulatedDisk(random.Random(seed))
                self.disk.make_folders("/d")
                self.disk.create("/d/node").close()
                self.fence = self.load()
                self.obey(1, 1)
                self.fence.admit(1, Epoch(2))
                self.disk.cut_power_after(operations)
                try:
                    self.fence.store()
                    allowed = {2}
                except DiskFailed:
                    allowed = {1, 2}
                self.disk.crash()
                self.assertIn(self.load().highest[1], allowed)

    def test_failed_store(self) -> None:
        """Where storing failed, the next order has to be stored again."""
        self.disk.fail_next("datasync", errno.EIO)
        self.assertTrue(self.fence.admit(1, Epoch(1)))
        self.assertRaises(DiskFailed, self.fence.store)
        self.assertTrue(self.obey(1, 1))
        self.assertFalse(self.fence.admit(1, Epoch(1)))

    def test_damage(self) -> None:
        """A damaged fence is refused with what to do, whichever byte it is."""
        self.obey(1, 1)
        for offset in range(len(read_file(self.disk, "/d/fence"))):
            self.disk.flip_bits("/d/fence", offset)
            refused = self.assertRaises(IntegrityError, self.load)
            self.assertIn("remove this file", str(refused))
            self.disk.flip_bits("/d/fence", offset)
        replace_file(self.disk, "/d/fence", b"")
        self.assertRaises(IntegrityError, self.load)

    def test_newer_version(self) -> None:
        """A fence of a newer release is refused by its version."""
        with mock.patch.object(fence_module, "_FORMAT_VERSION", 2):
            self.obey(1, 1)
        self.assertIn("format 2", str(self.assertRaises(UnsupportedVersion, self.load)))
