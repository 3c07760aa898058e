"""Tests for :mod:`filegrid.ballot`."""

from __future__ import annotations

import errno
import random
import struct
from contextlib import closing

from blake3 import blake3
from twisted.trial import unittest

from filegrid.ballot import BallotFile
from filegrid.disk import read_file
from filegrid.election.messages import Ballot
from filegrid.election.quorum import Member
from filegrid.errors import DiskFailed, IntegrityError, UnsupportedVersion
from filegrid.simulation.disk import SimulatedDisk

PATH = "/node/ballot"
VOTE = Ballot(7, Member("head-2", b"incarnation"))


class BallotFileTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.disk.make_folders("/node")
        self.disk.create("/node/node").close()
        self.file = BallotFile(self.disk, PATH)

    def put(self, data: bytes) -> None:
        with closing(self.disk.open(PATH, writable=True)) as file:
            file.truncate(0)
            file.pwrite([data], 0)

    def test_none(self) -> None:
        """A new node has taken part in nothing."""
        self.assertEqual(self.file.read(), Ballot())

    def test_stored(self) -> None:
        """A vote, or an epoch without one, survives the loss of power once it is written."""
        for ballot in (VOTE, Ballot(8), Ballot(9, Member("head-1", b"\0\1"))):
            self.file.write(ballot)
            self.disk.crash()
            self.file = BallotFile(self.disk, PATH)
            self.assertEqual(self.file.read(), ballot)

    def test_other_folder(self) -> None:
        """A vote in the empty folder under a lost disk's mount point is none: it would be gone when
        the disk is back."""
        self.file.write(VOTE)
        self.disk.unmount("/node")
        self.assertRaises(DiskFailed, self.file.write, Ballot(8))
        self.assertEqual(self.disk.names("/node"), [])
        self.disk.mount("/node")
        self.assertEqual(self.file.read(), VOTE)

    def test_power_loss(self) -> None:
        """Whenever the power fails, the vote is the old or the new one, never a mixture."""
        later = Ballot(8, Member("head-3", b"another"))
        seen = set()
        for seed in range(8):
            for operations in range(10):
                disk = SimulatedDisk(random.Random(seed))
                disk.make_folders("/node")
                disk.create("/node/node").close()
                BallotFile(disk, PATH).write(VOTE)
                disk.cut_power_after(operations)
                try:
                    BallotFile(disk, PATH).write(later)
                    written = True
                except DiskFailed:
                    written = False
                disk.crash()
                found = BallotFile(disk, PATH).read()
                self.assertIn(found, (later,) if written else (VOTE, later))
                seen.add((written, found.epoch))
        self.assertLessEqual({(False, 7), (True, 8)}, seen)

    def test_failed(self) -> None:
        """A vote that could not be made durable is an error: nobody may be told of it (S16)."""
        self.file.write(VOTE)
        self.disk.fail_next("datasync", errno.EIO)
        self.assertRaises(DiskFailed, self.file.write, Ballot(8))
        self.assertEqual(self.file.read(), VOTE)

    def test_damaged(self) -> None:
        """A damaged vote is told, wherever the damage is, and not guessed (S3)."""
        self.file.write(VOTE)
        whole = read_file(self.disk, PATH)
        for place in range(len(whole)):
            self.put(whole)
            self.disk.flip_bits(PATH, place)
            self.assertRaises(IntegrityError, self.file.read)
        for length in range(len(whole)):
            self.put(whole[:length])
            self.assertRaises(IntegrityError, self.file.read)

    def test_newer(self) -> None:
        """A vote that a later release stored is refused by name (S24)."""
        self.file.write(VOTE)
        content = struct.pack(">6sH", b"FGBALL", 2) + b"anything"
        self.put(content + blake3(content).digest(16))
        error = self.assertRaises(UnsupportedVersion, self.file.read)
        self.assertIn("version 2", str(error))
