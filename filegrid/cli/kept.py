"""The backups that a grid kept on its own chunk servers, found on their disks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from filegrid.backup import verify
from filegrid.cli.output import note
from filegrid.errors import GridError, NoSuchChunk
from filegrid.model import Chunk
from filegrid.protocol.wire.backup_pb2 import BackupHeader

if TYPE_CHECKING:
    from filegrid.chunk.store import Store
    from filegrid.head.salvage import Salvage, Version


Found: TypeAlias = tuple[BackupHeader, Callable[[int, int], bytes]]
"""A backup that was checked: what it says of itself, and up to so many of its bytes from an offset
on, the header's page with them."""


def scan(folder: Path, grid_id: str, salvage: Salvage) -> Store:
    """Open a chunk server's data, and add what its chunks say to the salvage."""
    from filegrid.chunk.store import Store
    from filegrid.disk import RealDisk

    store = Store(RealDisk(), str(folder), grid_id=grid_id)
    for chunk in store.load():
        try:
            salvage.add(store.header(chunk.id))
        except GridError as error:
            note(f"left out: {error}")
    return store


def newest(versions: Iterable[Version], stores: list[Store]) -> Found | None:
    """The newest whole backup of those that the grid kept in itself."""
    best: Found | None = None
    for version in versions:
        if not version.whole:
            continue
        try:
            read = _reading(version, stores)
            header = verify(read, f"backup {version.content_id.hex()}")
        except GridError as error:
            note(f"left out: {error}")
            continue
        if best is None or (header.lineage, header.index) > (best[0].lineage, best[0].index):
            best = header, read
    return best


def _reading(version: Version, stores: list[Store]) -> Callable[[int, int], bytes]:
    """Reads a whole version, from replicas that were checked.

    :raises GridError: where a chunk has no good replica.
    """
    good = [(chunk, _good_replica(chunk, stores)) for chunk in version.runs[0]]

    def read(length: int, offset: int) -> bytes:
        place, start = divmod(offset, version.chunk_bytes)
        if place >= len(good):
            return b""
        chunk, store = good[place]
        return store.read(chunk, start, min(length, version.chunk_bytes - start))

    return read


def _good_replica(chunk: Chunk, stores: list[Store]) -> Store:
    trouble: GridError = NoSuchChunk("it is on no chunk server", chunk.id.hex())
    for store in stores:
        try:
            store.verify(chunk)
            return store
        except NoSuchChunk:
            continue
        except GridError as error:
            trouble = error
    raise trouble
