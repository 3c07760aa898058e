"""The way of every change: queue, log, state, answer; many at a time.

One loop takes what waits as one group, gives it indexes and log time, and writes it to the log in
the lane "journal"; the group is then applied in the lane "state" while the next is being written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from filegrid.errors import (
    Busy,
    GridError,
    IntegrityError,
    InternalError,
    OutcomeUnknown,
    Unavailable,
)
from filegrid.head.journal import Journal
from filegrid.head.namespace import Namespace
from filegrid.model import Epoch
from filegrid.protocol.wire.journal_pb2 import Barrier, Command, Entry, Outcome
from filegrid.runtime import Runtime

MOST_WAITING = 4096
"""Above it callers are told to come back: more would wait longer than they do."""

MOST_GROUP_ENTRIES = 256
MOST_GROUP_BYTES = 1024 * 1024
"""Of one group; above these the first of a group waits noticeably for the last."""

CHECKPOINT_ENTRIES = 50_000
"""How many entries are applied again after a crash, about: some seconds of work."""

_BUSY_SECONDS = 0.1
_ROLL_FORWARD_ENTRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Proposal:
    command: Command
    answer: Deferred[Outcome]


class Ledger:
    """The leader's side of the log. All but the work in the two lanes is in the reactor's thread.

    :param journal: opened; from :meth:`start` on it is used in its lane alone.
    :param epoch: one in which no head has led before.
    :param node: this head's name, for the barrier.
    :param on_fatal: called once, with the error after which nothing is taken any more: the head
        has to exit (S16).
    :param on_applied: called with each group that was applied and its outcomes, in the order of
        the log and before anybody is answered, so that what is kept in memory can follow.
    """

    _log = Logger()

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        namespace: Namespace,
        *,
        epoch: Epoch,
        node: str,
        on_fatal: Callable[[GridError], None],
        on_applied: Callable[[Sequence[Entry], Sequence[Outcome]], None] | None = None,
        checkpoint_entries: int = CHECKPOINT_ENTRIES,
    ) -> None:
        self.epoch = epoch
        self.commit_index = 0
        """The highest entry that cannot be lost any more."""
        self._clock = runtime.clock
        self._wall_seconds = runtime.wall_seconds
        self._journal_lane = runtime.threads.lane("journal")
        self._state_lane = runtime.threads.lane("state")
        self._journal = journal
        self._namespace = namespace
        self._node = node
        self._on_fatal = on_fatal
        self._on_applied = on_applied
        self._checkpoint_entries = checkpoint_entries
        self._checkpointed_index = 0
        self._last_index = 0
        self._started_at = 0.0
        self._log_time_ms = 0
        """As it was when this reign began (S9)."""
        self._waiting: deque[_Proposal] = deque()
        self._wake: Deferred[None] | None = None
        self._loop: Deferred[None] | None = None
        self._applying: Deferred[None] | None = None
        self._open = False
        self._failure: GridError | None = None

    @property
    def log_time_ms(self) -> int:
        """What the log would say now: it goes on with monotonic time alone (S9)."""
        return self._log_time_ms + round((self._clock.seconds() - self._started_at) * 1000)

    async def start(self) -> None:
        """Apply what the log has and the state has not; then write the barrier of the epoch (S4).

        :raises IntegrityError: where log and state do not fit together (S3).
        :raises DiskFailed: where the log cannot be read or written.
        """
        await self._roll_forward()
        self._last_index = self.commit_index = self._checkpointed_index = self._journal.last_index
        self._log_time_ms = self._namespace.log_time_ms
        self._started_at = self._clock.seconds()
        self._open = True
        self._loop = Deferred.fromCoroutine(self._run())
        await self.propose(Command(barrier=Barrier(leader=self._node)))

    async def stop(self) -> None:
        """Finish what was taken, and take nothing any more."""
        self._open = False
        self._turn()
        if self._loop is not None:
            await self._loop

    async def propose(self, command: Command) -> Outcome:
        """Have a command committed and applied; log time and wall time are filled in here.

        :returns: what it came to, which may be a fault.
        :raises Busy: where too many wait already; it was not taken.
        :raises Unavailable: where it was not taken, and this head takes nothing any more.
        :raises OutcomeUnknown: where it may or may not become part of the log.
        """
        if not self._open:
            raise Unavailable("this head takes no changes", self._node)
        if len(self._waiting) >= MOST_WAITING:
            raise Busy(
                "too many changes are waiting", self._node, retry_after_seconds=_BUSY_SECONDS
            )
        proposal = _Proposal(command=command, answer=Deferred(self._withdraw))
        self._waiting.append(proposal)
        self._turn()
        return await proposal.answer

    # The loop

    def _turn(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    async def _run(self) -> None:
        while self._failure is None and (self._waiting or self._open):
            if not self._waiting:
                self._wake = Deferred()
                await self._wake
                continue
            group = self._take()
            entries = self._number(group)
            try:
                await self._replicate(entries)
            except Exception as error:
                self._fail(error, group)
                break
            await self._applied()
            if self._failure is not None:  # the group before this one could not be applied
                self._refuse(group, OutcomeUnknown, "the head failed")
                break
            self._applying = Deferred.fromCoroutine(self._apply(entries, group))
        await self._applied()

    def _take(self) -> list[_Proposal]:
        group: list[_Proposal] = []
        size = 0
        while self._waiting and len(group) < MOST_GROUP_ENTRIES and size < MOST_GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += group[-1].command.ByteSize()
        return group

    def _number(self, group: Sequence[_Proposal]) -> list[Entry]:
        log_time_ms, wall_ms = self.log_time_ms, round(self._wall_seconds() * 1000)
        entries = []
        for proposal in group:
            self._last_index += 1
            entry = Entry(epoch=self.epoch, index=self._last_index, command=proposal.command)
            entry.command.log_time_ms = log_time_ms
            entry.command.wall_ms = wall_ms
            entries.append(entry)
        return entries

    async def _replicate(self, entries: Sequence[Entry]) -> None:
        """Returns when the entries are committed: with one head, when they are on its disk."""
        await self._journal_lane.run(self._journal.append, entries)
        self.commit_index = entries[-1].index

    async def _applied(self) -> None:
        if self._applying is not None:
            await self._applying

    async def _apply(self, entries: Sequence[Entry], group: Sequence[_Proposal]) -> None:
        try:
            outcomes = await self._state_lane.run(self._namespace.apply, entries)
            if self._on_applied is not None:
                self._on_applied(entries, outcomes)
        except Exception as error:
            self._fail(error, group)
            return
        for proposal, outcome in zip(group, outcomes, strict=True):
            if not proposal.answer.called:  # by being cancelled
                proposal.answer.callback(outcome)
        if entries[-1].index - self._checkpointed_index >= self._checkpoint_entries:
            try:
                await self._checkpoint()
            except Exception as error:
                self._fail(error, ())

    async def _checkpoint(self) -> None:
        """Cut the log only below what is on stable storage without it (S8)."""
        index = await self._state_lane.run(self._namespace.checkpoint)
        if index:
            await self._journal_lane.run(self._journal.compact_below, index + 1)
            self._checkpointed_index = index

    async def _roll_forward(self) -> None:
        log, state = self._journal, self._namespace
        if state.applied_index > log.last_index:
            raise IntegrityError(
                f"the log ends at {log.last_index}, before what was applied, {state.applied_index}",
                self._node,
                advice="take this head out of the grid and let a new one join in its place",
            )
        while state.applied_index < log.last_index:
            entries = await self._journal_lane.run(
                log.read, state.applied_index + 1, _ROLL_FORWARD_ENTRIES
            )
            await self._state_lane.run(state.apply, entries)

    # What goes wrong

    def _withdraw(self, answer: Deferred[Outcome]) -> None:
        """One whose caller has gone is not begun; once it is in a group it is carried through."""
        for proposal in self._waiting:
            if proposal.answer is answer:
                self._waiting.remove(proposal)
                return

    def _refuse(self, group: Sequence[_Proposal], kind: type[GridError], what: str) -> None:
        for proposal in group:
            if not proposal.answer.called:
                proposal.answer.errback(kind(what, self._node))

    def _fail(self, error: Exception, group: Sequence[_Proposal]) -> None:
        """After this nothing is taken; `group` may be in the log, what still waits is not."""
        fatal = error if isinstance(error, GridError) else InternalError(repr(error), self._node)
        first, self._failure, self._open = self._failure is None, fatal, False
        waiting = list(self._waiting)
        self._waiting.clear()
        self._refuse(group, OutcomeUnknown, f"the head failed: {fatal.what}")
        self._refuse(waiting, Unavailable, f"the head failed: {fatal.what}")
        self._turn()
        if first:
            self._log.critical("{node} cannot go on: {error}", node=self._node, error=fatal)
            self._on_fatal(fatal)
