"""Events on disk."""

from __future__ import annotations

import errno
import random

from twisted.trial.unittest import SynchronousTestCase

from filegrid.disk import read_file, replace_file
from filegrid.errors import DiskFailed
from filegrid.health.chronicle_file import ChronicleFile
from filegrid.protocol.wire.health_pb2 import Event, Evidence
from filegrid.simulation.disk import SimulatedDisk

EVENTS = [
    Event(kind=Event.KIND_ELECTION, epoch=4, node="head-1", at_ms=1_700_000_000_000),
    Event(
        kind=Event.KIND_VERDICT,
        epoch=4,
        node="head-1",
        incarnation=bytes(range(16)),
        at_ms=1_700_000_001_000,
        evidence=[Evidence(health_node="health-2", text="no answer for 0.8 s\nor more")],
    ),
]


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.disk.make_folders("/data")
        self.file = ChronicleFile(self.disk, "/data/events")

    def test_kept(self) -> None:
        """What was written is read again, also after a loss of power; at first there is nothing."""
        self.assertEqual(self.file.read(), [])
        self.file.write(EVENTS)
        self.disk.crash()
        self.assertEqual(self.file.read(), EVENTS)

    def test_damaged(self) -> None:
        """A line that cannot be read is left out, and the node starts all the same."""
        self.file.write(EVENTS)
        lines = read_file(self.disk, "/data/events").splitlines(keepends=True)
        for damage in (b"\xff\xfe garbage\n", b'{"kind": "KIND_ELEC\n', b"[1]\n", b"\n"):
            replace_file(self.disk, "/data/events", damage + lines[1] + damage)
            self.assertEqual(self.file.read(), EVENTS[1:])

    def test_of_a_later_release(self) -> None:
        """Fields that a later release added do not matter."""
        replace_file(self.disk, "/data/events", b'{"epoch": "4", "weather": "fine"}\n')
        self.assertEqual(self.file.read(), [Event(epoch=4)])

    def test_disk_fails(self) -> None:
        """A disk that fails is named."""
        self.disk.fail_next("datasync", errno.EIO)
        self.assertRaises(DiskFailed, self.file.write, EVENTS)
