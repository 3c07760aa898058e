"""Links: calls, transfers, and every way in which a peer can misbehave or go away."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filegrid.errors import (
    Cancelled,
    DeadlineExceeded,
    FrameTooLarge,
    GridError,
    InternalError,
    NoSuchPath,
    NotPermitted,
    Unavailable,
)
from filegrid.model import Address, Identity, Role
from filegrid.net.dial import hello_of
from filegrid.net.link import HELLO_SECONDS, STALL_SECONDS, Caller, Exchange, Link, Method
from filegrid.protocol.connection import DataReceived
from filegrid.protocol.frames import FrameDecoder, Plane
from filegrid.protocol.wire import chunk_pb2, head_pb2, values_pb2
from filegrid.protocol.wire.frame_pb2 import Done, Frame
from filegrid.simulation.network import SimulatedNetwork

CLIENT = Identity("g", Role.CLIENT, "me")
HEAD = Identity("g", Role.HEAD, "head-1")


class Answers:
    """A service that a test fills."""

    def __init__(self) -> None:
        self.methods: Mapping[str, Method] = {}
        self.up: list[Link] = []
        self.down: list[GridError] = []
        self.refusal: GridError | None = None

    def link_up(self, link: Link) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.up.append(link)

    def link_down(self, link: Link, error: GridError) -> None:
        self.down.append(error)


class Collected:
    """A sink that keeps all."""

    def __init__(self) -> None:
        self.data: list[DataReceived] = []
        self.lost: list[GridError] = []

    def data_received(self, data: DataReceived) -> None:
        self.data.append(data)

    def data_lost(self, error: GridError) -> None:
        self.lost.append(error)

    @property
    def content(self) -> bytes:
        return b"".join(bytes(one.piece) for one in self.data)


class LinkCase(SynchronousTestCase):
    """A client's and a head's end, joined by a simulated network."""

    plane = Plane.CONTROL

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = SimulatedNetwork(self.clock, random.Random(0))
        self.service = Answers()
        head = self.network.host("h", HEAD)
        self.successResultOf(head.listen(Address("h", 1), self.accept))
        self.connect()

    def accept(self, peer: Identity) -> Link:
        self.far = self.make_link(HEAD, peer, self.service)
        return self.far

    def connect(self) -> None:
        """Make the link anew."""
        self.near = self.make_link(CLIENT, HEAD, Answers())
        client = self.network.host("c", CLIENT)
        client.connect(Address("h", 1), lambda _: self.near, timeout_seconds=5)
        self.pass_time(0.1)

    def make_link(self, ours: Identity, peer: Identity, service: Answers) -> Link:
        link = Link(self.plane, clock=self.clock, hello=hello_of(ours), peer=peer, service=service)
        link.up.addErrback(lambda _: None)
        return link

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.001] * 20 + [seconds / 50] * 50)

    def answer(self, method: str, handle: Callable[[Message], object]) -> None:
        async def answer(caller: Caller, request: Message) -> Message:
            result = handle(request)
            if isinstance(result, Deferred):
                result = await result
            assert isinstance(result, Message)
            return result

        self.service.methods = {method: Method(frozenset({Role.CLIENT}), answer)}

    def ask(self, timeout_seconds: float = 1.0) -> Deferred[head_pb2.Listing]:
        return Deferred.fromCoroutine(
            self.near.call(
                head_pb2.List(path="/"), head_pb2.Listing, timeout_seconds=timeout_seconds
            )
        )


class Calls(LinkCase):
    def test_answer(self) -> None:
        """A call gets the answer of the peer's method."""
        self.answer("list", lambda request: head_pb2.Listing(more=True))
        asked = self.ask()
        self.pass_time(0.01)
        self.assertTrue(self.successResultOf(asked).more)

    def test_many_at_once_and_out_of_order(self) -> None:
        """Answers find their calls whatever their order."""
        waiting: list[Deferred[Message]] = []

        def wait(request: Message) -> Deferred[Message]:
            waiting.append(Deferred())
            return waiting[-1]

        self.answer("list", wait)
        asked = [self.ask() for _ in range(5)]
        self.pass_time(0.01)
        for number in (3, 0, 4, 1, 2):
            waiting[number].callback(head_pb2.Listing(nodes=[values_pb2.Node(path=f"/{number}")]))
        self.pass_time(0.01)
        answers = [self.successResultOf(one).nodes[0].path for one in asked]
        self.assertEqual(answers, ["/0", "/1", "/2", "/3", "/4"])

    def test_error(self) -> None:
        """What the method raises reaches the caller as it is."""

        def fail(request: Message) -> Message:
            raise NoSuchPath("nothing is there", "/x")

        self.answer("list", fail)
        asked = self.ask()
        self.pass_time(0.01)
        self.failureResultOf(asked, NoSuchPath)

    def test_bug(self) -> None:
        """A bug in a method is logged here and is an internal error there."""
        self.answer("list", lambda request: 1 // 0)
        asked = self.ask()
        self.pass_time(0.01)
        self.failureResultOf(asked, InternalError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_role(self) -> None:
        """A method that is not there, or not open to the peer's role, is refused."""
        asked = self.ask()
        self.pass_time(0.01)
        self.failureResultOf(asked, NotPermitted)

    def test_deadline(self) -> None:
        """An answer that does not come in time is an error, and the work for it is cancelled."""
        cancelled: list[object] = []
        self.answer("list", lambda request: Deferred(cancelled.append))
        asked = self.ask(timeout_seconds=0.5)
        self.pass_time(0.4)
        self.assertNoResult(asked)
        self.pass_time(0.2)
        self.failureResultOf(asked, DeadlineExceeded)
        self.assertEqual(len(cancelled), 1)

    def test_taken_back(self) -> None:
        """Cancelling a call cancels the work for it."""
        cancelled: list[object] = []
        self.answer("list", lambda request: Deferred(cancelled.append))
        asked = self.ask()
        self.pass_time(0.01)
        asked.cancel()
        self.failureResultOf(asked, Cancelled)
        self.pass_time(0.01)
        self.assertEqual(len(cancelled), 1)

    def test_link_lost(self) -> None:
        """Calls under way fail when the link is lost, at both ends; later ones at once."""
        cancelled: list[object] = []
        self.answer("list", lambda request: Deferred(cancelled.append))
        asked = self.ask()
        self.pass_time(0.01)
        self.network.crash("h")
        self.pass_time(0.1)
        self.failureResultOf(asked, Unavailable)
        self.failureResultOf(self.ask(), Unavailable)

    def test_silent_peer(self) -> None:
        """A cut-off peer costs its own calls their deadline and nothing else."""
        self.answer("list", lambda request: head_pb2.Listing())
        self.network.cut("c", "h")
        asked = self.ask(timeout_seconds=1.0)
        self.pass_time(1.1)
        self.failureResultOf(asked, DeadlineExceeded)

    def test_refused_link(self) -> None:
        """A service may refuse a link; the peer learns why."""
        self.service.refusal = NotPermitted("not today")
        self.connect()
        self.assertFalse(self.near.alive)
        self.assertIn("not today", str(self.failureResultOf(self.ask()).value))


class BareLink(SynchronousTestCase):
    """One end, and a peer that is only bytes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.service = Answers()
        self.link = Link(
            Plane.CONTROL,
            clock=self.clock,
            hello=hello_of(HEAD),
            peer=CLIENT,
            service=self.service,
        )
        self.transport = StringTransport()
        self.up = self.link.up
        self.link.makeConnection(self.transport)  # type: ignore[no-untyped-call]  # Twisted's

    def frames(self) -> list[Frame]:
        decoder = FrameDecoder(Plane.CONTROL)
        return [item for item in decoder.feed(self.transport.value()) if isinstance(item, Frame)]

    def test_says_nothing(self) -> None:
        """A peer that says no HELLO is dropped, with the reason."""
        self.clock.advance(HELLO_SECONDS)
        self.failureResultOf(self.up, DeadlineExceeded)
        self.assertTrue(self.transport.disconnecting)
        self.assertIn("HELLO", self.frames()[-1].fault.what)

    def test_garbage(self) -> None:
        """Garbage closes the connection, answered by an error that says which limit it broke."""
        self.link.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.failureResultOf(self.up, FrameTooLarge)
        self.assertTrue(self.transport.disconnecting)
        self.assertIn("limit", self.frames()[-1].fault.what)

    def test_truncated_frame(self) -> None:
        """A frame that ends with the connection is nothing; the link is down."""
        self.link.dataReceived(b"\0\0\0\x10abc")
        self.link.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.up, Unavailable)

    def test_leaves_no_timers(self) -> None:
        """A link that is gone has no timers."""
        self.link.close()
        self.link.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(self.up, Unavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Transfers(LinkCase):
    plane = Plane.DATA

    def begin(self, sink: Collected | None = None) -> Exchange:
        return self.near.open(
            chunk_pb2.WriteChunk(chunk_id=b"c" * 16), timeout_seconds=5, sink=sink
        )

    def serve(self, work: Callable[[Caller], object]) -> None:
        async def handle(caller: Caller, request: Message) -> Message:
            result = work(caller)
            if isinstance(result, Deferred):
                await result
            return Done()

        self.service.methods = {"write_chunk": Method(frozenset({Role.CLIENT}), handle)}

    def test_pieces_arrive_in_order(self) -> None:
        """What is sent in a transfer comes into the handler's sink, whole and in order."""
        sink, finished = Collected(), Deferred[None]()

        def receive(caller: Caller) -> Deferred[None]:
            caller.receive_into(sink)
            return finished

        self.serve(receive)
        exchange = self.begin()
        content = random.Random(1).randbytes(300_000)
        for start in range(0, len(content), 100_000):
            exchange.write(memoryview(content)[start : start + 100_000])
        exchange.write(last=True, digest=b"d")
        self.pass_time(0.1)
        self.assertEqual(sink.content, content)
        self.assertTrue(sink.data[-1].last)
        finished.callback(None)
        self.pass_time(0.1)
        self.assertIsInstance(self.successResultOf(exchange.answer), Done)

    def test_sender_waits_for_a_full_transport(self) -> None:
        """A sender is held while the peer does not read, and goes on when it does."""

        def hold(caller: Caller) -> Deferred[None]:
            caller.receive_into(Collected())
            return Deferred()

        self.serve(hold)
        exchange = self.begin()
        self.pass_time(0.01)
        assert self.far.transport is not None
        self.far.transport.pauseProducing()
        sent = Deferred.fromCoroutine(exchange.send(b"x" * 400_000))
        self.pass_time(0.5)
        self.assertNoResult(sent)
        self.far.transport.resumeProducing()
        self.pass_time(0.5)
        self.successResultOf(sent)
        self.near.close()
        self.pass_time(0.1)
        self.failureResultOf(exchange.answer)

    def test_peer_that_never_reads(self) -> None:
        """A peer that reads nothing for long is dropped."""

        def hold(caller: Caller) -> Deferred[None]:
            caller.receive_into(Collected())
            assert caller.link.transport is not None
            caller.link.transport.pauseProducing()
            return Deferred()

        self.serve(hold)
        exchange = self.near.open(
            chunk_pb2.WriteChunk(chunk_id=b"c" * 16), timeout_seconds=10 * STALL_SECONDS
        )
        self.pass_time(0.01)
        sent = Deferred.fromCoroutine(exchange.send(b"x" * 400_000))
        self.pass_time(STALL_SECONDS + 1)
        self.failureResultOf(sent, DeadlineExceeded)
        self.failureResultOf(exchange.answer, DeadlineExceeded)

    def test_source_lost(self) -> None:
        """A handler's sink is told when the link is lost before the last frame."""
        sink = Collected()

        def hold(caller: Caller) -> Deferred[None]:
            caller.receive_into(sink)
            return Deferred()

        self.serve(hold)
        exchange = self.begin()
        exchange.write(b"abc")
        self.pass_time(0.01)
        self.network.crash("c")
        self.pass_time(0.1)
        self.assertEqual(len(sink.lost), 1)
        self.assertEqual(sink.content, b"abc")
        exchange.answer.addErrback(lambda _: None)

    def test_silence_counts_from_the_last_piece(self) -> None:
        """A transfer may take longer than its timeout as long as something moves."""

        def send_slowly(caller: Caller) -> Deferred[None]:
            async def work() -> None:
                for _ in range(4):
                    await caller.send(b"x" * 10_000)
                    pause: Deferred[None] = Deferred()
                    self.clock.callLater(3, pause.callback, None)
                    await pause

            return Deferred.fromCoroutine(work())

        self.serve(send_slowly)
        sink = Collected()
        exchange = self.begin(sink)
        self.pass_time(13)
        self.successResultOf(exchange.answer)
        self.assertEqual(len(sink.content), 40_000)
