"""Which heads are to vote, and the next step towards that: a pure choice of the leader.

Heads come and go one at a time (S7), as in Raft's single-server change (Ongaro 2014, chapter 4).
Why two configurations never both decide:

- Each differs from the one before by one voter, so that a majority of the one and a majority of the
  other always share a member: two leaders of one epoch, or two different committed entries at one
  place of the log, would need the vote of that member twice.
- A head goes by the newest configuration in its log, committed or not; and a leader proposes the
  next only when the one before is committed. So of all that are in use at a time any two are equal
  or neighbours.
- It proposes one only after an entry of its own epoch is committed, its barrier (S4). Otherwise two
  leaders could each begin from the same old configuration and make changes of it that are no
  neighbours (the fault that Ongaro found in his own rule in 2015).
- A change that a dying leader left in some logs is committed by the next, or taken back with the
  rest of what nobody committed; what an operator asked for is in the state, and the next leader
  goes on with it.

A new head counts only once it has caught up; until then it is told what is committed, or its
empty log would stand in the way of every commit. A head that is to go is left in where the others
that can be reached could not decide without it. And a leader that is to go first lets another lead.

A new head gets its vote only while all that vote can be reached. Beside one of three that is dead
it would make four, of which all three that live must agree: more can go wrong than before it came.
So one that is dead is removed before another comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from filegrid.election.quorum import Member, Membership

MOST_HEADS = 9
"""Every change waits for a majority of them, and each talks to each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredHead:
    """What an operator said of a head; of those in everybody's configuration nothing need be said.

    :ivar address: HOST:PORT; empty of one that was only ever configured.
    :ivar wanted: false once it was removed.
    """

    name: str
    address: str
    wanted: bool


def next_voters(
    voters: frozenset[Member],
    *,
    me: Member,
    present: Collection[Member],
    removed: Collection[str],
    ready: Callable[[Member], bool],
) -> frozenset[Member] | None:
    """The configuration to propose now; None where nothing is to be changed, or not yet.

    :param me: the leader.
    :param present: the other heads that can be reached, in the incarnations that they have now.
    :param removed: names of heads that are to have no vote.
    :param ready: whether one lacks next to nothing of the log.
    """
    here = {*present, me}
    for member in sorted(present):
        before = next((one for one in voters if one.name == member.name), None)
        if before is not None and before != member:  # its disk was wiped (S2)
            return voters - {before}
    if voters <= here:
        for member in sorted(present):
            if member not in voters and member.name not in removed and ready(member):
                return voters | {member}
    for voter in sorted(voters - {me}):
        left = Membership(voters - {voter})
        if voter.name in removed and left.has_majority(here):
            return left.voters
    return None


def heir(
    voters: frozenset[Member],
    *,
    me: Member,
    present: Collection[Member],
    removed: Collection[str],
    matched: Callable[[Member], int],
) -> Member | None:
    """Who is to lead in the place of a leader that is to go; None where it may stay, or has to.

    :param matched: up to where one has the log.
    """
    if me.name not in removed:
        return None
    able = [one for one in present if one in voters and one.name not in removed]
    return max(able, key=lambda one: (matched(one), one.name), default=None)
