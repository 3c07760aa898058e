"""What if: the state of all chunks as it would be if some chunk servers were down."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from filegrid.config import Grid
from filegrid.head.liveness import State
from filegrid.head.locations import Locations
from filegrid.head.registry import Registry
from filegrid.head.restraint import is_mass
from filegrid.head.roster import Roster
from filegrid.head.view import ChunkRecord, View
from filegrid.model import ContentId
from filegrid.protocol.wire import head_pb2 as wire
from filegrid.runtime import Runtime

SCAN_PAGE = 256
CHUNKS_PER_ANSWER = 8192
"""Looked at for one answer: some tenths of a second, with everybody else in between."""

_MIB = 1024 * 1024


class Forecasts:
    """Answers "what if", for a leader; nothing is changed.

    :param mib_per_second: what a server may copy for repair; 0 is no limit.
    :param wait_seconds: until one that is gone is dead.
    :param restraint_seconds: how much longer repair waits where many are.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Grid,
        roster: Roster,
        locations: Locations,
        registry: Registry,
        namespace: View,
        *,
        mib_per_second: float,
        wait_seconds: float,
        restraint_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._roster = roster
        self._locations = locations
        self._registry = registry
        self._namespace = namespace
        self._mib_per_second = mib_per_second
        self._wait_seconds = wait_seconds
        self._restraint_seconds = restraint_seconds

    async def make(self, targets: Sequence[str], after: bytes) -> wire.Forecast:
        """Of the next chunks.

        :raises InvalidRequest: where a target means nobody.
        """
        down = self._registry.select(targets)
        answer = self._of_servers(down)
        files: dict[ContentId, wire.AffectedFile] = {}
        more = True
        while more and answer.chunks < CHUNKS_PER_ANSWER:
            records = self._namespace.chunks_after(after, SCAN_PAGE)
            for record in records:
                self._count(record, set(down), answer, files)
            more = len(records) == SCAN_PAGE
            if records:
                after = records[-1].chunk.id
            await self._runtime.sleep(0)
        answer.files.extend(files.values())
        answer.next = after if more else b""
        return answer

    def _of_servers(self, down: Sequence[str]) -> wire.Forecast:
        left = [one for one in self._roster.candidates() if one.name not in down]
        racks = {
            one.name: one.rack
            for one in self._roster
            if self._roster.state(one.name) is not State.DEAD
        }
        gone = [name for name in down if name in racks]
        restraint = self._restraint_seconds if is_mass(gone, racks) else 0.0
        return wire.Forecast(
            servers=down,
            servers_left=len(left),
            min_replicas=self._settings.min_replicas,
            bytes_per_second=round(self._mib_per_second * _MIB * len(left)),
            free_bytes=sum(one.free_bytes for one in left),
            wait_seconds=self._wait_seconds + restraint,
            locations_incomplete=not self._roster.complete,
        )

    def _count(
        self,
        record: ChunkRecord,
        down: Collection[str],
        answer: wire.Forecast,
        files: dict[ContentId, wire.AffectedFile],
    ) -> None:
        chunk = record.chunk
        holders = [
            name
            for name in self._locations.holders(chunk)
            if name not in down and self._roster.state(name) is not State.DEAD
        ]
        wanted = record.replication
        answer.chunks += 1
        answer.most_wanted = max(answer.most_wanted, wanted)
        unwritable = answer.servers_left < min(answer.min_replicas, wanted)
        if len(holders) >= wanted and not unwritable:
            return
        single = len(holders) == 1 < wanted
        if len(holders) < wanted:
            answer.short_chunks += 1
        if holders:
            answer.copy_bytes += max(0, wanted - len(holders)) * chunk.length
            answer.critical_bytes += single * chunk.length
        answer.unreadable_chunks += not holders
        answer.single_chunks += single
        if not (unwritable or single or not holders):
            return
        for content_id, path in self._namespace.contents_of(chunk.id):
            if content_id not in files:
                files[content_id] = wire.AffectedFile(content_id=content_id, path=path)
            file = files[content_id]
            file.unreadable_chunks += not holders
            file.single_chunks += single
            file.unwritable = unwritable
