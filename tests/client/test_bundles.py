"""Changes that travel together."""

from __future__ import annotations

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.bundles import MOST_CHANGE_BYTES, MOST_TOGETHER
from filegrid.client.session import Session
from filegrid.errors import AlreadyExists, NotLeader, OutcomeUnknown, Unavailable, to_fault
from filegrid.model import Identity, Role
from filegrid.protocol.wire import head_pb2, values_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.protocol.wire.values_pb2 import Node
from tests.client.head import GRID_ID, ScriptedHead, World


class Together(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.head = ScriptedHead(self.world, "head-1")
        self.head.script["make_folder"] = self.make_folder
        self.head.script["change_many"] = self.change_many
        self.head.start()
        identity = Identity(GRID_ID, Role.CLIENT, "ann")
        self.session = Session(self.world.runtime(identity), identity, [self.head.address], 5.0)
        self.session.start()
        opening = Deferred.fromCoroutine(self.session.opened())
        self.world.advance(0.1)
        self.successResultOf(opening)

    def tearDown(self) -> None:
        closing = Deferred.fromCoroutine(self.session.close())
        self.world.advance(3)
        self.successResultOf(closing)

    def make_folder(self, request: Message) -> Message:
        assert isinstance(request, values_pb2.MakeFolder)
        return Node(path=request.path)

    def change_many(self, request: Message) -> Message:
        """Removes nothing, and makes every folder but those that end with an x."""
        assert isinstance(request, head_pb2.ChangeMany)
        answer = head_pb2.Changed()
        for one in request.changes:
            path = one.make_folder.path
            if one.HasField("remove"):
                answer.outcomes.add()
            elif path.endswith("x"):
                answer.outcomes.add(fault=to_fault(AlreadyExists("it is there", path)))
            else:
                answer.outcomes.add(node=Node(path=path))
        return answer

    def make(self, *paths: str) -> list[Deferred[Node]]:
        return [
            Deferred.fromCoroutine(self.session.change(values_pb2.MakeFolder(path=path), Node))
            for path in paths
        ]

    def bundles(self) -> list[head_pb2.ChangeMany]:
        return [call.change_many for call in self.head.asked("change_many")]

    def test_alone(self) -> None:
        """One change goes as it always did."""
        (made,) = self.make("/a")
        self.world.advance(0.1)
        self.assertEqual(self.successResultOf(made).path, "/a")
        (call,) = self.head.asked("make_folder")
        self.assertTrue(call.once.sequence)
        self.assertEqual(self.bundles(), [])

    def test_own_answers(self) -> None:
        """Each has an identity of its own, and gets its own answer."""
        made = self.make("/a", "/x", "/b")
        removed = Deferred.fromCoroutine(self.session.change(values_pb2.Remove(path="/r"), Done))
        self.world.advance(0.1)
        self.failureResultOf(made.pop(1), AlreadyExists)
        self.assertEqual([self.successResultOf(one).path for one in made], ["/a", "/b"])
        self.assertEqual(self.successResultOf(removed), Done())
        (bundle,) = self.bundles()
        self.assertEqual(len({one.once.sequence for one in bundle.changes}), 4)

    def test_bounded(self) -> None:
        """Neither many changes nor long ones make a long call."""
        long = "/" + "n" * MOST_CHANGE_BYTES
        made = self.make(*[f"/{number}" for number in range(MOST_TOGETHER + 2)], long)
        self.world.advance(0.1)
        for one in made:
            self.successResultOf(one)
        self.assertEqual([len(one.changes) for one in self.bundles()], [MOST_TOGETHER, 2])
        self.assertEqual(len(self.head.asked("make_folder")), 1)

    def test_refused(self) -> None:
        """Where the head takes none of them, they are sent again under the same numbers."""
        answers = [NotLeader("not now", "head-1")]

        def once_not(request: Message) -> Message:
            if answers:
                raise answers.pop()
            return self.change_many(request)

        self.head.script["change_many"] = once_not
        made = self.make("/a", "/b")
        self.world.advance(1)
        for one in made:
            self.successResultOf(one)
        numbers = [one.once.sequence for bundle in self.bundles() for one in bundle.changes]
        alone = [call.once.sequence for call in self.head.asked("make_folder")]
        first, again = numbers[:2], numbers[2:] + alone
        self.assertEqual(sorted(first), sorted(again))

    def test_doubt_of_one(self) -> None:
        """One whose outcome the head does not know is asked for again; the others are done."""
        doubts = [Unavailable("it may be in the log", "head-1")]

        def doubtful(request: Message) -> Message:
            answer = self.change_many(request)
            assert isinstance(answer, head_pb2.Changed)
            answer.outcomes[1].fault.CopyFrom(to_fault(doubts.pop()))
            return answer

        self.head.script["change_many"] = doubtful
        made = self.make("/a", "/b")
        self.world.advance(1)
        self.assertEqual([self.successResultOf(one).path for one in made], ["/a", "/b"])
        (bundle,), (call,) = self.bundles(), self.head.asked("make_folder")
        self.assertEqual(call.once.sequence, bundle.changes[1].once.sequence)

    def test_no_answer(self) -> None:
        """Where no answer comes, nobody knows of any of them whether it was made."""
        self.head.script["change_many"] = lambda request: None
        self.head.script["make_folder"] = lambda request: None
        made = self.make("/a", "/b")
        self.world.advance(8)
        for one in made:
            self.failureResultOf(one, OutcomeUnknown)

    def test_withdrawn(self) -> None:
        """One that is taken back before it was sent is not sent."""
        made = self.make("/a", "/b", "/c")
        made[0].cancel()
        self.world.advance(0.1)
        self.failureResultOf(made[0])
        self.assertEqual([self.successResultOf(one).path for one in made[1:]], ["/b", "/c"])
        self.assertEqual([len(one.changes) for one in self.bundles()], [2])
