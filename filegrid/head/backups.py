"""Copies of this head's state, made while it goes on, for whoever wants to keep one.

SQLite itself copies the database, within one read transaction and without Python's lock: the head
serves meanwhile. The copy waits on disk until it was read; what a crash leaves is removed before
the next one is made.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass

from blake3 import blake3
from twisted.logger import Logger

from filegrid.backup import HEADER_BYTES, encode_header
from filegrid.datafolder import DataFolder
from filegrid.disk import grid_errors
from filegrid.errors import Busy, GridError, NoSpace, VersionConflict
from filegrid.head import snapshot
from filegrid.head.nodes import totals
from filegrid.head.schema import ROOT, read_registers
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import backup_pb2 as wire
from filegrid.runtime import File, Runtime

MOST_PIECE_BYTES = 256 * 1024
"""In one answer: more, and encrypting it takes a noticeable turn of the reactor."""

MOST_LENT = 2
"""For operators at the same time; each takes as much space as the state itself."""

IDLE_SECONDS = 60.0
"""A copy that nobody reads for so long is dropped."""

SPARE_BYTES = 256 * 1024 * 1024
"""Left free beside a copy: a head whose log cannot grow any more has to exit (S22)."""

_log = Logger()

_HASHED_BYTES = 1024 * 1024
_NAME = "outgoing-backup-"


class Backup:
    """One copy: a header and the database behind it, read as one file.

    :ivar length: of the whole.
    """

    def __init__(self, header: wire.BackupHeader, file: File, path: str) -> None:
        self.header = header
        self.length = HEADER_BYTES + header.length
        self.path = path
        self._page = encode_header(header)
        self._file = file

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes; fewer only at the end. Blocks."""
        start = self._page[offset : offset + length]
        with grid_errors(self.path):
            rest = self._file.pread(length - len(start), max(0, offset - HEADER_BYTES))
        return start + rest

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True, kw_only=True)
class _Lent:
    """A backup that an operator asked for; None while it is being made."""

    backup: Backup | None = None
    failure: GridError | None = None
    read_at: float


class Backups:
    """Makes copies, and keeps those that an operator reads.

    :param database: path of the namespace's database.
    """

    def __init__(self, runtime: Runtime, folder: DataFolder, database: str) -> None:
        self._runtime = runtime
        self._disk = runtime.disk
        self._folder = folder
        self._database = database
        self._lane = runtime.threads.lane("backup")
        self._serial = 0
        self._paths: set[str] = set()
        self._lent: dict[int, _Lent] = {}
        self._tasks = Tasks("making a backup")

    async def make(self) -> Backup:
        """A consistent copy of all that was applied; the caller drops it in the end.

        :raises NoSpace: where it would take what the log may need.
        :raises DiskFailed: where it cannot be written.
        """
        self._serial += 1
        path = self._folder.within(f"{_NAME}{self._serial}")
        self._paths.add(path)
        try:
            return await self._lane.run(self._copy, path)
        except BaseException:
            self._paths.discard(path)
            raise

    async def pread(self, backup: Backup, length: int, offset: int) -> bytes:
        """As :meth:`Backup.pread`."""
        return await self._lane.run(backup.pread, length, offset)

    async def drop(self, backup: Backup) -> None:
        self._paths.discard(backup.path)
        await self._lane.run(self._remove, backup)

    # For operators

    def begin(self) -> wire.BackupBegun:
        """Begin to make one; nobody waits for it, since that may take longer than a call.

        :raises Busy: where others are making one.
        """
        if len(self._lent) >= MOST_LENT:
            raise Busy(f"{MOST_LENT} backups are being made", retry_after_seconds=1)
        number = self._runtime.random.getrandbits(64)
        lent = self._lent[number] = _Lent(read_at=self._runtime.clock.seconds())
        self._tasks.begin(self._make_for(number, lent))
        return wire.BackupBegun(backup=number)

    async def read(self, request: wire.ReadBackup) -> wire.BackupPiece:
        """:raises VersionConflict: where this head has it not, or not any more."""
        lent = self._lent.get(request.backup)
        if lent is None:
            raise VersionConflict("this head does not have that backup", advice="begin again")
        lent.read_at = self._runtime.clock.seconds()
        if lent.failure is not None:
            raise lent.failure
        if lent.backup is None:
            return wire.BackupPiece()
        length = min(request.length, MOST_PIECE_BYTES)
        data = await self._lane.run(lent.backup.pread, length, request.offset)
        return wire.BackupPiece(data=data, length=lent.backup.length)

    async def end(self, number: int) -> None:
        lent = self._lent.pop(number, None)
        if lent is not None and lent.backup is not None:
            await self.drop(lent.backup)

    def expire(self) -> None:
        """Drop those that nobody reads any more."""
        now = self._runtime.clock.seconds()
        for number, lent in list(self._lent.items()):
            is_made = lent.backup is not None or lent.failure is not None
            if is_made and now - lent.read_at > IDLE_SECONDS:
                self._tasks.begin(self.end(number))

    async def stop(self) -> None:
        await self._tasks.finish()

    async def _make_for(self, number: int, lent: _Lent) -> None:
        try:
            lent.backup = await self.make()
        except GridError as error:
            _log.error("no backup could be made: {error}", error=error)
            lent.failure = error
        lent.read_at = self._runtime.clock.seconds()
        if number not in self._lent and lent.backup is not None:  # nobody wants it any more
            await self.drop(lent.backup)

    # In the lane

    def _copy(self, path: str) -> Backup:
        with grid_errors(path):
            self._sweep()
            with (
                closing(self._disk.database(self._database)) as database,
                snapshot.moment(database),
            ):
                registers = read_registers(database)
                files, size = totals(database, ROOT)
                self._need_space(_bytes_of(database))
                self._disk.copy_database(database, path)
            file = self._disk.open(path)
            header = wire.BackupHeader(
                grid_id=registers.grid_id,
                lineage=registers.lineage,
                founding=bytes.fromhex(registers.founding),
                index=registers.applied_index,
                epoch=registers.applied_epoch,
                made_ms=round(self._runtime.wall_seconds() * 1000),
                length=file.size(),
                digest=_digest(file),
                files=files,
                bytes=size,
                chunks=registers.chunks,
            )
        return Backup(header, file, path)

    def _need_space(self, size: int) -> None:
        _, free = self._disk.space(self._folder.path)
        if free < size + SPARE_BYTES:
            raise NoSpace(
                f"a copy of the metadata takes {size} bytes, and {free} are free",
                self._folder.path,
                advice="add space to this head's disk",
            )

    def _sweep(self) -> None:
        for name in self._disk.names(self._folder.path):
            path = self._folder.within(name)
            if name.startswith(_NAME) and path not in self._paths:
                self._disk.remove(path)

    def _remove(self, backup: Backup) -> None:
        backup.close()
        with suppress(OSError):  # the next one sweeps it away
            self._disk.remove(backup.path)


def _bytes_of(database: sqlite3.Connection) -> int:
    (count,) = database.execute("PRAGMA page_count").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    return int(count) * int(size)


def _digest(file: File) -> bytes:
    hasher, offset = blake3(), 0
    while data := file.pread(_HASHED_BYTES, offset):
        hasher.update(data)
        offset += len(data)
    return hasher.digest()
