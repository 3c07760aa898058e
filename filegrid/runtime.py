"""The seams to the world: clock, network, disk, threads and random numbers.

Every service and the client get one :class:`Runtime` through their constructor and reach the
world through nothing else. :mod:`filegrid.net.reactor` makes the real one;
:mod:`filegrid.simulation` makes one from a seed.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, IReactorTime

from filegrid.model import Address, Identity

T = TypeVar("T")

Bytes: TypeAlias = bytes | bytearray | memoryview


class Transport(Protocol):
    """What a network gives to the protocols that it builds: Twisted's transport and consumer."""

    def write(self, data: Bytes) -> None:
        """Send; the buffer is not copied here and must not change until it is on its way."""

    def writeSequence(self, data: Sequence[Bytes]) -> None:
        """As :meth:`write` of each, and in as few packets as they fill."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def loseConnection(self) -> None: ...

    def abortConnection(self) -> None: ...


class Listener(Protocol):
    """A port that is being listened on."""

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was given out for port 0."""

    def close(self) -> Deferred[None]:
        """Stop accepting; connections that are up stay up."""


class Network(Protocol):
    """Authenticated, encrypted connections between nodes of one grid.

    A protocol object is made only once the peer has proved who it is, and with that identity;
    nothing above this seam ever sees an unauthenticated byte.
    """

    def listen(
        self, address: Address, build: Callable[[Identity], IProtocol]
    ) -> Deferred[Listener]:
        """:raises filegrid.errors.Unavailable: (in the Deferred) where the port cannot be taken."""

    def connect(
        self,
        address: Address,
        build: Callable[[Identity], IProtocol],
        *,
        timeout_seconds: float,
    ) -> Deferred[IProtocol]:
        """Fires with the built protocol, its connectionMade called.

        :raises filegrid.errors.Unavailable: (in the Deferred) where nobody answers in time.
        :raises filegrid.errors.NotPermitted: where the peer's certificate is not of this grid.
        """


class File(Protocol):
    """An open file. Methods block, and run in threads; they raise OSError."""

    def pwrite(self, pieces: Sequence[Bytes], offset: int) -> None:
        """Write all pieces, one after the other, from `offset` on."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""

    def pread_cached(self, length: int, offset: int) -> Bytes | None:
        """All `length` bytes where they are in memory, so that it does not block; else None."""

    def size(self) -> int: ...

    def truncate(self, length: int) -> None: ...

    def start_writeback(self, offset: int, length: int) -> None:
        """Begin to move what was written there to the disk; a hint, which may do nothing."""

    def uncache(self) -> None:
        """Let what is read next come from the disk itself, not from memory; a hint."""

    def read_no_further(self) -> None:
        """Let the disk read only what is asked for, nothing ahead of it; a hint."""

    def datasync(self) -> None:
        """Make contents and length durable. After an OSError the contents are lost (S16)."""

    def close(self) -> None: ...


class Lock(Protocol):
    """A lock that is held; it ends with the process at the latest."""

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are absolute. Methods block, and run in threads; they raise OSError."""

    def create(self, path: str) -> File:
        """A new file to read and write; FileExistsError where there is one."""

    def create_bulk(self, path: str) -> File:
        """As :meth:`create`, for much that is written in order and not read soon.

        What was not synced may not be in the file when it is closed.
        """

    def open(self, path: str, *, writable: bool = False) -> File: ...

    def rename(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def sync_folder(self, path: str) -> None:
        """Make names that were created, renamed and removed in it durable."""

    def make_folders(self, path: str) -> None:
        """With parents, durable; silently where it exists."""

    def names(self, path: str) -> list[str]:
        """What the folder holds, sorted."""

    def exists(self, path: str) -> bool: ...

    def space(self, path: str) -> tuple[int, int]:
        """Capacity and free bytes of the file system that holds `path`."""

    def lock(self, path: str) -> Lock:
        """Take the lock file at `path`, made where it is missing.

        :raises BlockingIOError: where another process holds it.
        """

    def database(self, path: str) -> sqlite3.Connection:
        """An SQLite database in this file system, usable from any one thread at a time."""

    def copy_database(self, database: sqlite3.Connection, path: str) -> None:
        """All that `database` sees, as a new file, which :meth:`database` opens; not synced.

        Other connections read and write meanwhile; so do other threads of Python.
        """


class Threads(Protocol):
    """Where blocking work is done."""

    def run(self, work: Callable[..., T], *args: object) -> Deferred[T]:
        """Run `work` off the reactor; calls may run at the same time and in any order."""

    def lane(self, name: str) -> Threads:
        """One thread of its own: its calls run one after the other, in order."""


class LentFile(Protocol):
    """A file of another process, open for reading. Methods raise OSError."""

    def pread(self, length: int, offset: int) -> bytes:
        """As :meth:`File.pread`."""

    def pread_cached(self, length: int, offset: int) -> Bytes | None:
        """The same, without waiting for a disk: None where it would have to."""

    def close(self) -> None: ...


class Lending(Protocol):
    """Open files handed from one process of this machine to another."""

    def lend(self, file: File) -> tuple[str, bytes]:
        """Keep the file for whoever asks with the token, once and soon, and close it then.

        :returns: where to ask, and the token.
        """

    def borrow(self, where: str, token: bytes) -> LentFile:
        """Blocks. :raises OSError: where nothing is lent under this token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """All that a node knows of the world outside its own memory."""

    clock: IReactorTime
    network: Network
    disk: Disk
    threads: Threads
    random: random.Random
    wall_seconds: Callable[[], float]
    """Seconds since 1970, for people to read; nothing rests on it."""
    lending: Lending | None = None
    """None where processes share no machine: bytes go over the network then."""

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after so long; cancel it to stop waiting."""
        waking = Deferred[None](lambda _: call.cancel())
        call = self.clock.callLater(seconds, waking.callback, None)
        return waking
