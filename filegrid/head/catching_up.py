"""Sending the whole state to a head that is too far behind, and taking it in.

If this head crashes while it takes a state in, the marker tells the next start how far it came: the
state is replaced in one transaction, and what the log had before it is worth nothing then. Without
the marker a state that is ahead of the log means a log that lost something (S3).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from blake3 import blake3

from filegrid.datafolder import DataFolder
from filegrid.disk import grid_errors, replace_file
from filegrid.errors import IntegrityError
from filegrid.head import snapshot
from filegrid.head.headlog import HeadLog
from filegrid.head.journal import Journal
from filegrid.head.namespace import Namespace
from filegrid.head.schema import read_registers
from filegrid.net.link import Link
from filegrid.protocol.wire import replication_pb2 as wire
from filegrid.runtime import Disk, File, Runtime

PIECE_BYTES = 1024 * 1024
"""In one call, well below the limit of a control frame."""

PIECE_SECONDS = 30.0
"""The last piece is answered when the state is in place."""

_OUT = "outgoing-state"
_IN = "incoming-state"
_MARKER = "taking-in-state"


class StateSender:
    """Makes a copy of this head's state, and sends it piece by piece.

    :param database: path of the namespace's database.
    """

    def __init__(self, runtime: Runtime, folder: DataFolder, database: str) -> None:
        self._runtime = runtime
        self._folder = folder
        self._database = database
        self._lane = runtime.threads.lane("snapshot")

    async def send(self, link: Link, epoch: int) -> int:
        """Returns the index up to which the other head has the state now.

        :raises GridError: where it does not take it.
        """
        path = self._folder.within(f"{_OUT}-{link.peer.name}")
        index, entry_epoch, digest, size = await self._lane.run(self._copy, path)
        try:
            offset = 0
            while offset < size:
                data = await self._lane.run(self._read, path, offset)
                last = offset + len(data) == size
                request = wire.InstallState(
                    epoch=epoch,
                    index=index,
                    entry_epoch=entry_epoch,
                    offset=offset,
                    data=data,
                    last=last,
                    digest=digest if last else b"",
                )
                answer = await link.call(request, wire.Appended, timeout_seconds=PIECE_SECONDS)
                if not answer.accepted:
                    raise IntegrityError("it did not take our state", str(link.peer))
                offset += len(data)
        finally:
            await self._lane.run(_remove, self._runtime.disk, path)
        return index

    def _copy(self, path: str) -> tuple[int, int, bytes, int]:
        disk, hasher, offset = self._runtime.disk, blake3(), 0
        with grid_errors(path):
            _remove(disk, path)
            with (
                closing(disk.database(self._database)) as database,
                closing(disk.create(path)) as file,
                snapshot.moment(database),
            ):
                ends_at = read_registers(database)
                for page in snapshot.pages(database):
                    file.pwrite([page], offset)
                    hasher.update(page)
                    offset += len(page)
        return ends_at.applied_index, ends_at.applied_epoch, hasher.digest(), offset

    def _read(self, path: str, offset: int) -> bytes:
        with grid_errors(path), closing(self._runtime.disk.open(path)) as file:
            return file.pread(PIECE_BYTES, offset)


class StateReceiver:
    """Takes another head's state in, in place of this one's."""

    def __init__(
        self, runtime: Runtime, folder: DataFolder, log: HeadLog, namespace: Namespace
    ) -> None:
        self._disk = runtime.disk
        self._lane = runtime.threads.lane("snapshot")
        self._folder = folder
        self._log = log
        self._namespace = namespace
        self._file: File | None = None
        self._size = 0

    async def take(self, request: wire.InstallState, obeys: Callable[[], bool]) -> wire.Appended:
        """A piece of the leader's state; with the last one, all of it takes effect.

        :raises IntegrityError: where the pieces do not fit together.
        """
        if not obeys():
            return wire.Appended()
        path = self._folder.within(_IN)
        await self._lane.run(self._write, path, request.offset, request.data)
        if request.last:
            await self._lane.run(self._check, path, request.digest)
            if not obeys():
                return wire.Appended()
            await self._log.replace_state(
                lambda: self._replace(path, request.index), request.index, request.entry_epoch
            )
            await self._lane.run(clear, self._disk, self._folder)
        return wire.Appended(accepted=True, obeyed=True, last_index=request.index)

    def _write(self, path: str, offset: int, data: bytes) -> None:
        with grid_errors(path):
            if offset == 0:
                self._close()
                _remove(self._disk, path)
                self._file, self._size = self._disk.create(path), 0
            if self._file is None or offset != self._size:
                raise IntegrityError("a piece of the state is missing", path)
            self._file.pwrite([data], offset)
            self._size += len(data)

    def _check(self, path: str, digest: bytes) -> None:
        assert self._file is not None
        hasher = blake3()
        with grid_errors(path):
            for offset in range(0, self._size, PIECE_BYTES):
                hasher.update(self._file.pread(PIECE_BYTES, offset))
            self._close()
        if hasher.digest() != digest:
            raise IntegrityError("the state that came is not the one that was sent", path)

    def _replace(self, path: str, index: int) -> None:
        """In the lane of the state. If we crash in here, :func:`finish` goes on at the start."""
        with grid_errors(path):
            replace_file(self._disk, self._folder.within(_MARKER), str(index).encode())
            offset = 0
            with closing(self._disk.open(path)) as file:

                def read(length: int) -> bytes:
                    nonlocal offset
                    data = file.pread(length, offset)
                    offset += len(data)
                    return data

                self._namespace.replace(read)
            _remove(self._disk, path)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def finish(disk: Disk, folder: DataFolder, journal: Journal, state: Namespace) -> None:
    """Before a head starts: see that its log and its state fit together. Blocks.

    :raises IntegrityError: where the log has lost what the state says was in it (S3).
    """
    marker = folder.within(_MARKER)
    applied_index = state.registers().applied_index
    with grid_errors(marker):
        interrupted = disk.exists(marker)
    if applied_index > journal.last_index:
        if not interrupted:
            raise IntegrityError(
                f"the log ends at {journal.last_index}, before what was applied, {applied_index}",
                folder.path,
                advice="empty this head's data folder: it joins again as a new one",
            )
        state.checkpoint()  # what a killed process committed last may not be synced
        journal.begin_at(applied_index + 1)
    if interrupted:
        clear(disk, folder)


def clear(disk: Disk, folder: DataFolder) -> None:
    """State and log fit together again."""
    marker = folder.within(_MARKER)
    with grid_errors(marker):
        _remove(disk, marker)
        disk.sync_folder(folder.path)


def _remove(disk: Disk, path: str) -> None:
    if disk.exists(path):
        disk.remove(path)
