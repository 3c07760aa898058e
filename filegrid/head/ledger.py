"""The leader's way of every change: queue, log, majority, state, answer; many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from filegrid.errors import Busy, GridError, NotLeader, Unavailable
from filegrid.head.headlog import HeadLog
from filegrid.model import Epoch
from filegrid.protocol.wire.journal_pb2 import Barrier, Command, Entry, Outcome
from filegrid.runtime import Runtime

MOST_WAITING = 4096
"""Above it callers are told to come back: more would wait longer than they do."""

MOST_GROUP_ENTRIES = 256
MOST_GROUP_BYTES = 1024 * 1024
"""Of one group; above these the first of a group waits noticeably for the last."""

MOST_UNANSWERED = 8192
"""In the log and not yet applied; with a majority cut off, no more is taken than this."""

_BUSY_SECONDS = 0.1


class _Proposal:
    """A command that waits for its turn, or for its outcome."""

    def __init__(self, command: Command, answer: Deferred[Outcome]) -> None:
        self.command = command
        self.answer = answer


class Ledger:
    """One reign's changes: from :meth:`start` on until :meth:`end`.

    :param log: of this head, which leads `epoch`.
    :param node: this head's name, for the barrier and for errors.
    """

    def __init__(self, runtime: Runtime, log: HeadLog, *, epoch: Epoch, node: str) -> None:
        self.epoch = epoch
        self._clock = runtime.clock
        self._wall_seconds = runtime.wall_seconds
        self._log = log
        self._node = node
        self._started_at = 0.0
        self._first_log_time_ms = 0
        self._waiting: deque[_Proposal] = deque()
        self._unanswered: dict[int, _Proposal] = {}
        self._wake: Deferred[None] | None = None
        self._waking = False
        self._loop: Deferred[None] | None = None
        self._ended: GridError | None = None
        self._paused = False

    @property
    def log_time_ms(self) -> int:
        """What the log would say now: it goes on with monotonic time alone (S9)."""
        return self._first_log_time_ms + round((self._clock.seconds() - self._started_at) * 1000)

    async def start(self) -> None:
        """Commit the barrier of this epoch (S4); before that nothing may be served.

        :raises NotLeader: where the reign ends first.
        """
        self._first_log_time_ms = await self._log.last_log_time_ms()
        self._started_at = self._clock.seconds()
        self._loop = Deferred.fromCoroutine(self._run())
        await self.propose(Command(barrier=Barrier(leader=self._node)))

    def end(self, error: NotLeader) -> None:
        """Take nothing any more. What is in the log may still be committed, by whoever leads next:
        its callers are told so, and ask again there under the same numbers (S10).
        """
        if self._ended is not None:
            return
        self._ended = error
        doubt = Unavailable(f"{error.what}; the change may be in the log", self._node)
        waiting, self._waiting = self._waiting, deque()
        unanswered, self._unanswered = self._unanswered, {}
        for proposal in waiting:
            proposal.answer.errback(error)
        for proposal in unanswered.values():
            if not proposal.answer.called:
                proposal.answer.errback(doubt)
        self._turn()

    async def drained(self) -> None:
        """Return once nothing of an ended reign is being written any more."""
        if self._loop is not None:
            await self._loop

    def pause(self) -> None:
        """Begin nothing more; what comes waits for the end of the reign, or for :meth:`resume`."""
        self._paused = True

    def resume(self) -> None:
        """The reign goes on after all."""
        self._paused = False
        self._turn()

    async def propose(self, command: Command) -> Outcome:
        """Have a command committed and applied; log time and wall time are filled in here.

        :returns: what it came to, which may be a fault.
        :raises Busy: where too many wait already; it was not taken.
        :raises NotLeader: where the reign has ended; it may or may not become part of the log.
        """
        if self._ended is not None:
            raise self._ended
        if len(self._waiting) >= MOST_WAITING or len(self._unanswered) >= MOST_UNANSWERED:
            raise Busy(
                "too many changes are waiting", self._node, retry_after_seconds=_BUSY_SECONDS
            )
        proposal = _Proposal(command, Deferred(self._withdraw))
        self._waiting.append(proposal)
        if self._wake is not None and not self._waking:
            self._waking = True
            self._clock.callLater(0, self._turn)  # what else comes in this turn joins the group
        return await proposal.answer

    async def propose_many(self, commands: Sequence[Command]) -> list[Outcome | GridError]:
        """As :meth:`propose`, for each; in one group, where there is room for all in it."""
        begun = [Deferred.fromCoroutine(self.propose(command)) for command in commands]
        found = await DeferredList(begun, consumeErrors=True)
        outcomes: list[Outcome | GridError] = []
        for _, result in found:
            if not isinstance(result, Failure):
                outcomes.append(result)
            elif isinstance(result.value, GridError):
                outcomes.append(result.value)
            else:
                result.raiseException()
        return outcomes

    def applied(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        """These were applied: whoever proposed them gets the outcome."""
        for entry, outcome in zip(entries, outcomes, strict=True):
            proposal = self._unanswered.pop(entry.index, None)
            if proposal is not None and not proposal.answer.called:  # by being cancelled
                proposal.answer.callback(outcome)

    def _turn(self) -> None:
        self._waking = False
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    async def _run(self) -> None:
        while self._ended is None:
            if not self._waiting or self._paused:
                self._wake = Deferred()
                await self._wake
                continue
            try:
                await self._log.append(self._take(), lambda: self._ended is None)
            except GridError as error:
                # Its own disk failed, and this head exits; or another leader was faster.
                self.end(NotLeader(f"this head lost its lead: {error.what}", self._node))

    def _take(self) -> list[Entry]:
        """The next group, with its places in the log."""
        log_time_ms, wall_ms = self.log_time_ms, round(self._wall_seconds() * 1000)
        entries: list[Entry] = []
        size = 0
        while self._waiting and len(entries) < MOST_GROUP_ENTRIES and size < MOST_GROUP_BYTES:
            proposal = self._waiting.popleft()
            index = self._log.last_index + 1 + len(entries)
            command = proposal.command
            command.log_time_ms, command.wall_ms = log_time_ms, wall_ms
            entry = Entry(epoch=self.epoch, index=index, command=command)
            size += entry.ByteSize()
            self._unanswered[index] = proposal
            entries.append(entry)
        return entries

    def _withdraw(self, answer: Deferred[Outcome]) -> None:
        """One whose caller has gone is not begun; once it is in a group it is carried through."""
        for proposal in self._waiting:
            if proposal.answer is answer:
                self._waiting.remove(proposal)
                return
