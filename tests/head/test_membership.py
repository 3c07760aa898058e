"""Which heads are to vote: steps of one, and none that nobody could take back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.quorum import Member, Membership
from filegrid.errors import InvalidRequest
from filegrid.head.membership import MOST_HEADS, heir, next_voters
from filegrid.protocol.wire import values_pb2 as wire
from tests.head.entries import NamespaceTestCase

A, B, C, D = (Member(name, b"1") for name in "abcd")
ANEW = Member("c", b"2")
NAMES = st.sampled_from("abcdef")
MEMBERS = st.builds(Member, NAMES, st.sampled_from([b"1", b"2"]))


def one_of_each(members: list[Member]) -> frozenset[Member]:
    return frozenset({one.name: one for one in members}.values())


class Steps(SynchronousTestCase):
    def step(
        self,
        *present: Member,
        voters: tuple[Member, ...] = (A, B, C),
        removed: str = "",
        ready: tuple[Member, ...] = (A, B, C, D, ANEW),
    ) -> frozenset[Member] | None:
        """What A, which leads, proposes next."""
        return next_voters(
            frozenset(voters), me=A, present=present, removed=removed, ready=lambda m: m in ready
        )

    def test_nothing_to_do(self) -> None:
        """Where all is as it should be nothing is changed, whoever is away."""
        self.assertIsNone(self.step(B, C))
        self.assertIsNone(self.step())

    def test_added(self) -> None:
        """One that has come gets a vote once it has caught up."""
        self.assertIsNone(self.step(B, C, D, ready=()))
        self.assertEqual(self.step(B, C, D), {A, B, C, D})

    def test_not_beside_a_dead_one(self) -> None:
        """None is added while one that votes is away: that one comes back or is removed first."""
        self.assertIsNone(self.step(B, D))
        self.assertEqual(self.step(B, D, removed="c"), {A, B})
        self.assertEqual(self.step(B, D, voters=(A, B), removed="c"), {A, B, D})

    def test_removed(self) -> None:
        """One that is removed loses its vote, also where it is dead; it does not get it back."""
        self.assertEqual(self.step(B, C, removed="c"), {A, B})
        self.assertEqual(self.step(B, removed="c"), {A, B})
        self.assertIsNone(self.step(B, C, voters=(A, B), removed="c"))

    def test_needed(self) -> None:
        """It keeps its vote where those that are left could not decide."""
        self.assertIsNone(self.step(C, removed="c"))
        self.assertIsNone(self.step(C, voters=(A, C, D), removed="c"))

    def test_replaced(self) -> None:
        """One comes before another goes, so that there are never fewer than there were."""
        self.assertEqual(self.step(B, C, D, removed="b"), {A, B, C, D})
        self.assertEqual(self.step(B, C, D, voters=(A, B, C, D), removed="b"), {A, C, D})

    def test_wiped(self) -> None:
        """One that lost its disk loses its old vote first (S2)."""
        self.assertEqual(self.step(B, ANEW), {A, B})
        self.assertEqual(self.step(B, ANEW, voters=(A, B)), {A, B, ANEW})

    def test_leader(self) -> None:
        """The leader never takes its own vote: it lets another one lead, the one with most."""
        self.assertIsNone(self.step(B, C, removed="a"))

        def chosen(*present: Member, removed: str) -> Member | None:
            return heir(
                frozenset({A, B, C}),
                me=A,
                present=present,
                removed=removed,
                matched=lambda one: {B: 7, C: 9, D: 99}[one],
            )

        self.assertEqual(chosen(B, C, D, removed="a"), C)
        self.assertEqual(chosen(B, C, D, removed="ac"), B)
        self.assertIsNone(chosen(B, C, D, removed="b"))
        self.assertIsNone(chosen(D, removed="a"))

    @given(
        st.lists(MEMBERS, min_size=1, max_size=6).map(one_of_each),
        st.lists(MEMBERS, max_size=6).map(one_of_each),
        st.sets(NAMES),
        st.sets(MEMBERS),
    )
    def test_laws(
        self,
        voters: frozenset[Member],
        present: frozenset[Member],
        removed: set[str],
        ready: set[Member],
    ) -> None:
        """Whatever there is: a step is of one voter, its majority meets the old one's, the leader
        stays, and nobody comes in who is not ready or was removed."""
        me = min(voters)
        others = present - {me}
        following = next_voters(
            voters, me=me, present=others, removed=removed, ready=lambda one: one in ready
        )
        if following is None:
            return
        self.assertEqual(len(voters ^ following), 1)
        sizes = Membership(voters).majority + Membership(following).majority
        self.assertGreater(sizes, len(voters | following))
        for one in following - voters:
            self.assertIn(one, ready & others)
            self.assertNotIn(one.name, removed)
        if not any(one.name == me.name for one in others):
            self.assertIn(me, following)


class Logged(NamespaceTestCase):
    def wanted(self) -> dict[str, bool]:
        return {one.name: one.wanted for one in self.grid.namespace.heads()}

    def configure(self, *names: str) -> None:
        from filegrid.protocol.wire import journal_pb2 as journal

        voters = [journal.Voter(name=name, incarnation=b"1") for name in names]
        self.grid.does(configure=journal.Configure(voters=voters))

    def test_added_and_removed(self) -> None:
        """What was said last of a head holds."""
        self.configure("a", "b")
        self.grid.does(add_head=wire.AddHead(name="c", address="c:1"))
        self.grid.does(remove_head=wire.RemoveHead(name="b"))
        self.grid.does(remove_head=wire.RemoveHead(name="c"))
        self.assertEqual(self.wanted(), {"b": False, "c": False})
        self.grid.does(add_head=wire.AddHead(name="b", address="b:1"))
        self.assertEqual(self.wanted(), {"b": True, "c": False})

    def test_refused(self) -> None:
        """The last head that votes is not removed, nor one that is not there; nor are there too
        many."""
        self.configure("a", "b")
        self.refused(self.grid.does(remove_head=wire.RemoveHead(name="x")), InvalidRequest, "x")
        self.grid.does(remove_head=wire.RemoveHead(name="b"))
        self.refused(self.grid.does(remove_head=wire.RemoveHead(name="a")), InvalidRequest, "a")
        for number in range(MOST_HEADS - 2):
            self.grid.does(add_head=wire.AddHead(name=f"n{number}", address="n:1"))
        outcome = self.grid.does(add_head=wire.AddHead(name="z", address="z:1"))
        self.refused(outcome, InvalidRequest, "z")

    def test_older_state(self) -> None:
        """A state of the release before is brought up to date when it is opened."""
        from filegrid.head.schema import SCHEMA_VERSION, open_schema

        database = self.grid.database
        database.execute("DROP TABLE heads")
        database.execute("ALTER TABLE sessions DROP COLUMN ended_below")
        database.execute("PRAGMA user_version = 3")
        open_schema(database)
        self.assertEqual(database.execute("PRAGMA user_version").fetchone(), (SCHEMA_VERSION,))
        self.assertEqual(self.wanted(), {})
        self.assertTrue(self.grid.namespace.may_be_published(self.grid.new_id()))
