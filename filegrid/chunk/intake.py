"""One chunk on its way to the disk, and, as it comes, on to the next server of the pipeline.

Pieces arrive from a link (the producer) and are consumed twice: by the writer, in a thread, and by
the next server. Whichever falls behind pauses the source; neither ever holds more than a bounded
part of the chunk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from filegrid.chunk.load import Meter
from filegrid.chunk.small import Writer
from filegrid.chunk.volumes import Volumes
from filegrid.errors import DeadlineExceeded, GridError, IntegrityError
from filegrid.model import Chunk, ChunkId, Digest
from filegrid.net.flow import Brake, Lever
from filegrid.net.link import Exchange, Link
from filegrid.net.tasks import claimed, shielded
from filegrid.protocol.connection import DataReceived
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire.frame_pb2 import Data
from filegrid.runtime import Threads, Transport

MOST_QUEUED_BYTES = 2 * 1024 * 1024
"""Pieces waiting for the disk, above which the source is paused. Half of that is written by one
call of a thread; less, and handing over costs more than the work."""

FRAME_BYTES = 256 * 1024
"""Passed on as one frame; a larger one would only be cut again on its way."""

SILENCE_SECONDS = 30.0
"""A source that sends nothing for so long, though nobody holds it, has left its chunk."""


_NOTHING = memoryview(b"")


async def begin(
    threads: Threads,
    store: Volumes,
    chunk_id: ChunkId,
    origin: wire.ChunkOrigin,
    most_bytes: int,
) -> Writer:
    """As :meth:`Volumes.begin`, in a thread.

    A writer that comes when nobody waits for it any more, as after a disk that hung, is discarded:
    it would keep its space, and be in the way of the chunk, for good.
    """
    beginning = threads.run(store.begin, chunk_id, origin, most_bytes)
    return await claimed(beginning, lambda writer: threads.run(writer.discard))


def intake_from(
    link: Link,
    clock: IReactorTime,
    meter: Meter,
    pause: Callable[[int], float] | None = None,
) -> Intake:
    """Of what comes over a link; with many transfers under way each holds less."""
    assert link.transport is not None
    return Intake(link.transport, clock, meter.share_bytes(MOST_QUEUED_BYTES), pause)


class Intake:
    """Takes a chunk's bytes as a :class:`~filegrid.net.link.Sink`, and gives the sealed chunk.

    :param most_queued: bytes that may wait for the disk.
    :param pause: told how many bytes came; says for how many seconds the source is to rest.

    The source is held until :meth:`run` begins, so that the handler may prepare what it needs.
    """

    def __init__(
        self,
        source: Transport,
        clock: IReactorTime,
        most_queued: int = MOST_QUEUED_BYTES,
        pause: Callable[[int], float] | None = None,
    ) -> None:
        self._most_queued_bytes = most_queued
        self._brake = Brake(source)
        self._brake.hold(self)
        self._clock = clock
        self._queue: list[memoryview] = []
        self._queued_bytes = 0
        self._complete = False
        self._digest = Digest(b"")
        self._error: GridError | None = None
        self._writer: Writer | None = None
        self._forward: Forward | None = None
        self._waiting: Deferred[None] | None = None
        self._watch: IDelayedCall | None = None
        self._pause = pause
        self._rest: IDelayedCall | None = None
        self.received_bytes = 0

    # What the link calls.

    def data_received(self, data: DataReceived) -> None:
        if data.section != Data.SECTION_CONTENT:
            return
        self.received_bytes += len(data.piece)
        if data.piece:
            if self._writer is not None:
                self._writer.hash(data.piece)
            self._queue.append(data.piece)
            self._queued_bytes += len(data.piece)
            if self._queued_bytes > self._most_queued_bytes:
                self._brake.hold(self._queue)
            if self._pause is not None and (seconds := self._pause(len(data.piece))):
                self._rest_for(seconds)
        if data.last:
            self._complete, self._digest = True, Digest(data.digest)
        if self._forward is not None:
            self._forward.pass_on(data.piece, last=data.last, digest=data.digest)
        if self._complete or self._batch_ready:
            self._wake()

    def data_lost(self, error: GridError) -> None:
        if not self._complete:
            self._error = error
            self._wake()

    # What the handler calls.

    def finish(self, digest: Digest) -> None:
        """All has come; for a source whose end is told outside its data."""
        self._complete, self._digest = True, digest
        self._wake()

    async def run(
        self,
        writer: Writer,
        threads: Threads,
        forward: Forward | None,
        admit: Callable[[Chunk], Awaitable[None]],
    ) -> Chunk:
        """Write what comes until it is complete, and seal it (S16: durable when this returns).

        :param admit: takes the sealed chunk in; also where nobody waits for it any more, since what
            lies on the disk must be known.
        :raises IntegrityError: where the bytes do not match the sender's digest.
        :raises GridError: where the source, or the disk, fails; nothing is kept then.
        """
        self._writer, self._forward = writer, forward
        try:
            for piece in self._queue:
                writer.hash(piece)
            if forward is not None:
                forward.start(self._brake)
                for piece in self._queue:
                    forward.pass_on(piece, last=False, digest=b"")
                if self._complete:
                    forward.pass_on(_NOTHING, last=True, digest=self._digest)
            self._watch_silence()
            self._brake.release(self)
            while batch := await self._next_batch():
                await threads.run(writer.write, batch)
            if not self._digest:
                raise IntegrityError("the sender gave no digest")
            return await shielded(self._seal(writer, threads, admit))
        except Exception:
            await threads.run(writer.discard)
            raise
        finally:
            self.close()

    async def _seal(
        self, writer: Writer, threads: Threads, admit: Callable[[Chunk], Awaitable[None]]
    ) -> Chunk:
        chunk = await threads.run(writer.seal, self._digest)
        await admit(chunk)
        return chunk

    def close(self) -> None:
        """Let the source go; what still comes of the transfer is dropped by the link."""
        for call in (self._watch, self._rest):
            if call is not None and call.active():
                call.cancel()
        self._brake.release_all()

    async def _next_batch(self) -> list[memoryview]:
        """All that waits for the disk; empty once everything was written."""
        while not (self._batch_ready or self._complete or self._error):
            self._waiting = Deferred()
            await self._waiting
        if self._error is not None:
            raise self._error
        batch = self._queue[:]
        self._queue.clear()
        self._queued_bytes = 0
        self._brake.release(self._queue)
        return batch

    @property
    def _batch_ready(self) -> bool:
        return 2 * self._queued_bytes >= self._most_queued_bytes

    def _rest_for(self, seconds: float) -> None:
        if self._rest is not None and self._rest.active():
            self._rest.reset(seconds)
            return
        self._brake.hold(self._pause)
        self._rest = self._clock.callLater(seconds, self._brake.release, self._pause)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def _watch_silence(self, seen_bytes: int = -1) -> None:
        if self._complete:
            return
        if seen_bytes == self.received_bytes and not self._brake.held:
            self.data_lost(DeadlineExceeded(f"nothing came for {SILENCE_SECONDS:g} s"))
            return
        self._watch = self._clock.callLater(
            SILENCE_SECONDS, self._watch_silence, self.received_bytes
        )


class Forward:
    """The next server of the pipeline, as one consumer of an intake.

    What comes in one turn of the reactor goes on as one frame.
    """

    def __init__(self, link: Link, exchange: Exchange) -> None:
        self._link = link
        self._exchange = exchange
        self._brake: Brake | None = None
        self._lever: Lever | None = None
        self._gathered: list[memoryview] = []
        self._gathered_bytes = 0
        self._flush: IDelayedCall | None = None

    def start(self, brake: Brake) -> None:
        """From now on the next server's flow holds the brake."""
        self._brake = brake
        self._lever = Lever(brake)
        self._link.carry(self._lever)
        self._exchange.answer.addBoth(self._let_go)

    def pass_on(self, piece: memoryview, *, last: bool, digest: bytes) -> None:
        self._gathered.append(piece)
        self._gathered_bytes += len(piece)
        if last or self._gathered_bytes >= FRAME_BYTES:
            self._send(last=last, digest=digest)
        elif self._flush is None:
            self._flush = self._link.clock.callLater(0, self._end_turn)

    def _end_turn(self) -> None:
        self._flush = None
        if self._gathered:
            self._send()

    def _send(self, *, last: bool = False, digest: bytes = b"") -> None:
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if not self._exchange.answer.called and self._link.alive:
            self._exchange.write(gathered, last=last, digest=digest)

    def _let_go(self, result: object) -> object:
        """Answered or failed: whatever it held runs on without it."""
        if self._lever is not None and self._brake is not None:
            if self._link.alive:
                self._link.carry(None)
            self._brake.release(self._lever)
        return result
