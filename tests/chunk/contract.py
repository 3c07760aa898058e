"""What the chunk store promises on every disk, for large chunks and for small ones."""

from __future__ import annotations

from contextlib import closing

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.store import Store
from filegrid.errors import IntegrityError, InvalidRequest, NoSuchChunk
from filegrid.model import BLOCK_BYTES, Chunk, ChunkId, Digest, SessionId, unique_id
from filegrid.protocol.wire import chunk_pb2
from filegrid.runtime import Disk

FOLDER = "/data"
NONE_SMALL = -1
"""So that every chunk, however short, gets a file of its own."""

ORIGIN = chunk_pb2.ChunkOrigin(content_id=bytes(16), path="/a/file", index=3)
LENGTHS = (0, 1, 4096, BLOCK_BYTES, BLOCK_BYTES + 1, 300_000)


def chunk_id(number: int) -> ChunkId:
    return ChunkId(unique_id(SessionId(1 << 48 | 7), number))


def content(length: int) -> bytes:
    return blake3(b"content").digest(length)


def put(store: Store, number: int, data: bytes, expected: Digest | None = None) -> Chunk:
    writer = store.begin(chunk_id(number), ORIGIN, len(data))
    for start in range(0, len(data), 50_000):
        pieces = [data[start : start + 20_000], data[start + 20_000 : start + 50_000]]
        writer.write(pieces)
        for piece in pieces:
            writer.hash(piece)
    return writer.seal(expected)


class StoreContract(SynchronousTestCase):
    """What the store does on every disk."""

    disk: Disk
    folder: str
    small_bytes: int
    chunk_file: str
    """Where chunk 0xAB lies."""

    def load(self) -> tuple[Store, list[Chunk]]:
        store = Store(
            self.disk, self.folder, grid_id="g", reserve_bytes=0, small_bytes=self.small_bytes
        )
        return store, store.load()

    def test_write_and_read(self) -> None:
        """Chunks of any length come back, whole and in part, also to the next run."""
        store, _ = self.load()
        chunks = [put(store, number, content(n)) for number, n in enumerate(LENGTHS, 1)]
        store, found = self.load()
        self.assertEqual(sorted(found, key=lambda chunk: chunk.id), chunks)
        self.assertEqual(store.damaged, [])
        for chunk in chunks:
            store.verify(chunk)
            data = content(chunk.length)
            self.assertEqual(store.read(chunk, 0, chunk.length), data)
            self.assertEqual(store.read(chunk, 3, 5), data[3:8])
            self.assertEqual(store.read(chunk, max(0, chunk.length - 2), 9), data[-2:])
            self.assertEqual(store.read(chunk, chunk.length + 1, 9), b"")
            digests = store.block_digests(chunk)
            self.assertEqual(blake3(digests).digest(), chunk.digest)

    def test_describes_itself(self) -> None:
        """A chunk on disk tells its grid, its digest and where it came from."""
        store, _ = self.load()
        chunk = put(store, 1, b"abc")
        header = store.header(chunk.id)
        self.assertEqual((header.grid_id, header.origin), ("g", ORIGIN))
        self.assertEqual(Chunk.from_wire(header.chunk), chunk)

    def test_located(self) -> None:
        """The bytes lie where the store says."""
        store, _ = self.load()
        chunk = put(store, 0xAB, b"abc")
        path, offset = store.locate(chunk.id)
        self.assertEqual(path, self.chunk_file)
        with closing(self.disk.open(f"{self.folder}/{path}")) as file:
            self.assertEqual(file.pread(3, offset), b"abc")

    def test_expected_digest(self) -> None:
        """A chunk whose bytes are not what the sender hashed is not kept."""
        store, _ = self.load()
        chunk = put(store, 1, b"abc")
        self.assertEqual(put(store, 2, b"abc", chunk.digest).digest, chunk.digest)
        self.assertRaises(IntegrityError, put, store, 3, b"abd", chunk.digest)
        self.assertEqual(len(self.load()[1]), 2)

    def test_new_id_for_every_try(self) -> None:
        """An id that is being written or sealed is refused; a discarded one may be used again."""
        store, _ = self.load()
        writer = store.begin(chunk_id(1), ORIGIN, 10)
        self.assertRaises(InvalidRequest, store.begin, chunk_id(1), ORIGIN, 10)
        writer.discard()
        put(store, 1, b"abc")
        self.assertRaises(InvalidRequest, store.begin, chunk_id(1), ORIGIN, 10)

    def test_too_long(self) -> None:
        """A chunk longer than announced is dropped, and its writer has ended."""
        store, _ = self.load()
        writer = store.begin(chunk_id(1), ORIGIN, 10)
        writer.write([b"12345"])
        self.assertRaises(InvalidRequest, writer.write, [b"123", b"456"])
        self.assertRaises(InvalidRequest, writer.write, [b"1"])
        self.assertRaises(InvalidRequest, writer.seal)
        writer.discard()
        self.assertEqual(self.disk.names(f"{self.folder}/tmp"), [])

    def test_remove(self) -> None:
        """A removed chunk is gone, twice too; who reads it reads on."""
        store, _ = self.load()
        chunk = put(store, 1, b"abc")
        with closing(store.open_reader(chunk)) as reader:
            store.remove(chunk.id)
            store.remove(chunk.id)
            self.assertEqual(reader.pread(3, 0), b"abc")
        self.assertRaises(NoSuchChunk, store.read, chunk, 0, 1)
        self.assertRaises(NoSuchChunk, store.verify, chunk)
        self.assertEqual(self.load()[1], [])

    def test_quarantine(self) -> None:
        """A replica in quarantine is kept aside, and good ones may follow it under its id."""
        store, _ = self.load()
        for data in (b"abc", b"abcd", b"abcde"):
            chunk = put(store, 1, data)
            store.quarantine(chunk.id, "it was complained about")
            store.quarantine(chunk.id, "twice")
            self.assertRaises(NoSuchChunk, store.open_reader, chunk)
        name = chunk_id(1).hex()
        kept = [name, f"{name}.2", f"{name}.3"]
        self.assertEqual(self.disk.names(f"{self.folder}/quarantine"), kept)
        self.assertEqual(self.load()[1], [])

    def test_another_chunk(self) -> None:
        """A chunk of the same id and another digest is not what was asked for (S15)."""
        store, _ = self.load()
        put(store, 1, b"abc")
        other = Chunk(id=chunk_id(1), length=3, digest=Digest(bytes(32)))
        self.assertRaises(IntegrityError, store.block_digests, other)
        self.assertRaises(IntegrityError, store.verify, other)
