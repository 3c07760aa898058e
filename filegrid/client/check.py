"""What is wrong with the replicas of the grid's files: the work behind `filegrid fsck`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from filegrid.client.grid import GridClient, normal
from filegrid.client.manifest import Manifest, Placed
from filegrid.client.stat import MILLISECONDS, Stat
from filegrid.client.window import Window
from filegrid.errors import Busy, ContentCollected, GridError, IntegrityError
from filegrid.model import Address
from filegrid.protocol.wire import chunk_pb2, head_pb2

INSPECTED_TOGETHER = 256
"""Chunks in one question to a server: for small ones, asking costs more than reading."""

READ_TOGETHER_BYTES = 64 * 1024 * 1024
"""Of one question, unless a single chunk is longer: it is answered within ``INSPECT_SECONDS``."""

GROUPS_IN_FLIGHT = 8
"""Each has one server at a time read its disk; more would be felt by everybody else."""

LOCATED_AT_ONCE = 16
"""Files whose chunks the head is asked for."""

INSPECT_SECONDS = 60.0
"""For reading and hashing ``READ_TOGETHER_BYTES`` on a busy disk."""

LOCATE_SECONDS = 5.0
"""For asking where a replica lies."""

DEFICITS_PAGE = 1000

STATE_NAMES = {
    head_pb2.REPLICA_STATE_GOOD: "good",
    head_pb2.REPLICA_STATE_SUSPECT: "suspect",
    head_pb2.REPLICA_STATE_CORRUPT: "corrupt",
    head_pb2.REPLICA_STATE_MISSING: "missing",
}


_READ = (head_pb2.REPLICA_STATE_GOOD, head_pb2.REPLICA_STATE_CORRUPT)
"""What a replica is found to be that was read."""


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


@dataclass(frozen=True, slots=True)
class _Member:
    """A chunk that is to be verified."""

    stat: Stat
    index: int
    placed: Placed


@dataclass(slots=True)
class _Group:
    """Chunks that are verified together."""

    members: list[_Member] = field(default_factory=list)
    size: int = 0

    def has_room(self, placed: Placed) -> bool:
        if not self.members:
            return True
        size = self.size + placed.chunk.length
        return len(self.members) < INSPECTED_TOGETHER and size <= READ_TOGETHER_BYTES

    def add(self, member: _Member) -> None:
        self.members.append(member)
        self.size += member.placed.chunk.length


class Checker:
    """One check of a part of the grid.

    :param found: told of each finding as it is made.
    """

    def __init__(self, client: GridClient, found: Callable[[Finding], None]) -> None:
        self._client = client
        self._access = client.access
        self._found = found
        self._group = _Group()
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
        async with Window(GROUPS_IN_FLIGHT) as reading:
            if not stat.is_folder:
                await self._gather(stat, reading)
            else:
                async with Window(LOCATED_AT_ONCE) as locating:
                    async for entry in self._client.walk(path):
                        if not entry.is_folder:
                            await locating.add(self._gather(entry, reading))
            await self._close_group(reading)

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

    async def _gather(self, stat: Stat, reading: Window) -> None:
        """Put the chunks of a file into groups, and have those that are full read."""
        self.summary.files += 1
        manifest = Manifest(self._access.session, stat)
        index = 0
        with suppress(ContentCollected):  # it was removed meanwhile
            async for placed in manifest.all_placed():
                while not self._group.has_room(placed):  # others fill it too
                    await self._close_group(reading)
                self._group.add(_Member(stat, index, placed))
                index += 1

    async def _close_group(self, reading: Window) -> None:
        group, self._group = self._group, _Group()
        await reading.add(self._verify(group))

    async def _verify(self, group: _Group) -> None:
        found = await inspect(self._client, [one.placed for one in group.members], verify=True)
        for member, checked in zip(group.members, found, strict=True):
            self._judge(member, checked)

    def _judge(self, member: _Member, checked: Sequence[Checked]) -> None:
        stat, placed = member.stat, member.placed
        self.summary.chunks += 1
        self.summary.replicas += sum(one.state in _READ for one in checked)
        for one, replica in zip(checked, placed.replicas, strict=True):
            if one.state == head_pb2.REPLICA_STATE_CORRUPT != replica.state:
                reason = IntegrityError("fsck found it corrupt", placed.chunk.id.hex())
                self._access.complain(placed.chunk.id, replica.server, reason)
        good = sum(one.state == head_pb2.REPLICA_STATE_GOOD for one in checked)
        trouble = _trouble(checked, placed.incomplete)
        if trouble is None and good < stat.replication:
            trouble = Trouble.UNDER_REPLICATED
        if trouble is not None:
            self._report(
                Finding(
                    trouble=trouble,
                    path=stat.path,
                    index=member.index,
                    chunk_id=placed.chunk.id,
                    wanted=stat.replication,
                    replicas=checked,
                )
            )

    def _report(self, finding: Finding) -> None:
        troubles = self.summary.troubles
        troubles[finding.trouble] = troubles.get(finding.trouble, 0) + 1
        self._found(finding)


async def inspect(
    client: GridClient, chunks: Sequence[Placed], *, verify: bool = False
) -> list[list[Checked]]:
    """Ask the chunk servers for their replicas; where one cannot be asked, the head's word stands.

    :param chunks: at most ``INSPECTED_TOGETHER``.
    :param verify: have them read and compared with their digests.
    :returns: for each chunk its replicas, in their order.
    """
    by_server: dict[str, list[Placed]] = {}
    for placed in chunks:
        for replica in placed.replicas:
            by_server.setdefault(replica.address, []).append(placed)
    found: dict[tuple[str, bytes], chunk_pb2.Inspected] = {}
    for address, here in by_server.items():
        ids = [placed.chunk.id for placed in here]
        for chunk_id, inspected in zip(ids, await _ask(client, address, ids, verify), strict=False):
            found[address, chunk_id] = inspected
    return [
        [
            _checked(placed, replica, found.get((replica.address, placed.chunk.id)))
            for replica in placed.replicas
        ]
        for placed in chunks
    ]


async def inspect_file(client: GridClient, stat: Stat) -> list[tuple[Placed, list[Checked]]]:
    """All chunks of a file and where their replicas lie, as their own servers say."""
    manifest = Manifest(client.access.session, stat)
    chunks = [placed async for placed in manifest.all_placed()]
    found: list[list[Checked]] = []
    for start in range(0, len(chunks), INSPECTED_TOGETHER):
        found += await inspect(client, chunks[start : start + INSPECTED_TOGETHER])
    return list(zip(chunks, found, strict=True))


async def _ask(
    client: GridClient, address: str, chunk_ids: Sequence[bytes], verify: bool
) -> Sequence[chunk_pb2.Inspected]:
    """Nothing where the server cannot be asked."""
    request = chunk_pb2.InspectChunks(chunk_ids=chunk_ids, verify=verify)
    patience = client.access.session.patience()
    while True:
        try:
            answer = await client.access.pool.ask(
                Address.parse(address),
                request,
                chunk_pb2.Inspection,
                timeout_seconds=INSPECT_SECONDS if verify else LOCATE_SECONDS,
            )
        except Busy as error:
            if not await patience.pause(error.retry_after_seconds):
                return ()
        except GridError:
            return ()
        else:
            return answer.replicas


def _checked(
    placed: Placed, replica: head_pb2.Replica, found: chunk_pb2.Inspected | None
) -> Checked:
    if found is None:
        state = replica.state
        if state == head_pb2.REPLICA_STATE_GOOD:
            state = head_pb2.REPLICA_STATE_SUSPECT
        return Checked(server=replica.server, state=state)
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
