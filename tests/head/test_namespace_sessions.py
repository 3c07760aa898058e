"""Tests for sessions: each change once, and leases in log time."""

from __future__ import annotations

from twisted.trial import unittest

from filegrid.head.sessions import MOST_UNANSWERED, SESSION_LEASE_MS
from filegrid.model import SessionId, number_of
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from tests.head.entries import CHUNK_BYTES, Driver


class Once(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.grid = Driver()
        self.addCleanup(self.grid.database.close)

    def make(
        self, path: str, sequence: int, answered_below: int = 0, client: str = "ann"
    ) -> journal.Outcome:
        return self.grid.once(
            make_folder=wire.MakeFolder(path=path),
            sequence=sequence,
            answered_below=answered_below,
            client=client,
        )

    def assertFault(self, outcome: journal.Outcome, code: wire.ErrorCode.ValueType) -> None:
        self.assertEqual(outcome.fault.code, code, outcome)

    def test_again(self) -> None:
        """A change that comes again is not made again, and is answered as before (S10)."""
        first = self.make("/a", 7)
        self.grid.remove("/a")
        self.assertEqual(self.make("/a", 7), first)
        self.assertEqual(self.grid.names(), [])

    def test_fault_again(self) -> None:
        """A fault is an answer as well: it stays, though the change would work by now."""
        fault = self.make("/a/b", 7)
        self.assertFault(fault, wire.ERROR_CODE_NO_SUCH_PATH)
        self.make("/a", 8)
        self.assertEqual(self.make("/a/b", 7), fault)

    def test_publication_again(self) -> None:
        """The answer that is repeated does not bring the chunks in again."""
        first = self.grid.put("/f", self.grid.new_chunk())
        command = self.grid.log[-1].command
        again = self.grid.apply(command)
        self.assertEqual(again.node, first.node)
        self.assertEqual(list(again.published), [])

    def test_answered(self) -> None:
        """An answer is kept until the client has it; later the change is not made anew."""
        self.make("/a", 1)
        self.make("/b", 2, answered_below=2)
        self.grid.remove("/a")
        self.assertFault(self.make("/a", 1), wire.ERROR_CODE_OUTCOME_UNKNOWN)
        self.assertEqual(self.grid.names(), ["/b"])
        self.assertEqual(self.make("/b", 2).node.path, "/b")

    def test_answered_above_itself(self) -> None:
        """A change cannot have been answered before it was made."""
        first = self.make("/a", 5, answered_below=2**64 - 1)
        self.assertEqual(self.make("/a", 5), first)

    def test_bounded(self) -> None:
        """A client that never takes its answers is refused before they pile up."""
        outcome = self.make("/a", MOST_UNANSWERED + 1)
        self.assertFault(outcome, wire.ERROR_CODE_INVALID_REQUEST)
        outcome = self.make("/a", 2**64 - 1, answered_below=2**64 - 1)
        self.assertFault(outcome, wire.ERROR_CODE_INVALID_REQUEST)
        self.make("/a", MOST_UNANSWERED + 1, answered_below=1)
        self.assertEqual(self.grid.names(), ["/a"])

    def test_unknown_session(self) -> None:
        """A change of a session that is not alive is never made (S10)."""
        for session in (self.grid.session + 1, 2**64 - 1):
            outcome = self.grid.once(session=session, make_folder=wire.MakeFolder(path="/a"))
            self.assertFault(outcome, wire.ERROR_CODE_OUTCOME_UNKNOWN)
        outcome = self.grid.once(session=0, make_folder=wire.MakeFolder(path="/a"))
        self.assertFault(outcome, wire.ERROR_CODE_INVALID_REQUEST)
        self.assertEqual(self.grid.names(), [])

    def test_of_another_client(self) -> None:
        """A session serves nobody but the client that opened it."""
        outcome = self.make("/a", 1, client="bob")
        self.assertFault(outcome, wire.ERROR_CODE_NOT_PERMITTED)
        self.assertEqual(self.make("/a", 1).node.path, "/a")


class Leases(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.grid = Driver()
        self.addCleanup(self.grid.database.close)

    def expire(self) -> int:
        command = journal.ExpireSessions(sessions=[self.grid.session, 2**64 - 1])
        return self.grid.does(expire_sessions=command).count

    def test_ids(self) -> None:
        """Session ids carry the lineage, are never given out twice, and are known when dead."""
        second = self.grid.open_session()
        self.assertEqual(self.grid.session, 1 << 48 | 1)
        self.assertEqual(second, 1 << 48 | 2)
        self.grid.once(close_session=wire.CloseSession())
        namespace = self.grid.namespace
        self.assertIsNone(namespace.session(self.grid.session))
        self.assertTrue(namespace.session_was_opened(SessionId(self.grid.session)))
        for never in (second + 1, 2 << 48 | 1, 1 << 48):
            self.assertFalse(namespace.session_was_opened(SessionId(never)))
        self.assertEqual(self.grid.open_session(), 1 << 48 | 3)

    def test_expires(self) -> None:
        """A session ends when its lease has run out in log time, and the log says so (S9)."""
        self.grid.now_ms = SESSION_LEASE_MS
        self.assertEqual(self.grid.namespace.sessions_due(SESSION_LEASE_MS), [])
        self.assertEqual(self.expire(), 0)
        self.grid.now_ms += 1
        due = self.grid.namespace.sessions_due(self.grid.now_ms)
        self.assertEqual(due, [self.grid.session])
        self.assertEqual(self.grid.make("/a").node.path, "/a")
        self.assertEqual(self.expire(), 1)
        outcome = self.grid.make("/b")
        self.assertEqual(outcome.fault.code, wire.ERROR_CODE_OUTCOME_UNKNOWN)
        self.assertEqual([line for line in self.grid.dump() if '"results"' in line], [])

    def test_renewed(self) -> None:
        """A session that was renewed meanwhile is not ended, though the command says so."""
        self.grid.now_ms = SESSION_LEASE_MS + 1
        keep = journal.KeepSessions(sessions=[self.grid.session, 2**64 - 1, 5])
        self.assertEqual(self.grid.does(keep_sessions=keep).count, 1)
        self.assertEqual(self.expire(), 0)
        self.assertIsNotNone(self.grid.namespace.session(self.grid.session))

    def test_log_time_never_goes_back(self) -> None:
        """An entry with an earlier log time does not turn the time back."""
        self.grid.now_ms = 100
        self.grid.open_session()
        self.grid.now_ms = 50
        session = self.grid.open_session()
        found = self.grid.namespace.session(session)
        assert found is not None
        self.assertEqual(found.renewed_ms, 100)

    def test_collected_chunks_are_forgotten(self) -> None:
        """What is remembered of collected chunks goes with the session that made them (S14)."""
        one = self.grid.new_chunk()
        self.grid.put("/f", one)
        self.grid.remove("/f", now=True)
        self.grid.purge()
        self.grid.does(forget_released=journal.ForgetReleased(chunk_ids=[one.id]))
        self.assertIn('"released"', "".join(self.grid.dump()))
        self.grid.once(close_session=wire.CloseSession())
        self.assertFalse([line for line in self.grid.dump() if 'INTO "released"' in line])

    def end_below(self, number: int) -> None:
        keep = journal.KeepSessions(sessions=[self.grid.session], ended_below=[number])
        self.assertEqual(self.grid.does(keep_sessions=keep).count, 1)

    def test_uploads_ended(self) -> None:
        """What a client said to publish no more is refused, and known to be nobody's, for good."""
        early, late = self.grid.new_chunk(), self.grid.new_chunk()
        ended, opened = self.grid.new_id(), self.grid.new_id()
        self.end_below(number_of(opened))
        self.end_below(0)
        namespace = self.grid.namespace
        self.assertFalse(namespace.may_be_published(early.id))
        self.assertTrue(namespace.may_be_published(opened))
        of_ended = self.grid.put("/f", content_id=ended)
        with_ended = self.grid.put("/f", late, content_id=opened)
        for outcome in (of_ended, with_ended):
            self.assertEqual(outcome.fault.code, wire.ERROR_CODE_INVALID_REQUEST)
        went_on = self.grid.put("/f", self.grid.new_chunk(), content_id=opened)
        self.assertEqual(went_on.node.size, CHUNK_BYTES)

    def test_uploads_ended_in_part(self) -> None:
        """What was staged of an upload that has ended is dropped, that of a later one stays; and
        nothing is remembered any more of collected chunks that it could have named again."""
        kept = []
        for chunk in (self.grid.new_chunk(), self.grid.new_chunk()):
            kept.append(self.grid.new_id())
            stage = wire.StageChunks(content_id=kept[-1], chunks=[chunk.to_wire()])
            self.grid.once(stage_chunks=stage)
        one = self.grid.new_chunk()
        self.grid.put("/f", one)
        self.grid.remove("/f", now=True)
        self.grid.purge()
        self.grid.does(forget_released=journal.ForgetReleased(chunk_ids=[one.id]))
        self.end_below(number_of(kept[1]))
        staged = [line for line in self.grid.dump() if 'INTO "staged"' in line]
        self.assertEqual((len(staged), kept[1].hex().upper() in staged[0]), (1, True))
        self.assertIn('INTO "released"', "".join(self.grid.dump()))
        self.end_below(number_of(one.id) + 1)
        self.assertNotIn('INTO "released"', "".join(self.grid.dump()))
        self.assertNotIn('INTO "staged"', "".join(self.grid.dump()))

    def test_collected_after_the_session(self) -> None:
        """Chunks of a session that has ended are forgotten when they are collected."""
        one = self.grid.new_chunk()
        self.grid.put("/f", one)
        self.grid.remove("/f", now=True)
        self.grid.purge()
        self.grid.once(close_session=wire.CloseSession())
        self.assertIsNotNone(self.grid.namespace.chunk(one.id))
        self.grid.does(forget_released=journal.ForgetReleased(chunk_ids=[one.id]))
        self.assertFalse([line for line in self.grid.dump() if 'INTO "released"' in line])
