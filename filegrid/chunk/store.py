"""The chunks on a chunk server's disk.

In the data folder, ``chunks/XX/ID`` are the sealed chunks (ID is the chunk's id in hexadecimal
digits, XX its last two, which differ most), ``tmp/ID`` those being written, and ``quarantine/ID``
those found damaged. A chunk gets its name under ``chunks`` only once its contents are durable, so
that whatever is there after a crash is whole (S16). Small chunks share files under ``segments``
(:mod:`filegrid.chunk.segments`).

All methods block and are run in threads; those for different chunks may run at the same time.
"""

from __future__ import annotations

import errno
import random
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from twisted.logger import Logger

from filegrid.chunk.format import HEADER_BYTES, decode_header, digests_offset, file_bytes
from filegrid.chunk.record import Content
from filegrid.chunk.sealing import ChunkWriter
from filegrid.chunk.segments import SEGMENT_BYTES, Segments
from filegrid.chunk.small import SmallWriter, Writer, whole_content
from filegrid.disk import grid_errors
from filegrid.errors import GridError, IntegrityError, InvalidRequest, NoSpace, NoSuchChunk
from filegrid.hashing import BlockVerifier
from filegrid.model import BLOCK_BYTES, CHUNK_ID_BYTES, DIGEST_BYTES, Chunk, ChunkId, blocks_in
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Bytes, Disk, File, Lending

RESERVE_BYTES = 256 * 1024 * 1024
"""Kept free of chunks, so that fences, logs and removals go through on a full disk (S22)."""

SMALL_BYTES = 1024 * 1024
"""A chunk up to this length shares a file with others: one of its own costs three syncs."""

_VERIFY_BYTES = 16 * BLOCK_BYTES
"""What is read at once to verify; much more no longer stays in the processor's cache."""

_SHELF = re.compile("[0-9a-f]{2}")
_ID = re.compile(f"[0-9a-f]{{{2 * CHUNK_ID_BYTES}}}")


