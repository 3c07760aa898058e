"""The bytes of one chunk before they are in the grid, readable again for every try."""

from __future__ import annotations

import tempfile
from typing import Protocol

from filegrid.client.local import LocalSource
from filegrid.errors import DiskFailed
from filegrid.runtime import Bytes

SPOOL_BYTES = 2 * 1024 * 1024
"""Of one chunk of a stream in memory; the rest waits in a temporary file. An upload holds a few
chunks at a time, and so some 8 MiB."""


class Payload(Protocol):
    """A chunk to be sent.

    :ivar in_memory: whether reading blocks for no longer than a copy takes.
    """

    @property
    def in_memory(self) -> bool: ...

    @property
    def length(self) -> int: ...

    def read(self, offset: int, length: int) -> Bytes:
        """Just these bytes; may block."""

    def release(self) -> None:
        """It is in the grid, or given up."""


class BytesPayload:
    """A part of what the caller has in memory."""

    in_memory = True

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.length = len(data)

    def read(self, offset: int, length: int) -> memoryview:
        return self._data[offset : offset + length]

    def release(self) -> None:
        pass


class FilePayload:
    """A part of a local file."""

    in_memory = False

    def __init__(self, source: LocalSource, start: int, length: int) -> None:
        self._source = source
        self._start = start
        self.length = length

    def read(self, offset: int, length: int) -> bytes:
        return self._source.read(self._start + offset, length)

    def release(self) -> None:
        pass


class SpooledPayload:
    """A part of a stream, kept until it is in the grid."""

    def __init__(self) -> None:
        self._spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        self.length = 0

    @property
    def in_memory(self) -> bool:
        return self.length <= SPOOL_BYTES

    def append(self, data: Bytes) -> None:
        """Blocks where :attr:`in_memory` ends with it."""
        try:
            self._spool.write(data)
        except OSError as error:
            raise DiskFailed(f"cannot keep a chunk until it is sent: {error.strerror}",
                             tempfile.gettempdir(), advice="make room there, or set TMPDIR",
                             ) from error  # fmt: skip
        self.length += len(data)

    def read(self, offset: int, length: int) -> bytes:
        self._spool.seek(offset)
        return self._spool.read(length)

    def release(self) -> None:
        self._spool.close()
