"""The fence: the highest (lineage, epoch) whose orders this chunk server has obeyed (S13).

The file, big-endian:

======  =====  ================================
offset  bytes  what
======  =====  ================================
0       8      ``FGfence`` and a line feed
8       2      format version
10      6      zero
16      8      lineage
24      8      epoch
32      16     BLAKE3 over the bytes before it
======  =====  ================================
"""

from __future__ import annotations

import struct
import threading

from blake3 import blake3

from filegrid.datafolder import NODE_FILE
from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.errors import IntegrityError, StaleEpoch, UnsupportedVersion
from filegrid.model import Epoch
from filegrid.runtime import Disk

_FORMAT_VERSION = 1
_MAGIC = b"FGfence\n"
_FIELDS = struct.Struct(">8sH6xQQ")
_CHECKSUM_BYTES = 16


class Fence:
    """Refuses heads that no longer lead, also after a restart.

    :param path: of its file, in a data folder.

    An order is obeyed only after :meth:`admit` let it pass and, where that says so, after
    :meth:`store`.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._storing = threading.Lock()
        self._stored = (0, Epoch(0))
        self.highest = self._stored

    def load(self) -> None:
        """Read what was stored; without a file no order was ever obeyed.

        :raises IntegrityError: where the file is damaged.
        :raises UnsupportedVersion: where a newer release wrote it.
        :raises DiskFailed: where it cannot be read.
        """
        with grid_errors(self._path):
            try:
                content = read_file(self._disk, self._path)
            except FileNotFoundError:
                return
        self._stored = self.highest = _decode(content, self._path)

    def admit(self, lineage: int, epoch: Epoch) -> bool:
        """Let an order pass, and no older one after it.

        :returns: whether :meth:`store` has to come before the order is obeyed.
        :raises StaleEpoch: where a later head was obeyed before.
        """
        if (lineage, epoch) < self.highest:
            lineage_now, epoch_now = self.highest
            raise StaleEpoch(
                f"an order of epoch {epoch} in lineage {lineage}, and epoch {epoch_now} "
                f"in lineage {lineage_now} was obeyed",
                self._path,
                advice="another head leads now",
            )
        self.highest = (lineage, epoch)
        return self.highest != self._stored

    def store(self) -> None:
        """Make what was admitted durable. Blocks.

        :raises NoSpace: where the disk is full.
        :raises DiskFailed: where it failed; the order must not be obeyed.
        """
        with self._storing, grid_errors(self._path):
            highest = self.highest
            if highest != self._stored:
                replace_file(self._disk, self._path, _encode(*highest), beside=NODE_FILE)
                self._stored = highest


def _encode(lineage: int, epoch: Epoch) -> bytes:
    fields = _FIELDS.pack(_MAGIC, _FORMAT_VERSION, lineage, epoch)
    return fields + blake3(fields).digest(_CHECKSUM_BYTES)


def _decode(content: bytes, path: str) -> tuple[int, Epoch]:
    fields, checksum = content[: _FIELDS.size], content[_FIELDS.size :]
    if blake3(fields).digest(_CHECKSUM_BYTES) != checksum or not fields.startswith(_MAGIC):
        raise IntegrityError(
            "the fence is damaged, so that an old head could be obeyed",
            path,
            advice="see that only one head leads, then remove this file and start again",
        )
    _, version, lineage, epoch = _FIELDS.unpack(fields)
    if version > _FORMAT_VERSION:
        raise UnsupportedVersion(
            f"the fence has format {version}, and this release reads up to {_FORMAT_VERSION}",
            path,
            advice="start the release that wrote it",
        )
    return lineage, Epoch(epoch)
