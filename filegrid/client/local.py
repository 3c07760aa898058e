"""Files of this machine: what uploads read and downloads write. Everything here blocks."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filegrid.errors import (
    AlreadyExists,
    DiskFailed,
    GridError,
    IsAFolder,
    NoSpace,
    NoSuchPath,
    NotAFolder,
    NotPermitted,
    SourceChanged,
)
from filegrid.runtime import Bytes

MOST_TEMPORARY_NAME_BYTES = 200
"""Of the name that a temporary file shares with its destination; longer ones pass NAME_MAX."""

_BY_ERRNO: dict[int, type[GridError]] = {
    errno.ENOENT: NoSuchPath,
    errno.EEXIST: AlreadyExists,
    errno.EACCES: NotPermitted,
    errno.EPERM: NotPermitted,
    errno.EISDIR: IsAFolder,
    errno.ENOTDIR: NotAFolder,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
}


@contextmanager
def local_errors(path: str | Path) -> Iterator[None]:
    """Turn what the operating system says of a local file into errors of ours."""
    try:
        yield
    except GridError:
        raise
    except OSError as error:
        kind = _BY_ERRNO.get(error.errno or 0, DiskFailed)
        raise kind(f"local file: {error.strerror or error}", str(path)) from error


class LocalSource:
    """A regular file that is read as it was when it was opened.

    :raises SourceChanged: from every method, once the file is not what it was.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with local_errors(path):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._opened = os.fstat(self._fd)
        self.size = self._opened.st_size
        self.is_regular = stat.S_ISREG(self._opened.st_mode)
        if stat.S_ISDIR(self._opened.st_mode):
            self.close()
            raise IsAFolder("local file: this is a folder", path, advice="upload it with -r")

    def read(self, offset: int, length: int) -> bytes:
        """Just these bytes."""
        with self._lock, local_errors(self.path):
            data = os.pread(self._fd, length, offset)
            while len(data) < length and (more := self._pread(length, offset, data)):
                data += more
            self._check(os.fstat(self._fd))
        if len(data) < length:
            raise self._changed("it is shorter than it was")
        return data

    def check_whole(self) -> None:
        """Say whether the path still names the file that was read, and nothing was appended."""
        with self._lock, local_errors(self.path):
            self._check(Path(self.path).stat())
            if os.pread(self._fd, 1, self.size):
                raise self._changed("it is longer than it was")

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _pread(self, length: int, offset: int, data: bytes) -> bytes:
        return os.pread(self._fd, length - len(data), offset + len(data))

    def _check(self, now: os.stat_result) -> None:
        if (now.st_size, now.st_mtime_ns, now.st_ino, now.st_dev) != (
            self.size,
            self._opened.st_mtime_ns,
            self._opened.st_ino,
            self._opened.st_dev,
        ):
            raise self._changed("it was changed during the upload")

    def _changed(self, what: str) -> SourceChanged:
        return SourceChanged(what, self.path, advice="nothing was published; upload it again")


class LocalTarget:
    """A file that appears whole under its name, or not at all; the old one stays until then.

    :param overwrite: whether a file of that name may be replaced.
    :param token: makes the temporary name unique.
    """

    def __init__(self, path: str, *, overwrite: bool, token: str) -> None:
        self.path = os.path.realpath(path)  # as cp: what a symbolic link names is replaced
        self._overwrite = overwrite
        folder, name = os.path.split(self.path)
        stem = os.fsencode(name)[:MOST_TEMPORARY_NAME_BYTES].decode("utf-8", "ignore")
        self._temporary = os.path.join(folder, f".{stem}.filegrid-part-{token}")
        self._lock = threading.Lock()
        with local_errors(path):
            self._refuse_existing()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._temporary, flags, 0o666)

    def write(self, data: Bytes, offset: int) -> None:
        # The lock keeps a write whose caller was cancelled from meeting another file's descriptor.
        with self._lock, local_errors(self.path):
            if self._fd < 0:
                return
            view = memoryview(data)
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written

    def publish(self) -> None:
        """Make the bytes durable and give them their name."""
        with self._lock, local_errors(self.path):
            os.fsync(self._fd)
            if self._overwrite:
                os.rename(self._temporary, self.path)
            else:
                self._link()
            os.close(self._fd)
            self._fd = -1
            folder = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Leave nothing behind; nothing happens after :meth:`publish`."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                with suppress(OSError):
                    os.unlink(self._temporary)

    def _link(self) -> None:
        """Take the name only where it is free."""
        try:
            os.link(self._temporary, self.path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            self._refuse_existing()  # a file system without links: the best that it can do
            os.rename(self._temporary, self.path)
        else:
            os.unlink(self._temporary)

    def _refuse_existing(self) -> None:
        if os.path.isdir(self.path):
            raise IsAFolder("local file: this is a folder", self.path)
        if not self._overwrite and os.path.lexists(self.path):
            raise AlreadyExists("local file: it exists already", self.path)
