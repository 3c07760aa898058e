"""Bulk writes past the page cache: large pieces go from aligned buffers straight to the disk.

The page cache costs a copy, and the kernel's work for every page, several times what the disk's
own work costs; and what it gathers makes the last sync wait long.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Sequence

from filegrid.runtime import Bytes, File

ALIGNED_BYTES = 4096
"""What addresses, offsets and lengths must be multiples of; no common disk asks for more."""

BUFFER_BYTES = 1024 * 1024
"""Written by one call: less, and the disk waits for us more than we for it."""

MOST_BUFFERS = 32
"""In use at once, 32 MiB in all; files above that number are written through the page cache."""


class Buffers:
    """Aligned buffers that are used again. Used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: list[mmap.mmap] = []
        self._made = 0

    def take(self) -> mmap.mmap | None:
        """A buffer; None while too many are in use."""
        with self._lock:
            if self._spare:
                return self._spare.pop()
            if self._made == MOST_BUFFERS:
                return None
            self._made += 1
        return mmap.mmap(-1, BUFFER_BYTES)  # anonymous memory begins at a page

    def give(self, buffer: mmap.mmap) -> None:
        with self._lock:
            self._spare.append(buffer)


class DirectFile:
    """A :class:`filegrid.runtime.File` that gathers what is written in order.

    A full buffer goes straight to the disk; a rest, and whatever is not in order, goes through
    the page cache. A file that is closed without :meth:`datasync` may miss its last bytes.

    :param plain: the file through the page cache, closed with this one.
    :param fd: the same file, open for direct writing; closed with this one.
    :param buffers: where its buffer comes from, and goes at the end.
    """

    def __init__(self, plain: File, fd: int, buffer: mmap.mmap, buffers: Buffers) -> None:
        self._plain = plain
        self._fd = fd
        self._buffer: mmap.mmap | None = buffer
        self._buffers = buffers
        self._start = 0  # where in the file the buffer's first byte belongs
        self._filled = 0

    def pwrite(self, pieces: Sequence[Bytes], offset: int) -> None:
        if self._buffer is None or offset != self._start + self._filled:
            self._flush()
            if self._buffer is None or offset % ALIGNED_BYTES:
                self._plain.pwrite(pieces, offset)
                return
            self._start = offset
        for piece in pieces:
            view = memoryview(piece).cast("B")
            while view and self._buffer is not None:
                end = min(BUFFER_BYTES, self._filled + len(view))
                taken = end - self._filled
                self._buffer[self._filled : end] = view[:taken]
                self._filled = end
                view = view[taken:]
                if end == BUFFER_BYTES:
                    self._write_direct(self._buffer)
            if view:
                self._plain.pwrite([view], self._start)
                self._start += len(view)

    def pread(self, length: int, offset: int) -> bytes:
        self._flush()
        return self._plain.pread(length, offset)

    def pread_cached(self, length: int, offset: int) -> Bytes | None:
        self._flush()
        return self._plain.pread_cached(length, offset)

    def size(self) -> int:
        self._flush()
        return self._plain.size()

    def truncate(self, length: int) -> None:
        self._flush()
        self._plain.truncate(length)

    def start_writeback(self, offset: int, length: int) -> None:
        """Most of it is on its way as it is written."""

    def uncache(self) -> None:
        self._plain.uncache()

    def read_no_further(self) -> None:
        self._plain.read_no_further()

    def datasync(self) -> None:
        self._flush()
        self._plain.datasync()

    def close(self) -> None:
        self._plain.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self._release()

    def _write_direct(self, buffer: mmap.mmap) -> None:
        try:
            written = os.pwrite(self._fd, buffer, self._start)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            written = 0  # this disk wants something else of direct writes: never mind
        if written < BUFFER_BYTES:
            self._plain.pwrite([memoryview(buffer)[written:]], self._start + written)
        self._start += BUFFER_BYTES
        self._filled = 0
        if written < BUFFER_BYTES:
            self._release()

    def _flush(self) -> None:
        if self._buffer is not None and self._filled:
            self._plain.pwrite([memoryview(self._buffer)[: self._filled]], self._start)
            self._start += self._filled
            self._filled = 0

    def _release(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._buffers.give(buffer)
