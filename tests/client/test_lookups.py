"""Paths that are looked at together."""

from __future__ import annotations

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.lookups import MOST_TOGETHER, Lookups
from filegrid.client.session import Session
from filegrid.errors import GridError, NoSuchPath, Unavailable, to_fault
from filegrid.model import Identity, Role
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire.values_pb2 import Node
from tests.client.head import GRID_ID, ScriptedHead, World


def answer(path: str) -> Node | Exception:
    """Nothing has a path that ends with an x."""
    return NoSuchPath("no such file or folder", path) if path.endswith("x") else Node(path=path)


class Together(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.head = ScriptedHead(self.world, "head-1")
        self.head.script["stat"] = self.stat
        self.head.script["stat_many"] = self.stat_many
        self.head.start()
        identity = Identity(GRID_ID, Role.CLIENT, "ann")
        runtime = self.world.runtime(identity)
        self.session = Session(runtime, identity, [self.head.address], 5.0)
        self.session.start()
        self.lookups = Lookups(self.session)
        self.world.advance(0.1)

    def tearDown(self) -> None:
        closing = Deferred.fromCoroutine(self.session.close())
        self.world.advance(1)
        self.successResultOf(closing)

    def stat(self, request: Message) -> Message:
        assert isinstance(request, head_pb2.Stat)
        found = answer(request.path)
        if isinstance(found, NoSuchPath):
            raise found
        assert isinstance(found, Node)
        return found

    def stat_many(self, request: Message) -> Message:
        assert isinstance(request, head_pb2.StatMany)
        answers = head_pb2.Stats()
        for path in request.paths:
            found = answer(path)
            if isinstance(found, NoSuchPath):
                answers.found.add(fault=to_fault(found))
            else:
                assert isinstance(found, Node)
                answers.found.add(node=found)
        return answers

    def find(self, *paths: str) -> list[Deferred[Node]]:
        return [self.lookups.find(path) for path in paths]

    def sizes(self) -> list[int]:
        """How many paths each question had."""
        return [len(call.stat_many.paths) for call in self.head.asked("stat_many")]

    def test_alone(self) -> None:
        """One path goes by itself."""
        (found,) = self.find("/a")
        self.world.advance(0.1)
        (lost,) = self.find("/x")
        self.world.advance(0.1)
        self.assertEqual(self.successResultOf(found).path, "/a")
        self.failureResultOf(lost, NoSuchPath)
        self.assertEqual((len(self.head.asked("stat")), self.sizes()), (2, []))

    def test_one_question(self) -> None:
        """Those of one turn go together, and each gets its own answer."""
        found = self.find("/a", "/x", "/b", "/a")
        self.world.advance(0.1)
        self.failureResultOf(found.pop(1), NoSuchPath)
        paths = [self.successResultOf(one).path for one in found]
        self.assertEqual((paths, self.sizes()), (["/a", "/b", "/a"], [4]))

    def test_bounded(self) -> None:
        """No question has more paths than the head may look at in a turn."""
        paths = [f"/{number}" for number in range(2 * MOST_TOGETHER + 1)]
        found = self.find(*paths)
        self.world.advance(0.1)
        self.assertEqual([self.successResultOf(one).path for one in found], paths)
        self.assertEqual(self.sizes(), [MOST_TOGETHER] * 2)
        self.assertEqual(len(self.head.asked("stat")), 1)

    def test_withdrawn(self) -> None:
        """Whoever does not wait any more is not asked for, and keeps nobody from an answer."""
        early, late, found, other = self.find("/a", "/b", "/c", "/d")
        early.cancel()
        self.world.clock.advance(0)
        late.cancel()
        self.world.advance(0.1)
        for one in (early, late):
            self.failureResultOf(one)
        self.assertEqual(self.successResultOf(found).path, "/c")
        self.assertEqual(self.successResultOf(other).path, "/d")
        self.assertEqual(self.sizes(), [3])

    def test_no_head(self) -> None:
        """Where no head answers, all are told."""
        self.head.kill()
        found = self.find("/a", "/b")
        self.world.advance(6)
        for one in found:
            self.failureResultOf(one, Unavailable)


class AtTheHead(SynchronousTestCase):
    def test_as_one_by_one(self) -> None:
        """Many paths give what each of them gives, whatever is wrong with some."""
        from tests.head.entries import Driver

        grid = Driver()
        self.addCleanup(grid.database.close)
        grid.make("/d/e", parents=True)
        grid.put("/d/f", grid.new_chunk())
        grid.put("/d/e/f", grid.new_chunk())
        paths = ["/", "/d", "/d/", "/d/e/f", "/d/e/f/", "/d/f", "/d/f/x", "/d/x", "/x/y", "/x", "d"]
        paths += ["//", "/d/../d", "/d/f", "", "/d//f"]

        def one(path: str) -> object:
            try:
                return grid.namespace.stat(path)
            except GridError as error:
                return type(error), str(error)

        together = [
            (type(found), str(found)) if isinstance(found, Exception) else found
            for found in grid.namespace.stat_many(paths)
        ]
        self.assertEqual(together, [one(path) for path in paths])
