"""Open files of the blocking face: the raw streams of Python's io."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Any

from filegrid.client.content import Content
from filegrid.client.runner import Runner
from filegrid.client.stat import Stat
from filegrid.client.upload import StreamUpload
from filegrid.model import BLOCK_BYTES

AHEAD_BYTES = 2 * 1024 * 1024
"""Fetched at once for a reader that goes forward in small steps."""

GATHER_BYTES = 1024 * 1024
"""Small writes are handed over together: each time costs a change of threads."""


class GridReader(io.RawIOBase):
    """A file of the grid, open for reading: one version of it, whatever happens to its path (S19).

    Every byte was verified. `read(n)` gives fewer than n bytes only at the end of the file.
    """

    mode = "rb"

    def __init__(self, runner: Runner, content: Content) -> None:
        super().__init__()
        self.name = content.stat.path
        self.stat = content.stat
        self._runner = runner
        self._content = content
        self._at = 0
        self._window_at = 0
        self._window = b""
        self._next_at = -1  # where a reader who goes forward would read next

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._refuse_closed()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._refuse_closed()
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.stat.size}
        if whence not in bases:
            raise ValueError(f"whence is 0, 1 or 2, not {whence!r}")
        if bases[whence] + offset < 0:
            raise ValueError("a position is not negative")
        self._at = bases[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        self._refuse_closed()
        left = max(0, self.stat.size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        kept = self._peek()[:length]
        self._at += len(kept)
        return kept + self._fetch(length - len(kept)) if length > len(kept) else kept

    def readall(self) -> bytes:
        return self.read()

    def peek(self, size: int = 0) -> bytes:
        """What can be read without asking the grid; some of it, except at the end of the file."""
        if not self._peek() and self._at < self.stat.size:
            self._fetch(0)
        return self._peek()

    def write(self, data: Any) -> int:
        raise io.UnsupportedOperation("not open for writing")

    def close(self) -> None:
        self._window = b""
        super().close()

    def _peek(self) -> bytes:
        start = self._at - self._window_at
        return self._window[start:] if 0 <= start < len(self._window) else b""

    def _fetch(self, wanted: int) -> bytes:
        """The next bytes; a reader in small steps gets the rest of the fetched from the window."""
        forward = self._at == self._next_at
        least = AHEAD_BYTES if forward else BLOCK_BYTES - self._at % BLOCK_BYTES
        length, at = max(wanted, least), self._at
        data = self._runner.run(lambda: self._content.pread(at, length))
        self._window_at, self._window = (at, data) if wanted < least else (0, b"")
        self._at += wanted
        self._next_at = at + len(data)
        return data[:wanted]

    def _refuse_closed(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class GridWriter(io.RawIOBase):
    """A new version of a file, written from its start to its end.

    It appears, whole, when it is closed. Where a `with` block ends in an exception, and where it
    is forgotten without being closed, nothing appears.

    :ivar published: what appeared, once it is closed.
    """

    def __init__(self, runner: Runner, upload: StreamUpload, path: str, mode: str) -> None:
        super().__init__()
        self.name = path
        self.mode = mode
        self._runner = runner
        self._upload: StreamUpload = upload
        self._gathered = bytearray()
        self._at = upload.size
        self._error: BaseException | None = None
        self.published: Stat | None = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        raise io.UnsupportedOperation("not open for reading")

    def write(self, data: Any) -> int:
        """Take all of `data`; returns once there is room for more.

        :raises GridError: why what was taken before could not be stored; it stays so.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file")
        view = memoryview(data).cast("B")
        if self._gathered or len(view) < GATHER_BYTES:
            self._gathered += view
            if len(self._gathered) >= GATHER_BYTES:
                self._hand_over()
        else:
            self._send(view)
        self._at += len(view)
        return len(view)

    def close(self) -> None:
        """Publish the file.

        :raises GridError: why it could not be; nothing appears then.
        """
        if self.closed:
            return
        try:
            self._hand_over()
            self.published = self._runner.run(self._upload.publish)
        except BaseException:
            self.abort()
            raise
        finally:
            super().close()

    def abort(self) -> None:
        """Give it up: nothing appears."""
        if not self.closed:
            super().close()
            self._runner.run(self._upload.abort)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if getattr(self, "_upload", None) is None or self.closed:
            return
        super().close()
        warnings.warn(
            f"{self.name} was not closed, and so not published",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        with suppress(Exception):
            self._runner.post(self._upload.abort)

    def _hand_over(self) -> None:
        data, self._gathered = self._gathered, bytearray()
        self._send(memoryview(data))

    def _send(self, view: memoryview) -> None:
        if self._error is not None:
            raise self._error
        if view:
            try:
                self._runner.run(lambda: self._upload.write(view))
            except BaseException as error:
                self._error = error
                raise
