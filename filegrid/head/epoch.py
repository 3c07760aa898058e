"""The highest epoch that this head ever led in, on stable storage before it is used.

A file of 32 bytes; numbers are big-endian::

    offset  length
         0       6  b"FGEPOC"
         6       2  version, 1
         8       8  epoch
        16      16  checksum: BLAKE3 of bytes 0 to 15, cut to 16 bytes
"""

from __future__ import annotations

import struct

from blake3 import blake3

from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.errors import IntegrityError, UnsupportedVersion
from filegrid.model import Epoch
from filegrid.runtime import Disk

_LAYOUT = struct.Struct(">6sHQ")
_MAGIC = b"FGEPOC"
_VERSION = 1


def _seal(content: bytes) -> bytes:
    return content + blake3(content).digest(16)


class EpochFile:
    """Methods block; one thread at a time calls them."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def read(self) -> Epoch:
        """0 where none was ever raised.

        :raises IntegrityError: where the file is damaged: the head must join anew (S3).
        :raises UnsupportedVersion: where a later release wrote it (S24).
        :raises DiskFailed: where it cannot be read.
        """
        with grid_errors(self._path):
            if not self._disk.exists(self._path):
                return Epoch(0)
            data = read_file(self._disk, self._path)
        if len(data) < _LAYOUT.size or data != _seal(data[: _LAYOUT.size]):
            raise IntegrityError(
                "the stored epoch is damaged",
                self._path,
                advice="take this head out of the grid and let a new one join in its place",
            )
        magic, version, epoch = _LAYOUT.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise UnsupportedVersion(f"the stored epoch has version {version}", self._path)
        return Epoch(epoch)

    def raise_above(self, epoch: int) -> Epoch:
        """Store and return an epoch above the stored one and above `epoch`.

        A head that starts again never goes on in its old epoch (S5).

        :raises DiskFailed: where it could not be made durable; it must not be used then.
        """
        higher = Epoch(max(self.read(), epoch) + 1)
        with grid_errors(self._path):
            replace_file(self._disk, self._path, _seal(_LAYOUT.pack(_MAGIC, _VERSION, higher)))
        return higher
