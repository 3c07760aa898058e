"""Local files: seen to change under an upload, appearing whole or not at all after a download."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.local import (
    MOST_SMALL_BYTES,
    LocalSource,
    LocalTarget,
    open_source,
    open_target,
)
from filegrid.errors import (
    AlreadyExists,
    IsAFolder,
    NoSuchPath,
    NotAFolder,
    SourceChanged,
)


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "file"

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class LocalSourceTests(FolderCase):
    def source(self, data: bytes) -> LocalSource:
        self.file.write_bytes(data)
        source = LocalSource(self.file)
        self.addCleanup(source.close)
        return source

    def test_read(self) -> None:
        """Any part can be read, as often as needed."""
        source = self.source(b"0123456789")
        self.assertEqual(source.read(3, 4), b"3456")
        self.assertEqual(source.read(0, 10), b"0123456789")
        source.check_whole()

    def test_rewritten(self) -> None:
        """A file that was written to is not read any further."""
        source = self.source(b"0123456789")
        self.file.write_bytes(b"9876543210")
        os.utime(self.file, ns=(0, 0))
        self.assertRaises(SourceChanged, source.read, 0, 5)

    def test_truncated(self) -> None:
        """A file that lost its end is not uploaded."""
        source = self.source(b"0123456789")
        os.truncate(self.file, 5)
        self.assertRaises(SourceChanged, source.read, 0, 10)

    def test_appended(self) -> None:
        """A file that grew is not uploaded, even where its times do not show it."""
        source = self.source(b"0123456789")
        with open(self.file, "ab") as file:
            file.write(b"x")
        self.assertRaises(SourceChanged, source.check_whole)

    def test_replaced(self) -> None:
        """A path that names another file now is noticed."""
        source = self.source(b"0123456789")
        other = self.folder / "other"
        other.write_bytes(b"0123456789")
        other.replace(self.file)
        self.assertRaises(SourceChanged, source.check_whole)

    def test_kinds(self) -> None:
        """A small file comes at once, a large one in parts, a pipe as a stream, a folder not."""
        self.file.write_bytes(b"small")
        self.assertEqual(open_source(self.file), b"small")
        self.file.write_bytes(bytes(MOST_SMALL_BYTES + 1))
        large = open_source(self.file)
        assert isinstance(large, LocalSource)
        large.close()
        with self.assertRaises(IsAFolder):
            open_source(self.folder)
        with self.assertRaises(NoSuchPath) as caught:
            open_source(self.folder / "missing")
        self.assertIn("missing", str(caught.exception))
        with self.assertRaises(NotAFolder):
            open_source(self.file / "below")
        device = open_source(Path("/dev/null"))
        assert not isinstance(device, (bytes, LocalSource))
        device.close()


class LocalTargetTests(FolderCase):
    def target(self, *, overwrite: bool = False) -> LocalTarget:
        return LocalTarget(self.file, overwrite=overwrite, token="12345678")

    def test_publish(self) -> None:
        """The file appears when it is published, with the mode that files are made with."""
        target = self.target()
        target.write([b"world"], 5)
        target.write([b"hello"], 0)
        self.assertFalse(self.file.exists())
        target.publish()
        target.discard()
        self.assertEqual((self.names(), self.file.read_bytes()), (["file"], b"helloworld"))
        umask = os.umask(0)
        os.umask(umask)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o666 & ~umask)

    def test_discard(self) -> None:
        """Given up, nothing is left, and the old file is as it was."""
        self.file.write_bytes(b"old")
        target = self.target(overwrite=True)
        target.write([b"new"], 0)
        target.discard()
        target.write([b"late"], 0)
        self.assertEqual((self.names(), self.file.read_bytes()), (["file"], b"old"))

    def test_overwrite(self) -> None:
        """An existing file is replaced only where that was asked for."""
        self.file.write_bytes(b"old")
        self.assertRaises(AlreadyExists, self.target)
        target = self.target(overwrite=True)
        target.write([b"new"], 0)
        target.publish()
        self.assertEqual((self.names(), self.file.read_bytes()), (["file"], b"new"))

    def test_taken_meanwhile(self) -> None:
        """A file that came meanwhile is not replaced either."""
        target = self.target()
        self.file.write_bytes(b"other")
        self.assertRaises(AlreadyExists, target.publish)
        target.discard()
        self.assertEqual((self.names(), self.file.read_bytes()), (["file"], b"other"))

    def test_link(self) -> None:
        """What a symbolic link leads to is replaced, and the link stays."""
        real = self.folder / "real"
        real.write_bytes(b"old")
        self.file.symlink_to("real")
        target = self.target(overwrite=True)
        target.write([b"new"], 0)
        target.publish()
        self.assertEqual((real.read_bytes(), self.file.is_symlink()), (b"new", True))

    def test_long_name(self) -> None:
        """A name as long as the file system takes can be downloaded."""
        self.file = self.folder / ("\u00e9" * 127)
        target = self.target()
        target.publish()
        self.assertTrue(self.file.exists())

    def test_folder(self) -> None:
        """A folder is not replaced by a file."""
        self.file.mkdir()
        self.assertRaises(IsAFolder, self.target, overwrite=True)

    def test_device(self) -> None:
        """What is there and is no file is written to, not replaced."""
        device = open_target(Path("/dev/null"), overwrite=False, token="0")
        assert not isinstance(device, LocalTarget)
        device.close()
