"""Suspicion: who is believed, what is enough, and how a server comes back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.suspicion import (
    APART_SECONDS,
    DAMAGED_CHUNKS,
    FIRST_HOLD_SECONDS,
    WINDOW_SECONDS,
    Suspicion,
)

SERVERS = ["a", "b", "c", "d", "e"]


class Judging(SynchronousTestCase):
    def setUp(self) -> None:
        self.suspicion = Suspicion()

    def found(self, now: float) -> list[str]:
        return self.suspicion.judge(now, SERVERS)[0]

    def test_two_reporters(self) -> None:
        """One report is not enough, two of different reporters are; the reason names them."""
        self.suspicion.report("a", "ann", "no answer within 5 s", 0.0)
        self.assertEqual(self.found(0.1), [])
        self.suspicion.report("a", "bob", "no answer within 5 s", 0.2)
        self.assertEqual(self.found(0.3), ["a"])
        self.assertEqual(self.found(0.4), [])
        self.assertEqual(self.suspicion.reason("a"), "ann and bob report: no answer within 5 s")
        self.assertEqual(self.suspicion.reason("b"), "")

    def test_one_reporter(self) -> None:
        """One reporter is enough when it happens again, not when much fails at once."""
        for _ in range(9):
            self.suspicion.report("a", "ann", "failed", 0.0)
        self.assertEqual(self.found(0.1), [])
        self.suspicion.report("a", "ann", "failed", APART_SECONDS)
        self.assertEqual(self.found(APART_SECONDS), ["a"])

    def test_old_reports(self) -> None:
        """What lies far apart is chance."""
        self.suspicion.report("a", "ann", "failed", 0.0)
        self.suspicion.report("a", "bob", "failed", WINDOW_SECONDS + 1)
        self.assertEqual(self.found(WINDOW_SECONDS + 1), [])

    def test_bad_witness(self) -> None:
        """Who reports more than half of all servers has a problem of its own."""
        for name in SERVERS[:3]:
            self.suspicion.report(name, "ann", "failed", 0.0)
            self.suspicion.report(name, "ann", "failed", 5.0)
        self.assertEqual(self.found(5.0), [])
        self.suspicion.report("a", "bob", "failed", 5.0)
        self.suspicion.report("a", "cid", "failed", 5.0)
        self.assertEqual(self.found(5.0), ["a"])

    def test_comes_back(self) -> None:
        """After a time without reports it is trusted again; the next time that takes longer."""
        now, holds = 0.0, []
        for _ in range(3):
            self.suspicion.report("a", "ann", "failed", now)
            self.suspicion.report("a", "bob", "failed", now)
            self.assertEqual(self.found(now), ["a"])
            begun = now
            while self.suspicion.judge(now, SERVERS)[1] != ["a"]:
                now += 1
            holds.append(now - begun)
        self.assertEqual(holds, [FIRST_HOLD_SECONDS * factor for factor in (1, 2, 4)])

    def test_damage(self) -> None:
        """A server that finds much damage in its chunks is suspect; one damaged chunk is age."""
        self.suspicion.damaged("a", DAMAGED_CHUNKS - 1, 0.0)
        self.assertEqual(self.found(0.0), [])
        self.suspicion.damaged("a", 1, 100.0)
        self.assertEqual(self.found(100.0), ["a"])
        self.assertIn("damaged chunks", self.suspicion.reason("a"))

    @settings(max_examples=100, deadline=None, database=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(SERVERS), st.sampled_from("xyz"), st.floats(0, 30), st.booleans()
            )
        )
    )
    def test_never_most(self, events: list[tuple[str, str, float, bool]]) -> None:
        """Whatever is reported, no more than half are suspect, and in the end nobody is."""
        suspicion, now = Suspicion(), 0.0
        for name, reporter, pause, damage in events:
            now += pause
            if damage:
                suspicion.damaged(name, 2, now)
            else:
                suspicion.report(name, reporter, "failed", now)
            suspicion.judge(now, SERVERS)
            suspects = sum(bool(suspicion.reason(one)) for one in SERVERS)
            self.assertLessEqual(2 * suspects, len(SERVERS))
        suspicion.judge(now + 10_000, SERVERS)
        suspicion.judge(now + 20_000, SERVERS)
        self.assertFalse(any(suspicion.reason(one) for one in SERVERS))
