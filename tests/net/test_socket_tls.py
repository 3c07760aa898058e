"""TLS over real sockets: every byte, every end, and no more memory than was promised."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import random
import socket
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from filegrid.errors import GridError, NotPermitted, Unavailable
from filegrid.model import Identity
from filegrid.net import records
from filegrid.net.credentials import VERIFY_BOTH
from filegrid.net.descriptor import MOST_UNSENT_BYTES, Descriptor
from filegrid.net.handshake import HANDSHAKE_SECONDS, ClientSide, Gate, ServerSide
from filegrid.net.records import SLAB_BYTES, VIEW_BYTES, Slabs
from filegrid.net.socket_tls import CLOSE_SECONDS, FULL_BYTES
from tests.net.papers import credentials, credulous_stranger, folder
from tests.net.sockets import Turner, attach, pair

KERNEL_BYTES = 2 * 1024 * 1024
"""More than two ends of a pair keep in the kernel."""


@implementer(IPushProducer)
class Application(Protocol):
    """Keeps every piece as it came; as a producer it sends as fast as it may."""

    def __init__(self, identity: Identity) -> None:
        self.pieces: list[Any] = []
        self.lost: Failure | None = None
        self.left: list[bytes] = []
        self.paused = False
        self.stopped = False

    @property
    def tls(self) -> Gate:
        assert isinstance(self.transport, Gate)
        return self.transport

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.lost is None
        self.lost = reason

    def produce(self, pieces: list[bytes]) -> None:
        self.left = pieces
        self.tls.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left and not self.paused:
            self.tls.write(self.left.pop(0))

    def stopProducing(self) -> None:
        self.stopped = True


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.turner = Turner()
        self.built: list[Application] = []
        self.sockets: list[socket.socket] = []
        self.addCleanup(self.close_sockets)

    def close_sockets(self) -> None:
        for end in self.sockets:
            end.close()

    def build(self, identity: Identity) -> Application:
        self.built.append(Application(identity))
        return self.built[-1]

    def pair(self, buffer_bytes: int = 0) -> tuple[socket.socket, socket.socket]:
        ends = pair(buffer_bytes)
        self.sockets += ends
        return ends

    def serve(self, end: socket.socket) -> ServerSide:
        side = ServerSide(credentials("head-1"), self.build, self.turner, Slabs())
        protocol = side.buildProtocol(IPv4Address("TCP", "10.0.0.9", 40000))
        assert protocol is not None
        attach(self.turner, end, protocol)
        return side

    def call(self, end: socket.socket) -> ClientSide:
        side = ClientSide(credentials("alice"), Application, self.turner, Slabs(), "head-1:7000")
        attach(self.turner, end, side.buildProtocol(None))
        return side

    def meet(self, buffer_bytes: int = 0) -> tuple[Application, Application]:
        near, far = self.pair(buffer_bytes)
        self.serve(far)
        side = self.call(near)
        self.turner.settle()
        client = self.successResultOf(side.up)
        assert isinstance(client, Application)
        return client, self.built[-1]

    def stranger(self, buffer_bytes: int = 0) -> tuple[Application, SSL.Connection]:
        """Our server, and a client that is OpenSSL on a socket and nothing else."""
        near, far = self.pair(buffer_bytes)
        self.serve(far)
        raw = SSL.Connection(credentials("alice").context(0), near)
        raw.set_connect_state()
        self.work(raw.do_handshake)
        self.turner.settle()
        return self.built[-1], raw

    def work(self, call: Callable[[], Any]) -> Any:
        """Repeat a call of OpenSSL's while it waits for the other end."""
        while True:
            try:
                return call()
            except (SSL.WantReadError, SSL.WantWriteError):
                self.assertTrue(self.turner.turn(), "both ends wait for each other")

    def assert_lost(self, application: Application, kind: type[BaseException]) -> None:
        assert application.lost is not None
        self.assertTrue(application.lost.check(kind), application.lost)


