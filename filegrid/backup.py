"""The file that a backup of the metadata is: a header page, then the heads' SQLite database.

====================  ==================  ====================================================
offset                bytes               what
====================  ==================  ====================================================
0                     8                   ``FGbackup``
8                     2                   format version, big-endian
10                    2                   zero
12                    4                   length of the header, big-endian
16                    16                  checksum: BLAKE3 over the page without these 16 bytes
32                    length of header    ``filegrid.wire.BackupHeader``
32 + that             up to 4096          zeros
4096                  to the end          the database, whose BLAKE3 the header has
====================  ==================  ====================================================

The database has a version of its own (:mod:`filegrid.head.schema`). Every version of this format
keeps the first 32 bytes and the checksum, so that a newer version and damage are told apart (S24).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from blake3 import blake3

from filegrid.errors import IntegrityError, UnsupportedVersion
from filegrid.protocol.wire.backup_pb2 import BackupHeader

FORMAT_VERSION = 1

HEADER_BYTES = 4096

STORED_AS = ".filegrid/backup"
"""What chunks of a backup that the grid keeps in itself say as their path: no file has it, since
paths of files begin with a slash."""

_READ_BYTES = 1024 * 1024
_MAGIC = b"FGbackup"
_PREFIX = struct.Struct(">8sHHI")
_CHECKSUM_BYTES = 16
_HEADER_OFFSET = _PREFIX.size + _CHECKSUM_BYTES


def encode_header(header: BackupHeader) -> bytes:
    """The header page."""
    body = header.SerializeToString(deterministic=True)
    assert len(body) <= HEADER_BYTES - _HEADER_OFFSET, len(body)
    prefix = _PREFIX.pack(_MAGIC, FORMAT_VERSION, 0, len(body))
    rest = body.ljust(HEADER_BYTES - _HEADER_OFFSET, b"\0")
    return prefix + _checksum(prefix, rest) + rest


def decode_header(page: bytes, subject: str) -> BackupHeader:
    """What a header page says.

    :param subject: the file that errors name.
    :raises IntegrityError: where it is no backup, or a damaged one.
    :raises UnsupportedVersion: where a newer release wrote it.
    """
    if not page.startswith(_MAGIC):
        raise IntegrityError("this is not a backup of a grid", subject)
    prefix, rest = page[: _PREFIX.size], page[_HEADER_OFFSET:]
    if len(page) != HEADER_BYTES or page[_PREFIX.size : _HEADER_OFFSET] != _checksum(prefix, rest):
        raise IntegrityError("the header of the backup is damaged", subject, advice=_ANOTHER)
    _, version, _, length = _PREFIX.unpack(prefix)
    if version > FORMAT_VERSION:
        raise UnsupportedVersion(
            f"the backup has format {version}, and this release reads up to {FORMAT_VERSION}",
            subject,
            advice="use the release that wrote it, or a later one",
        )
    return BackupHeader.FromString(rest[:length])


class Verifier:
    """Checks a backup whose bytes come in order, piece by piece.

    :ivar header: once its page has come.
    """

    def __init__(self, subject: str) -> None:
        self.header: BackupHeader | None = None
        self._subject = subject
        self._page = b""
        self._length = 0
        self._hasher = blake3()

    def update(self, data: bytes) -> None:
        """:raises IntegrityError, UnsupportedVersion: as :func:`decode_header` does."""
        if self.header is None:
            missing = HEADER_BYTES - len(self._page)
            self._page, data = self._page + data[:missing], data[missing:]
            if len(self._page) < HEADER_BYTES:
                return
            self.header = decode_header(self._page, self._subject)
        self._hasher.update(data)
        self._length += len(data)

    def end(self) -> BackupHeader:
        """:raises IntegrityError: where what came is not all of the backup, or not as it was."""
        header = self.header or decode_header(self._page, self._subject)
        if (self._length, self._hasher.digest()) != (header.length, header.digest):
            raise IntegrityError("the backup is damaged", self._subject, advice=_ANOTHER)
        return header


def verify(read: Callable[[int, int], bytes], subject: str) -> BackupHeader:
    """Check all of a backup. Blocks.

    :param read: up to so many of its bytes, from an offset on; fewer only at its end.
    :raises IntegrityError: where it is none, or damaged.
    :raises UnsupportedVersion: where a newer release wrote it.
    """
    verifier, offset = Verifier(subject), 0
    while data := read(_READ_BYTES, offset):
        verifier.update(data)
        offset += len(data)
    return verifier.end()


_ANOTHER = "use another backup"


def _checksum(prefix: bytes, rest: bytes) -> bytes:
    return blake3(prefix + rest).digest(_CHECKSUM_BYTES)
