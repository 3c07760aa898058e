"""Mutual TLS, really spoken, over transports in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from filegrid.errors import GridError, NotPermitted, Unavailable
from filegrid.model import Identity, Role
from filegrid.net.authority import Authority
from filegrid.net.credentials import Credentials
from filegrid.net.handshake import HANDSHAKE_SECONDS, MOST_HANDSHAKES, ClientSide, Gate, ServerSide
from filegrid.net.records import Slabs
from filegrid.net.socket_tls import FULL_BYTES
from tests.net.papers import GRID_ID, credentials, credulous_stranger, folder, nameless
from tests.net.wires import Wire, join, pump

PEER = IPv4Address("TCP", "10.0.0.9", 40000)


class Application(Protocol):
    """Remembers what it saw."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.received = bytearray()
        self.lost: Failure | None = None

    @property
    def tls(self) -> Gate:
        assert isinstance(self.transport, Gate)
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.lost is None
        self.lost = reason


@implementer(IOpenSSLClientConnectionCreator)
class Foreign:
    """A client of somebody else's making."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self.context)


@implementer(IPushProducer)
class Tap:
    def __init__(self) -> None:
        self.states: list[str] = []

    def pauseProducing(self) -> None:
        self.states.append("paused")

    def resumeProducing(self) -> None:
        self.states.append("resumed")

    def stopProducing(self) -> None:
        self.states.append("stopped")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.built: list[Application] = []
        self.server = self.serve("head-1")

    def build(self, identity: Identity) -> Application:
        self.built.append(Application(identity))
        return self.built[-1]

    def serve(self, name: str | Credentials) -> ServerSide:
        ours = credentials(name) if isinstance(name, str) else name
        return ServerSide(ours, self.build, self.clock, Slabs())

    def accept(self) -> Gate:
        protocol = self.server.buildProtocol(PEER)
        assert protocol is not None
        return protocol

    def call(self, name: str) -> tuple[ClientSide, Wire, Wire]:
        side = ClientSide(credentials(name), Application, self.clock, Slabs(), "head-1:7000")
        wires = join(side.buildProtocol(None), self.accept())
        pump(*wires)
        return side, *wires

    def meet(self) -> tuple[Application, Application, Wire, Wire]:
        """The client's and the server's end, and the wires from them."""
        side, near, far = self.call("alice")
        client = self.successResultOf(side.up)
        assert isinstance(client, Application)
        return client, self.built[-1], near, far

    def foreigner(self, context: SSL.Context) -> list[str]:
        """What the log says when such a client calls."""
        factory = TLSMemoryBIOFactory(
            Foreign(context), True, Factory.forProtocol(Protocol), self.clock
        )
        with capturedLogs() as events:
            pump(*join(factory.buildProtocol(None), self.accept()))
        self.assertEqual(self.built, [])
        return reasons(events)


def reasons(events: Sequence[LogEvent]) -> list[str]:
    """Who was refused and why, each line as the log has it."""
    return [f"{event['address']} {event['reason']}" for event in events if "reason" in event]


class AcceptedTests(Case):
    def test_identities(self) -> None:
        """Each side builds its protocol with the other's identity, on TLS 1.3."""
        client, server, *_ = self.meet()
        self.assertEqual(client.identity, Identity(GRID_ID, Role.HEAD, "head-1"))
        self.assertEqual(server.identity, Identity(GRID_ID, Role.CLIENT, "alice"))
        self.assertEqual(client.tls.getHandle().get_protocol_version_name(), "TLSv1.3")

    def test_memoryview(self) -> None:
        """A memoryview arrives intact, and its buffer may be used again once all is sent."""
        client, server, *wires = self.meet()
        buffer = bytearray(bytes(range(256)) * 1200)
        expected = bytes(buffer)
        client.tls.write(memoryview(buffer))
        client.tls.write(b"tail")
        pump(*wires)
        buffer.clear()
        self.assertEqual(bytes(server.received), expected + b"tail")

    def test_write_at_once(self) -> None:
        """Small writes go out without waiting for the clock."""
        client, server, *wires = self.meet()
        server.tls.write(b"x")
        pump(*wires)
        self.assertEqual(client.received, b"x")

    def test_early_words(self) -> None:
        """What a peer sends together with the end of its handshake is not lost."""
        side = ClientSide(credentials("alice"), Eager, self.clock, Slabs(), "head-1:7000")
        pump(*join(side.buildProtocol(None), self.accept()))
        self.assertEqual(self.built[0].received, b"hello")

    def test_backpressure(self) -> None:
        """A producer is paused while the transport's buffer is full, and resumed after."""
        client, server, near, far = self.meet()
        tap = Tap()
        client.tls.registerProducer(tap, True)
        client.tls.write(bytes(2 * FULL_BYTES))
        self.assertEqual(tap.states, ["paused"])
        pump(near, far)
        self.assertEqual(tap.states, ["paused", "resumed"])
        client.tls.unregisterProducer()
        self.assertEqual(len(server.received), 2 * FULL_BYTES)

    def test_reading_stops(self) -> None:
        """A protocol that pauses its transport stops the reading from the peer."""
        client, server, near, far = self.meet()
        server.tls.pauseProducing()
        client.tls.write(b"later")
        pump(near, far)
        self.assertEqual(server.received, b"")
        server.tls.resumeProducing()
        pump(near, far)
        self.assertEqual(server.received, b"later")

    def test_orderly_end(self) -> None:
        """loseConnection delivers what was written, and ends both sides cleanly."""
        client, server, *wires = self.meet()
        client.tls.write(b"last")
        client.tls.loseConnection()
        pump(*wires)
        self.assertEqual(server.received, b"last")
        for end in (client, server):
            assert end.lost is not None
            self.assertTrue(end.lost.check(ConnectionDone))

    def test_abort(self) -> None:
        """abortConnection ends both sides at once."""
        client, server, *wires = self.meet()
        client.tls.abortConnection()
        pump(*wires)
        self.assertIsNotNone(client.lost)
        self.assertIsNotNone(server.lost)

    def test_no_deadline_after(self) -> None:
        """A connection that is up is not dropped for being quiet, and leaves no timer."""
        self.meet()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_renewal(self) -> None:
        """A renewed certificate is shown to the next peer, without a restart."""
        file = Path(self.mktemp())
        shutil.copyfile(folder() / "head-1.pem", file)
        self.server = self.serve(Credentials(file, folder() / "ours" / "ca.pem"))
        first = self.meet()[0].tls.getHandle().get_peer_certificate(as_cryptography=True)
        Authority.load(folder() / "ours").renew(file)
        self.clock.advance(1)
        second = self.meet()[0].tls.getHandle().get_peer_certificate(as_cryptography=True)
        assert first is not None and second is not None
        self.assertNotEqual(first.serial_number, second.serial_number)


