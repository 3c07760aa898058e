"""Whether the head that leads is fit to: judged by what the heads answer, or do not.

============ ====================================== ==================================
fit          while                                  unfit, after
============ ====================================== ==================================
it answers   a probe was answered lately            ``silent_seconds``
its disk     writes to its log end                  ``stuck_seconds``, of one write
its log      what it took is committed and applied  ``stuck_seconds`` without progress
it serves    it holds the lease                     as for its log
============ ====================================== ==================================

Time counts only while the judge itself ran (S18). And a leader is unfit only where the others
could do better: a majority of all heads without it answers, and their disks do. So a judge that
is cut off, or a machine on which everything is slow, moves nobody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from filegrid.election.opinion import Opinion
from filegrid.election.quorum import Member

SETTLE_SECONDS = 3.0
"""After the judge's own start nobody is found silent for so long: links come up one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a head said of itself.

    :param leader: who leads as far as it knows, in `epoch`.
    :param serves: it leads, and holds the lease.
    :param last_index: of its log; up to `applied_index` all is done.
    :param disk_waits_seconds: how long the oldest write to its log has not ended.
    :param voters: how many heads have a vote; 0: it does not say.
    :param has_vote: whether this one has.
    """

    member: Member
    leader: Member | None
    epoch: int
    serves: bool = False
    last_index: int = 0
    applied_index: int = 0
    disk_waits_seconds: float = 0.0
    voters: int = 0
    has_vote: bool = True


@dataclass(slots=True)
class _Head:
    answer: Answer
    heard_at: float
    moved_at: float
    """When its log was last seen to move, or to have nothing to do."""


class Judge:
    """One health node's opinion; all times in seconds in which the judge ran.

    :param heads: how many are configured.
    :param most_gap_seconds: between two judgements; above it the judge itself was stopped.
    """

    def __init__(
        self,
        heads: int,
        *,
        silent_seconds: float,
        stuck_seconds: float,
        most_gap_seconds: float,
        now: float,
    ) -> None:
        self._majority = heads // 2 + 1
        self._silent_seconds = silent_seconds
        self._stuck_seconds = stuck_seconds
        self._most_gap_seconds = most_gap_seconds
        self._judged_at = now
        self._ran = 0.0
        self._heads: dict[str, _Head] = {}
        self._reign: tuple[Member, int] | None = None
        self._reign_at = 0.0

    @property
    def reign(self) -> tuple[Member, int] | None:
        """The last leader that a head spoke of, and its epoch."""
        return self._reign

    def heard(self, answer: Answer) -> None:
        """A head has answered a probe."""
        name = answer.member.name
        if answer.serves and answer.voters:
            self._majority = answer.voters // 2 + 1  # heads were added or removed
        before = self._heads.get(name)
        idle = answer.serves and answer.last_index <= answer.applied_index
        if before is None or idle or answer.applied_index != before.answer.applied_index:
            moved_at = self._ran
        else:
            moved_at = before.moved_at
        self._heads[name] = _Head(answer, self._ran, moved_at)
        if answer.leader is not None and (self._reign is None or answer.epoch > self._reign[1]):
            self._reign, self._reign_at = (answer.leader, answer.epoch), self._ran

    def judge(self, now: float) -> Opinion | None:
        """Let time pass up to `now`; None where this judge cannot tell."""
        self._ran += min(max(0.0, now - self._judged_at), self._most_gap_seconds)
        self._judged_at = now
        if self._reign is None:
            return None
        leader, epoch = self._reign
        evidence = self._evidence(leader)
        if evidence and len(self._able(leader)) < self._majority:
            return None
        return Opinion(leader=leader, epoch=epoch, evidence=evidence)

    def _able(self, leader: Member) -> Collection[str]:
        """The heads that could elect another one."""
        return [
            name
            for name, head in self._heads.items()
            if head.answer.member != leader
            and head.answer.has_vote
            and self._ran - head.heard_at < self._silent_seconds
            and head.answer.disk_waits_seconds < self._stuck_seconds / 2
        ]

    def _evidence(self, leader: Member) -> str:
        head = self._heads.get(leader.name)
        if head is None or head.answer.member != leader:
            since = max(SETTLE_SECONDS, self._reign_at)
        else:
            since = max(head.heard_at, self._reign_at)
        if self._ran - since >= self._silent_seconds:
            return f"no answer for {self._ran - since:.1f} s"
        if head is None or head.answer.member != leader or head.answer.leader != leader:
            return ""  # not met yet, or it leads no more
        answer = head.answer
        stuck = self._ran - max(head.moved_at, self._reign_at)
        if max(stuck, answer.disk_waits_seconds) < self._stuck_seconds:
            return ""
        if answer.disk_waits_seconds >= self._stuck_seconds / 2:
            return f"a write to its log has not ended after {answer.disk_waits_seconds:.1f} s"
        if not answer.serves:
            return f"it leads and has served nothing for {stuck:.1f} s"
        waiting = answer.last_index - answer.applied_index
        return f"its log has not moved for {stuck:.1f} s, and {waiting} entries wait"
