"""A copy of the grid's metadata into a file of this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred

from filegrid.backup import Verifier
from filegrid.client.access import Access
from filegrid.client.local import LocalTarget, open_target
from filegrid.errors import GridError, InvalidRequest, VersionConflict
from filegrid.protocol.wire import backup_pb2 as wire
from filegrid.protocol.wire.frame_pb2 import Done

PIECE_BYTES = 256 * 1024
"""More than a head gives in one answer would be asked for in vain."""

LOOK_SECONDS = 0.2
"""Between two looks whether the head has made its copy: some seconds for ten million files."""

PIECES_IN_FLIGHT = 4
"""Asked for ahead, so that the way to the head and back does not count for each."""

MOST_TRIES = 3
"""A copy is lost with the lead of the head that made it; then another head makes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """What a backup holds.

    :ivar made: seconds since 1970.
    :ivar size: of the backup's own file, in bytes.
    """

    path: str
    grid_id: str
    lineage: int
    epoch: int
    log_index: int
    made: float
    files: int
    bytes: int
    chunks: int
    size: int


async def back_up(access: Access, path: Path) -> BackedUp:
    """Fetch a backup into the file `path`, which appears whole and checked or not at all.

    :raises GridError: why it could not be; an old file of that name is as it was.
    """
    runtime = access.runtime
    token = f"{runtime.random.getrandbits(32):08x}"
    target = await runtime.threads.run(lambda: open_target(path, overwrite=True, token=token))
    if not isinstance(target, LocalTarget):
        target.close()
        raise InvalidRequest("a backup is checked before it has its name: give a file", str(path))
    try:
        tries = MOST_TRIES
        while True:
            tries -= 1
            try:
                return await _fetch(access, target, path)
            except VersionConflict:
                if not tries:
                    raise
    finally:
        target.discard()


async def _fetch(access: Access, target: LocalTarget, path: Path) -> BackedUp:
    session, threads = access.session, access.runtime.threads
    begun = await session.call(wire.BeginBackup(), wire.BackupBegun)
    verifier, offset = Verifier(str(path)), 0
    try:
        async for data in _pieces(access, begun.backup):
            await threads.run(target.write, [data], offset)
            await threads.run(verifier.update, data)
            offset += len(data)
        header = verifier.end()
        await threads.run(target.publish)
    finally:
        with suppress(GridError):  # it expires by itself
            await session.call(wire.EndBackup(backup=begun.backup), Done)
    return BackedUp(
        path=str(path),
        grid_id=header.grid_id,
        lineage=header.lineage,
        epoch=header.epoch,
        log_index=header.index,
        made=header.made_ms / 1000,
        files=header.files,
        bytes=header.bytes,
        chunks=header.chunks,
        size=offset,
    )


async def _pieces(access: Access, backup: int) -> AsyncIterator[bytes]:
    """All of it in order, some pieces asked for ahead."""

    def ask(offset: int) -> Deferred[wire.BackupPiece]:
        request = wire.ReadBackup(backup=backup, offset=offset, length=PIECE_BYTES)
        return Deferred.fromCoroutine(access.session.call(request, wire.BackupPiece))

    while not (first := await ask(0)).length:
        await access.runtime.sleep(LOOK_SECONDS)
    yield first.data
    ahead: deque[Deferred[wire.BackupPiece]] = deque()
    asked = len(first.data)
    try:
        while ahead or asked < first.length:
            while asked < first.length and len(ahead) < PIECES_IN_FLIGHT:
                ahead.append(ask(asked))
                asked += PIECE_BYTES
            yield (await ahead.popleft()).data
    finally:
        for piece in ahead:
            piece.addErrback(lambda _: None)
            piece.cancel()
