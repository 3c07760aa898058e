"""Copies of chunks from peers, as heads order them.

Nobody hears of a copy before it was read back from the disk and matched. Small chunks that have the
same source come together, with one question, one sync and one reading back; whatever goes wrong
with one of them then, it is copied again by itself, where every source has its turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from filegrid.chunk import parcel
from filegrid.chunk.intake import begin, intake_from
from filegrid.chunk.inventory import Inventory
from filegrid.chunk.load import Meter
from filegrid.chunk.pace import Pace
from filegrid.chunk.scrub import Scrub
from filegrid.chunk.volumes import Volumes
from filegrid.errors import Busy, GridError, IntegrityError, NoSuchChunk, Unavailable, to_fault
from filegrid.model import Address, Chunk
from filegrid.net.dial import DataPool
from filegrid.net.fetching import fetch_chunks
from filegrid.net.tasks import gather, shielded
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Runtime

COPIES_AT_ONCE = 4
"""Of all orders together, groups of small ones or single ones: while one waits for its fsync and is
read back, another comes. A group is held in memory, twice while it is put together."""

SILENCE_SECONDS = 8.0
"""A source that sends nothing for so long is left for the next one."""

_log = Logger()


class Copying:
    """Carries out orders to copy."""

    def __init__(
        self,
        runtime: Runtime,
        store: Volumes,
        inventory: Inventory,
        pool: DataPool,
        meter: Meter,
        scrub: Scrub,
        pace: Pace,
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._inventory = inventory
        self._pool = pool
        self._meter = meter
        self._scrub = scrub
        self._pace = pace
        self._turns = DeferredSemaphore(COPIES_AT_ONCE)

    async def copy(self, copies: Iterable[wire.ChunkCopy]) -> wire.Copied:
        """Fetch each chunk from the first of its sources that has it whole, and store it."""
        answer = wire.Copied()
        groups = _groups(copies, self._store.small_bytes)
        await gather(self._copy_group(group, answer) for group in groups)
        return answer

    async def _copy_group(self, group: Sequence[wire.ChunkCopy], answer: wire.Copied) -> None:
        await self._turns.acquire()
        try:
            await self._pace.ready()
            if len(group) > 1:
                await self._copy_together(group, answer)
            for copy in group:
                if self._inventory.get(copy.chunk.id) is None:
                    await self._copy_alone(copy, answer)
                else:
                    answer.copied.append(copy.chunk.id)
        finally:
            self._turns.release()

    async def _copy_together(self, group: Sequence[wire.ChunkCopy], answer: wire.Copied) -> None:
        wanted = {
            Chunk.from_wire(copy.chunk): copy.origin
            for copy in group
            if self._inventory.get(copy.chunk.id) is None
        }
        if not wanted:
            return
        source = group[0].sources[0]
        address = Address.parse(source.address)
        try:
            with self._meter.transfer():
                found = await fetch_chunks(
                    self._pool, address, [*wanted], timeout_seconds=SILENCE_SECONDS
                )
        except Busy:
            return
        except GridError as error:
            answer.source_failures.add(server=source.server, fault=to_fault(error))
            for copy in group:
                copy.sources.append(copy.sources.pop(0))  # others have their turn first
            return
        parts = [
            (chunk, origin, data)
            for (chunk, origin), data in zip(wanted.items(), found, strict=True)
            if not isinstance(data, GridError)
        ]
        size = sum(len(data) for _, _, data in parts)
        self._pace.spend(size, critical=group[0].critical)
        await shielded(self._keep(parts))

    async def _keep(self, parts: Sequence[tuple[Chunk, wire.ChunkOrigin, memoryview]]) -> None:
        errors = await self._runtime.threads.run(self._store.store, parts)
        kept = [part[0] for part, error in zip(parts, errors, strict=True) if error is None]
        await self._admit(kept)

    async def _copy_alone(self, copy: wire.ChunkCopy, answer: wire.Copied) -> None:
        chunk = Chunk.from_wire(copy.chunk)
        error: GridError = Unavailable("no source was named", chunk.id.hex())
        for source in copy.sources:
            try:
                await self._copy_from(Address.parse(source.address), copy)
                answer.copied.append(chunk.id)
                return
            except (Unavailable, NoSuchChunk, IntegrityError) as failure:
                error = failure
                answer.source_failures.add(server=source.server, fault=to_fault(failure))
            except GridError as failure:  # of our own: other sources would not help
                error = failure
                break
        answer.failures.add(chunk_id=chunk.id, fault=to_fault(error))

    async def _copy_from(self, address: Address, copy: wire.ChunkCopy) -> None:
        chunk = Chunk.from_wire(copy.chunk)
        link = await self._pool.acquire(address)
        pause = partial(self._pace.spend, critical=copy.critical)
        intake = intake_from(link, self._runtime.clock, self._meter, pause)
        try:
            with self._meter.transfer():
                writer = await begin(
                    self._runtime.threads, self._store, chunk.id, copy.origin, chunk.length
                )
                request = wire.ReadChunk(
                    chunk_id=chunk.id, length=chunk.length, without_digests=True
                )
                try:
                    exchange = link.open(request, timeout_seconds=SILENCE_SECONDS, sink=intake)
                except GridError as error:  # lost while the disk was busy: run() gives up
                    intake.data_lost(error)
                else:
                    exchange.answer.addCallbacks(
                        lambda _: intake.finish(chunk.digest), lambda _: None
                    )  # a failure reaches the intake as data_lost
                await intake.run(writer, self._runtime.threads, None, self._admit_one)
        except Exception as error:
            self._store.blame(chunk.id, error)
            intake.close()
            self._pool.drop(link)
            raise
        self._pool.release(address, link)

    async def _admit_one(self, chunk: Chunk) -> None:
        (error,) = await self._admit([chunk])
        if error is not None:
            raise error

    async def _admit(self, chunks: Sequence[Chunk]) -> list[GridError | None]:
        """Read back what was stored a moment ago; tell of it where it matches (S16, S17).

        It must run to the end also when whoever ordered it is gone: what lies on the disk and is
        known to nobody would be in the way of the next try.
        """
        errors = await self._runtime.threads.run(self._store.verify_many, chunks)
        good = []
        for chunk, error in zip(chunks, errors, strict=True):
            if error is None:
                good.append(chunk)
            elif isinstance(error, IntegrityError):
                _log.error("{chunk} was copied badly: {error}", chunk=chunk.id.hex(), error=error)
                await self._runtime.threads.run(self._store.quarantine, chunk.id, str(error))
            else:
                await self._runtime.threads.run(self._store.remove, chunk.id)
        if good:
            self._inventory.add(*good)
            await self._scrub.verified(good)
            size = sum(chunk.length for chunk in good)
            self._meter.moved(network_bytes=size, disk_bytes=2 * size)
        return errors


def _groups(copies: Iterable[wire.ChunkCopy], small_bytes: int) -> Iterator[list[wire.ChunkCopy]]:
    """Small chunks by their first source, as many as fit in a parcel; others by themselves."""
    small: dict[str, list[wire.ChunkCopy]] = {}
    sizes: dict[str, int] = {}
    for copy in copies:
        length = copy.chunk.length
        if length > small_bytes or not copy.sources:
            yield [copy]
            continue
        source = copy.sources[0].address
        group = small.setdefault(source, [])
        size = sizes.get(source, 0) + length
        if group and (size > parcel.MOST_BYTES or len(group) == parcel.MOST_CHUNKS):
            yield group
            group, size = [], length
            small[source] = group
        group.append(copy)
        sizes[source] = size
    yield from small.values()
