"""Calls that are retried, and changes that are applied once."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.session import FIRST_ATTEMPT_SECONDS, Session
from filegrid.errors import (
    AlreadyExists,
    Busy,
    GridError,
    InvalidRequest,
    NoSuchPath,
    NotLeader,
    NotPermitted,
    OutcomeUnknown,
    Unavailable,
)
from filegrid.model import Identity, Role, session_of
from filegrid.protocol.wire import head_pb2, values_pb2
from tests.client.head import GRID_ID, LEASE_SECONDS, Answering, ScriptedHead, World

T = TypeVar("T")

STAT = head_pb2.Stat(path="/a")
MAKE = values_pb2.MakeFolder(path="/a")
NODE = values_pb2.Node(path="/a", version=7)


def in_turn(*answers: Message | GridError | None) -> Answering:
    """The first answer first; the last one from then on."""
    left = list(answers)

    def answer(request: Message) -> Message | None:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, GridError):
            raise found
        return found

    return answer


class SessionCase(SynchronousTestCase):
    heads = 1

    def setUp(self) -> None:
        self.world = World()
        self.all_heads = [ScriptedHead(self.world, f"head-{n + 1}") for n in range(self.heads)]
        self.head = self.all_heads[0]
        for head in self.all_heads:
            head.start()
        identity = Identity(GRID_ID, Role.CLIENT, "client-1")
        self.session = Session(
            self.world.runtime(identity),
            identity,
            [head.address for head in self.all_heads],
            timeout_seconds=30,
        )
        self.session.start()

    def begin(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(work)

    def stat(self) -> Deferred[values_pb2.Node]:
        return self.begin(self.session.call(STAT, values_pb2.Node))

    def make(self) -> Deferred[values_pb2.Node]:
        return self.begin(self.session.change(MAKE, values_pb2.Node))


class Calls(SessionCase):
    def test_answer(self) -> None:
        """A call gives the head's answer, or raises it."""
        self.head.script["stat"] = in_turn(NODE, NoSuchPath("nothing there", "/a"))
        first = self.stat()
        self.world.advance(0.1)
        self.assertEqual(self.successResultOf(first), NODE)
        second = self.stat()
        self.world.advance(0.1)
        self.assertEqual(str(self.failureResultOf(second, NoSuchPath).value), "/a: nothing there")
        self.assertEqual(len(self.head.calls), 2)

    def test_busy(self) -> None:
        """A busy head is asked again when it says, and not before."""
        self.head.script["stat"] = in_turn(Busy("later", retry_after_seconds=3), NODE)
        answer = self.stat()
        self.world.advance(2.9)
        self.assertEqual(len(self.head.calls), 1)
        self.world.advance(0.5)
        self.assertEqual(self.successResultOf(answer), NODE)

    def test_silent(self) -> None:
        """A head that says nothing is asked again after a while, until the time is up."""
        self.head.script["stat"] = in_turn(None)
        answer = self.stat()
        self.world.advance(FIRST_ATTEMPT_SECONDS + 1)
        self.assertEqual(len(self.head.calls), 2)
        self.world.advance(28)
        failure = self.failureResultOf(answer, Unavailable)
        self.assertIn("head-1:7000: no head answered in time", str(failure.value))

    def test_away(self) -> None:
        """A head that is away is waited for, and named when it does not come."""
        self.head.kill()
        answer = self.stat()
        self.world.advance(20)
        self.assertNoResult(answer)
        self.world.advance(11)
        failure = self.failureResultOf(answer, Unavailable)
        self.assertIn("head-1:7000: the connection was refused", str(failure.value))

    def test_comes_back(self) -> None:
        """A head that comes back in time answers what was asked before."""
        self.head.kill()
        answer = self.stat()
        self.world.advance(10)
        self.head.script["stat"] = in_turn(NODE)
        self.head.start()
        self.world.advance(3)
        self.assertEqual(self.successResultOf(answer), NODE)

    def test_turned_away(self) -> None:
        """A client whose certificate is refused everywhere is told so at once."""
        identity = Identity("another grid", Role.CLIENT, "client-2")
        session = Session(self.world.runtime(identity), identity, [self.head.address], 30)
        session.start()
        answer = self.begin(session.call(STAT, values_pb2.Node))
        self.world.advance(1)
        self.failureResultOf(answer, NotPermitted)

    def test_closed(self) -> None:
        """A closed client says so; so does what was under way when it was closed."""
        self.head.script["stat"] = in_turn(None)
        answer = self.stat()
        self.world.advance(0.1)
        closing = self.begin(self.session.close())
        self.world.advance(3)
        self.successResultOf(closing)
        self.assertIn("closed", str(self.failureResultOf(answer, Unavailable).value))
        self.assertIn("closed", str(self.failureResultOf(self.stat(), Unavailable).value))

    def test_cancelled(self) -> None:
        """A call that is cancelled ends at once and is not asked again."""
        self.head.script["stat"] = in_turn(None)
        answer = self.stat()
        self.world.advance(0.1)
        answer.cancel()
        self.failureResultOf(answer)
        self.world.advance(20)
        self.assertEqual(len(self.head.calls), 1)


