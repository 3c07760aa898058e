"""Files go in and come back, of every size and under every name."""

from __future__ import annotations

import io

from filegrid.errors import (
    AlreadyExists,
    FolderNotEmpty,
    InvalidPath,
    IsAFolder,
    NoSuchPath,
    NotAFolder,
)
from filegrid.hashing import file_digest
from tests.grid.case import CHUNK, GridCase, content


class Sizes(GridCase):
    def test_sizes(self) -> None:
        """Files of 0 bytes, one chunk, one byte more or less, and several chunks come back."""
        for size in (0, 1, 65536, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 12345):
            data = content(size, seed=size)
            self.put(f"/f{size}", data)
            self.assertEqual(self.read(f"/f{size}"), data, size)
            stat = self.run_(self.client.stat(f"/f{size}"))
            _, digest = file_digest(io.BytesIO(data), CHUNK)
            self.assertEqual((stat.size, stat.digest), (size, digest.hex()))

    def test_ranges(self) -> None:
        """Any range comes back, across blocks and chunks, and ends with the file."""
        data = content(2 * CHUNK + 1000)
        self.put("/f", data)
        for offset, length in (
            (0, 1),
            (65535, 2),
            (CHUNK - 1, 2),
            (100, 2 * CHUNK),
            (2 * CHUNK + 999, 1),
            (2 * CHUNK + 999, 500),
            (3 * CHUNK, 10),
        ):
            read = self.run_(self.client.read_bytes("/f", offset=offset, length=length))
            self.assertEqual(read, data[offset : offset + length], (offset, length))

    def test_stream(self) -> None:
        """A stream of unknown length is stored whole."""
        data = content(3 * CHUNK + 17)
        self.run_(self.client.put(io.BytesIO(data), "/s"))
        self.assertEqual(self.read("/s"), data)

    def test_append(self) -> None:
        """Appending goes on where the file ends; its digest is that of the whole."""
        parts = [content(size, seed=size) for size in (10, CHUNK, 2 * CHUNK - 5, 1)]
        for part in parts:
            self.run_(self.client.append("/log", part))
        whole = b"".join(parts)
        self.assertEqual(self.read("/log"), whole)
        _, digest = file_digest(io.BytesIO(whole), CHUNK)
        self.assertEqual(self.run_(self.client.stat("/log")).digest, digest.hex())

    def test_three_replicas_in_two_racks_at_least(self) -> None:
        """Every chunk lies on three servers, in at least two racks."""
        self.put("/f", content(4 * CHUNK))
        racks = {one.name: one.settings.node.rack for one in self.grid.chunk_servers}
        for index in range(4):
            holders = self.holders("/f", index)
            self.assertEqual(len(set(holders)), 3)
            self.assertGreaterEqual(len({racks[name] for name in holders}), 2)

    def test_replication_of_a_file(self) -> None:
        """A file has as many replicas as were asked for."""
        self.put("/one", content(100), replication=1)
        self.put("/five", content(100), replication=5)
        self.assertEqual(len(self.holders("/one")), 1)
        self.assertEqual(len(self.holders("/five")), 5)


class Names(GridCase):
    def test_any_utf_8(self) -> None:
        """Any UTF-8 is a name; NFC and NFD spellings are two files."""
        names = ["/\u00e9", "/e\u0301", "/ ", "/\n", "/...", "/\U0001f5c4", "/" + "x" * 255]
        for number, name in enumerate(names):
            self.put(name, bytes([number]))
        for number, name in enumerate(names):
            self.assertEqual(self.read(name), bytes([number]))

    def test_refused_paths(self) -> None:
        """Relative paths, empty names, dots, NUL and too long ones are refused by name."""
        long = "/" + "/".join(["x" * 200] * 21)
        for path in ("a", "", "//a", "/a//b", "/a/../b", "/.", "/a\0b", "/" + "x" * 256, long):
            with self.assertRaises(InvalidPath):
                self.put(path, b"")

    def test_put_over_a_file(self) -> None:
        """An existing file is replaced only on purpose, and keeps its contents otherwise."""
        self.put("/f", b"old")
        with self.assertRaises(AlreadyExists):
            self.put("/f", b"new")
        self.assertEqual(self.read("/f"), b"old")
        self.put("/f", b"new", overwrite=True)
        self.assertEqual(self.read("/f"), b"new")

    def test_folders(self) -> None:
        """Folders are made, listed, renamed with all that is in them, and removed."""
        client = self.client
        self.run_(client.mkdir("/a/b/c", parents=True))
        self.put("/a/b/f", b"1")
        with self.assertRaises(FileExistsError):
            self.run_(client.mkdir("/a"))
        with self.assertRaises(NoSuchPath):
            self.put("/x/y", b"")
        with self.assertRaises(NotAFolder):
            self.put("/a/b/f/g", b"")
        with self.assertRaises(IsAFolder):
            self.put("/a/b", b"", overwrite=True)
        self.run_(client.rename("/a/b", "/moved"))
        self.assertEqual(self.read("/moved/f"), b"1")
        with self.assertRaises(NoSuchPath):
            self.read("/a/b/f")
        with self.assertRaises(FolderNotEmpty):
            self.run_(client.remove("/moved"))
        self.run_(client.remove("/moved", recursive=True))
        self.assertEqual(self.listed("/"), ["/a"])

    def test_long_listing(self) -> None:
        """A folder of several pages is listed whole, in the order of the names."""
        for number in range(30):
            self.put(f"/f{number:02}", b"")
        from filegrid.client import grid

        self.patch(grid, "LIST_PAGE", 7)
        self.assertEqual(self.listed("/"), [f"/f{number:02}" for number in range(30)])

        async def first() -> str:
            listing = self.client.listdir("/")
            stat = await anext(listing)
            await listing.aclose()  # the page that was asked for meanwhile is not missed
            return stat.path

        self.assertEqual(self.run_(first()), "/f00")

    def listed(self, path: str) -> list[str]:
        async def names() -> list[str]:
            return [stat.path async for stat in self.client.listdir(path)]

        return self.run_(names())
