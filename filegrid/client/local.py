"""Files of this machine: what uploads read and downloads write. Everything here blocks."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filegrid.disk import pwrite_all
from filegrid.errors import (
    TO_REPLACE,
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

MOST_SMALL_BYTES = 256 * 1024
"""A file up to this size is read at once; of larger ones a part at a time."""

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
def local_errors(path: Path | str) -> Iterator[None]:
    """Turn what the operating system says of a local file into errors of ours."""
    try:
        yield
    except GridError:
        raise
    except OSError as error:
        kind = _BY_ERRNO.get(error.errno or 0, DiskFailed)
        raise kind(f"local file: {error.strerror or error}", str(path)) from error


def open_source(path: Path) -> bytes | LocalSource | BinaryIO:
    """What there is to upload: all bytes of a small file, a larger file, or a stream.

    :raises IsAFolder: where it is one; and what :func:`local_errors` makes of OSErrors.
    """
    with local_errors(path):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsAFolder("local file: this is a folder", str(path), advice="upload it with -r")
        if not stat.S_ISREG(mode):
            return path.open("rb", buffering=0)
    source = LocalSource(path)
    if source.size > MOST_SMALL_BYTES:
        return source
    try:
        data = source.read(0, source.size)
        source.check_whole()
        return data
    finally:
        source.close()


def read_small(paths: Sequence[Path]) -> list[bytes | GridError | None]:
    """All bytes of each file, or why there are none; None for what is no small file."""
    found: list[bytes | GridError | None] = []
    for path in paths:
        try:
            source = open_source(path)
        except GridError as error:
            found.append(error)
            continue
        if isinstance(source, bytes):
            found.append(source)
        else:
            source.close()
            found.append(None)
    return found


def write_whole(path: Path, data: Bytes, *, overwrite: bool, token: str) -> None:
    """Make a file with these bytes, whole or not at all; or write them to a device or pipe."""
    target = open_target(path, overwrite=overwrite, token=token)
    if not isinstance(target, LocalTarget):
        with target, local_errors(path):
            view = memoryview(data)
            while view:
                view = view[target.write(view) :]
        return
    try:
        target.write([data], 0)
        target.publish()
    finally:
        target.discard()


def open_target(path: Path, *, overwrite: bool, token: str) -> LocalTarget | BinaryIO:
    """Where a download goes: a file that is to appear, or a device or pipe that is there."""
    with local_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            return path.open("wb", buffering=0)
    return LocalTarget(path, overwrite=overwrite, token=token)


class LocalSource:
    """A regular file, as it was when it was opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with local_errors(path):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._opened = os.fstat(self._fd)
        self.size = self._opened.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Just these bytes.

        :raises SourceChanged: once the file is not what it was.
        """
        with self._lock, local_errors(self.path):
            data = os.pread(self._fd, length, offset)
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    raise self._changed("it is shorter than it was")
                data += more
            self._check(os.fstat(self._fd))
        return data

    def check_whole(self) -> None:
        """:raises SourceChanged: where the path names another file now, or bytes were added."""
        with self._lock, local_errors(self.path):
            self._check(self.path.stat())
            if os.pread(self._fd, 1, self.size):
                raise self._changed("it is longer than it was")

    def close(self) -> None:
        # The lock keeps a read whose caller was cancelled from meeting another file's descriptor.
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _check(self, now: os.stat_result) -> None:
        then = self._opened
        if (now.st_size, now.st_mtime_ns, now.st_ino, now.st_dev) != (
            then.st_size,
            then.st_mtime_ns,
            then.st_ino,
            then.st_dev,
        ):
            raise self._changed("it was changed during the upload")

    def _changed(self, what: str) -> SourceChanged:
        return SourceChanged(what, str(self.path), advice="nothing was published; upload it again")


class LocalTarget:
    """A file that appears whole under its name, or not at all; the old one stays until then.

    :param overwrite: whether a file of that name may be replaced.
    :param token: makes the temporary name unique.
    """

    def __init__(self, path: Path, *, overwrite: bool, token: str) -> None:
        self.path = path
        self._overwrite = overwrite
        self._lock = threading.Lock()
        with local_errors(path):
            self._file = path.resolve()  # as cp: what a symbolic link names is replaced
            stem = os.fsencode(path.name)[:MOST_TEMPORARY_NAME_BYTES].decode("utf-8", "ignore")
            self._temporary = self._file.parent / f".{stem}.filegrid-part-{token}"
            self._refuse_existing()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._temporary, flags, 0o666)

    def write(self, pieces: Sequence[Bytes], offset: int) -> None:
        """Nothing happens after :meth:`discard`: its caller may have been cancelled."""
        with self._lock, local_errors(self.path):
            if self._fd >= 0:
                pwrite_all(self._fd, pieces, offset)

    def publish(self) -> None:
        """Make the bytes durable and give them their name."""
        with self._lock, local_errors(self.path):
            os.fsync(self._fd)
            if self._overwrite:
                self._temporary.replace(self._file)
            else:
                self._link()
            os.close(self._fd)
            self._fd = -1
            _sync_folder(self._file.parent)

    def discard(self) -> None:
        """Leave nothing behind; nothing happens after :meth:`publish`."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                with suppress(OSError):
                    self._temporary.unlink()

    def _link(self) -> None:
        """Take the name only where it is free."""
        try:
            os.link(self._temporary, self._file)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            self._refuse_existing()  # a file system without links: the best that it can do
            self._temporary.replace(self._file)
        else:
            self._temporary.unlink()

    def _refuse_existing(self) -> None:
        if self._file.is_dir():
            raise IsAFolder("local file: this is a folder", str(self.path))
        if not self._overwrite and os.path.lexists(self._file):
            raise AlreadyExists("local file: it exists already", str(self.path), advice=TO_REPLACE)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