class SeveralHeads(SessionCase):
    heads = 3

    def test_told_who_leads(self) -> None:
        """A standby's word of who leads is followed, and remembered."""
        not_leader = NotLeader("this head does not lead", leader="head-3:7000")
        self.all_heads[0].script["stat"] = in_turn(not_leader)
        self.all_heads[2].script["stat"] = in_turn(NODE)
        for _ in range(2):
            answer = self.stat()
            self.world.advance(1)
            self.assertEqual(self.successResultOf(answer), NODE)
        self.assertEqual([len(head.calls) for head in self.all_heads], [1, 0, 2])

    def test_new_head(self) -> None:
        """A leader that the configuration does not name is dialled."""
        fourth = ScriptedHead(self.world, "head-4")
        fourth.start()
        fourth.script["stat"] = in_turn(NODE)
        for head in self.all_heads:
            head.script["stat"] = in_turn(NotLeader("not me", leader="head-4:7000"))
        answer = self.stat()
        self.world.advance(2)
        self.assertEqual(self.successResultOf(answer), NODE)

    def test_silent_leader(self) -> None:
        """When the head that led is silent, the others are asked."""
        self.all_heads[0].script["stat"] = in_turn(None)
        self.all_heads[1].script["stat"] = in_turn(NotLeader("nobody leads"))
        self.all_heads[2].script["stat"] = in_turn(NODE)
        answer = self.stat()
        self.world.advance(FIRST_ATTEMPT_SECONDS + 2)
        self.assertEqual(self.successResultOf(answer), NODE)

    def test_dead_leader(self) -> None:
        """When the head that led is gone, another is asked without waiting for it."""
        self.world.advance(0.1)
        self.all_heads[0].kill()
        self.all_heads[1].script["stat"] = in_turn(NODE)
        answer = self.stat()
        self.world.advance(0.5)
        self.assertEqual(self.successResultOf(answer), NODE)

    def test_one_is_gone(self) -> None:
        """When one head is gone and the next knows of no leader, the third is asked."""
        self.world.advance(0.1)
        self.all_heads[0].kill()
        self.all_heads[1].script["stat"] = in_turn(NotLeader("nobody leads"))
        self.all_heads[2].script["stat"] = in_turn(NODE)
        answer = self.stat()
        self.world.advance(0.5)
        self.assertEqual(self.successResultOf(answer), NODE)


class Changes(SessionCase):
    def test_hundreds_at_once(self) -> None:
        """However many wait for the first session, it is opened once, and all go on."""
        self.head.script["make_folder"] = in_turn(NODE)
        changes = [self.make() for _ in range(500)]
        self.world.advance(1)
        for change in changes:
            self.successResultOf(change)
        self.assertEqual(len(self.head.asked("open_session")), 1)

    def test_hundreds_fail_together(self) -> None:
        """Where no session comes, nobody waits for the patience of all the others."""
        self.head.kill()
        changes = [self.make() for _ in range(500)]
        cancelled = changes.pop(7)
        cancelled.cancel()
        self.failureResultOf(cancelled)
        self.world.advance(31)
        for change in changes:
            self.failureResultOf(change, Unavailable)

    def test_same_sequence(self) -> None:
        """Every try at one change is the same change to the head; the next is another."""
        self.head.script["make_folder"] = in_turn(
            Unavailable("not now"), None, Busy("later"), NODE, AlreadyExists("there", "/a")
        )
        first = self.make()
        self.world.advance(10)
        self.assertEqual(self.successResultOf(first), NODE)
        second = self.make()
        self.world.advance(1)
        self.failureResultOf(second, AlreadyExists)
        onces = [call.once for call in self.head.asked("make_folder")]
        self.assertEqual([once.sequence for once in onces], [1, 1, 1, 1, 2])
        self.assertEqual([once.answered_below for once in onces], [1, 1, 1, 1, 2])
        self.assertEqual(len(self.head.asked("open_session")), 1)

    def test_answered_below(self) -> None:
        """The head is told that an answer is still waited for, as long as it is."""
        self.head.script["make_folder"] = in_turn(None)
        slow = self.make()
        self.world.advance(0.1)
        self.head.script["make_folder"] = in_turn(NODE)
        for _ in range(2):
            quick = self.make()
            self.world.advance(0.1)
            self.successResultOf(quick)
        self.world.advance(FIRST_ATTEMPT_SECONDS + 1)
        self.assertEqual(self.successResultOf(slow), NODE)
        last = self.make()
        self.world.advance(0.1)
        self.successResultOf(last)
        onces = [call.once for call in self.head.asked("make_folder")]
        self.assertEqual([once.sequence for once in onces], [1, 2, 3, 1, 4])
        self.assertEqual([once.answered_below for once in onces], [1, 1, 1, 1, 4])

    def test_unknown(self) -> None:
        """A change that was sent and never answered may have been applied: the error says so."""
        self.head.script["make_folder"] = in_turn(None)
        answer = self.make()
        self.world.advance(1)
        self.head.kill()
        self.world.advance(31)
        failure = self.failureResultOf(answer, OutcomeUnknown)
        self.assertTrue(str(failure.value).startswith("/a: no answer came"))

    def test_never_sent(self) -> None:
        """A change that reached no head was surely not applied: the grid is unavailable."""
        warm_up = self.begin(self.session.opened())
        self.world.advance(0.1)
        self.successResultOf(warm_up)
        self.head.kill()
        self.world.advance(0.1)
        answer = self.make()
        self.world.advance(31)
        self.failureResultOf(answer, Unavailable)

    def test_refused_throughout(self) -> None:
        """A change that every answer turned away unseen was surely not applied."""
        self.head.script["make_folder"] = in_turn(Busy("too much to do"))
        answer = self.make()
        self.world.advance(31)
        self.failureResultOf(answer, Busy)


