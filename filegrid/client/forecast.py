"""What if some chunk servers were down: the answers of the head, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from filegrid.client.session import Session
from filegrid.config import CRITICAL_FACTOR
from filegrid.protocol.wire import head_pb2 as wire

_COUNTS = (
    "chunks",
    "unreadable_chunks",
    "single_chunks",
    "short_chunks",
    "copy_bytes",
    "critical_bytes",
)
"""Each page has its own; of the rest the last page says how it is."""


async def forecast(session: Session, targets: Sequence[str]) -> dict[str, Any]:
    """As `filegrid whatif --json` prints it.

    :raises InvalidRequest: where a target means nobody.
    """
    whole = wire.Forecast()
    files: dict[bytes, wire.AffectedFile] = {}
    async for page in _pages(session, targets):
        _add(page, whole, files)
    return _document(whole, sorted(files.values(), key=lambda one: (one.path, one.content_id)))


async def _pages(session: Session, targets: Sequence[str]) -> AsyncIterator[wire.Forecast]:
    after, more = b"", True
    while more:
        page = await session.call(wire.WhatIf(targets=targets, after=after), wire.Forecast)
        yield page
        after, more = page.next, bool(page.next)


def _add(page: wire.Forecast, whole: wire.Forecast, files: dict[bytes, wire.AffectedFile]) -> None:
    sums = {name: getattr(whole, name) + getattr(page, name) for name in _COUNTS}
    sums["most_wanted"] = max(whole.most_wanted, page.most_wanted)
    incomplete = whole.locations_incomplete or page.locations_incomplete
    for more in page.files:
        file = files.setdefault(more.content_id, wire.AffectedFile(path=more.path))
        file.content_id = more.content_id
        file.unreadable_chunks += more.unreadable_chunks
        file.single_chunks += more.single_chunks
        file.unwritable = more.unwritable
    page.ClearField("files")
    whole.CopyFrom(page)
    for name, value in sums.items():
        setattr(whole, name, value)
    whole.locations_incomplete = incomplete


def _document(whole: wire.Forecast, files: Sequence[wire.AffectedFile]) -> dict[str, Any]:
    return {
        "down": list(whole.servers),
        "servers_left": whole.servers_left,
        "chunks": whole.chunks,
        "unreadable_chunks": whole.unreadable_chunks,
        "one_replica_chunks": whole.single_chunks,
        "under_replicated_chunks": whole.short_chunks,
        "writable": whole.servers_left >= whole.min_replicas,
        "unreadable": [one.path for one in files if one.unreadable_chunks],
        "one_replica": [one.path for one in files if one.single_chunks],
        "unwritable": [one.path for one in files if one.unwritable],
        "repair": {
            "bytes": whole.copy_bytes,
            "seconds": _repair_seconds(whole),
            "fits": whole.copy_bytes <= whole.free_bytes,
            "full_redundancy": whole.servers_left >= whole.most_wanted
            and not whole.unreadable_chunks,
        },
        "incomplete": whole.locations_incomplete,
    }


def _repair_seconds(whole: wire.Forecast) -> float | None:
    """Until all is repaired that can be; None where nobody knows, as without a limit."""
    if not whole.copy_bytes:
        return 0.0
    if not whole.bytes_per_second:
        return None
    spared = whole.critical_bytes * (1 - 1 / CRITICAL_FACTOR)
    return whole.wait_seconds + (whole.copy_bytes - spared) / whole.bytes_per_second
