"""Scrubbing: everything that the server holds is read back and checked, within a deadline.

The replica that has waited longest is next, so that a restart changes nothing. The pace follows
from the amount of data: a round takes ``ROUND`` of the deadline, which leaves time for pauses
while the server is busy. When the oldest replica comes near its deadline there are no pauses any
more, and the pace is what it takes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from filegrid.chunk.inventory import Inventory
from filegrid.chunk.load import Meter
from filegrid.chunk.verified import Turn, Verifications, Verified
from filegrid.config import DAY_SECONDS
from filegrid.errors import GridError
from filegrid.model import Chunk, ChunkId
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import head_pb2
from filegrid.runtime import Runtime

ROUND = 0.7
"""Of the deadline, for a round without pauses."""

LATE = 0.85
"""Of the deadline: a replica that has waited longer is read although the server is busy."""

MOST_HURRY = 10
"""Times the ordinary pace, at most: a server that was away for weeks must still serve."""

BUSY_TRANSFERS = 4
"""Transfers under way, from which on the server is busy."""

SEEK_BYTES = 256 * 1024
"""What opening a chunk costs, in bytes read: else small chunks would be read at no pace at all."""

LEAST_TICK_SECONDS = 0.05
MOST_TICK_SECONDS = 1.0
"""Between two looks. Rarer, and a pause under load would begin too late."""

AGAIN_SECONDS = 30.0
"""After its database failed, or the disk."""

_log = Logger()


def pace(*, cost_bytes: float, deadline_seconds: float, waited_seconds: float) -> float:
    """Bytes a second to be read, of `cost_bytes` in all.

    :param waited_seconds: how long the oldest replica has waited.
    """
    usual = cost_bytes / (ROUND * deadline_seconds)
    if waited_seconds < LATE * deadline_seconds:
        return usual
    left_seconds = max(deadline_seconds - waited_seconds, 1e-9)
    return min(MOST_HURRY * usual, max(usual, cost_bytes / left_seconds))


class Scrub:
    """Reads replicas back, one after the other.

    :param days: the deadline; 0: nothing is read, and what others verify is noted all the same.
    :param rot_found: what was found damaged before.
    :param verify: reads whole replicas, sets aside those that are damaged, and tells
        :meth:`verified` of those that are good. Returns for each None, or what is wrong.
    :param open: opens the times; in a thread.
    :ivar rot_found: damaged replicas since the server started, whoever found them.
    """

    def __init__(
        self,
        runtime: Runtime,
        inventory: Inventory,
        meter: Meter,
        *,
        days: float,
        rot_found: int,
        verify: Callable[[Sequence[Chunk]], Awaitable[list[GridError | None]]],
        open: Callable[[], Verifications],
    ) -> None:
        self.rot_found = rot_found
        self._runtime = runtime
        self._inventory = inventory
        self._meter = meter
        self._deadline_seconds = days * DAY_SECONDS
        self._verify = verify
        self._open = open
        self._lane = runtime.threads.lane("scrub")
        self._times: Verifications | None = None  # of that lane alone
        self._summary = Verified(never=len(inventory))
        self._arrived: dict[bytes, bool] = {}  # or gone; the later of the two stands
        self._waited_seconds = 0.0
        self._credit_bytes = 0.0
        self._tasks = Tasks("scrubbing")
        self._forget: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._forget = self._inventory.listen(self._changed)
        self._tasks.begin(self._run())

    async def stop(self) -> None:
        self._forget()
        await self._tasks.stop()
        await self._lane.run(self._close)

    @property
    def report(self) -> head_pb2.Scrubbed:
        """What the heads are told."""
        return head_pb2.Scrubbed(
            never_verified=self._summary.never,
            oldest_verified_ms=self._summary.oldest_ms,
            rot_found=self.rot_found,
        )

    def last_verified_ms(self, chunks: Sequence[Chunk]) -> Deferred[list[int]]:
        """When each was last read back here; 0 where it never was since it came."""
        return self._lane.run(self._last, chunks)

    async def verified(self, chunks: Sequence[Chunk]) -> None:
        """These replicas were read back and are good, whoever asked for it."""
        try:
            await self._flush()  # they may have come a moment ago
            await self._lane.run(self._note, chunks)
        except sqlite3.Error as error:
            _log.warn("a verification is not noted: {error}", error=error)

    def _now_ms(self) -> int:
        return int(self._runtime.wall_seconds() * 1000)

    def _changed(self, change: wire.Changes) -> None:
        self._arrived.update((ref.id, True) for ref in change.added)
        self._arrived.update((chunk_id, False) for chunk_id in change.removed)
        self._arrived.update((chunk_id, False) for chunk_id in change.damaged)
        self.rot_found += len(change.damaged)

    # The work.

    async def _run(self) -> None:
        tick_seconds = max(LEAST_TICK_SECONDS, min(MOST_TICK_SECONDS, self._deadline_seconds / 200))
        while True:
            try:
                self._arrived.clear()
                await self._lane.run(self._begin, self._inventory.ids())
                while True:
                    await self._turn(tick_seconds)
                    await self._runtime.sleep(tick_seconds)
            except (sqlite3.Error, OSError) as error:
                _log.warn("scrubbing waits: {error}", error=error)
                await self._lane.run(self._close)
                await self._runtime.sleep(AGAIN_SECONDS)

    async def _turn(self, elapsed_seconds: float) -> None:
        await self._flush()
        if not self._deadline_seconds:
            return
        cost_bytes = self._inventory.bytes + SEEK_BYTES * len(self._inventory)
        turn = await self._next()
        earned_bytes = elapsed_seconds * pace(
            cost_bytes=cost_bytes,
            deadline_seconds=self._deadline_seconds,
            waited_seconds=self._waited_seconds,
        )
        # What was not used in a pause is not made up for in one burst.
        self._credit_bytes = min(self._credit_bytes, 0.0) + earned_bytes
        while turn is not None and self._credit_bytes > 0 and not self._must_wait():
            await self._take(turn)
            turn = await self._next()

    def _must_wait(self) -> bool:
        is_late = self._waited_seconds >= LATE * self._deadline_seconds
        return self._meter.transfers >= BUSY_TRANSFERS and not is_late

    async def _next(self) -> Turn | None:
        turn = await self._lane.run(self._first)
        self._waited_seconds = max(0.0, (self._now_ms() - turn.since_ms) / 1000) if turn else 0.0
        return turn

    async def _take(self, turn: Turn) -> None:
        chunk = self._inventory.get(turn.chunk_id)
        if chunk is None:  # it went a moment ago
            self._arrived[turn.chunk_id] = False
            await self._flush()
            return
        self._credit_bytes -= chunk.length + SEEK_BYTES
        (error,) = await self._verify([chunk])
        if error is not None:  # a good one has told :meth:`verified`
            await self._lane.run(self._tried, chunk.id)
        await self._flush()

    async def _flush(self) -> None:
        """Note what came and went meanwhile."""
        if self._arrived:
            arrived, self._arrived = self._arrived, {}
            await self._lane.run(self._note_changes, arrived)

    # In the lane.

    def _begin(self, here: list[ChunkId]) -> None:
        self._times = self._open()
        self._times.begin(here, self._now_ms())
        self._summary = self._times.summary()

    def _close(self) -> None:
        times, self._times = self._times, None
        if times is not None:
            times.close()

    def _first(self) -> Turn | None:
        return self._times.next() if self._times is not None else None

    def _last(self, chunks: Sequence[Chunk]) -> list[int]:
        if self._times is not None:
            with suppress(sqlite3.Error):
                return [self._times.last(chunk.id) or 0 for chunk in chunks]
        return [0] * len(chunks)

    def _note(self, chunks: Sequence[Chunk]) -> None:
        if self._times is not None:
            self._times.verified([chunk.id for chunk in chunks], self._now_ms())
            self._summary = self._times.summary()

    def _tried(self, chunk_id: ChunkId) -> None:
        if self._times is not None:
            self._times.tried(chunk_id, self._now_ms())

    def _note_changes(self, arrived: dict[bytes, bool]) -> None:
        if self._times is None:
            return
        came = [chunk_id for chunk_id, here in arrived.items() if here]
        gone = [chunk_id for chunk_id, here in arrived.items() if not here]
        self._times.change(came, gone, self._now_ms())
        self._summary = self._times.summary()