class Lives(SessionCase):
    def opened(self) -> int:
        opening = self.begin(self.session.opened())
        self.world.advance(0.2)
        return self.successResultOf(opening).id

    def test_unique_ids(self) -> None:
        """Ids are of the session, and never given twice (S15)."""
        opening = self.begin(self.session.opened())
        self.world.advance(0.2)
        opened = self.successResultOf(opening)
        ids = [opened.unique_id() for _ in range(3)]
        self.assertEqual(len(set(ids)), 3)
        self.assertEqual({session_of(one) for one in ids}, {opened.id})

    def test_opened_once(self) -> None:
        """Operations that begin together share one session."""
        both = [self.begin(self.session.opened()) for _ in range(2)]
        self.world.advance(0.2)
        first, second = (self.successResultOf(one) for one in both)
        self.assertIs(first, second)

    def test_kept(self) -> None:
        """It is renewed well before its lease ends, and a missed renewal does not matter."""
        self.opened()
        self.world.advance(LEASE_SECONDS)
        self.assertGreaterEqual(len(self.head.asked("keep_session")), 2)
        self.head.kill()
        self.world.advance(LEASE_SECONDS / 2)
        self.head.start()
        self.world.advance(LEASE_SECONDS / 2)
        self.assertEqual(self.opened(), 1)

    def test_tells_what_ended(self) -> None:
        """With each renewal the heads hear that all uploads before the first open one ended."""
        opening = self.begin(self.session.opened())
        self.world.advance(0.2)
        session = self.successResultOf(opening)
        first, second = session.begin_upload(), session.begin_upload()
        session.unique_id()
        said = []
        for ended in (second, first):
            session.end_upload(ended)
            self.world.advance(LEASE_SECONDS / 2)
            said.append(self.head.asked("keep_session")[-1].keep_session.ended_below)
        self.assertEqual(said, [1, 4])

    def test_ended(self) -> None:
        """When the head does not know it any more, the next operation opens another."""
        for error in (OutcomeUnknown("it has ended"), InvalidRequest("it is not open")):
            before = self.opened()
            self.head.script["keep_session"] = in_turn(error)
            self.world.advance(LEASE_SECONDS / 2)
            self.assertEqual(self.opened(), before + 1)

    def test_ended_under_a_change(self) -> None:
        """A change of a session that has ended is not tried in another one (S10)."""
        self.head.script["make_folder"] = in_turn(OutcomeUnknown("the session has ended"), NODE)
        answer = self.make()
        self.world.advance(0.2)
        self.failureResultOf(answer, OutcomeUnknown)
        self.assertEqual(self.opened(), 2)

    def test_after_a_sleep(self) -> None:
        """A machine that slept past the lease asks first whether the session still lives."""
        self.opened()
        self.head.script["keep_session"] = in_turn(OutcomeUnknown("it has ended"))
        self.head.script["make_folder"] = in_turn(NODE)
        self.world.clock.rightNow += 2 * LEASE_SECONDS
        answer = self.make()
        self.world.advance(1)
        self.assertEqual(self.successResultOf(answer), NODE)
        self.assertEqual([call.once.session for call in self.head.asked("make_folder")], [2])

    def test_closed(self) -> None:
        """Closing ends it at the head; where no head answers, closing does not wait long."""
        self.opened()
        closing = self.begin(self.session.close())
        self.world.advance(0.1)
        self.successResultOf(closing)
        self.assertEqual([call.once.session for call in self.head.asked("close_session")], [1])

    def test_closed_without_head(self) -> None:
        """Closing does not wait long for a head that does not answer."""
        self.opened()
        self.head.script["close_session"] = in_turn(None)
        closing = self.begin(self.session.close())
        self.world.advance(2.5)
        self.successResultOf(closing)
