"""The protocol's rules, with two ends joined and no transport between them."""

from __future__ import annotations

from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from filegrid.errors import (
    Busy,
    MalformedFrame,
    NoSuchPath,
    NotPermitted,
    UnsupportedVersion,
    WrongGrid,
)
from filegrid.model import Identity, Role
from filegrid.net.dial import hello_of
from filegrid.protocol.connection import (
    MOST_CALLS_IN_FLIGHT,
    CallReceived,
    CancelReceived,
    Connection,
    DataReceived,
    Event,
    HelloReceived,
    PeerGaveUp,
    ReplyReceived,
)
from filegrid.protocol.frames import Plane, encode
from filegrid.protocol.wire.frame_pb2 import Done, Frame, Hello, Reply
from filegrid.protocol.wire.head_pb2 import GetStatus, Listing, Stat
from filegrid.protocol.wire.values_pb2 import Once

CLIENT = Identity("g", Role.CLIENT, "me")
HEAD = Identity("g", Role.HEAD, "head-1")

E = TypeVar("E", bound=Event)


def flow(source: Connection, target: Connection) -> list[Event]:
    """Carry what `source` has to say; what `target` makes of it."""
    return list(target.receive(b"".join(bytes(piece) for piece in source.bytes_to_send())))


def pair(plane: Plane = Plane.CONTROL) -> tuple[Connection, Connection]:
    """A client's and a head's end, before their HELLOs."""
    return Connection(plane, hello_of(CLIENT), HEAD), Connection(plane, hello_of(HEAD), CLIENT)


def opened(plane: Plane = Plane.CONTROL) -> tuple[Connection, Connection]:
    client, head = pair(plane)
    client.say_hello()
    head.say_hello()
    flow(client, head)
    flow(head, client)
    return client, head


class Hellos(SynchronousTestCase):
    def test_exchange(self) -> None:
        """Each end learns what the other says of itself."""
        client, head = pair()
        client.say_hello()
        (event,) = flow(client, head)
        self.assertEqual(event, HelloReceived(hello_of(CLIENT)))

    def refused(self, hello: Hello) -> Exception:
        _, head = pair()
        frames = head.receive(encode(Frame(hello=hello)))
        return self.error_of(frames)

    def error_of(self, events: object) -> Exception:
        try:
            list(events)  # type: ignore[call-overload]
        except Exception as error:
            return error
        raise self.failureException("nothing was refused")

    def test_newer_version(self) -> None:
        """A newer protocol version is refused by number (S24)."""
        hello = hello_of(CLIENT)
        hello.protocol_version = 9
        error = self.refused(hello)
        self.assertIsInstance(error, UnsupportedVersion)
        self.assertIn("version 9", str(error))

    def test_other_grid(self) -> None:
        """A peer of another grid is refused, with both ids."""
        error = self.refused(hello_of(Identity("other", Role.CLIENT, "me")))
        self.assertIsInstance(error, WrongGrid)
        self.assertIn("other", str(error))

    def test_other_name_than_the_certificates(self) -> None:
        """A HELLO with another name or role than the certificate's is refused."""
        for role, name in ((Role.CLIENT, "you"), (Role.OPERATOR, "me")):
            self.assertIsInstance(self.refused(hello_of(Identity("g", role, name))), NotPermitted)

    def test_nothing_comes_before_it(self) -> None:
        """Any frame but HELLO is malformed before it, and HELLO is malformed after it."""
        client, head = pair()
        client.call(GetStatus(), timeout_ms=1)
        self.assertRaises(MalformedFrame, flow, client, head)
        client, head = opened()
        client.say_hello()
        self.assertRaises(MalformedFrame, flow, client, head)


