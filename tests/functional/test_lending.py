"""Open files handed over for real, between two ends in one process."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from filegrid.disk import RealDisk, RealFile
from filegrid.errors import Busy
from filegrid.net import lending
from filegrid.net.lending import DescriptorLending


class LendingTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.lending = DescriptorLending(reactor)
        self.path = Path(self.mktemp()).absolute()
        self.path.write_bytes(b"0123456789")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.lending.stop()))

    def lend(self) -> tuple[str, bytes]:
        return self.lending.lend(RealDisk().open(str(self.path)))

    def borrow(self, where: str, token: bytes) -> Deferred[RealFile]:
        return deferToThread(self.lending.borrow, where, token)

    async def test_hands_over(self) -> None:
        """The borrower reads the file itself, even when its name is gone."""
        where, token = self.lend()
        self.path.unlink()
        file = await self.borrow(where, token)
        self.addCleanup(file.close)
        self.assertEqual(file.pread(4, 3), b"3456")
        self.assertIn(file.pread_cached(4, 3), (b"3456", None))
        self.assertIsNone(file.pread_cached(20, 0))  # it is shorter than that

    async def test_once(self) -> None:
        """A token is good once, and a guessed one never."""
        where, token = self.lend()
        (await self.borrow(where, token)).close()
        for wrong in (token, bytes(16)):
            with self.assertRaises(OSError):
                await self.borrow(where, wrong)

    async def test_expires(self) -> None:
        """A file that nobody fetches is closed."""
        with mock.patch.object(lending, "LENT_SECONDS", 0.0):
            where, token = self.lend()
        with self.assertRaises(OSError):
            await self.borrow(where, bytes(16))  # a turn or two of the reactor
        with self.assertRaises(OSError):
            await self.borrow(where, token)

    async def test_only_files(self) -> None:
        """A pipe, from which a read could wait for ever, is not taken for a chunk."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        where, token = self.lending.lend(RealFile(reading))
        with self.assertRaises(OSError):
            await self.borrow(where, token)

    def test_bounded(self) -> None:
        """Above a number of files that wait, no more are lent."""
        with mock.patch.object(lending, "MOST_LENT", 1):
            self.lend()
            self.assertRaises(Busy, self.lend)
