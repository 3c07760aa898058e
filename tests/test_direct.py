"""Tests of filegrid.direct, on the machine's file system."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.direct import BUFFER_BYTES, MOST_BUFFERS, DirectFile
from filegrid.disk import RealDisk
from filegrid.runtime import File

CONTENT = bytes(range(251)) * (2 * BUFFER_BYTES // 251 + 2500)
"""More than two buffers."""


class DirectFileTests(SynchronousTestCase):
    """Whatever is written, and however it goes to the disk, is what is read."""

    def setUp(self) -> None:
        self.disk = RealDisk()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.count = 0

    def create(self) -> File:
        self.count += 1
        return self.disk.create_bulk(str(self.folder / str(self.count)))

    def check(self, file: File, expected: bytes) -> None:
        """It reads back, and is on the disk under its name."""
        file.datasync()
        self.assertEqual(file.size(), len(expected))
        self.assertEqual(file.pread(len(expected) + 1, 0), expected)
        self.assertEqual((self.folder / str(self.count)).read_bytes(), expected)

    @given(
        cuts=st.lists(st.integers(0, len(CONTENT)), max_size=6),
        start=st.sampled_from([0, 8192, 5]),
        end=st.sampled_from([0, 10, 4096, BUFFER_BYTES, len(CONTENT)]),
    )
    def test_any_cut(self, cuts: list[int], start: int, end: int) -> None:
        """However a content is cut, and wherever it begins; then a header, as chunks have one."""
        data = CONTENT[:end]
        edges = [0, *sorted(min(cut, end) for cut in cuts), end]
        with closing(self.create()) as file:
            for low, high in pairwise(edges):
                file.pwrite([data[low:high]], start + low)
            file.pwrite([b"end"], start + end)
            file.pwrite([b"h" * start], 0)
            self.check(file, b"h" * start + data + b"end")

    def test_what_a_disk_refuses(self) -> None:
        """Where direct writing does not work after all, the page cache is used."""
        refusal = OSError(errno.EINVAL, "no")
        with closing(self.create()) as file, mock.patch.object(os, "pwrite", side_effect=refusal):
            file.pwrite([CONTENT], 0)
            self.check(file, CONTENT)

    def test_short_writes(self) -> None:
        """What the system wrote only in part is gone on with."""
        real = os.pwrite
        with (
            closing(self.create()) as file,
            mock.patch.object(os, "pwrite", lambda fd, data, at: real(fd, data[:4096], at)),
        ):
            file.pwrite([CONTENT], 0)
            self.check(file, CONTENT)

    def test_errors_are_told(self) -> None:
        """A disk that fails is never taken for one that wants something else."""
        failure = OSError(errno.EIO, "broken")
        with closing(self.create()) as file, mock.patch.object(os, "pwrite", side_effect=failure):
            self.assertRaises(OSError, file.pwrite, [CONTENT], 0)

    def test_bounded(self) -> None:
        """Only so many files have a buffer; it is free again when they are closed."""
        files = [self.create() for _ in range(MOST_BUFFERS + 2)]
        direct = [isinstance(file, DirectFile) for file in files]
        for file in files:
            file.close()
        with closing(self.create()) as after:
            again = isinstance(after, DirectFile)
        if not any(direct):
            self.skipTest("this file system has no direct writing")
        self.assertEqual((direct.count(True), again), (MOST_BUFFERS, True))

    def test_closed(self) -> None:
        """A file that was closed takes nothing, and closing it again does no harm."""
        file = self.create()
        file.close()
        file.close()
        self.assertRaises(OSError, file.pwrite, [b"late"], 0)
        self.assertRaises(OSError, file.datasync)
