"""What is wrong with the replicas of the grid's files: the work behind `filegrid fsck`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from filegrid.client.content import Content
from filegrid.client.grid import GridClient, normal
from filegrid.client.manifest import Placed
from filegrid.client.stat import MILLISECONDS, Stat
from filegrid.client.window import Window
from filegrid.errors import Busy, ContentCollected, GridError, IntegrityError
from filegrid.model import Address
from filegrid.protocol.wire import chunk_pb2, head_pb2

INSPECTIONS_IN_FLIGHT = 8
"""Each reads a whole replica from its disk; more would be felt by everybody else."""

INSPECT_SECONDS = 60.0
"""For reading and hashing one replica on a busy disk."""

LOCATE_SECONDS = 5.0
"""For asking where a replica lies."""

DEFICITS_PAGE = 1000

STATE_NAMES = {
    head_pb2.REPLICA_STATE_GOOD: "good",
    head_pb2.REPLICA_STATE_SUSPECT: "suspect",
    head_pb2.REPLICA_STATE_CORRUPT: "corrupt",
    head_pb2.REPLICA_STATE_MISSING: "missing",
}


class Trouble(Enum):
    """What a chunk can suffer from, the worst of it where there are several."""

    CORRUPT = "corrupt"  # a replica is not what was written
    MISSING = "missing"  # no replica is left
    UNKNOWN = "unknown"  # the replicas cannot be reached now
    UNDER_REPLICATED = "under_replicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One replica, as it was found."""

    server: str
    state: head_pb2.ReplicaState.ValueType
    file: str = ""
    """Within the node's data folder; empty where the server did not say."""
    offset: int = 0
    verified_ms: int = 0
    """When the server last read all of it back; 0 where it never did, or did not say."""

    def document(self) -> dict[str, Any]:
        """As commands print it; None stands for what the server did not say.

        `verified` is in seconds since 1970, None where it was never read back since it came.
        """
        return {
            "server": self.server,
            "state": STATE_NAMES[self.state],
            "file": self.file or None,
            "offset": self.offset if self.file else None,
            "verified": self.verified_ms / MILLISECONDS if self.verified_ms else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A chunk that is not as it should be."""

    trouble: Trouble
    path: str
    """Empty where only the trash names the chunk."""
    index: int
    chunk_id: bytes
    wanted: int
    replicas: Sequence[Checked]
    waiting_seconds: float = 0.0
    """For how long the head has known of it; 0 where it did not say."""

    def document(self) -> dict[str, Any]:
        """As `filegrid fsck --json` prints it."""
        return {
            "path": self.path,
            "index": self.index,
            "chunk": self.chunk_id.hex(),
            "wanted": self.wanted,
            "waiting_seconds": self.waiting_seconds,
            "replicas": [replica.document() for replica in self.replicas],
        }


@dataclass(slots=True)
class Summary:
    """What was looked at."""

    files: int = 0
    chunks: int = 0
    replicas: int = 0
    troubles: dict[Trouble, int] = field(default_factory=dict)
    incomplete: bool = False
    """Some server has not told the head yet what it holds."""


class Checker:
    """One check of a part of the grid.

    :param found: told of each finding as it is made.
    """

    def __init__(self, client: GridClient, found: Callable[[Finding], None]) -> None:
        self._client = client
        self._access = client.access
        self._found = found
        self.summary = Summary()

    async def ask(self, path: str) -> None:
        """Report what the head knows to be wrong at `path` and below."""
        path = normal(path)
        status = await self._access.session.call(head_pb2.GetStatus(), head_pb2.Status)
        if path == "/":
            self.summary.files, self.summary.chunks = status.files, status.chunks.total
        else:
            await self._count(path)
        await self._wait_for_reports()
        after, more = b"", True
        while more:
            page = await self._deficits(after, DEFICITS_PAGE)
            for deficit in page.deficits:
                if path == "/" or deficit.path == path or deficit.path.startswith(path + "/"):
                    self._judge_deficit(deficit, incomplete=page.locations_incomplete)
            more = page.more and bool(page.deficits)
            after = page.deficits[-1].chunk.id if more else b""

    async def verify(self, path: str) -> None:
        """Have every replica of what is at `path` and below read and compared with its digest."""
        stat = await self._client.stat(path)
        async with Window(INSPECTIONS_IN_FLIGHT) as window:
            if not stat.is_folder:
                await self._verify_file(window, stat)
                return
            async for entry in self._client.walk(path):
                if not entry.is_folder:
                    with suppress(ContentCollected):  # it was removed meanwhile
                        await self._verify_file(window, entry)

    async def _count(self, path: str) -> None:
        stat = await self._client.stat(path)
        if not stat.is_folder:
            self.summary.files, self.summary.chunks = 1, stat.chunk_count
            return
        async for entry in self._client.walk(path):
            self.summary.files += not entry.is_folder
            self.summary.chunks += entry.chunk_count

    async def _wait_for_reports(self) -> None:
        """After a start of the head, give the servers their time: unknown is not missing (S18)."""
        patience = self._access.session.patience()
        while (await self._deficits(b"", 1)).locations_incomplete:
            if not await patience.pause():
                self.summary.incomplete = True
                return

    async def _deficits(self, after: bytes, limit: int) -> head_pb2.Deficits:
        request = head_pb2.ListDeficits(after=after, limit=limit)
        return await self._access.session.call(request, head_pb2.Deficits)

    def _judge_deficit(self, deficit: head_pb2.Deficit, *, incomplete: bool) -> None:
        replicas = [Checked(server=one.server, state=one.state) for one in deficit.replicas]
        finding = Finding(
            trouble=Trouble.UNDER_REPLICATED,
            path=deficit.path,
            index=deficit.index,
            chunk_id=deficit.chunk.id,
            wanted=deficit.wanted,
            replicas=replicas,
            waiting_seconds=deficit.waiting_ms / 1000,
        )
        self._report(replace(finding, trouble=_trouble(replicas, incomplete) or finding.trouble))

    async def _verify_file(self, window: Window, stat: Stat) -> None:
        self.summary.files += 1
        content = Content(self._access, stat)
        index = 0
        async for placed in content.manifest.all_placed():
            await window.add(self._verify_chunk(content, index, placed))
            index += 1

    async def _verify_chunk(self, content: Content, index: int, placed: Placed) -> None:
        checked = [await self._verify_replica(placed, replica) for replica in placed.replicas]
        self.summary.chunks += 1
        self.summary.replicas += len(checked)
        good = sum(one.state == head_pb2.REPLICA_STATE_GOOD for one in checked)
        trouble = _trouble(checked, placed.incomplete)
        if trouble is None and good < content.stat.replication:
            trouble = Trouble.UNDER_REPLICATED
        if trouble is not None:
            self._report(
                Finding(
                    trouble=trouble,
                    path=content.stat.path,
                    index=index,
                    chunk_id=placed.chunk.id,
                    wanted=content.stat.replication,
                    replicas=checked,
                )
            )

    async def _verify_replica(self, placed: Placed, replica: head_pb2.Replica) -> Checked:
        checked = await inspect(self._client, placed, replica, verify=True)
        if checked.state == head_pb2.REPLICA_STATE_CORRUPT != replica.state:
            reason = IntegrityError("fsck found it corrupt", placed.chunk.id.hex())
            self._access.complain(placed.chunk.id, replica.server, reason)
        return checked

    def _report(self, finding: Finding) -> None:
        troubles = self.summary.troubles
        troubles[finding.trouble] = troubles.get(finding.trouble, 0) + 1
        self._found(finding)


async def inspect(
    client: GridClient, placed: Placed, replica: head_pb2.Replica, *, verify: bool = False
) -> Checked:
    """Ask a chunk server for its replica; where it cannot be asked, the head's word stands.

    :param verify: have it read and compared with its digest.
    """
    request = chunk_pb2.InspectChunk(chunk_id=placed.chunk.id, verify=verify)
    patience = client.access.session.patience()
    while True:
        try:
            found = await client.access.pool.ask(
                Address.parse(replica.address),
                request,
                chunk_pb2.Inspected,
                timeout_seconds=INSPECT_SECONDS if verify else LOCATE_SECONDS,
            )
            break
        except Busy as error:
            if not await patience.pause(error.retry_after_seconds):
                return _unreachable(replica)
        except GridError:
            return _unreachable(replica)
    state = found.state
    if state == head_pb2.REPLICA_STATE_GOOD and found.chunk != placed.chunk.to_wire():
        state = head_pb2.REPLICA_STATE_CORRUPT  # only a match with the manifest counts (S15)
    return Checked(
        server=replica.server,
        state=state,
        file=found.file,
        offset=found.offset,
        verified_ms=found.verified_ms,
    )


def _unreachable(replica: head_pb2.Replica) -> Checked:
    state = replica.state
    if state == head_pb2.REPLICA_STATE_GOOD:
        state = head_pb2.REPLICA_STATE_SUSPECT
    return Checked(server=replica.server, state=state)


def _trouble(replicas: Sequence[Checked], incomplete: bool) -> Trouble | None:
    """The worst that there is to say whatever the number of replicas."""
    states = {one.state for one in replicas}
    if head_pb2.REPLICA_STATE_CORRUPT in states:
        return Trouble.CORRUPT
    if head_pb2.REPLICA_STATE_GOOD in states:
        return None
    if head_pb2.REPLICA_STATE_SUSPECT in states or incomplete:
        return Trouble.UNKNOWN
    return Trouble.MISSING
