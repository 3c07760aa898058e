"""One disk of a chunk server: a folder with a store in it, and how it is.

Every disk's folder is a data folder (:mod:`filegrid.datafolder`) of this server, so that an empty
folder under a mount point, or somebody else's disk, is a missing disk and never a loss (S20).
Methods block, and run in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from filegrid.chunk.store import Store
from filegrid.datafolder import NODE_FILE, DataFolder
from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.errors import DiskFailed, GridError
from filegrid.model import Chunk
from filegrid.runtime import Disk


class Condition(Enum):
    """======== =========================================================
    GOOD     chunks are read and written
    READABLE chunks are read; writing failed, and fails yet
    LOST     nothing is known of it: its replicas do not count any more
    ======== =========================================================
    """

    GOOD = "good"
    READABLE = "readable"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How a disk was found; `trouble` says why it is not good."""

    condition: Condition
    trouble: str = ""
    capacity_bytes: int = 0
    free_bytes: int = 0


_UNKNOWN = Checked(condition=Condition.LOST, trouble="it was not looked at yet")


class Volume:
    """A disk.

    :param open: opens its data folder, the first time making it where the server is new; None of
        the first disk, where that was done already.
    :ivar last: how it was found last; changed on the reactor's turn only.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        store: Store,
        open: Callable[[bool], DataFolder] | None = None,
        *,
        create: bool = False,
    ) -> None:
        self.path = path
        self.store = store
        self.last = _UNKNOWN
        self._disk = disk
        self._open = open
        self._create = create
        self._folder: DataFolder | None = None
        self._identity = b""
        self._blamed = ""

    def attach(self) -> list[Chunk]:
        """Begin to use it, or begin again; returns what it holds.

        :raises GridError: where that is not possible, one line why.
        """
        self.close()
        # Once only: what is missing later is a disk that went, not a new one (S20).
        create, self._create = self._create, False
        if self._open is not None:
            self._folder = self._open(create)
        with grid_errors(self.path):
            self._identity = read_file(self._disk, f"{self.path}/{NODE_FILE}")
        self._blamed = ""
        chunks = self.store.load()
        self.last = self.check()
        return chunks

    def blame(self, error: GridError) -> None:
        """Writing failed: nothing is written there until a try succeeds."""
        self._blamed = str(error)

    def check(self) -> Checked:
        """Look at it, and try to write where that had failed."""
        try:
            with grid_errors(self.path):
                if read_file(self._disk, f"{self.path}/{NODE_FILE}") != self._identity:
                    raise DiskFailed("another folder is in its place", self.path)
            capacity_bytes, free_bytes = self.store.space()
        except GridError as error:
            return Checked(condition=Condition.LOST, trouble=str(error))
        if self._blamed:
            self._blamed = self._try()
        return Checked(
            condition=Condition.READABLE if self._blamed else Condition.GOOD,
            trouble=self._blamed,
            capacity_bytes=capacity_bytes,
            free_bytes=0 if self._blamed else free_bytes,
        )

    def _try(self) -> str:
        """Write a little; why that failed."""
        path = f"{self.path}/probe"
        try:
            with grid_errors(self.path):
                replace_file(self._disk, path, b"written to see whether it is possible\n")
                with suppress(FileNotFoundError):
                    self._disk.remove(path)
        except GridError as error:
            return str(error)
        return ""

    def close(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()