class BytesTests(Case):
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 700_000)), max_size=12), st.booleans())
    @settings(max_examples=50, deadline=None, database=None)
    def test_both_ways(self, writes: list[tuple[bool, int]], settled: bool) -> None:
        """Writes of any size, in both directions at once, arrive byte for byte."""
        ends = self.meet()
        sent = [bytearray(), bytearray()]
        for to_server, size in writes:
            data = random.Random(size).randbytes(size)
            sent[to_server] += data
            ends[not to_server].tls.write(memoryview(data))
            if settled:
                self.turner.settle()
        self.turner.settle()
        self.assertEqual([end.received for end in ends], [bytes(data) for data in sent])

    def test_sequence(self) -> None:
        """A sequence arrives in order, empty pieces and all."""
        client, server = self.meet()
        client.tls.writeSequence([b"one", b"", memoryview(b"two"), bytes(300_000), b"three"])
        self.turner.settle()
        self.assertEqual(server.received, b"onetwo" + bytes(300_000) + b"three")

    def test_kept_pieces(self) -> None:
        """What was received stays as it is for as long as it is kept."""
        self.patch(records, "VIEW_BYTES", 64 * 1024)  # a socket brings less at once than a slab
        client, server = self.meet()
        data = random.Random(1).randbytes(40 * SLAB_BYTES)
        client.produce([data[at : at + 300_000] for at in range(0, len(data), 300_000)])
        self.turner.settle()
        self.assertTrue(any(isinstance(piece, memoryview) for piece in server.pieces))
        self.assertTrue(server.received == data)

    def test_tickets(self) -> None:
        """Session tickets that a server sends after the handshake are no trouble."""
        near, far = self.pair()
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_file(str(folder() / "head-1.pem"))
        context.use_privatekey_file(str(folder() / "head-1.pem"))
        context.load_verify_locations(str(folder() / "ours" / "ca.pem"))
        context.set_verify(VERIFY_BOTH)
        context.set_session_id(b"tickets")
        raw = SSL.Connection(context, far)
        raw.set_accept_state()
        side = self.call(near)
        self.work(raw.do_handshake)
        self.work(lambda: raw.send(b"after them"))
        self.turner.settle()
        client = self.successResultOf(side.up)
        assert isinstance(client, Application)
        self.assertEqual(client.received, b"after them")

    def test_keys_updated(self) -> None:
        """A peer that renews its keys, and asks for ours to be renewed, is followed."""
        name = ctypes.util.find_library("ssl")
        if name is None:
            raise SkipTest("no OpenSSL library that knows how to renew keys")
        near, far = self.pair()
        self.serve(far)
        raw = Renewing(name, near.fileno(), self.turner)
        raw.do(raw.library.SSL_connect)
        self.turner.settle()
        server = self.built[-1]
        for requested in (0, 1, 1):
            raw.do(raw.library.SSL_key_update, requested)
            raw.do(raw.library.SSL_write, b"x" * 1000, 1000)
            self.turner.settle()
            server.tls.write(b"y" * 1000)
            self.turner.settle()
            self.assertEqual(raw.read(1000), b"y" * 1000)
        self.assertEqual(server.received, b"x" * 3000)
        raw.library.SSL_free(raw.ssl)


