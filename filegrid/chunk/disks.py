"""Watching a server's disks: what is lost is told at once, what comes back is there again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from filegrid.chunk.inventory import Inventory
from filegrid.chunk.volume import Checked, Condition, Volume
from filegrid.chunk.volumes import Volumes
from filegrid.errors import GridError
from filegrid.model import Chunk, ChunkId
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import head_pb2
from filegrid.runtime import Runtime, Threads

LOOK_SECONDS = 1.0
"""Between two looks at a disk."""

STALL_SECONDS = 5.0
"""A disk that does not answer for so long is lost until it does."""

ATTACH_SECONDS = 10.0
"""Between two tries to find a lost disk again, at most: the first come sooner, as most are back in
a moment."""

AT_ONCE = 500
"""Chunks that come or go in one turn of the reactor, with their disk."""

_log = Logger()


class Disks:
    """Looks at every disk all the time; a single one only when the heads ask.

    A server whose only disk hangs does not answer heartbeats: it is dead, and is found to be.
    """

    def __init__(self, runtime: Runtime, volumes: Volumes, inventory: Inventory) -> None:
        self._runtime = runtime
        self._volumes = volumes
        self._inventory = inventory
        self._tasks = Tasks("watching a disk")
        self._forget: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._forget = self._inventory.listen(self._volumes.changed)
        if len(self._volumes) > 1:
            for number, volume in enumerate(self._volumes):
                lane = self._runtime.threads.lane(f"disk {number + 1}")
                self._tasks.begin(self._watch(volume, lane))

    async def stop(self) -> None:
        self._forget()
        await self._tasks.stop()
        for volume in self._volumes:
            volume.close()

    async def look(self) -> None:
        """Bring what is said of a single disk up to now."""
        if len(self._volumes) == 1:
            (volume,) = self._volumes
            await self._look(volume, self._runtime.threads)

    @property
    def space(self) -> tuple[int, int]:
        """Capacity of all disks, and how much of it new chunks may take."""
        found = [volume.last for volume in self._volumes]
        return sum(one.capacity_bytes for one in found), sum(one.free_bytes for one in found)

    @property
    def trouble(self) -> str:
        """Why nothing can be written; empty where it can."""
        if any(volume.last.condition is Condition.GOOD for volume in self._volumes):
            return ""
        return "; ".join(dict.fromkeys(volume.last.trouble for volume in self._volumes))

    @property
    def report(self) -> Sequence[head_pb2.DiskStatus]:
        """What the heads are told of each."""
        return [
            head_pb2.DiskStatus(
                path=volume.path,
                state=volume.last.condition.value,
                trouble=volume.last.trouble,
                capacity_bytes=volume.last.capacity_bytes,
                free_bytes=volume.last.free_bytes,
            )
            for volume in self._volumes
        ]

    async def _watch(self, volume: Volume, lane: Threads) -> None:
        pause_seconds = LOOK_SECONDS
        while True:
            await self._look(volume, lane)
            is_lost = volume.last.condition is Condition.LOST
            pause_seconds = min(2 * pause_seconds, ATTACH_SECONDS) if is_lost else LOOK_SECONDS
            await self._runtime.sleep(pause_seconds)

    async def _look(self, volume: Volume, threads: Threads) -> None:
        stalled = self._runtime.clock.callLater(STALL_SECONDS, self._stalled, volume)
        try:
            if volume.last.condition is Condition.LOST:
                await self._find_again(volume, threads)
            else:
                await self._found(volume, await threads.run(volume.check))
        finally:
            if stalled.active():
                stalled.cancel()

    def _stalled(self, volume: Volume) -> None:
        if len(self._volumes) > 1 and volume.last.condition is not Condition.LOST:
            trouble = f"it has not answered for {STALL_SECONDS:g} s"
            checked = Checked(condition=Condition.LOST, trouble=trouble)
            self._tasks.begin(self._found(volume, checked))

    async def _found(self, volume: Volume, checked: Checked) -> None:
        was_lost = volume.last.condition is Condition.LOST
        if was_lost:
            return  # while it was being looked at; it is found again as a whole
        if checked.condition is not volume.last.condition:
            _log.error(
                "disk {path} is {condition}: {trouble}",
                path=volume.path,
                condition=checked.condition.value,
                trouble=checked.trouble or "all is well",
            )
        volume.last = checked
        if checked.condition is Condition.LOST:
            await self._withdraw(self._volumes.lost(volume))

    async def _find_again(self, volume: Volume, threads: Threads) -> None:
        try:
            chunks = await threads.run(volume.attach)
        except GridError as error:
            volume.last = Checked(condition=Condition.LOST, trouble=str(error))
            return
        _log.warn("disk {path} is here again", path=volume.path)
        self._volumes.came(volume, chunks)
        await self._bring(chunks)

    async def _withdraw(self, chunk_ids: Sequence[ChunkId]) -> None:
        for start in range(0, len(chunk_ids), AT_ONCE):
            for chunk_id in chunk_ids[start : start + AT_ONCE]:
                self._inventory.remove(chunk_id)
            await self._pause()

    async def _bring(self, chunks: Sequence[Chunk]) -> None:
        for start in range(0, len(chunks), AT_ONCE):
            for chunk in chunks[start : start + AT_ONCE]:
                self._inventory.add(chunk)
            await self._pause()

    def _pause(self) -> Deferred[None]:
        return self._runtime.sleep(0)
