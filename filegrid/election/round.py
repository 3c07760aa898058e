"""One try of a member to be elected: who backs it, and who has answered at all."""

from __future__ import annotations

from filegrid.election.quorum import Member, Membership


class Round:
    """Questions to all voters, and the replies to them.

    :param epoch: what the member would lead, or asks votes for.
    :param closes_at: when there is no use in waiting longer for replies.
    :param insists: it has deferred once already and does so no more.
    """

    def __init__(self, me: Member, epoch: int, closes_at: float, *, insists: bool = False) -> None:
        self.epoch = epoch
        self.closes_at = closes_at
        self.insists = insists
        self._backers = {me}
        self._replied = {me}

    def missed(self, member: Member) -> None:
        """It cannot be reached: nothing is to be expected of it."""
        self._replied.add(member)

    def backed(self, member: Member) -> None:
        """It is for this member: would vote for it, or has."""
        self._replied.add(member)
        self._backers.add(member)

    def is_complete(self, membership: Membership) -> bool:
        """Nothing is to be learned by waiting."""
        return self.insists or membership.voters <= self._replied

    def is_carried(self, membership: Membership) -> bool:
        """A majority of all voters is for this member (S2)."""
        return membership.has_majority(self._backers)
