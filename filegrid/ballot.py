"""A node's ballot: the highest epoch it took part in, and its vote there, on stable storage.

====== ====== ==============================================================
offset length what
====== ====== ==============================================================
0      6      b"FGBALL"
6      2      version, 1, big-endian
8      L      a protobuf :class:`Ballot`
8 + L  16     checksum: BLAKE3 of all before it, cut to 16 bytes
====== ====== ==============================================================
"""

from __future__ import annotations

import struct

from blake3 import blake3

from filegrid.datafolder import NODE_FILE
from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.election.messages import Ballot
from filegrid.election.quorum import Member
from filegrid.errors import IntegrityError, UnsupportedVersion
from filegrid.protocol.wire import election_pb2 as wire
from filegrid.runtime import Disk

_START = struct.Struct(">6sH")
_MAGIC = b"FGBALL"
_VERSION = 1
_CHECKSUM_BYTES = 16


class BallotFile:
    """Methods block; one thread at a time calls them.

    :param path: in a data folder.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def read(self) -> Ballot:
        """Of epoch 0 where there is none.

        :raises IntegrityError: where the file is damaged: the node must join anew (S3).
        :raises UnsupportedVersion: where a later release wrote it (S24).
        :raises DiskFailed: where it cannot be read.
        """
        with grid_errors(self._path):
            if not self._disk.exists(self._path):
                return Ballot()
            data = read_file(self._disk, self._path)
        content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if blake3(content).digest(_CHECKSUM_BYTES) != checksum or content[:6] != _MAGIC:
            raise IntegrityError(
                "the stored vote is damaged",
                self._path,
                advice="empty this node's data folder: it joins again as a new one",
            )
        _, version = _START.unpack_from(content)
        if version != _VERSION:
            raise UnsupportedVersion(f"the stored vote has version {version}", self._path)
        stored = wire.Ballot.FromString(content[_START.size :])
        voted = Member(stored.candidate, stored.candidate_incarnation)
        return Ballot(stored.epoch, voted if stored.candidate else None)

    def write(self, ballot: Ballot) -> None:
        """Put it in place of the one before; when this returns it is on stable storage.

        :raises DiskFailed: where it could not be made durable; nobody may be told of it then.
        """
        stored = wire.Ballot(epoch=ballot.epoch)
        if ballot.candidate is not None:
            stored.candidate = ballot.candidate.name
            stored.candidate_incarnation = ballot.candidate.incarnation
        content = _START.pack(_MAGIC, _VERSION) + stored.SerializeToString()
        with grid_errors(self._path):
            checksum = blake3(content).digest(_CHECKSUM_BYTES)
            replace_file(self._disk, self._path, content + checksum, beside=NODE_FILE)
