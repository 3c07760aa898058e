"""Liveness: silence, lost links, returns, and a judge that was itself stopped."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.liveness import Liveness, State


class JudgeCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.liveness = Liveness(suspect_seconds=2, dead_seconds=5, most_gap_seconds=1)
        self.liveness.joined("a", 0.0)
        self.liveness.judge(0.0)

    def judge(self, start: float, end: float) -> list[tuple[float, str]]:
        """Judge every half second, as the head does; who died when."""
        died = []
        now = start
        while now <= end:
            died += [(now, name) for name in self.liveness.judge(now)]
            now += 0.5
        return died


class Judging(JudgeCase):
    def test_silence(self) -> None:
        """A silent server is suspect after 2 s and dead after 5 s, once."""
        self.judge(0.5, 1.5)
        self.assertIs(self.liveness.state("a"), State.LIVE)
        self.judge(2.0, 2.0)
        self.assertIs(self.liveness.state("a"), State.SUSPECT)
        self.assertEqual(self.judge(2.5, 9.0), [(5.0, "a")])
        self.assertIs(self.liveness.state("a"), State.DEAD)

    def test_heard_again(self) -> None:
        """A suspect server that answers is live."""
        self.judge(0.5, 3.0)
        self.liveness.heard("a", 3.0)
        self.assertIs(self.liveness.state("a"), State.LIVE)
        self.assertEqual(self.judge(3.5, 7.5), [])

    def test_lost_link(self) -> None:
        """A server whose link is lost is suspect at once, and joins again before it counts."""
        self.liveness.link_lost("a")
        self.assertIs(self.liveness.state("a"), State.SUSPECT)
        self.liveness.heard("a", 0.5)  # an answer that crossed the loss
        self.assertIs(self.liveness.state("a"), State.SUSPECT)
        self.assertIs(self.liveness.joined("a", 1.0), State.SUSPECT)
        self.assertIs(self.liveness.state("a"), State.LIVE)

    def test_return_of_the_dead(self) -> None:
        """A dead server is told from a suspect one when it joins again."""
        self.judge(0.5, 6.0)
        self.assertIs(self.liveness.joined("a", 6.0), State.DEAD)
        self.assertIs(self.liveness.state("a"), State.LIVE)

    def test_stopped_judge(self) -> None:
        """Time in which the judge itself did not run counts against nobody (S18)."""
        self.judge(0.5, 1.0)
        self.assertEqual(self.liveness.judge(60.0), [])
        self.assertIs(self.liveness.state("a"), State.SUSPECT)
        self.assertEqual(self.judge(60.5, 62.0), [])
        self.assertEqual([name for _, name in self.judge(62.5, 64.5)], ["a"])

    def test_begun_anew(self) -> None:
        """A new judge gives every server as long to join as a silent one has."""
        self.liveness.begin(0.0, ["a", "b"])
        self.assertIs(self.liveness.state("b"), State.SUSPECT)
        self.liveness.joined("a", 0.0)
        self.assertEqual(self.judge(0.5, 4.5), [])
        self.liveness.heard("a", 4.5)
        self.assertEqual([name for _, name in self.judge(5.0, 6.0)], ["b"])


class Leaving(JudgeCase):
    def test_left_in_good_order(self) -> None:
        """A server that said that it stops is suspect at once, and dead when its time is over."""
        self.liveness.left("a", 30.0)
        self.assertIs(self.liveness.state("a"), State.SUSPECT)
        self.liveness.heard("a", 0.5)  # an answer that crossed the news
        self.assertIs(self.liveness.state("a"), State.SUSPECT)
        self.assertEqual(self.judge(0.5, 29.5), [])
        self.assertEqual(self.liveness.away_seconds("a", 29.5), 0.5)
        self.assertEqual(self.judge(30.0, 31.0), [(30.0, "a")])
        self.assertEqual(self.liveness.away_seconds("a", 31.0), 0)

    def test_return_in_time(self) -> None:
        """One that came back is judged like any other: a crash then is a crash."""
        self.liveness.left("a", 30.0)
        self.judge(0.5, 3.0)
        self.assertIs(self.liveness.joined("a", 3.0), State.SUSPECT)
        self.assertEqual(self.judge(3.5, 9.0), [(8.0, "a")])

    def test_new_judge(self) -> None:
        """A judge that begins anew still knows who left; nobody waits who was told not to."""
        self.liveness.left("a", 30.0)
        self.liveness.begin(1.0, ["a"])
        self.assertEqual(self.judge(1.5, 20.0), [])
        self.liveness.give_up(20.0)
        self.assertEqual(self.judge(20.5, 21.0), [(20.5, "a")])
