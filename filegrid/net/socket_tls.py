"""TLS as a transport: large pieces in one call each, no copies, bounded buffers.

:class:`TlsTransport` stands between a byte transport, of which it is the protocol, and the
application's protocol, whose transport it is. OpenSSL's records are made and read in memory
(:mod:`filegrid.net.records`), and pass to and from the socket in batches
(:mod:`filegrid.net.descriptor`); the byte transport may as well be a pair in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from filegrid.net.descriptor import Descriptor
from filegrid.net.records import BATCH_BYTES, SEND_BYTES, SLAB_BYTES, Records, Slabs
from filegrid.runtime import Bytes

FULL_BYTES = 256 * 1024
"""Written and not yet encrypted, from which on the application's producer is paused."""

LOW_BYTES = 128 * 1024
"""It is resumed below this: while that much goes out, it can fetch more."""

CLOSE_SECONDS = 5.0
"""A connection that is being closed, and moves nothing for so long, is dropped."""


_MOST_SENT_BYTES = SEND_BYTES + 8 * 1024
"""A rest as short as a frame's header goes out with what is before it."""


@implementer(IPushProducer)
class _Outflow:
    """What the byte transport below holds and releases."""

    def __init__(self, tls: TlsTransport) -> None:
        self._tls = tls

    def pauseProducing(self) -> None:
        self._tls.blocked = True

    def resumeProducing(self) -> None:
        self._tls.blocked = False
        self._tls.send()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost says so."""


@implementer(ITransport, IConsumer, IPushProducer)
class TlsTransport(Protocol):
    """One end of a connection. Subclasses see the handshake through.

    What the application gets in ``dataReceived`` is bytes or a read-only memoryview, its to keep.
    What it writes must not change until its producer is resumed, or the connection ends.

    :ivar blocked: whether the byte transport takes no more for now.
    """

    def __init__(self, connection: SSL.Connection, slabs: Slabs, clock: IReactorTime) -> None:
        self.blocked = False
        self._connection = connection
        self._records = Records(connection, slabs)
        self._slabs = slabs
        self._clock = clock
        self._below: Any = None  # ITransport and IConsumer
        self._application: IProtocol | None = None
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._sending = False
        self._producer: IPushProducer | None = None
        self._producer_paused = False
        self._closing = False
        self._said_end = False
        self._error: Failure | None = None
        self._watch: IDelayedCall | None = None

    # What subclasses do.

    def shake_hands(self) -> None:
        """Called at the start, and whenever something came before the handshake is done."""
        raise NotImplementedError

    def lost(self, reason: Failure) -> Failure:
        """The connection is gone, before or after the handshake; what the application is told."""
        raise NotImplementedError

    def serve(self, application: IProtocol) -> None:
        """The handshake is done: from now on this is the transport of `application`."""
        self._application = application
        application.makeConnection(self)

    # What the byte transport calls.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if isinstance(transport, Connection):
            transport.setTcpNoDelay(True)
            transport = Descriptor(transport, self, self._slabs.raw)
        self._below = transport
        self._below.registerProducer(_Outflow(self), True)
        self.shake_hands()

    def dataReceived(self, data: Bytes) -> None:
        view = memoryview(data)
        while view and self._below is not None and self._error is None:
            self._records.feed(view[:BATCH_BYTES])
            try:
                if self._application is None:
                    self.shake_hands()
                if self._application is not None:
                    self._decrypt()
            finally:
                self._records.fed()
            view = view[BATCH_BYTES:]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._below = None
        self._waiting.clear()
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        if self._error is not None:
            reason = self._error
        elif reason.check(ConnectionDone) and self._application and not self._records.ended:
            # Without the peer's last word nobody knows whether this was all it had to say.
            reason = Failure(ConnectionLost("it ended in the middle"))
        reason = self.lost(reason)
        application, self._application = self._application, None
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        if application is not None:
            application.connectionLost(reason)

    # What the application calls.

    def write(self, data: Bytes) -> None:
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[Bytes]) -> None:
        """Send these, one after the other; small ones together, where they come together."""
        if self._closing or self._below is None:
            return
        for piece in data:
            if piece:
                self._waiting.append(memoryview(piece))
                self._waiting_bytes += len(piece)
        self.send()

    def registerProducer(  # type: ignore[override]  # push producers only
        self, producer: IPushProducer, streaming: bool
    ) -> None:
        assert streaming and self._producer is None
        if self._below is None:
            producer.stopProducing()
            return
        self._producer = producer
        self._producer_paused = False
        self._tell_producer()

    def unregisterProducer(self) -> None:
        self._producer = None
        self._finish()

    def pauseProducing(self) -> None:
        if self._below is not None and not self._closing:
            self._below.pauseProducing()

    def resumeProducing(self) -> None:
        if self._below is not None and not self._closing:
            self._below.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        """Send what waits, say that it was all, and end when the peer has said so too.

        What still comes from the peer is dropped.
        """
        if self._closing or self._below is None:
            return
        self._closing = True
        self._below.resumeProducing()  # the peer's last word is to be heard
        self._start_watch()
        self._finish()

    def abortConnection(self) -> None:
        if self._below is not None:
            self._closing = True
            self._waiting.clear()
            self._below.abortConnection()

    def getHandle(self) -> SSL.Connection:
        return self._connection

    def getPeer(self) -> Any:
        return self._below.getPeer()

    def getHost(self) -> Any:
        return self._below.getHost()

    # Out.

    def send(self) -> None:
        """Encrypt and send what waits, as far as the byte transport takes it."""
        if self._sending:
            return  # called by what was resumed below: the loop there goes on
        self._sending = True
        try:
            while self._waiting and not self.blocked:
                self._encrypt()
                self.flush()
                self._tell_producer()
        finally:
            self._sending = False
        self._tell_producer()
        self._finish()

    def flush(self) -> None:
        """Send what OpenSSL has for the peer."""
        while self._below is not None:
            ciphertext = self._records.take_outgoing()
            if ciphertext:
                self._below.write(ciphertext)
            if len(ciphertext) < SLAB_BYTES:
                return

    def _encrypt(self) -> None:
        room = SEND_BYTES if self._waiting_bytes > _MOST_SENT_BYTES else self._waiting_bytes
        while self._waiting and room:
            view = self._waiting[0]
            self._records.encrypt(view[:room])
            if len(view) > room:
                self._waiting[0] = view[room:]
            else:
                self._waiting.popleft()
            taken = min(room, len(view))
            self._waiting_bytes -= taken
            room -= taken

    def _tell_producer(self) -> None:
        if self._producer is None:
            return
        if not self._producer_paused and self._waiting_bytes >= FULL_BYTES:
            self._producer_paused = True
            self._producer.pauseProducing()
        elif self._producer_paused and self._waiting_bytes < LOW_BYTES:
            self._producer_paused = False
            self._producer.resumeProducing()

    # In.

    def _decrypt(self) -> None:
        try:
            for plaintext in self._records.decrypt():
                if self._application is not None and not self._closing:
                    # Any buffer will do for our links, which keep views of it.
                    self._application.dataReceived(plaintext)  # type: ignore[arg-type]
        except SSL.Error:
            self.fail(Failure())
            return
        self.flush()  # an answer to the renewal of keys
        if self._records.ended:
            self.loseConnection()
            self._finish()

    # The end.

    def fail(self, reason: Failure) -> None:
        """TLS is broken: tell the peer what OpenSSL has to say of it, and end."""
        if self._error is None and self._below is not None:
            self._error = reason
            self._closing = True
            self._waiting.clear()
            if self._watch is None:
                self._start_watch()
            self.flush()
            self._below.loseConnection()

    def _finish(self) -> None:
        """What is left to do of a close."""
        if not self._closing or self._waiting or self._below is None or self._error is not None:
            return
        if self._producer is not None and not self._records.ended:
            return  # it may have more to say
        if not self._said_end:
            self._said_end = True
            try:
                self._connection.shutdown()
            except SSL.Error:
                self._below.abortConnection()
                return
            self.flush()
        if self._records.ended:
            self._below.loseConnection()

    def _start_watch(self) -> None:
        self._watch = self._clock.callLater(CLOSE_SECONDS, self._watch_close, self._waiting_bytes)

    def _watch_close(self, waiting_bytes: int) -> None:
        if self._below is not None and self._waiting_bytes < waiting_bytes:
            self._start_watch()
        elif self._below is not None:
            self._below.abortConnection()
