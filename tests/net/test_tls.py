"""The network over a reactor in memory: ports, attempts and their deadlines."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, RaisingMemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filegrid.errors import Unavailable
from filegrid.model import Address, Identity, Role
from filegrid.net.tls import TlsNetwork
from tests.net.papers import GRID_ID, credentials
from tests.net.wires import Wire, join, pump

HEAD = Address("10.0.0.1", 7000)


class Application(Protocol):
    def __init__(self, identity: Identity) -> None:
        self.identity = identity


def accept(reactor: MemoryReactorClock) -> IProtocol:
    """The listening port's protocol for a new connection."""
    protocol = reactor.tcpServers[0][1].buildProtocol(IPv4Address("TCP", "10.0.0.9", 40000))
    assert protocol is not None
    return protocol


class ListenTests(SynchronousTestCase):
    def test_port(self) -> None:
        """A listener says where it listens, and closing it gives up the port."""
        reactor = MemoryReactorClock()
        network = TlsNetwork(reactor, credentials("head-1"), reactor)
        listener = self.successResultOf(network.listen(HEAD, Application))
        self.assertEqual(listener.address, Address("0.0.0.0", 7000))  # all that MemoryReactor says
        port, _, _, interface = reactor.tcpServers[0]
        self.assertEqual((port, interface), (7000, "10.0.0.1"))
        _, far = join(Protocol(), accept(reactor))
        self.assertIsNone(self.successResultOf(listener.close()))
        self.assertTrue(far.aborted)

    def test_taken(self) -> None:
        """A port that is taken is named, with what to do about it."""
        self.assertIn("port 7000 is taken; ", self.refusal(errno.EADDRINUSE))

    def test_not_allowed(self) -> None:
        """A port below 1024 says what it needs."""
        self.assertIn("port 7000 needs root", self.refusal(errno.EACCES))

    def test_other_trouble(self) -> None:
        """Any other trouble is passed on in the system's words."""
        self.assertIn("Cannot assign", self.refusal(errno.EADDRNOTAVAIL))

    def refusal(self, code: int) -> str:
        cause = OSError(code, "Cannot assign requested address")
        reactor = RaisingMemoryReactor(CannotListenError(HEAD.host, HEAD.port, cause))
        network = TlsNetwork(reactor, credentials("head-1"), Clock())
        failure = self.failureResultOf(network.listen(HEAD, Application), Unavailable)
        return str(failure.value)


class ConnectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.network = TlsNetwork(self.reactor, credentials("head-1"), self.reactor)
        self.successResultOf(self.network.listen(HEAD, Application))

    def connect(self, host: str = HEAD.host) -> Deferred[IProtocol]:
        return self.network.connect(Address(host, 7000), Application, timeout_seconds=5)

    def attempt(self) -> Any:
        """The client factory that waits for its TCP connection."""
        return self.reactor.tcpClients[-1][2]

    def answer(self, server: IProtocol) -> tuple[Wire, Wire]:
        return join(self.attempt().buildProtocol(IPv4Address("TCP", "10.0.0.1", 7000)), server)

    def test_up(self) -> None:
        """Fires with the built protocol, connected, once both have shown who they are."""
        up = self.connect()
        wires = self.answer(accept(self.reactor))
        self.assertNoResult(up)
        pump(*wires)
        application = self.successResultOf(up)
        assert isinstance(application, Application)
        self.assertEqual(application.identity, Identity(GRID_ID, Role.HEAD, "head-1"))
        self.assertIsNotNone(application.transport)
        self.reactor.advance(3600)
        self.assertFalse(wires[0].closing)

    def test_ipv6(self) -> None:
        """An IPv6 address is dialled as one."""
        self.connect("::1").addErrback(lambda _: None)
        self.assertEqual(self.reactor.tcpClients[-1][:2], ("::1", 7000))

    def test_nobody(self) -> None:
        """A refused connection says so, and to whom."""
        up = self.connect()
        self.attempt().clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        text = str(self.failureResultOf(up, Unavailable).value)
        self.assertEqual(text, "10.0.0.1:7000: nobody listens there; is the node running?")

    def test_no_connection(self) -> None:
        """The time to connect is bounded."""
        up = self.connect()
        self.reactor.advance(5)
        text = str(self.failureResultOf(up, Unavailable).value)
        self.assertEqual(text, "10.0.0.1:7000: no answer within 5 s")

    def test_no_handshake(self) -> None:
        """The same time bounds the handshake; a peer that only accepts is left."""
        up = self.connect()
        self.reactor.advance(3)
        near, _ = self.answer(Protocol())
        self.reactor.advance(2)
        self.failureResultOf(up, Unavailable)
        self.assertTrue(near.aborted)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """An attempt can be cancelled, before and during the handshake."""
        for answered in (False, True):
            up = self.connect()
            if answered:
                self.answer(Protocol())
            up.cancel()
            self.failureResultOf(up, CancelledError)
            self.assertEqual(self.reactor.getDelayedCalls(), [])
