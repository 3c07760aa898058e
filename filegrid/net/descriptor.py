"""A connected socket, read and written in large pieces.

Twisted makes and closes the connection; in between, its transport would allocate what it reads and
join what it sends. A :class:`Descriptor` reads into one buffer of the process, and sends what it
is given from where it lies.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer, IReadDescriptor, IWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from filegrid.runtime import Bytes

MOST_UNSENT_BYTES = 4 * 1024 * 1024
"""A protocol that heeds its producer's pause never has so much waiting; above it, it is dropped."""


@implementer(IReadDescriptor, IWriteDescriptor)
class Descriptor:
    """Has the place of a Twisted TCP transport until the connection ends.

    What it hands to the protocol's ``dataReceived`` is overwritten by the next read; what is
    given to :meth:`write` must not change until the producer is resumed.

    :param tcp: connected; its protocol is told of the end by it, as ever.
    :param raw: what one read fills; all descriptors of a reactor may share it.
    """

    def __init__(self, tcp: Connection, protocol: Protocol, raw: bytearray) -> None:
        self._tcp = tcp
        self._socket: socket.socket = tcp.getHandle()
        self._reactor: Any = tcp.reactor  # IReactorFDSet and IReactorTime
        self._protocol = protocol
        self._raw = memoryview(raw)
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._producer: IPushProducer | None = None
        self._producer_paused = False
        self._closing = False
        self._broken = False
        self._lost = False
        tcp.stopReading()
        self._reactor.addReader(self)

    # What the protocol calls.

    def write(self, data: Bytes) -> None:
        """Send now what the socket takes, and the rest when it takes more."""
        if self._closing or self._lost or not data:
            return
        view = memoryview(data)
        if not self._unsent:
            view = view[self._send(view) :]
            if not view:
                return
            self._reactor.addWriter(self)
        self._unsent.append(view)
        self._unsent_bytes += len(view)
        if self._unsent_bytes > MOST_UNSENT_BYTES:
            self.abortConnection()
        elif self._producer is not None and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming and self._producer is None
        self._producer = producer
        self._producer_paused = bool(self._unsent)
        if self._producer_paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        if not self._lost:
            self._reactor.addReader(self)

    def loseConnection(self) -> None:
        """End it once all is sent."""
        if not self._lost:
            self._closing = True
            self._reactor.removeReader(self)
            self._reactor.addWriter(self)

    def abortConnection(self) -> None:
        """End it now; the protocol hears of it in a later turn of the reactor."""
        if not self._lost:
            self._leave()
            self._reactor.callLater(0, self._tcp.connectionLost, Failure(ConnectionAborted()))

    def getPeer(self) -> Any:
        return self._tcp.getPeer()

    def getHost(self) -> Any:
        return self._tcp.getHost()

    # What the reactor calls.

    def fileno(self) -> int:
        return -1 if self._lost else self._socket.fileno()

    def logPrefix(self) -> str:
        return type(self._protocol).__name__

    def doRead(self) -> Exception | None:  # type: ignore[override]  # what reactors are given
        try:
            count = self._socket.recv_into(self._raw)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        if not count:
            return CONNECTION_DONE
        # A view of a reused buffer: TLS takes its bytes before it returns.
        self._protocol.dataReceived(self._raw[:count])  # type: ignore[arg-type]
        return None

    def doWrite(self) -> Exception | None:  # type: ignore[override]  # as doRead
        while self._unsent and not self._broken:
            view = self._unsent[0]
            count = self._send(view)
            self._unsent_bytes -= count
            if count < len(view):
                self._unsent[0] = view[count:]
                break
            self._unsent.popleft()
        if self._broken:
            return CONNECTION_LOST
        if self._unsent:
            return None
        if self._closing:
            return CONNECTION_DONE
        self._reactor.removeWriter(self)
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is done with it: so is Twisted's transport, which closes the socket."""
        if not self._lost:
            self._leave()
            self._tcp.connectionLost(reason)

    def _send(self, view: memoryview) -> int:
        try:
            return self._socket.send(view)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._broken = True  # told by the next doWrite, never from within a write
            return 0

    def _leave(self) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._lost = True  # only now: the reactor knows us by our fileno
        self._unsent.clear()
        self._producer = None