class Calls(SynchronousTestCase):
    def test_call_and_answer(self) -> None:
        """A request comes with its envelope, and its answer with the call's id."""
        client, head = opened()
        once = Once(session=5, sequence=2)
        call_id = client.call(Stat(path="/x"), timeout_ms=250, trace_id=99, once=once)
        (event,) = flow(client, head)
        assert isinstance(event, CallReceived)
        self.assertEqual((event.method, event.request), ("stat", Stat(path="/x")))
        self.assertEqual((event.call.timeout_ms, event.call.trace_id), (250, 99))
        self.assertEqual(event.call.once, once)
        head.reply(call_id, Done())
        self.assertEqual(flow(head, client), [ReplyReceived(call_id, Done())])

    def test_empty_answer_keeps_its_type(self) -> None:
        """A message with nothing in it arrives as that message."""
        client, head = opened()
        call_id = client.call(GetStatus(), timeout_ms=1)
        (event,) = flow(client, head)
        assert isinstance(event, CallReceived)
        self.assertEqual(event.method, "get_status")
        head.reply(call_id, Listing())
        (reply,) = flow(head, client)
        assert isinstance(reply, ReplyReceived)
        self.assertIsInstance(reply.outcome, Listing)

    def test_error_keeps_its_class_and_words(self) -> None:
        """An error crosses the wire with its class, subject and advice."""
        client, head = opened()
        call_id = client.call(Stat(path="/x"), timeout_ms=1)
        flow(client, head)
        head.reply(call_id, NoSuchPath("nothing is there", "/x", advice="look again"))
        (event,) = flow(head, client)
        assert isinstance(event, ReplyReceived)
        self.assertIsInstance(event.outcome, NoSuchPath)
        self.assertEqual(str(event.outcome), "/x: nothing is there; look again")

    def test_too_many_in_flight(self) -> None:
        """Call 1,025 is answered "busy"; the others are not touched (S23)."""
        client, head = opened()
        for _ in range(MOST_CALLS_IN_FLIGHT):
            client.call(GetStatus(), timeout_ms=1)
        self.assertEqual(len(flow(client, head)), MOST_CALLS_IN_FLIGHT)
        extra = client.call(GetStatus(), timeout_ms=1)
        self.assertEqual(flow(client, head), [])
        (event,) = flow(head, client)
        assert isinstance(event, ReplyReceived) and isinstance(event.outcome, Busy)
        self.assertEqual(event.call_id, extra)
        self.assertGreater(event.outcome.retry_after_seconds, 0)

    def test_answered_calls_make_room(self) -> None:
        """What is answered or cancelled no longer counts as in flight."""
        client, head = opened()
        ids = [client.call(GetStatus(), timeout_ms=1) for _ in range(MOST_CALLS_IN_FLIGHT)]
        flow(client, head)
        head.reply(ids[0], Done())
        client.cancel(ids[1])
        self.assertEqual(flow(client, head), [CancelReceived(ids[1])])
        client.call(GetStatus(), timeout_ms=1)
        client.call(GetStatus(), timeout_ms=1)
        self.assertEqual(len(flow(client, head)), 2)

    def test_second_answer_is_not_sent(self) -> None:
        """A call is answered at most once, and not after it was cancelled."""
        client, head = opened()
        call_id = client.call(GetStatus(), timeout_ms=1)
        flow(client, head)
        head.reply(call_id, Done())
        head.bytes_to_send()
        head.reply(call_id, Done())
        self.assertEqual(head.bytes_to_send(), [])

    def test_id_in_use(self) -> None:
        """A call with the id of one in flight is malformed."""
        client, head = opened()
        client.call(GetStatus(), timeout_ms=1)
        stream = b"".join(bytes(piece) for piece in client.bytes_to_send())
        list(head.receive(stream))
        self.assertRaises(MalformedFrame, list, head.receive(stream))

    def test_unknown_request_and_answer(self) -> None:
        """A request of a newer release is answered by name; so is such an answer."""
        client, head = opened()
        frame = Frame()
        frame.call.id = 1
        list(head.receive(encode(frame)))
        (event,) = flow(head, client)
        assert isinstance(event, ReplyReceived)
        self.assertIsInstance(event.outcome, UnsupportedVersion)
        (event,) = client.receive(encode(Frame(reply=Reply(call_id=5))))
        assert isinstance(event, ReplyReceived)
        self.assertIsInstance(event.outcome, UnsupportedVersion)


class Transfers(SynchronousTestCase):
    def test_pieces_and_end(self) -> None:
        """Pieces come in order, and the end only with the last byte of the last frame."""
        client, head = opened(Plane.DATA)
        client.data(4, b"abc")
        client.data(4, b"de", last=True, digest=b"d" * 32)
        events = flow(client, head)
        self.assertEqual(
            [(bytes(e.piece), e.last, e.digest) for e in events if isinstance(e, DataReceived)],
            [(b"abc", False, b""), (b"de", True, b"d" * 32)],
        )

    def test_empty_end(self) -> None:
        """A last frame may be empty."""
        client, head = opened(Plane.DATA)
        client.data(4, last=True)
        (event,) = flow(client, head)
        assert isinstance(event, DataReceived)
        self.assertTrue(event.last)

    def test_none_on_the_control_plane(self) -> None:
        """A data frame on a control connection is malformed."""
        client, head = opened()
        client.data(4)
        self.assertRaises(MalformedFrame, flow, client, head)


class Ends(SynchronousTestCase):
    def test_reason_reaches_the_peer(self) -> None:
        """Who closes says why, once, before and after the HELLO."""
        for ends in (pair(), opened()):
            client, head = ends
            head.fail(WrongGrid("not here"))
            head.fail(WrongGrid("not here"))
            (event,) = flow(head, client)
            assert isinstance(event, PeerGaveUp)
            self.assertIsInstance(event.error, WrongGrid)