class ChunkReader:
    """A sealed chunk, open to read; it stays readable when the chunk is removed meanwhile."""

    def __init__(self, file: File, chunk: Chunk, bytes_at: int, digests_at: int) -> None:
        self.chunk = chunk
        self._file = file
        self._bytes_at = bytes_at
        self._digests_at = digests_at

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` of the chunk's bytes, unchecked; fewer only at its end.

        :raises IntegrityError: where the file ends too early, or a part of it cannot be read.
        :raises DiskFailed: where the disk failed, which says nothing about the chunk.
        """
        return self._read(max(0, min(length, self.chunk.length - offset)), self._bytes_at + offset)

    def pread_cached(self, length: int, offset: int) -> Bytes | None:
        """As :meth:`pread`, without a thread, where nothing has to be waited for; else None."""
        if offset + length > self.chunk.length:
            return None
        return self._file.pread_cached(length, self._bytes_at + offset)

    def block_digests(self) -> bytes:
        """The digests of all its blocks, checked against its own.

        :raises IntegrityError: where they do not match it, or cannot be read.
        :raises DiskFailed: as :meth:`pread`.
        """
        length = self.chunk.length
        digests = self._read(blocks_in(length) * DIGEST_BYTES, self._digests_at)
        BlockVerifier(self.chunk, digests)
        return digests

    def uncache(self) -> None:
        """Let what is read next come from the disk itself."""
        with grid_errors(self.chunk.id.hex()):
            self._file.uncache()

    def give_way(self) -> None:
        """Read as is good for others: behind a read-ahead of MiB they wait for milliseconds."""
        with grid_errors(self.chunk.id.hex()):
            self._file.read_no_further()

    def lend(self, lending: Lending) -> wire.Lent:
        """Let another process of this machine have the file instead of us."""
        where, token = lending.lend(self._file)
        return wire.Lent(
            socket=where,
            token=token,
            offset=self._bytes_at,
            digests_offset=self._digests_at,
        )

    def close(self) -> None:
        self._file.close()

    def _read(self, length: int, offset: int) -> bytes:
        subject = self.chunk.id.hex()
        with grid_errors(subject):
            data = _pread(self._file, length, offset, subject)
        if len(data) < length:
            raise IntegrityError("the file of the chunk ends too early", subject)
        return data


class Store:
    """Sealed chunks, those being written, and those in quarantine.

    :param folder: the node's data folder.
    :param reserve_bytes: how much of the file system stays free of chunks.
    :ivar small_bytes: up to this length chunks share files, of `segment_bytes` about.
    :param rng: for the keys of those files.
    """

    log = Logger()

    def __init__(
        self,
        disk: Disk,
        folder: str,
        *,
        grid_id: str,
        reserve_bytes: int = RESERVE_BYTES,
        small_bytes: int = SMALL_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        rng: random.Random | None = None,
    ) -> None:
        self.damaged: list[ChunkId] = []
        """What :meth:`load` put into quarantine."""
        self._disk = disk
        self._folder = folder
        self._grid_id = grid_id
        self._reserve_bytes = reserve_bytes
        self.small_bytes = small_bytes
        self._small = Segments(
            disk, f"{folder}/segments", rng or random.SystemRandom(), segment_bytes
        )
        self._lock = threading.Lock()  # guards all below
        self._writers: dict[ChunkId, Writer] = {}
        self._shelves: set[str] = set()  # the folders XX that exist
        # What could not be taken from its place as the disk failed: None, or why it is damaged.
        self._unwanted: dict[ChunkId, str | None] = {}

    @property
    def writers(self) -> int:
        """How many chunks are being written."""
        return len(self._writers)

    def load(self) -> list[Chunk]:
        """Clean up after the last run and read what is there; once, before all else.

        :raises UnsupportedVersion: where a newer release wrote a chunk.
        :raises DiskFailed: where the folders cannot be read or written.
        """
        with grid_errors(self._folder):
            for name in ("chunks", "tmp", "quarantine"):
                self._disk.make_folders(self._path(name))
            for name in self._disk.names(self._path("tmp")):
                self._disk.remove(self._path(f"tmp/{name}"))
            self._unwanted.clear()  # it is found again now
            # A process that was killed may have left shelves whose names are not durable yet.
            self._disk.sync_folder(self._path("chunks"))
            found = [self._load(chunk_id) for chunk_id in self._shelved_ids()]
            small = self._small.load()
        return [chunk for chunk in found if chunk is not None] + small

    def begin(self, chunk_id: ChunkId, origin: wire.ChunkOrigin, most_bytes: int) -> Writer:
        """Start a chunk of at most `most_bytes` bytes.

        :raises InvalidRequest: where the id is in use: every try has a new one (S15).
        :raises NoSpace: where it would not fit beside the reserve and the other writers (S22).
        :raises DiskFailed: where the disk cannot be written.
        """
        subject = chunk_id.hex()
        writer = self._writer(chunk_id, origin, most_bytes)
        with self._lock, grid_errors(subject):
            if chunk_id in self._writers or self._exists(chunk_id):
                raise _exists_already(chunk_id)
            self._unwanted.pop(chunk_id, None)  # it went after all
            if writer.outstanding_bytes > self._space()[1]:
                raise _no_room(chunk_id)
            self._writers[chunk_id] = writer
        writer.open()
        return writer

    def store(
        self, chunks: Sequence[tuple[Chunk, wire.ChunkOrigin, Bytes]]
    ) -> list[GridError | None]:
        """Store small chunks, whole, with one sync.

        :returns: for each None once it survives every crash (S16), or why it was not stored.
        :raises DiskFailed: where the disk does not even say how much space it has.
        """
        errors: list[GridError | None] = [None] * len(chunks)
        contents: dict[int, Content] = {}
        room = self.space()[1]
        for place, (chunk, origin, data) in enumerate(chunks):
            try:
                contents[place] = self._content(chunk, origin, data, room)
            except GridError as error:
                errors[place] = error
            else:
                room -= contents[place].size
        if contents:
            written = self._small.write(list(contents.values()))
            for place, outcome in zip(contents, written, strict=True):
                errors[place] = outcome
        return errors

    def _content(self, chunk: Chunk, origin: wire.ChunkOrigin, data: Bytes, room: int) -> Content:
        if chunk.length > self.small_bytes:
            raise InvalidRequest("this is no small chunk", chunk.id.hex())
        content = whole_content(self._grid_id, chunk, origin, data)
        with grid_errors(chunk.id.hex()):
            if self._exists(chunk.id):
                raise _exists_already(chunk.id)
        with self._lock:
            self._unwanted.pop(chunk.id, None)  # it went after all
        if content.size > room:
            raise _no_room(chunk.id)
        return content

    def _writer(self, chunk_id: ChunkId, origin: wire.ChunkOrigin, most_bytes: int) -> Writer:
        if most_bytes <= self.small_bytes:
            return SmallWriter(
                chunk_id,
                grid_id=self._grid_id,
                origin=origin,
                most_bytes=most_bytes,
                commit=self._small.write,
                ended=lambda: self._forget(chunk_id),
            )
        subject = chunk_id.hex()
        return ChunkWriter(
            self._disk,
            chunk_id,
            grid_id=self._grid_id,
            origin=origin,
            most_bytes=most_bytes,
            temporary=self._path(f"tmp/{subject}"),
            sealed=self._path(_shelved(chunk_id)),
            make_folder=lambda: self._make_shelf(subject[-2:]),
            remove=lambda: self.remove(chunk_id),
            ended=lambda: self._forget(chunk_id),
        )

    def open_reader(self, chunk: Chunk) -> ChunkReader:
        """Open a sealed chunk.

        :raises NoSuchChunk: where it is not here.
        :raises DiskFailed: where it cannot be opened.
        """
        with grid_errors(chunk.id.hex()):
            if chunk.id in self._small:
                file, _, entry = self._small.open(chunk.id)
                return ChunkReader(file, chunk, entry.bytes_at, entry.digests_at)
            file = self._open(chunk.id)
            return ChunkReader(file, chunk, HEADER_BYTES, digests_offset(chunk.length))

    def read(self, chunk: Chunk, offset: int, length: int) -> bytes:
        """As :meth:`ChunkReader.pread`."""
        with closing(self.open_reader(chunk)) as reader:
            return reader.pread(length, offset)

    def block_digests(self, chunk: Chunk) -> bytes:
        """As :meth:`ChunkReader.block_digests`."""
        with closing(self.open_reader(chunk)) as reader:
            return reader.block_digests()

    def header(self, chunk_id: ChunkId) -> wire.ChunkHeader:
        """What a sealed chunk says of itself.

        :raises NoSuchChunk: where it is not here.
        :raises IntegrityError: where its header or the length of its file is damaged.
        :raises UnsupportedVersion: where a newer release wrote it.
        :raises DiskFailed: where it cannot be read.
        """
        with grid_errors(chunk_id.hex()):
            if chunk_id in self._small:
                return self._small.header(chunk_id)
            return self._header(chunk_id)

    def verify(self, chunk: Chunk) -> None:
        """Read all of a chunk, from the disk and not from memory, and check it.

        :raises NoSuchChunk: where it is not here.
        :raises IntegrityError: where anything of it does not match its digest, or cannot be read.
        :raises DiskFailed: where the disk failed, which says nothing about the chunk.
        """
        if Chunk.from_wire(self.header(chunk.id).chunk) != chunk:
            raise IntegrityError("the chunk on disk is another one", chunk.id.hex())
        with closing(self.open_reader(chunk)) as reader:
            reader.uncache()
            reader.give_way()
            verifier = BlockVerifier(chunk, reader.block_digests())
            for offset in range(0, chunk.length, _VERIFY_BYTES):
                verifier.check(offset // BLOCK_BYTES, reader.pread(_VERIFY_BYTES, offset))
            reader.uncache()  # nobody asked for it: it must not push out what is asked for

    def quarantine(self, chunk_id: ChunkId, reason: str) -> None:
        """Put a damaged chunk aside, durably, so that a good replica can take its place.

        Nothing where it is not here. What is in quarantine stays until a person removes it. Where
        the disk cannot be written, it stays until :meth:`tidy` succeeds or it is loaded again.
        """
        with self._tried_again(chunk_id, reason):
            self._quarantine(chunk_id, reason)

    def remove(self, chunk_id: ChunkId) -> None:
        """Remove a chunk for good; nothing where it is not here.

        The removal is not synced: after a loss of power the chunk may be here again. Where the
        disk cannot be written, it stays until :meth:`tidy` succeeds or it is loaded again.
        """
        with self._tried_again(chunk_id, None):
            self._remove(chunk_id)

    def tidy(self) -> None:
        """Try again what could not be taken away, as the disk failed."""
        self._sweep()
        for chunk_id in list(self._unwanted):
            # Under the lock: nobody may begin to write the chunk anew while its old file goes.
            with self._lock:
                if chunk_id not in self._unwanted:
                    continue
                reason = self._unwanted[chunk_id]
                with suppress(OSError):
                    if reason is None:
                        self._remove(chunk_id)
                    else:
                        self._quarantine(chunk_id, reason)
                    del self._unwanted[chunk_id]

    def locate(self, chunk_id: ChunkId) -> tuple[str, int]:
        """The file within the data folder that has a sealed chunk, and its first byte there.

        :raises NoSuchChunk: where a small one went meanwhile.
        """
        if chunk_id in self._small:
            where, entry = self._small.place(chunk_id)
            return where.path[len(self._folder) + 1 :], entry.bytes_at
        return _shelved(chunk_id), HEADER_BYTES

    def compact(self, most_bytes: int) -> tuple[bool, list[Chunk]]:
        """A step of giving back the space that removed small chunks took.

        :returns: whether there may be more to do at once; and chunks that were found damaged.
        :raises DiskFailed: where the disk cannot be written.
        """
        with grid_errors(self._folder):
            return self._small.compact(most_bytes)

    def ids(self) -> list[ChunkId]:
        """Of all sealed chunks.

        :raises DiskFailed: where the folders cannot be read.
        """
        with grid_errors(self._folder):
            return [*self._shelved_ids(), *self._small.ids()]

    def space(self) -> tuple[int, int]:
        """The capacity in bytes, and how much of it new chunks may take.

        :raises DiskFailed: where the disk does not say.
        """
        with self._lock, grid_errors(self._folder):
            return self._space()

    def _space(self) -> tuple[int, int]:
        capacity, free = self._disk.space(self._folder)
        promised = sum(writer.outstanding_bytes for writer in self._writers.values())
        return capacity, max(0, free - self._reserve_bytes - promised)

    def _sweep(self) -> None:
        """Remove the files of writers that ended and could not do it."""
        with self._lock, suppress(OSError):
            for name in self._disk.names(self._path("tmp")):
                if not (_ID.fullmatch(name) and ChunkId(bytes.fromhex(name)) in self._writers):
                    self._disk.remove(self._path(f"tmp/{name}"))

    @contextmanager
    def _tried_again(self, chunk_id: ChunkId, reason: str | None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.log.warn(
                "{chunk} stays where it is for now: {error}", chunk=chunk_id.hex(), error=error
            )
            with self._lock:
                self._unwanted[chunk_id] = reason

    def _load(self, chunk_id: ChunkId) -> Chunk | None:
        try:
            return Chunk.from_wire(self._header(chunk_id).chunk)
        except IntegrityError as error:
            self._quarantine(chunk_id, error.what)
            self.damaged.append(chunk_id)
            return None

    def _shelved_ids(self) -> Iterator[ChunkId]:
        names = self._disk.names(self._path("chunks"))
        self._shelves = {name for name in names if _SHELF.fullmatch(name)}
        for shelf in sorted(self._shelves):
            for name in self._disk.names(self._path(f"chunks/{shelf}")):
                if _ID.fullmatch(name) and name[-2:] == shelf:  # others are not ours
                    yield ChunkId(bytes.fromhex(name))

    def _header(self, chunk_id: ChunkId) -> wire.ChunkHeader:
        subject = chunk_id.hex()
        with closing(self._open(chunk_id)) as file:
            page = _pread(file, HEADER_BYTES, 0, subject)
            size = file.size()
        header = decode_header(page, subject)
        if (header.grid_id, header.chunk.id) != (self._grid_id, chunk_id):
            raise IntegrityError("the file has the header of another chunk", subject)
        if size != file_bytes(header.chunk.length):
            raise IntegrityError("the file of the chunk has another length", subject)
        return header

    def _open(self, chunk_id: ChunkId) -> File:
        try:
            return self._disk.open(self._path(_shelved(chunk_id)))
        except FileNotFoundError:
            if not self._disk.exists(self._path("chunks")):
                raise  # the whole disk is missing, which says nothing about the chunk (S20)
            raise NoSuchChunk("the chunk is not on this server", chunk_id.hex()) from None

    def _remove(self, chunk_id: ChunkId) -> None:
        with suppress(FileNotFoundError):
            if chunk_id in self._small:
                self._small.remove([chunk_id])
            else:
                self._disk.remove(self._path(_shelved(chunk_id)))

    def _quarantine(self, chunk_id: ChunkId, reason: str) -> None:
        target = first = self._path(f"quarantine/{chunk_id.hex()}")
        count = 1
        while self._disk.exists(target):  # an earlier replica of the same chunk
            count += 1
            target = f"{first}.{count}"
        source = self._path(_shelved(chunk_id))
        if not self._small.quarantine(chunk_id, target):
            try:
                self._disk.rename(source, target)
            except FileNotFoundError:
                return
            self._disk.sync_folder(self._path("quarantine"))
            self._disk.sync_folder(source.rpartition("/")[0])
        self.log.warn("{chunk} is in quarantine: {reason}", chunk=chunk_id.hex(), reason=reason)

    def _exists(self, chunk_id: ChunkId) -> bool:
        return chunk_id in self._small or self._disk.exists(self._path(_shelved(chunk_id)))

    def _make_shelf(self, shelf: str) -> None:
        with self._lock:
            if shelf not in self._shelves:
                self._disk.make_folders(self._path(f"chunks/{shelf}"))
                self._shelves.add(shelf)

    def _forget(self, chunk_id: ChunkId) -> None:
        with self._lock:
            self._writers.pop(chunk_id, None)

    def _path(self, relative: str) -> str:
        return f"{self._folder}/{relative}"


def _shelved(chunk_id: ChunkId) -> str:
    """The file of a chunk that has one of its own."""
    name = chunk_id.hex()
    return f"chunks/{name[-2:]}/{name}"


def _exists_already(chunk_id: ChunkId) -> GridError:
    return InvalidRequest(
        "the chunk exists already", chunk_id.hex(), advice="take a new id for every try"
    )


def _no_room(chunk_id: ChunkId) -> GridError:
    return NoSpace("no room for the chunk", chunk_id.hex(), advice="free or add space")


def _pread(file: File, length: int, offset: int, subject: str) -> bytes:
    """What cannot be read is damage of this chunk; other errors say nothing about it."""
    try:
        return file.pread(length, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise IntegrityError("the disk cannot read all of the chunk", subject) from error
