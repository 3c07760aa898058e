"""Two transports joined in memory: what TLS tests run over instead of ports."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IProducer, IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

FULL_BYTES = 64 * 1024
"""As Twisted's TCP transports: a producer is paused while more than this waits."""


@implementer(ITransport, IConsumer, IPushProducer)
class Wire:
    """One end. Everything written waits until :func:`pump` carries it over."""

    def __init__(self, port: int) -> None:
        self.waiting = bytearray()
        self.paused = False
        self.closing = False
        self.aborted = False
        self.producer: IPushProducer | None = None
        self.producer_paused = False
        self.protocol: IProtocol | None = None
        self._peer = IPv4Address("TCP", "10.0.0.9", port)

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.waiting += data
            self._tell()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.closing = True

    def abortConnection(self) -> None:
        self.closing = self.aborted = True
        self.waiting.clear()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        assert self.producer is None and streaming
        self.producer = IPushProducer(producer)

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return self._peer

    def getHost(self) -> IPv4Address:
        return self._peer

    def take(self) -> bytes:
        data, self.waiting = bytes(self.waiting), bytearray()
        self._tell()
        return data

    def _tell(self) -> None:
        full = len(self.waiting) > FULL_BYTES
        if self.producer is not None and full != self.producer_paused:
            self.producer_paused = full
            if full:
                self.producer.pauseProducing()
            else:
                self.producer.resumeProducing()


def join(one: IProtocol, other: IProtocol, port: int = 9) -> tuple[Wire, Wire]:
    """Connect two protocols; :func:`pump` moves the bytes."""
    wires = Wire(port), Wire(port)
    for wire, protocol in zip(wires, (one, other), strict=True):
        wire.protocol = protocol
        protocol.makeConnection(wire)
    return wires


def pump(one: Wire, other: Wire) -> None:
    """Carry bytes over, and then ends, until nothing moves."""
    while _carry(one, other) or _carry(other, one) or _end(one, other):
        pass


def _carry(source: Wire, target: Wire) -> bool:
    if not source.waiting or target.paused or target.protocol is None:
        return False
    target.protocol.dataReceived(source.take())
    return True


def _end(one: Wire, other: Wire) -> bool:
    if not (one.closing and not one.waiting) and not (other.closing and not other.waiting):
        return False
    clean = not (one.aborted or other.aborted)
    moved = False
    for wire in (one, other):
        protocol, wire.protocol = wire.protocol, None
        if protocol is not None:
            wire.closing = moved = True
            protocol.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))
    return moved
