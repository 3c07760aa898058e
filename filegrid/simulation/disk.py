"""A disk in memory that keeps only what was synced, and fails when it is told to.

Names and contents are apart, as on real file systems: contents last once the file was synced,
names once their folder was. A crash decides, from a seed, about everything else.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from filegrid.runtime import Bytes
from filegrid.simulation.inode import Content, Database, Folder, Naming, Node, image_of

UNMOUNTED = "/unmounted"


@dataclass(slots=True)
class _Run:
    """What ends with the process that uses the disk: its open files and locks."""

    ended: bool = False
    operations_left: int | None = None
    locks: set[str] = field(default_factory=set)
    open_files: dict[SimulatedFile, str] = field(default_factory=dict)

    @property
    def off(self) -> bool:
        return self.ended or self.operations_left == 0


class SimulatedFile:
    """An open file of a :class:`SimulatedDisk`.

    :ivar is_lost: its file system is gone.
    """

    def __init__(self, disk: SimulatedDisk, path: str, content: Content, writable: bool) -> None:
        self._disk = disk
        self._run = disk._run
        self._path = path
        self._content = content
        self._writable = writable
        self._closed = False
        self.is_lost = False
        self._run.open_files[self] = path

    def pwrite(self, pieces: Sequence[Bytes], offset: int) -> None:
        self._enter("pwrite", changes=True)
        data = b"".join(pieces)
        if not data:
            return
        growth = offset + len(data) - len(self._content.data)
        if growth > 0:
            self._disk._take(growth, self._path)
        self._content.write(data, offset)

    def pread(self, length: int, offset: int) -> bytes:
        self._enter("pread")
        if not self._content.readable:
            raise _error(errno.EIO, self._path)
        return bytes(memoryview(self._content.data)[offset : offset + length])

    def pread_cached(self, length: int, offset: int) -> Bytes | None:
        """All that can be read is in memory."""
        if self._closed or not self._content.readable:
            return None
        data = bytes(memoryview(self._content.data)[offset : offset + length])
        return data if len(data) == length else None

    def size(self) -> int:
        self._enter("size")
        return len(self._content.data)

    def truncate(self, length: int) -> None:
        self._enter("truncate", changes=True)
        self._content.truncate(length)
        self._disk._used = None

    def start_writeback(self, offset: int, length: int) -> None:
        """Nothing: what was only started may be lost as well."""

    def uncache(self) -> None:
        """Nothing: there is no cache."""

    def read_no_further(self) -> None:
        """Nothing: it never does."""

    def datasync(self) -> None:
        try:
            self._enter("datasync")
        except OSError:
            if not (self._closed or self._run.off):
                self._content.forget()
                self._disk._used = None
            raise
        self._content.synced()

    def close(self) -> None:
        self._closed = True
        self._run.open_files.pop(self, None)

    def _enter(self, operation: str, *, changes: bool = False) -> None:
        if self._closed or (changes and not self._writable):
            raise _error(errno.EBADF, self._path)
        if self.is_lost:
            raise _error(errno.EIO, self._path)
        self._disk._enter(self._run, operation, self._path)


class _SimulatedLock:
    def __init__(self, run: _Run, path: str) -> None:
        self._run = run
        self._path = path

    def close(self) -> None:
        self._run.locks.discard(self._path)


class SimulatedDisk:
    """One machine's file system, for one thread; every choice comes from `rng`.

    :param capacity_bytes: what all files together may hold; databases count nothing.
    """

    def __init__(self, rng: random.Random, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self._random = rng
        self._root = Folder()
        self._run = _Run()
        self._unsynced: list[tuple[Naming, ...]] = []
        self._failures: defaultdict[str, deque[int]] = defaultdict(deque)
        self._used: int | None = 0

    # What every disk does

    def create(self, path: str) -> SimulatedFile:
        self._enter(self._run, "create", path)
        folder, name = self._parent(path)
        if name in folder.nodes:
            raise _error(errno.EEXIST, path)
        content = Content()
        self._name(Naming(folder, name, content))
        return SimulatedFile(self, path, content, True)

    def create_bulk(self, path: str) -> SimulatedFile:
        return self.create(path)

    def open(self, path: str, *, writable: bool = False) -> SimulatedFile:
        self._enter(self._run, "open", path)
        return SimulatedFile(self, path, self._content(path), writable)

    def rename(self, source: str, target: str) -> None:
        self._enter(self._run, "rename", source)
        old_folder, old_name = self._parent(source)
        new_folder, new_name = self._parent(target)
        node = self._node(source)
        if isinstance(new_folder.nodes.get(new_name), Folder):
            raise _error(errno.EISDIR, target)
        if self._node(source) is not new_folder.nodes.get(new_name):
            self._name(Naming(old_folder, old_name, None), Naming(new_folder, new_name, node))

    def remove(self, path: str) -> None:
        self._enter(self._run, "remove", path)
        if isinstance(self._node(path), Folder):
            raise _error(errno.EISDIR, path)
        self._name(Naming(*self._parent(path), None))

    def sync_folder(self, path: str) -> None:
        self._enter(self._run, "sync_folder", path)
        # A rename is in two folders at once and is never half done, so that what came before it
        # in the other folder becomes durable with it.
        folders = [self._folder(path)]
        unsynced, durable = [], []
        for change in reversed(self._unsynced):
            if any(naming.folder in folders for naming in change):
                folders.extend(naming.folder for naming in change)
                durable.append(change)
            else:
                unsynced.append(change)
        for change in reversed(durable):
            for naming in change:
                naming.make_durable()
        self._unsynced = unsynced[::-1]

    def make_folders(self, path: str) -> None:
        self._enter(self._run, "make_folders", path)
        folder = self._root
        for name in _names(path):
            node = folder.nodes.get(name)
            if node is None:
                node = Folder()
                folder.add(name, node)
            if not isinstance(node, Folder):
                raise _error(errno.EEXIST, path)
            folder = node

    def names(self, path: str) -> list[str]:
        self._enter(self._run, "names", path)
        return sorted(self._folder(path).nodes)

    def exists(self, path: str) -> bool:
        self._enter(self._run, "exists", path)
        try:
            self._node(path)
        except OSError:
            return False
        return True

    def space(self, path: str) -> tuple[int, int]:
        self._node(path)
        return self.capacity_bytes, max(0, self.capacity_bytes - self._used_bytes())

    def lock(self, path: str) -> _SimulatedLock:
        self._enter(self._run, "lock", path)
        folder, name = self._parent(path)
        if name not in folder.nodes:
            self._name(Naming(folder, name, Content()))
        if path in self._run.locks:
            raise _error(errno.EAGAIN, path)
        self._run.locks.add(path)
        return _SimulatedLock(self._run, path)

    def database(self, path: str) -> sqlite3.Connection:
        """In memory; it outlives its connections. Its name is durable from the start."""
        self._enter(self._run, "database", path)
        folder, name = self._parent(path)
        node = folder.nodes.get(name)
        if node is None:
            node = Database(self._fork())
            folder.add(name, node)
        elif isinstance(node, Content):
            node = Database.of_image(bytes(node.data), self._fork())
            folder.add(name, node)
        if not isinstance(node, Database):
            raise sqlite3.DatabaseError("file is not a database")
        return node.connect()

    def copy_database(self, database: sqlite3.Connection, path: str) -> None:
        with closing(self.create(path)) as file:
            file.pwrite([image_of(database)], 0)

    # What befalls disks

    def kill(self) -> None:
        """End the process that uses the disk: all that it wrote is there for the next one."""
        self._run.ended = True
        self._run = _Run()
        for node in self._root.walk():
            if isinstance(node, Database):
                node.end()

    def crash(self) -> None:
        """Lose the power and start again: files and locks of before are gone.

        Of each file and folder what was not synced is lost, kept, or kept in part: of a file a
        prefix in whole sectors, of a folder the first of its changes, of a database the first
        of its commits.
        """
        self.kill()
        stopped: list[Folder] = []
        loss = self._random.random()
        for change in self._unsynced:
            folders = [naming.folder for naming in change]
            if any(folder in stopped for folder in folders) or self._random.random() < loss:
                stopped.extend(folders)
            else:
                for naming in change:
                    naming.make_durable()
        self._unsynced = []
        self._root.crash(self._random)
        self._used = None

    def cut_power_after(self, operations: int) -> None:
        """After so many more operations all fail, until :meth:`crash`."""
        self._run.operations_left = operations

    def fail_next(self, operation: str, code: int, *, times: int = 1) -> None:
        """Let the next calls of a method of the disk or of its files raise OSError(`code`).

        A datasync that fails loses what was written since the last one.

        :param operation: the method's name, such as ``"pwrite"`` or ``"sync_folder"``.
        """
        self._failures[operation].extend([code] * times)

    def heal(self) -> None:
        """Take back the failures that :meth:`fail_next` ordered and that have not come yet."""
        self._failures.clear()

    @property
    def open_files(self) -> list[str]:
        """The path of each file that the process has open."""
        return list(self._run.open_files.values())

    def fail_reads(self, path: str) -> None:
        """Reading this file raises EIO from now on, as from a worn-out sector."""
        self._content(path).readable = False

    def flip_bits(self, path: str, offset: int, mask: int = 1) -> None:
        """Change the byte at `offset` unnoticed."""
        self._content(path).data[offset] ^= mask

    def wipe(self) -> None:
        """Lose everything, as when the disk is replaced by an empty one."""
        self.crash()
        self._root = Folder()

    def unmount(self, path: str) -> None:
        """The file system at `path` is gone until :meth:`mount`; what is left is the empty folder
        under its mount point. Meanwhile it is at ``UNMOUNTED + path``."""
        for file, file_path in list(self._run.open_files.items()):
            if file_path.startswith(f"{path}/"):
                file.is_lost = True
        parent, name = self._parent(path)
        if UNMOUNTED[1:] not in self._root.nodes:
            self._root.add(UNMOUNTED[1:], Folder())
        self._folder(UNMOUNTED).add(name, parent.nodes[name])
        parent.add(name, Folder())

    def mount(self, path: str) -> None:
        """Have back what :meth:`unmount` took."""
        parent, name = self._parent(path)
        parent.add(name, self._folder(UNMOUNTED).take(name))

    @property
    def unmounted(self) -> list[str]:
        """Paths of what was taken and is not back."""
        away = self._root.nodes.get(UNMOUNTED[1:])
        return sorted(f"/{name}" for name in away.nodes) if isinstance(away, Folder) else []

    def image(self) -> Folder:
        """All that is durable now, for :meth:`put_back`."""
        return self._root.copy()

    def put_back(self, image: Folder) -> None:
        """Be as then, as when a machine goes back to a snapshot of itself."""
        self.crash()
        self._root = image.copy()

    # Inside

    def _enter(self, run: _Run, operation: str, path: str) -> None:
        if run.off:
            raise OSError(errno.EIO, "the machine is off", path)
        if run.operations_left is not None:
            run.operations_left -= 1
        if self._failures[operation]:
            raise _error(self._failures[operation].popleft(), path)

    def _fork(self) -> random.Random:
        """More chance, of which nothing else notices."""
        fork = random.Random()
        fork.setstate(self._random.getstate())
        return random.Random(fork.getrandbits(64))

    def _take(self, growth_bytes: int, path: str) -> None:
        used = self._used_bytes() + growth_bytes
        if used > self.capacity_bytes:
            raise _error(errno.ENOSPC, path)
        self._used = used

    def _used_bytes(self) -> int:
        if self._used is None:
            self._used = sum(
                len(node.data) for node in self._root.walk() if isinstance(node, Content)
            )
        return self._used

    def _name(self, *change: Naming) -> None:
        for naming in change:
            naming.apply()
        self._unsynced.append(change)
        self._used = None

    def _node(self, path: str) -> Node:
        node: Node = self._root
        for name in _names(path):
            if not isinstance(node, Folder):
                raise _error(errno.ENOTDIR, path)
            if name not in node.nodes:
                raise _error(errno.ENOENT, path)
            node = node.nodes[name]
        return node

    def _folder(self, path: str) -> Folder:
        node = self._node(path)
        if not isinstance(node, Folder):
            raise _error(errno.ENOTDIR, path)
        return node

    def _content(self, path: str) -> Content:
        node = self._node(path)
        if not isinstance(node, Content):
            raise _error(errno.EISDIR if isinstance(node, Folder) else errno.EINVAL, path)
        return node

    def _parent(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rpartition("/")
        return self._folder(folder), name


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]
