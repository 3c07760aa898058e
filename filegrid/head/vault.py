"""Backups of the metadata that the leading head keeps on the grid's own chunk servers.

The loss of all heads can then be repaired from the chunk servers alone. A backup is written as a
file is: under a session of its own, in new chunks, published by one entry of the log. If this head
dies or loses the lead on the way, the session runs out, what was written is collected (S14), and
the next leader makes the backup that is due. When one is due the log tells: its newest backup
says at which log time it was kept (S9).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.logger import Logger

from filegrid.backup import STORED_AS
from filegrid.errors import Cancelled, GridError, IntegrityError, NoSpace, Unavailable, from_fault
from filegrid.hashing import ChunkHasher
from filegrid.head.backups import Backup, Backups
from filegrid.head.placement import Candidate, place
from filegrid.head.roster import Roster
from filegrid.head.sessions import SESSION_LEASE_MS
from filegrid.head.view import View
from filegrid.model import (
    BLOCK_BYTES,
    Address,
    Chunk,
    ChunkId,
    Digest,
    SessionId,
    digest_over,
    unique_id,
)
from filegrid.net.dial import DataPool
from filegrid.net.link import Exchange, expect
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2, head_pb2, values_pb2
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire.health_pb2 import Event
from filegrid.runtime import Runtime

MOST_KEPT = 24

LEAST_CHUNK_BYTES = 16 * 1024 * 1024
"""However short the grid's chunks are: the manifest has to fit into one entry of the log."""

MOST_CHUNKS = 4096

PIECE_BYTES = 256 * 1024
READ_BYTES = 1024 * 1024

BYTES_PER_SECOND = 32 * 1024 * 1024
"""Users' changes go through the same process, and must not wait for a backup."""

SILENCE_SECONDS = 15.0

TRIES = 3
"""For a chunk, each under a new id (S15) and without the servers that failed before."""

AGAIN_MS = 60_000
"""After a failure; sooner where backups are made more often than that."""

_log = Logger()