class Eager(Application):
    def connectionMade(self) -> None:
        self.tls.write(b"hello")


class RefusedClientTests(Case):
    """The server builds nothing for these, and says once why."""

    def assert_refused(self, found: list[str], why: str) -> None:
        self.assertEqual(len(found), 1, found)
        self.assertIn("10.0.0.9:40000", found[0])
        self.assertIn(why, found[0])

    def test_unknown_authority(self) -> None:
        """A certificate of another authority, though that has our grid's id."""
        self.assert_refused(self.foreigner(credulous_stranger()), "unknown authority")

    def test_expired(self) -> None:
        """A certificate that has expired; its holder learns it when the connection ends."""
        with capturedLogs() as events:
            side, *_ = self.call("old")
        self.assert_refused(reasons(events), "has expired")
        self.assertEqual(self.built, [])
        client = self.successResultOf(side.up)
        assert isinstance(client, Application) and client.lost is not None
        self.assertTrue(client.lost.check(NotPermitted))
        self.assertIn("refused our certificate", str(client.lost.value))

    def test_nameless(self) -> None:
        """A certificate of our authority that names no role."""
        self.assert_refused(self.foreigner(nameless()), "names no role")

    def test_no_certificate(self) -> None:
        """A TLS client that shows no certificate."""
        self.assert_refused(self.foreigner(SSL.Context(SSL.TLS_METHOD)), "showed no certificate")

    def test_tls_1_2(self) -> None:
        """A client that speaks TLS 1.2 at most."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        self.assert_refused(self.foreigner(context), "TLS 1.3 with it failed")

    def test_not_admitted(self) -> None:
        """A peer that the application itself refuses, with the application's reason."""

        def build(identity: Identity) -> Application:
            raise NotPermitted("heads only", str(identity))

        self.server = ServerSide(credentials("head-1"), build, self.clock, Slabs())
        with capturedLogs() as events:
            _, near, _ = self.call("alice")
        self.assert_refused(reasons(events), "client alice: heads only")
        self.assertTrue(near.aborted or near.closing)

    def test_hung_up(self) -> None:
        """A peer that hangs up before it has said anything."""
        with capturedLogs() as events:
            near, far = join(Protocol(), self.accept())
            near.loseConnection()
            pump(near, far)
        self.assert_refused(reasons(events), "closed the connection")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=4))
    @settings(max_examples=50, deadline=None, database=None)
    def test_garbage(self, pieces: list[bytes]) -> None:
        """Any bytes that are not TLS, at the handshake's deadline at the latest."""
        with capturedLogs() as events:
            near, far = join(Protocol(), self.accept())
            for piece in pieces:
                near.write(piece)
                pump(near, far)
            self.clock.advance(HANDSHAKE_SECONDS)
            pump(near, far)
        self.assertTrue(far.closing)
        self.assert_refused(reasons(events), "")
        self.assertEqual((self.built, self.clock.getDelayedCalls()), ([], []))

    def test_silent(self) -> None:
        """A silent peer is dropped at the deadline; another is served meanwhile and stays."""
        with capturedLogs() as events:
            near, far = join(Protocol(), self.accept())
            _, served, *_ = self.meet()
            self.clock.advance(HANDSHAKE_SECONDS - 0.1)
            self.assertFalse(far.closing)
            self.clock.advance(0.1)
            pump(near, far)
        self.assertTrue(far.aborted)
        self.assertIsNone(served.lost)
        self.assert_refused(reasons(events), "no handshake within 10 s")

    def test_too_many(self) -> None:
        """Above the limit of pending handshakes a peer is not let in, until one has gone."""
        waiting = [join(Protocol(), self.accept()) for _ in range(MOST_HANDSHAKES)]
        with capturedLogs() as events:
            self.assertIsNone(self.server.buildProtocol(PEER))
        self.assert_refused(reasons(events), "handshakes are pending")
        waiting[0][0].loseConnection()
        pump(*waiting[0])
        self.meet()

    def test_close(self) -> None:
        """Closing drops the handshakes that go on, and leaves alone what is up."""
        _, served, *_ = self.meet()
        _, far = join(Protocol(), self.accept())
        self.server.close()
        self.assertTrue(far.aborted)
        self.assertIsNone(served.lost)


