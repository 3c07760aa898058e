"""One health node's opinion on the leader."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.opinion import Opinion
from filegrid.election.quorum import Member
from filegrid.health.judgement import SETTLE_SECONDS, Answer, Judge

TURN = 0.2
SILENT = 0.7
STUCK = 3.0

A, B, C = (Member(f"head-{number}", b"i") for number in (1, 2, 3))


class Heads:
    """Three heads under A, as a judge hears them; each answers at every turn unless told."""

    def __init__(self, heads: int = 3) -> None:
        self.now = 100.0
        self.judge = Judge(
            heads,
            silent_seconds=SILENT,
            stuck_seconds=STUCK,
            most_gap_seconds=2 * TURN,
            now=self.now,
        )
        self.answers = {
            member: Answer(
                member=member, leader=A, epoch=5, serves=member == A, last_index=7, applied_index=7
            )
            for member in (A, B, C)[:heads]
        }

    def change(self, member: Member, **fields: object) -> None:
        self.answers[member] = replace(self.answers[member], **fields)  # type: ignore[arg-type]

    def turns(self, count: int, silent: tuple[Member, ...] = ()) -> Opinion | None:
        """What the judge says after so many turns."""
        opinion = None
        for _ in range(count):
            self.now += TURN
            opinion = self.judge.judge(self.now)
            for member, answer in self.answers.items():
                if member not in silent:
                    self.judge.heard(answer)
        return opinion


class JudgeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.heads = Heads()
        self.heads.turns(30)

    def assertFit(self, opinion: Opinion | None) -> None:
        self.assertEqual(opinion, Opinion(leader=A, epoch=5))

    def assertUnfit(self, opinion: Opinion | None, why: str) -> None:
        assert opinion is not None
        self.assertEqual(opinion.reign, (A, 5))
        self.assertIn(why, opinion.evidence)


class Silence(JudgeCase):
    def test_well(self) -> None:
        """A leader that answers and has nothing to do is fit for as long as it likes."""
        self.assertFit(self.heads.turns(100))

    def test_lost_probe(self) -> None:
        """One lost probe is nothing, nor are two, nor many with answers between them."""
        self.assertFit(self.heads.turns(2, silent=(A,)))
        for _ in range(20):
            self.assertFit(self.heads.turns(1))
            self.assertFit(self.heads.turns(2, silent=(A,)))

    def test_silent(self) -> None:
        """A leader that answers nothing for the time of three probes is unfit, until it does."""
        self.assertUnfit(self.heads.turns(4, silent=(A,)), "no answer for 0.")
        self.heads.turns(1)
        self.assertFit(self.heads.turns(1))

    def test_standby(self) -> None:
        """A silent standby is nobody's business."""
        self.assertFit(self.heads.turns(20, silent=(B,)))

    def test_cut_off(self) -> None:
        """A judge that hears of no majority besides the leader has no opinion."""
        self.assertIsNone(self.heads.turns(10, silent=(A, B, C)))
        self.heads.turns(10)
        self.assertIsNone(self.heads.turns(10, silent=(A, B)))

    def test_only_head(self) -> None:
        """A grid with one head keeps it, whatever it does: nobody could do better."""
        alone = Heads(1)
        alone.turns(30)
        self.assertIsNone(alone.turns(30, silent=(A,)))
        alone.change(A, disk_waits_seconds=60.0)
        self.assertIsNone(alone.turns(30))

    def test_judge_was_paused(self) -> None:
        """Time in which the judge did not run counts against nobody (S18)."""
        self.heads.now += 3600
        self.assertFit(self.heads.turns(1))
        self.assertFit(self.heads.turns(10))

    def test_judge_started(self) -> None:
        """A judge that just started gives links their time to come up."""
        heads = Heads()
        turns = round(SETTLE_SECONDS / TURN)
        self.assertFit(heads.turns(turns, silent=(A,)))
        self.assertUnfit(heads.turns(5, silent=(A,)), "no answer")

    def test_another_leads(self) -> None:
        """Of a new leader nothing that was before its time is held against it."""
        self.heads.turns(10, silent=(B,))
        for member in (A, C):
            self.heads.change(member, leader=B, epoch=6, serves=False)
        opinion = self.heads.turns(3, silent=(B,))
        self.assertEqual(opinion, Opinion(leader=B, epoch=6))
        opinion = self.heads.turns(3, silent=(B,))
        assert opinion is not None
        self.assertIn("no answer", opinion.evidence)

    def test_older_epoch(self) -> None:
        """What a head that lags behind says of an older leader is nothing."""
        self.heads.change(B, leader=C, epoch=4)
        self.assertFit(self.heads.turns(10))
        self.assertUnfit(self.heads.turns(5, silent=(A,)), "no answer")


class Usefulness(JudgeCase):
    def test_disk(self) -> None:
        """A leader whose disk does not answer is unfit, though it answers itself."""
        self.heads.change(A, disk_waits_seconds=STUCK - 0.1)
        self.assertFit(self.heads.turns(2))
        self.heads.change(A, disk_waits_seconds=STUCK)
        self.assertUnfit(self.heads.turns(2), "a write to its log has not ended after 3.0 s")

    def test_all_disks(self) -> None:
        """Where the others' disks hang as well, as on one machine, nobody could do better."""
        for member in (A, B, C):
            self.heads.change(member, disk_waits_seconds=STUCK - 1)
        self.heads.turns(2)
        self.heads.change(A, disk_waits_seconds=STUCK)
        self.assertIsNone(self.heads.turns(2))

    def test_stuck(self) -> None:
        """A leader that takes what it cannot commit is unfit after a while."""
        self.heads.change(A, last_index=9)
        self.assertFit(self.heads.turns(14))
        self.assertUnfit(self.heads.turns(3), "has not moved for 3.")

    def test_busy(self) -> None:
        """A leader that is never done, and gets on, is fit."""
        for number in range(50):
            self.heads.change(A, last_index=100 + number, applied_index=50 + number)
            self.assertFit(self.heads.turns(1))

    def test_idle_before(self) -> None:
        """The time before there was anything to do does not count."""
        self.heads.turns(1000)
        self.heads.change(A, last_index=8)
        self.assertFit(self.heads.turns(10))

    def test_serves_nothing(self) -> None:
        """A leader that holds no lease for long is unfit; one that still begins is not."""
        self.heads.change(A, serves=False)
        self.assertFit(self.heads.turns(14))
        self.assertUnfit(self.heads.turns(3), "served nothing for 3.")
        self.heads.change(A, applied_index=8, last_index=99)
        self.heads.turns(1)
        self.assertFit(self.heads.turns(10))

    def test_stepped_down(self) -> None:
        """One that says itself that it leads no more is not accused."""
        self.heads.change(A, leader=None, serves=False, disk_waits_seconds=9.0)
        self.assertFit(self.heads.turns(30))


class Anything(SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=60))
    @settings(max_examples=50, deadline=None, database=None)
    def test_heard_lately(self, steps: list[tuple[bool, float]]) -> None:
        """However the judge's own turns fall, one that answered at the last one is not silent."""
        heads = Heads()
        heads.turns(2)
        missed = 0
        for answers, seconds in steps:
            heads.now += seconds
            opinion = heads.judge.judge(heads.now)
            for member in (A, B, C) if answers else (B, C):
                heads.judge.heard(heads.answers[member])
            if missed == 0:
                self.assertEqual(opinion, Opinion(leader=A, epoch=5))
            missed = 0 if answers else missed + 1
