"""Whole clusters under faults, from seeds: what they promise, and that the checkers would see."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.bully import Bully
from filegrid.election.events import Claim, Suspect
from filegrid.election.messages import Rank
from filegrid.election.table import State
from tests.election import mutants
from tests.election.cluster import CALM, LEASE_SECONDS, Cluster, Node, newest_membership
from tests.election.promises import Broken
from tests.election.storm import ELECTED_WITHIN_SECONDS, endure

STORMS = 100
MOST_STORMS = 400
"""By then a planted fault has been seen several times over."""


class StormTests(SynchronousTestCase):
    """Losses, delays, repetitions, cuts, pauses, crashes, wiped disks, verdicts, uneven clocks."""

    def endure(self, size: int) -> None:
        clusters = [endure(seed, size) for seed in range(STORMS)]
        self.assertGreater(sum(c.promises.elections for c in clusters), 3 * STORMS)
        self.assertGreater(max(c.promises.commits_longest for c in clusters), 40)

    def test_three(self) -> None:
        """Three members keep every promise, and the highest is elected in the calm."""
        self.endure(3)

    def test_five(self) -> None:
        """So do five."""
        self.endure(5)


class MutantTests(SynchronousTestCase):
    """Each rule is there for a reason: without it some storm breaks a promise."""

    def assert_breaks(self, mutant: type[Bully], promise: str) -> None:
        for seed in range(MOST_STORMS):
            try:
                endure(seed, 3 if seed % 2 else 5, mutant)
            except Broken as broken:
                if promise in str(broken):
                    return
            except AssertionError:
                continue  # the machine saw it itself
        self.fail(f"no storm breaks {mutant.__name__}")

    def test_votes_before_storing(self) -> None:
        """A vote that is sent too early is one that a crash may undo."""
        self.assert_breaks(mutants.VotesBeforeStoring, "is said before it is stored")

    def test_ignores_logs(self) -> None:
        """A vote for a log that lacks a part loses what was acknowledged."""
        self.assert_breaks(mutants.IgnoresLogs, "lacks what epoch")

    def test_counts_from_receipt(self) -> None:
        """A leader that counts from the receipt of a grant serves beside the next one (S5)."""
        self.assert_breaks(mutants.CountsFromReceipt, "two serve at once")

    def test_votes_against_grants(self) -> None:
        """A vote while a grant runs elects a second leader (S5)."""
        self.assert_breaks(mutants.VotesAgainstGrants, "two serve at once")

    def test_votes_after_start(self) -> None:
        """So does one just after a start, when grants were forgotten (S5)."""
        self.assert_breaks(mutants.VotesAfterStart, "two serve at once")

    def test_trusts_clocks(self) -> None:
        """So does abstaining only as long as the leader counts, on a faster clock (S5)."""
        self.assert_breaks(mutants.TrustsClocks, "two serve at once")

    def test_counts_halves(self) -> None:
        """Less than a majority elects two in one epoch."""
        self.assert_breaks(mutants.CountsHalves, "two are elected")

    def test_serves_without_lease(self) -> None:
        """A leader that does not look at its lease serves beside the next one (S5)."""
        self.assert_breaks(mutants.ServesWithoutLease, "two serve at once")


class CalmTests(SynchronousTestCase):
    """One fault at a time, in good weather."""

    def cluster(self, size: int = 3) -> tuple[Cluster, Node]:
        """One with a leader, and its leader."""
        cluster = Cluster(5, size)
        cluster.weather = replace(CALM, busy=0.0)
        cluster.run(8 * LEASE_SECONDS)
        leader = cluster.serving()
        assert leader is not None
        return cluster, leader

    def others(self, cluster: Cluster, leader: Node) -> list[Node]:
        """The lowest first."""
        nodes = [node for node in cluster.nodes if node is not leader]
        return sorted(nodes, key=lambda n: Rank(n.bully.log, n.priority, n.member.name))

    def cut(self, cluster: Cluster, node: Node, *, hears: bool) -> None:
        for other in cluster.nodes:
            here, there = node.member.name, other.member.name
            cluster.cut |= {(here, there)} if hears else {(here, there), (there, here)}

    def test_cut_off(self) -> None:
        """One that is cut off raises no epoch, not even its own, and returns to its leader (S6)."""
        cluster, leader = self.cluster()
        epoch = leader.bully.epoch
        cut_off = self.others(cluster, leader)[1]
        self.cut(cluster, cut_off, hears=False)
        cluster.run(20 * LEASE_SECONDS)
        self.assertEqual(cut_off.bully.epoch, epoch)
        cluster.cut.clear()
        cluster.run(2 * LEASE_SECONDS)
        self.assertIs(cluster.serving(), leader)
        self.assertEqual(cut_off.bully.leader, leader.member)
        self.assertEqual({node.bully.epoch for node in cluster.nodes}, {epoch})

    def test_highest_is_not_heard(self) -> None:
        """A highest member that hears but cannot be heard does not block the rest (S6)."""
        cluster, leader = self.cluster(5)
        highest = self.others(cluster, leader)[-1]
        self.cut(cluster, highest, hears=True)
        leader.crash()
        self.assertTrue(cluster.run(ELECTED_WITHIN_SECONDS, lambda: bool(cluster.serving())))
        self.assertIsNot(cluster.serving(), highest)

    def test_no_majority(self) -> None:
        """Two of three dead: nobody serves and no epoch rises; one comes back and all goes on."""
        cluster, leader = self.cluster()
        left, other = self.others(cluster, leader)
        epoch = leader.bully.epoch
        leader.crash()
        other.crash()
        cluster.run(20 * LEASE_SECONDS)
        self.assertIsNone(cluster.serving())
        self.assertEqual(left.bully.epoch, epoch)
        other.start()
        self.assertTrue(cluster.run(ELECTED_WITHIN_SECONDS, lambda: bool(cluster.serving())))

    def test_verdict(self) -> None:
        """A leader found unfit is followed by another at once, by hearing it itself."""
        cluster, leader = self.cluster()
        for node in cluster.nodes:
            node.handle(Suspect(leader.member, leader.bully.epoch))
        self.assertIsNone(cluster.serving())
        self.assertTrue(cluster.run(LEASE_SECONDS, lambda: bool(cluster.serving())))
        self.assertIsNot(cluster.serving(), leader)

    def test_verdict_not_heard(self) -> None:
        """One that does not hear the verdict is left by the rest as soon as its lease runs out."""
        cluster, leader = self.cluster()
        for node in self.others(cluster, leader):
            node.handle(Suspect(leader.member, leader.bully.epoch))
        cluster.run(ELECTED_WITHIN_SECONDS)
        found = cluster.serving()
        assert found is not None
        self.assertGreater(found.bully.epoch, 1)

    def test_preferred(self) -> None:
        """A preferred member that asks gets the lead within a third of a lease, without a loss."""
        cluster, leader = self.cluster()
        preferred = self.others(cluster, leader)[0]
        preferred.crash()
        preferred.priority = 9
        preferred.start()
        cluster.run(4 * LEASE_SECONDS)
        self.assertIs(cluster.serving(), leader)
        preferred.handle(Claim())
        self.assertTrue(cluster.run(1.0, lambda: cluster.serving() is None))
        self.assertTrue(cluster.run(LEASE_SECONDS / 3, lambda: bool(cluster.serving())))
        self.assertIs(cluster.serving(), preferred)

    def test_lost_before_all_have_heard(self) -> None:
        """A member gives the vote that it got just before the leader was lost for good."""
        cluster, leader = self.cluster()
        wiped, other = self.others(cluster, leader)
        wiped.wipe()
        wiped.start()

        def has_vote() -> bool:
            return wiped.member in newest_membership(leader.log).voters

        self.assertTrue(cluster.run(8 * LEASE_SECONDS, has_vote))
        self.cut(cluster, leader, hears=True)
        cluster.cut.discard((leader.member.name, other.member.name))
        self.assertTrue(
            cluster.run(1.0, lambda: newest_membership(other.log) == newest_membership(leader.log))
        )
        leader.crash()
        self.assertIs(wiped.bully.state, State.PASSIVE)
        self.assertTrue(cluster.run(ELECTED_WITHIN_SECONDS, lambda: bool(cluster.serving())))
        self.assertIs(cluster.serving(), other)

    def test_handover_fails(self) -> None:
        """Where the target of a handover is gone the others elect one of themselves again."""
        cluster, leader = self.cluster()
        target = self.others(cluster, leader)[1]
        leader.later(0, lambda: leader.hand_over(target.member))
        target.crash()
        cluster.run(0.01)
        self.assertIsNone(cluster.serving())
        self.assertTrue(cluster.run(ELECTED_WITHIN_SECONDS, lambda: bool(cluster.serving())))