class RefusedServerTests(Case):
    """The client's connection fails with what is wrong, and where."""

    def failure(self, side: ClientSide, kind: type[GridError]) -> str:
        text = str(self.failureResultOf(side.up, kind).value)
        self.assertTrue(text.startswith("head-1:7000: "), text)
        return text

    def test_unknown_authority(self) -> None:
        """A server of another authority."""
        self.server = self.serve("stranger")
        side, *_ = self.call("alice")
        self.assertIn("unknown authority", self.failure(side, NotPermitted))
        self.assertEqual(self.built, [])

    def test_expired(self) -> None:
        """A server whose certificate has expired, with what to do."""
        self.server = self.serve("old")
        side, *_ = self.call("alice")
        self.assertIn("has expired; renew it", self.failure(side, NotPermitted))

    def test_user_posing_as_node(self) -> None:
        """A user's certificate does not serve."""
        self.server = self.serve("alice")
        side, *_ = self.call("head-1")
        self.assertIn("may not serve", self.failure(side, NotPermitted))

    def test_not_tls(self) -> None:
        """Something that speaks another protocol."""
        side = ClientSide(credentials("alice"), Application, self.clock, Slabs(), "head-1:7000")
        near, far = join(side.buildProtocol(None), Protocol())
        far.write(b"220 mail.example ESMTP\r\n")
        pump(near, far)
        self.assertIn("TLS 1.3 with it failed", self.failure(side, Unavailable))

    def test_closed(self) -> None:
        """A server that closes the connection at once."""
        side = ClientSide(credentials("alice"), Application, self.clock, Slabs(), "head-1:7000")
        near, far = join(side.buildProtocol(None), Protocol())
        far.loseConnection()
        pump(near, far)
        self.assertIn("closed the connection", self.failure(side, Unavailable))

    def test_refused_by_application(self) -> None:
        """A node other than the one that was meant."""

        def build(identity: Identity) -> Application:
            raise NotPermitted(f"this is {identity}, not head-2", "head-1:7000")

        side = ClientSide(credentials("alice"), build, self.clock, Slabs(), "head-1:7000")
        pump(*join(side.buildProtocol(None), self.accept()))
        self.assertIn("not head-2", self.failure(side, NotPermitted))

    def test_cancelled(self) -> None:
        """Cancelling drops the connection."""
        side = ClientSide(credentials("alice"), Application, self.clock, Slabs(), "head-1:7000")
        near, _ = join(side.buildProtocol(None), Protocol())
        side.up.cancel()
        self.failureResultOf(side.up, CancelledError)
        self.assertTrue(near.aborted)