class Renewing:
    """OpenSSL by its C interface: pyOpenSSL has no word for the renewal of keys."""

    def __init__(self, name: str, fd: int, turner: Turner) -> None:
        library = self.library = ctypes.CDLL(name)
        self._turner = turner
        pointer = ctypes.c_void_p
        for made in ("TLS_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, made).restype = pointer
        context = pointer(library.SSL_CTX_new(pointer(library.TLS_method())))
        pem = os.fsencode(folder() / "alice.pem")
        assert library.SSL_CTX_use_certificate_file(context, pem, 1) == 1
        assert library.SSL_CTX_use_PrivateKey_file(context, pem, 1) == 1
        self.ssl = pointer(library.SSL_new(context))
        library.SSL_set_fd(self.ssl, fd)

    def do(self, call: Any, *args: Any) -> None:
        while (result := call(self.ssl, *args)) <= 0:
            assert self.library.SSL_get_error(self.ssl, result) in (2, 3)  # wants to read or write
            assert self._turner.turn()

    def read(self, length: int) -> bytes:
        buffer = ctypes.create_string_buffer(length)
        self.do(self.library.SSL_read, buffer, length)
        return buffer.raw


class FlowTests(Case):
    def test_slow_reader(self) -> None:
        """While the peer does not read, a producer is held and little is kept; then all goes on."""
        client, server = self.meet(64 * 1024)
        server.tls.pauseProducing()
        data = random.Random(2).randbytes(16 * 1024 * 1024)
        client.produce([data[at : at + 100_000] for at in range(0, len(data), 100_000)])
        self.turner.settle()
        self.assertTrue(client.paused)
        written = len(data) - sum(len(piece) for piece in client.left)
        self.assertLess(written, FULL_BYTES + KERNEL_BYTES)
        self.assertEqual(server.pieces, [])
        server.tls.resumeProducing()
        self.turner.settle()
        self.assertTrue(server.received == data)

    def test_pause_in_the_middle(self) -> None:
        """A consumer that pauses at a piece gets no more until it resumes."""
        client, server = self.meet()

        def pause(data: bytes) -> None:
            server.pieces.append(data)
            server.tls.pauseProducing()

        server.dataReceived = pause  # type: ignore[method-assign]
        data = random.Random(3).randbytes(8 * 1024 * 1024)
        client.produce([data])
        for count in range(1, 1000):
            self.turner.settle()
            self.assertLessEqual(len(server.pieces), count)
            if len(server.received) == len(data):
                break
            server.tls.resumeProducing()
        self.assertTrue(server.received == data)

    def test_deaf_flooder(self) -> None:
        """A descriptor whose protocol heeds no pause is dropped before it keeps too much."""
        near, _ = self.pair()
        talker = Talker()
        attach(self.turner, near, talker)
        descriptor = Descriptor(talker.transport, talker, bytearray(10))  # type: ignore[arg-type]
        for _ in range(2 * (MOST_UNSENT_BYTES + KERNEL_BYTES) // 500_000):
            descriptor.write(bytes(500_000))
        self.assertEqual(talker.losses, 0, "not within a write")
        self.turner.settle()
        self.assertEqual(talker.losses, 1)


class Talker(Protocol):
    losses = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.losses += 1


class EndTests(Case):
    def test_full_close(self) -> None:
        """loseConnection delivers all that was written, and both ends end cleanly."""
        client, server = self.meet(64 * 1024)
        data = random.Random(4).randbytes(5_000_000)
        client.tls.write(data)
        client.tls.loseConnection()
        self.turner.settle()
        self.assertTrue(server.received == data)
        for end in (client, server):
            self.assert_lost(end, ConnectionDone)
        self.assertEqual(self.turner.getDelayedCalls(), [])

    def test_both_close(self) -> None:
        """Ends that close at the same moment end cleanly."""
        client, server = self.meet()
        client.tls.loseConnection()
        server.tls.loseConnection()
        self.turner.settle()
        for end in (client, server):
            self.assert_lost(end, ConnectionDone)

    def test_close_waits_for_the_producer(self) -> None:
        """A close is not begun while a producer has more to say."""
        client, server = self.meet()
        client.produce([b"first"])
        client.tls.loseConnection()
        self.turner.settle()
        self.assertIsNone(server.lost)
        client.tls.unregisterProducer()
        self.turner.settle()
        self.assert_lost(server, ConnectionDone)

    def test_close_while_paused(self) -> None:
        """An end that had paused its reading still hears the peer's last word."""
        client, server = self.meet()
        client.tls.pauseProducing()
        server.tls.write(b"never read")
        client.tls.loseConnection()
        self.turner.settle()
        self.assertEqual(client.pieces, [])
        self.assert_lost(client, ConnectionDone)

    def test_close_without_answer(self) -> None:
        """A peer that never says its last word is dropped after a while."""
        server, _ = self.stranger()
        server.tls.loseConnection()
        self.turner.settle()
        self.assertIsNone(server.lost)
        self.turner.advance(CLOSE_SECONDS)
        self.turner.settle()
        self.assert_lost(server, ConnectionAborted)

    def test_close_to_a_deaf_peer(self) -> None:
        """One that reads nothing is dropped too, with what was still to be sent."""
        server, _ = self.stranger(64 * 1024)
        server.tls.write(bytes(10_000_000))
        server.tls.loseConnection()
        self.turner.settle()
        for _ in range(3):
            self.turner.advance(CLOSE_SECONDS)
        self.turner.settle()
        self.assert_lost(server, ConnectionAborted)

    def test_half_close(self) -> None:
        """A peer that has said its last word still gets what was being sent to it."""
        server, raw = self.stranger(64 * 1024)
        data = random.Random(5).randbytes(3_000_000)
        server.tls.write(data)
        self.turner.settle()
        raw.shutdown()
        received = bytearray()
        try:
            while True:
                received += self.work(lambda: raw.recv(100_000))
        except SSL.ZeroReturnError:
            pass
        self.assertTrue(bytes(received) == data)
        self.turner.settle()
        self.assert_lost(server, ConnectionDone)

    def test_truncation(self) -> None:
        """An end without a last word is not taken for a clean one."""
        server, raw = self.stranger()
        self.work(lambda: raw.send(b"the first half"))
        raw.sock_shutdown(socket.SHUT_WR)
        self.turner.settle()
        self.assertEqual(server.received, b"the first half")
        self.assert_lost(server, ConnectionLost)

    def test_reset(self) -> None:
        """A peer that vanishes while it is sent to is lost, and the producer is stopped."""
        client, server = self.meet(64 * 1024)
        server.tls.pauseProducing()
        client.produce([bytes(100_000) for _ in range(50)])
        self.turner.settle()
        server.tls.abortConnection()
        self.turner.settle()
        self.assert_lost(server, ConnectionAborted)
        self.assert_lost(client, ConnectionLost)
        self.assertTrue(client.stopped)

    def test_garbage(self) -> None:
        """Bytes that are no TLS end the connection with an error of ours that names the peer."""
        client, server = self.meet()
        self.sockets[0].send(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.turner.settle()
        self.assert_lost(server, Unavailable)
        assert server.lost is not None
        self.assertIn("10.0.0.9:40000", str(server.lost.value))
        self.assertIsNotNone(client.lost)

    def test_abort_within_data(self) -> None:
        """A protocol may abort from within dataReceived; nothing more reaches it."""
        client, server = self.meet()

        def abort(data: bytes) -> None:
            server.pieces.append(data)
            server.tls.abortConnection()
            server.tls.write(b"nothing")

        server.dataReceived = abort  # type: ignore[method-assign]
        client.tls.write(bytes(4_000_000))
        self.turner.settle()
        self.assertEqual(len(server.pieces), 1)
        self.assert_lost(server, ConnectionAborted)

    def test_after_the_end(self) -> None:
        """Once it is over, nothing can be written, and a producer is told so."""
        client, _ = self.meet()
        transport = client.tls
        transport.loseConnection()
        self.turner.settle()
        transport.write(b"late")
        transport.loseConnection()
        transport.abortConnection()
        transport.registerProducer(client, True)
        self.assertTrue(client.stopped)
        self.assertEqual((self.turner.readers, self.turner.writers), (set(), set()))


class HandshakeTests(Case):
    """On a socket as in memory: what test_handshake promises, once over the real way."""

    def test_unknown_authority(self) -> None:
        """A certificate of another authority is refused, and its holder is told."""
        near, far = self.pair()
        self.serve(far)
        raw = SSL.Connection(credulous_stranger(), near)
        raw.set_connect_state()
        self.work(raw.do_handshake)  # under TLS 1.3 the client is done before it is judged
        self.assertRaises(SSL.Error, self.work, lambda: raw.recv(1))
        self.turner.settle()
        self.assertEqual(self.built, [])
        self.assertEqual(self.turner.getDelayedCalls(), [])

    def test_expired_server(self) -> None:
        """A client learns why it does not get through."""
        near, far = self.pair()
        side = ServerSide(credentials("old"), self.build, self.turner, Slabs())
        protocol = side.buildProtocol(None)
        assert protocol is not None
        attach(self.turner, far, protocol)
        client = self.call(near)
        self.turner.settle()
        error = self.failureResultOf(client.up, NotPermitted).value
        assert isinstance(error, GridError)
        self.assertIn("has expired", str(error))

    def test_silence(self) -> None:
        """A silent peer is dropped at the deadline."""
        _, far = self.pair()
        side = self.serve(far)
        self.turner.settle()
        self.turner.advance(HANDSHAKE_SECONDS)
        self.turner.settle()
        self.assertEqual((side.gates, self.turner.readers), (set(), set()))

    def test_byte_by_byte(self) -> None:
        """A handshake that comes in single bytes, and is closed at each of them, leaves nothing."""
        near, far = self.pair()
        raw = SSL.Connection(credentials("alice").context(0), None)
        raw.set_connect_state()
        self.assertRaises(SSL.WantReadError, raw.do_handshake)
        hello = raw.bio_read(10_000)
        side = self.serve(far)
        for at in range(len(hello)):
            near.send(hello[at : at + 1])
            self.turner.settle()
        self.assertGreater(len(near.recv(10_000)), 100)  # the server's part
        near.close()
        self.turner.settle()
        self.assertEqual((side.gates, self.turner.readers), (set(), set()))


class SlabsTests(SynchronousTestCase):
    def test_reuse(self) -> None:
        """A slab comes back once nobody has a view of it, and never before."""
        slabs = Slabs()
        slab = slabs.take()
        self.assertIs(slabs.take(), slab)
        view = memoryview(slab)[:VIEW_BYTES].toreadonly()
        others = []
        for _ in range(100):
            other = slabs.take()
            self.assertIsNot(other, slab)
            others.append(memoryview(other))
        del view
        others.clear()
        self.assertEqual(len(slabs.take()), SLAB_BYTES)
