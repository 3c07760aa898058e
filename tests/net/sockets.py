"""Pairs of real sockets under a reactor that turns only when a test says so."""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure


class Turner(Clock):
    """The part of a reactor that descriptors ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def turn(self) -> bool:
        """Serve whoever is ready; returns whether anybody was."""
        self.advance(0)
        readable, writable, _ = select.select(self.readers, self.writers, (), 0)
        for descriptor in readable:
            if descriptor in self.readers:
                self._lose(descriptor, descriptor.doRead())
        for descriptor in writable:
            if descriptor in self.writers:
                self._lose(descriptor, descriptor.doWrite())
        return bool(readable or writable)

    def settle(self) -> None:
        """Turn until nothing moves."""
        while self.turn():
            pass
        self.advance(0)

    def _lose(self, descriptor: Any, why: Exception | None) -> None:
        if why is not None:
            self.removeReader(descriptor)
            self.removeWriter(descriptor)
            descriptor.connectionLost(Failure(why))


class Tcp(Connection):
    """Twisted's transport over a socket that is not really TCP."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


def attach(turner: Turner, end: socket.socket, protocol: IProtocol) -> None:
    """Let a protocol have one end of a pair, as a port or a connector would."""
    transport = Tcp(end, protocol, turner)  # type: ignore[arg-type]  # no whole IReactorFDSet
    transport.connected = 1
    transport.startReading()
    protocol.makeConnection(transport)


def pair(buffer_bytes: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two sockets joined, with small buffers in the kernel where that is asked for."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        if buffer_bytes:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    return ends
