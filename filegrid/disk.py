"""The file system of the machine, and what every user of a disk needs on top of the seam.

:class:`RealDisk` is :class:`filegrid.runtime.Disk` over system calls;
:mod:`filegrid.simulation.disk` is its twin.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filegrid.direct import Buffers, DirectFile
from filegrid.errors import DiskFailed, GridError, NoSpace
from filegrid.runtime import Bytes, Disk

_MOST_PIECES: int = os.sysconf("SC_IOV_MAX")
"""pwritev refuses more with EINVAL."""

_SYNC_FILE_RANGE_WRITE = 2  # from <fcntl.h>: start writing out dirty pages, wait for nothing


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None  # not Linux; the last datasync then has all the work
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    found: Callable[[int, int, int, int], int] = call
    return found


_sync_file_range = _find_sync_file_range()


def pwrite_all(fd: int, pieces: Sequence[Bytes], offset: int) -> None:
    """Write all pieces, one after the other, from `offset` on, in as few calls as that takes."""
    left = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    first = 0
    while first < len(left):
        count = os.pwritev(fd, left[first : first + _MOST_PIECES], offset)
        offset += count
        while first < len(left) and count >= len(left[first]):
            count -= len(left[first])
            first += 1
        if count:  # a short write ended inside this piece
            left[first] = left[first][count:]


class RealFile:
    """An open file of the machine."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pwrite(self, pieces: Sequence[Bytes], offset: int) -> None:
        pwrite_all(self._fd, pieces, offset)

    def pread(self, length: int, offset: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]
        read = len(data)
        while read < length and (data := os.pread(self._fd, length - read, offset + read)):
            pieces.append(data)
            read += len(data)
        return b"".join(pieces)

    def pread_cached(self, length: int, offset: int) -> Bytes | None:
        data = bytearray(length)
        try:
            count = os.preadv(self._fd, [data], offset, os.RWF_NOWAIT)
        except OSError:  # it would wait, or this file system cannot tell
            return None
        return data if count == length else None

    def fileno(self) -> int:
        return self._fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, length: int) -> None:
        os.ftruncate(self._fd, length)

    def start_writeback(self, offset: int, length: int) -> None:
        if _sync_file_range is not None:
            # The result does not matter: datasync reports what could not be written.
            _sync_file_range(self._fd, offset, length, _SYNC_FILE_RANGE_WRITE)

    def uncache(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def read_no_further(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def datasync(self) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # fdatasync: a ValueError
        os.fdatasync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1  # later calls fail with EBADF, never reach another file
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()  # a thread opened it for somebody who did not wait for it


class RealDisk:
    """The file systems of the machine. What it makes is for its own user alone."""

    def __init__(self) -> None:
        self._buffers = Buffers()

    def create(self, path: str) -> RealFile:
        return RealFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def create_bulk(self, path: str) -> RealFile | DirectFile:
        plain = self.create(path)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
        except (OSError, AttributeError):
            return plain  # this file system, or this system, has no direct writing
        buffer = self._buffers.take()
        if buffer is None:
            os.close(fd)
            return plain
        return DirectFile(plain, fd, buffer, self._buffers)

    def open(self, path: str, *, writable: bool = False) -> RealFile:
        return RealFile(os.open(path, os.O_RDWR if writable else os.O_RDONLY))

    def rename(self, source: str, target: str) -> None:
        Path(source).rename(target)

    def remove(self, path: str) -> None:
        Path(path).unlink()

    def sync_folder(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_folders(self, path: str) -> None:
        folder = Path(path)
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            self.sync_folder(str(folder.parent))

    def names(self, path: str) -> list[str]:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries)

    def exists(self, path: str) -> bool:
        return Path(path).exists()

    def space(self, path: str) -> tuple[int, int]:
        status = os.statvfs(path)
        return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize

    def lock(self, path: str) -> RealFile:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        return RealFile(file)

    def database(self, path: str) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def copy_database(self, database: sqlite3.Connection, path: str) -> None:
        self.create(path).close()
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as target:
                target.execute("PRAGMA journal_mode = OFF")  # it is whole, or of no use
                target.execute("PRAGMA synchronous = OFF")
                database.backup(target)
        except sqlite3.Error as error:
            full = "full" in str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), path) from error


_ADVICE = {
    errno.EROFS: "mount the file system writable; the kernel log says why it is not",
    errno.EIO: "look into the kernel log and replace the disk",
    errno.ENOENT: "see whether its disk is mounted",
    errno.EACCES: "give this user the right to read and write it",
    errno.EPERM: "give this user the right to read and write it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@contextmanager
def grid_errors(subject: str) -> Iterator[None]:
    """The one place where an OSError becomes an error of the grid.

    :param subject: the chunk, file or folder that the work is about.
    :raises NoSpace: where the disk or the quota is full.
    :raises DiskFailed: for every other OSError.
    """
    try:
        yield
    except GridError:
        raise  # some of them are OSErrors too
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the disk is full", subject, advice="free or add space") from error
        code = error.errno or errno.EIO
        what = f"the disk failed ({os.strerror(code)})"
        raise DiskFailed(what, subject, advice=_ADVICE.get(code, "")) from error


def read_file(disk: Disk, path: str) -> bytes:
    """All of a small file. :raises OSError: where it is missing or cannot be read."""
    with closing(disk.open(path)) as file:
        return file.pread(file.size(), 0)


def replace_file(disk: Disk, path: str, content: bytes, *, beside: str = "") -> None:
    """Give a small file new contents, durably: after a crash it has the old or the new ones.

    :param beside: a name in the same folder without which that is another one: the empty folder
        under the mount point of a disk that went, and comes back with the old contents.
    :raises OSError: where that failed; the file then has the old or the new contents.
    """
    folder = path.rpartition("/")[0] or "/"
    temporary = f"{path}.tmp"
    with suppress(FileNotFoundError):
        disk.remove(temporary)  # of a crash
    with closing(disk.create(temporary)) as file:
        file.pwrite([content], 0)
        file.datasync()
    disk.rename(temporary, path)
    disk.sync_folder(folder)
    if beside and not disk.exists(f"{folder}/{beside}"):
        disk.remove(path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{folder}/{beside}")