class Vault:
    """One leader's.

    :param name: of this head, as which its sessions are opened.
    :param replication: of the backups' chunks; `min_replicas` must be durable (S16).
    :param interval_seconds: between two backups; 0: none is made.
    :param log_time_ms: what the log's own time is now.
    :param propose: commits a command, applies it, and gives its outcome.
    :param tell: notes an event.
    :ivar failure: why the last try came to nothing; empty where it did not.
    """

    def __init__(
        self,
        runtime: Runtime,
        backups: Backups,
        namespace: View,
        roster: Roster,
        pool: DataPool,
        *,
        name: str,
        chunk_bytes: int,
        replication: int,
        min_replicas: int,
        interval_seconds: int,
        log_time_ms: Callable[[], int],
        propose: Callable[[journal.Command], Awaitable[journal.Outcome]],
        tell: Callable[[Event.Kind.ValueType, str, str], None],
    ) -> None:
        self.failure = ""
        self._runtime = runtime
        self._backups = backups
        self._namespace = namespace
        self._roster = roster
        self._pool = pool
        self._name = name
        self._chunk_bytes = chunk_bytes
        self._replication = replication
        self._min_replicas = min(min_replicas, replication)
        self._interval_ms = 1000 * interval_seconds
        self._log_time_ms = log_time_ms
        self._propose = propose
        self._tell = tell
        self._again_ms = 0
        self._tasks = Tasks("keeping a backup in the grid")

    def turn(self) -> None:
        """Begin a backup where one is due."""
        now_ms = self._log_time_ms()
        if not self._interval_ms or len(self._tasks) or now_ms < self._again_ms:
            return
        kept = self._namespace.backups()
        due_ms = (kept[-1].log_time_ms if kept else 0) + self._interval_ms
        if now_ms < due_ms:
            self._again_ms = due_ms
            return
        self._again_ms = now_ms + min(AGAIN_MS, self._interval_ms)
        self._tasks.begin(self._keep())

    async def stop(self) -> None:
        await self._tasks.stop()

    def status(self) -> head_pb2.BackupStatus:
        kept = self._namespace.backups()
        return head_pb2.BackupStatus(
            interval_seconds=self._interval_ms // 1000,
            kept=len(kept),
            last_ms=kept[-1].wall_ms if kept else 0,
            last_bytes=kept[-1].bytes if kept else 0,
            failure=self.failure,
        )

    async def _keep(self) -> None:
        try:
            backup = await self._backups.make()
            try:
                await self._store(backup)
            finally:
                await self._backups.drop(backup)
        except Cancelled:
            return  # the reign has ended
        except GridError as error:
            _log.error("no backup could be kept in the grid: {error}", error=error)
            if not self.failure:
                self._tell(Event.KIND_BACKUP_FAILED, self._name, str(error))
            self.failure = str(error)
            return
        if self.failure:
            self._tell(Event.KIND_BACKUP_KEPT, self._name, "")
        self.failure = ""

    async def _store(self, backup: Backup) -> None:
        opened = await self._command(journal.Command(open_session=values_pb2.OpenSession()))
        upload = _Upload(SessionId(opened.session), self._log_time_ms())
        chunk_bytes = max(self._chunk_bytes, LEAST_CHUNK_BYTES)
        least = -(-backup.length // MOST_CHUNKS)
        chunk_bytes = max(chunk_bytes, -(-least // BLOCK_BYTES) * BLOCK_BYTES)
        count = -(-backup.length // chunk_bytes)
        origin = chunk_pb2.ChunkOrigin(
            content_id=upload.new_id(),
            path=STORED_AS,
            chunk_bytes=chunk_bytes,
            chunk_count=count,
            replication=self._replication,
            written_ms=round(self._runtime.wall_seconds() * 1000),
        )
        chunks = []
        for index in range(count):
            origin.index = index
            start = index * chunk_bytes
            end = min(backup.length, start + chunk_bytes)
            chunks.append(await self._store_chunk(upload, origin, backup, start, end))
        content = values_pb2.Publish(
            content_id=origin.content_id,
            chunks=[chunk.to_wire() for chunk in chunks],
            size=backup.length,
            digest=digest_over(chunk.digest for chunk in chunks),
            replication=self._replication,
            chunk_bytes=chunk_bytes,
        )
        keep = journal.KeepBackup(content=content, most=MOST_KEPT)
        await self._command(journal.Command(once=upload.once(), keep_backup=keep))
        close = values_pb2.CloseSession()
        await self._command(journal.Command(once=upload.once(), close_session=close))

    async def _command(self, command: journal.Command) -> journal.Outcome:
        command.client = self._name
        outcome = await self._propose(command)
        if outcome.WhichOneof("result") == "fault":
            raise from_fault(outcome.fault)
        return outcome

    async def _store_chunk(
        self, upload: _Upload, origin: chunk_pb2.ChunkOrigin, backup: Backup, start: int, end: int
    ) -> Chunk:
        """Bytes from `start` to before `end` of the backup, on as many servers as must be."""
        failed: set[str] = set()
        trouble = GridError("no try was made")
        for _ in range(TRIES):
            await self._renew(upload)
            targets = self._place(end - start, failed)
            chunk_id = ChunkId(upload.new_id())
            try:
                written, digest = await self._write(chunk_id, origin, targets, backup, start, end)
            except Cancelled:
                raise
            except GridError as error:
                failed.add(targets[0].name)
                trouble = error
                continue
            if written.digest != digest or written.length != end - start:
                failed.add(targets[0].name)
                trouble = IntegrityError("a chunk server stored other bytes", targets[0].name)
            elif len(set(written.stored)) < self._min_replicas:
                failed.update(one.server for one in written.failures)
                why = "; ".join(f"{one.server}: {one.fault.what}" for one in written.failures)
                trouble = Unavailable(f"too few chunk servers stored a chunk of it ({why})")
            else:
                return Chunk(id=chunk_id, length=end - start, digest=digest)
        raise trouble

    async def _renew(self, upload: _Upload) -> None:
        """A session that ran out could publish nothing any more (S14)."""
        now_ms = self._log_time_ms()
        if now_ms - upload.renewed_ms > SESSION_LEASE_MS / 3:
            keep = journal.KeepSessions(sessions=[upload.session])
            await self._command(journal.Command(keep_sessions=keep))
            upload.renewed_ms = now_ms

    def _place(self, length: int, failed: set[str]) -> list[Candidate]:
        candidates = self._roster.candidates()
        for exclude in (failed, ()):
            chosen = place(
                candidates,
                self._replication,
                chunk_bytes=length,
                random=self._runtime.random,
                exclude=exclude,
            )
            if len(chosen) >= self._min_replicas:
                return chosen
        if len(candidates) >= self._min_replicas:
            raise NoSpace(
                f"too few chunk servers have room for {length} bytes",
                advice="add space, or remove files with 'filegrid rm --now'",
            )
        raise Unavailable(
            f"{len(candidates)} chunk servers can take a chunk, {self._min_replicas} are needed"
        )

    async def _write(
        self,
        chunk_id: ChunkId,
        origin: chunk_pb2.ChunkOrigin,
        targets: Sequence[Candidate],
        backup: Backup,
        start: int,
        end: int,
    ) -> tuple[chunk_pb2.Written, Digest]:
        first, *rest = (
            chunk_pb2.Hop(server=one.name, address=self._roster[one.name].address)
            for one in targets
        )
        request = chunk_pb2.WriteChunk(
            chunk_id=chunk_id, origin=origin, next=rest, most_bytes=end - start
        )
        where = Address.parse(first.address)
        link = await self._pool.acquire(where)
        exchange = link.open(request, timeout_seconds=SILENCE_SECONDS)
        try:
            digest = await self._send(exchange, backup, start, end)
            written = expect(chunk_pb2.Written, await exchange.answer, link.peer)
        except BaseException:
            exchange.answer.addErrback(lambda _: None)
            self._pool.drop(link)
            raise
        self._pool.release(where, link)
        return written, digest

    async def _send(self, exchange: Exchange, backup: Backup, start: int, end: int) -> Digest:
        hasher, offset = ChunkHasher(), start
        while offset < end and not exchange.answer.called:
            length = min(READ_BYTES, end - offset)
            data = memoryview(await self._backups.pread(backup, length, offset))
            for at in range(0, len(data), PIECE_BYTES):
                piece = data[at : at + PIECE_BYTES]
                offset += len(piece)
                last = offset == end
                hasher.update(piece)
                await exchange.send(piece, last=last, digest=hasher.digest() if last else b"")
            await self._runtime.sleep(len(data) / BYTES_PER_SECOND)
        return hasher.digest()


class _Upload:
    """A session and what was numbered in it."""

    def __init__(self, session: SessionId, renewed_ms: int) -> None:
        self.session = session
        self.renewed_ms = renewed_ms
        self._ids = 0
        self._changes = 0

    def new_id(self) -> bytes:
        self._ids += 1
        return unique_id(self.session, self._ids)

    def once(self) -> values_pb2.Once:
        """Each change is answered before the next is made."""
        self._changes += 1
        number = self._changes
        return values_pb2.Once(session=self.session, sequence=number, answered_below=number)
