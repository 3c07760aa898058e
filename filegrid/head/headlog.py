"""This head's log and the state that is made of it, whatever its part in the grid.

Entries come in at one end: numbered by this head while it leads, or sent by the one that does.
Those that are committed, held by a majority, and on stable storage here, are applied at the other
end, in order, each once. Between the two everything may still be taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from filegrid.election.messages import LogPosition
from filegrid.election.quorum import Member
from filegrid.errors import GridError, IntegrityError, NotLeader, Unavailable, WrongGrid
from filegrid.head.journal import Journal
from filegrid.head.namespace import Namespace
from filegrid.protocol.wire import replication_pb2 as wire
from filegrid.protocol.wire.journal_pb2 import Entry, Outcome
from filegrid.runtime import Runtime

MOST_APPLIED = 256
"""Entries in one transaction: what waits for one of them waits for all."""

_log = Logger()


class HeadLog:
    """Used in the reactor's thread; what blocks is done in the lanes "journal" and "state".

    :param journal: opened; from now on used in its lane alone.
    :param founder: the head that may vote for itself alone, where there is no grid yet.
    :param on_applied: called with each group that was applied and its outcomes, in log order.
    :param on_fatal: called once, with the error after which this head has to exit (S16).
    :ivar commit_index: up to here nothing can be lost any more.
    :ivar position: the end of what is on stable storage here, for elections: never above it.
    :ivar moved: told whenever the position or the configuration has changed.
    :ivar grown: told when entries were added that can be shipped.
    """

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        namespace: Namespace,
        *,
        founder: Member | None = None,
        on_applied: Callable[[Sequence[Entry], Sequence[Outcome]], None],
        on_fatal: Callable[[GridError], None],
    ) -> None:
        self.moved: Callable[[], None] = lambda: None
        self.grown: Callable[[], None] = lambda: None
        self.failure: GridError | None = None
        self.last_index = max(journal.last_index, namespace.applied_index)
        self.last_epoch = journal.last_epoch or namespace.registers().applied_epoch
        self.position = LogPosition(self.last_epoch, self.last_index)
        self.applied_index = self.commit_index = namespace.applied_index
        self._sizes = journal.sizes
        self._journal = journal
        self._namespace = namespace
        self._clock = runtime.clock
        self._journal_work: list[float] = []  # when each that has not ended was begun
        self._journal_lane = runtime.threads.lane("journal")
        self._state_lane = runtime.threads.lane("state")
        self._on_applied = on_applied
        self._on_fatal = on_fatal
        self._checkpointed_index = namespace.applied_index
        self._recent: list[Entry] = []
        self._founding = b""
        self._writing = DeferredLock()
        voters = frozenset(namespace.voters())
        if founder is not None and not namespace.registers().grid_id:
            voters = frozenset({founder})  # until it has logged that it is (S1)
        self._configurations = [(0, voters)]
        self.added: dict[str, str] = {}
        """Addresses of heads, by their names, as entries say that came here; applied or not."""
        self._wake: Deferred[None] | None = None
        self._applying: Deferred[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Read what the log has beyond the state; none of it is known to be committed yet."""
        index = self._namespace.applied_index + 1
        while found := await self._journal_lane.run(self._journal.read, index, MOST_APPLIED):
            self._remember(found)
            index = found[-1].index + 1
        self._applying = Deferred.fromCoroutine(self._apply_loop())

    async def stop(self) -> None:
        """Return once nothing is being applied any more."""
        self._stopped = True
        self._turn()
        if self._applying is not None:
            await self._applying
        await self._journal_lane.run(self._journal.close)

    @property
    def voters(self) -> frozenset[Member]:
        """As of the newest configuration in the log, committed or not (S7)."""
        return self._configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        """Of the entry that made it; 0 for one that is in the state."""
        return self._configurations[-1][0]

    @property
    def disk_waits_seconds(self) -> float:
        """How long the oldest write to the log has not ended; 0 where none is under way."""
        begun = self._journal_work
        return self._clock.seconds() - begun[0] if begun else 0.0

    async def last_log_time_ms(self) -> int:
        """Where the log's own time has come to, also in entries that are not applied (S9)."""
        applied_ms = self._namespace.registers().log_time_ms
        if self.last_index == self.applied_index:
            return applied_ms
        last = (await self.entries_from(self.last_index, 1))[0]
        return max(applied_ms, last.command.log_time_ms)

    # In

    async def append(self, entries: Sequence[Entry], leads: Callable[[], bool]) -> None:
        """Add entries that this head numbered, leading; they can be shipped before this returns.

        :param leads: whether the reign in which they were numbered still lasts. Its entries must
            not come into the log once another leader's may have.
        :raises NotLeader: where it has ended meanwhile.
        :raises DiskFailed: where they could not be made durable; this head must exit.
        """
        await self._writing.acquire()
        try:
            if not leads() or entries[0].index != self.last_index + 1:
                raise NotLeader("another head leads")
            self.last_index, self.last_epoch = entries[-1].index, entries[-1].epoch
            self._remember(entries)
            self.grown()
            await self._write(entries)
        finally:
            self._writing.release()

    async def follow(self, request: wire.AppendEntries, obeys: Callable[[], bool]) -> wire.Appended:
        """Take in what the leader sent.

        :param obeys: whether its sender is still the leader to follow. It is asked again once the
            entries are on stable storage: a vote that was given meanwhile was given for the log
            without them, and acknowledging them now could commit what that candidate lacks. And
            before anything is changed: this head may have begun to lead while it was reading.
        """
        await self._writing.acquire()
        try:
            if not obeys():
                return wire.Appended()
            self._refuse_other_founding(request.founding)
            if not await self._has(request.prev_index, request.prev_epoch):
                hint = min(self.last_index, max(request.prev_index - 1, self.commit_index))
                return wire.Appended(obeyed=True, last_index=hint)
            new = await self._new_among(request.entries)
            epoch_before = await self._epoch_at(new[0].index - 1) if new else None
            if not obeys():  # looking into the log took its time
                return wire.Appended()
            if new and new[0].index <= self.last_index:
                await self._truncate_from(new[0].index, epoch_before)
                if not obeys():
                    return wire.Appended()
            if new:
                self._remember(new)
                self.last_index, self.last_epoch = new[-1].index, new[-1].epoch
                await self._write(new)
            if not obeys():
                return wire.Appended()
        finally:
            self._writing.release()
        last = request.prev_index + len(request.entries)
        self.commit_to(min(request.commit_index, last))
        return wire.Appended(accepted=True, obeyed=True, last_index=last)

    @property
    def founding(self) -> bytes:
        """Which creation of the grid this log belongs to; empty before that is known."""
        if not self._founding:  # once it is known it stays as it is
            self._founding = bytes.fromhex(self._namespace.registers().founding)
        return self._founding

    def _refuse_other_founding(self, founding: bytes) -> None:
        """Two heads that were both told to create the grid must never mix their logs (S1)."""
        if founding and self.founding and founding != self.founding:
            raise WrongGrid(
                "the leader's grid was created apart from this head's",
                advice="empty the data folder of the head that was not to create a grid",
            )

    async def _has(self, index: int, epoch: int) -> bool:
        """Whether the log up to `index` is the leader's: that one entry tells (Ongaro 2014)."""
        if index <= self.commit_index:
            return True
        return index <= self.last_index and await self._epoch_at(index) == epoch

    async def _new_among(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that are not in the log, from the first that has another's place on."""
        for place, entry in enumerate(entries):
            if entry.index > self.last_index:
                return list(entries[place:])
            if entry.index <= self.commit_index:
                continue
            if await self._epoch_at(entry.index) != entry.epoch:
                return list(entries[place:])
        return []

    async def _truncate_from(self, index: int, epoch: int | None) -> None:
        """Take back what another leader had sent and nobody committed.

        :param epoch: of the entry before `index`.
        """
        assert index > self.commit_index, (index, self.commit_index)
        assert epoch is not None, index
        while self._recent and self._recent[-1].index >= index:
            self._recent.pop()
        while self._configurations[-1][0] >= index:
            self._configurations.pop()
        # Whoever holds the writing lock sees no entry that is not durable. Elections learn of the
        # shorter log first: what is being taken back must not win a vote any more.
        self.last_index, self.last_epoch = index - 1, epoch
        self.position = LogPosition(epoch, index - 1)
        self.moved()
        await self._in_journal(self._journal.truncate_from, index)

    async def _write(self, entries: Sequence[Entry]) -> None:
        await self._in_journal(self._journal.append, entries)
        self.position = LogPosition(entries[-1].epoch, entries[-1].index)
        self.moved()
        self._turn()

    async def _in_journal(self, work: Callable[..., None], *arguments: object) -> None:
        if self.failure is not None:
            raise self.failure
        begun_at = self._clock.seconds()
        self._journal_work.append(begun_at)
        try:
            await self._journal_lane.run(work, *arguments)
        except GridError as error:
            self._fail(error)
            raise
        finally:
            self._journal_work.remove(begun_at)

    def _remember(self, entries: Sequence[Entry]) -> None:
        self._recent.extend(entries)
        if len(self._recent) > 2 * self._sizes.recent_entries:
            del self._recent[: -self._sizes.recent_entries]
        for entry in entries:
            self._note_heads(entry)

    def _note_heads(self, entry: Entry) -> None:
        if entry.command.HasField("add_head"):
            self.added[entry.command.add_head.name] = entry.command.add_head.address
        if entry.command.HasField("configure"):
            voters = entry.command.configure.voters
            members = frozenset(Member(voter.name, voter.incarnation) for voter in voters)
            self._configurations.append((entry.index, members))
            self.moved()

    async def replace_state(self, replace: Callable[[], None], index: int, epoch: int) -> None:
        """Go on from another head's state, which ends with the entry `index` of `epoch`.

        :param replace: puts it in the place of ours, durably; it blocks, and runs in its lane.
        """
        await self._writing.acquire()
        try:
            if index <= self.commit_index:
                return  # it was on its way for too long
            await self._state_lane.run(replace)
            await self._in_journal(self._journal.begin_at, index + 1)
            self._recent.clear()
            self._founding = b""
            self.added.clear()
            self._configurations = [(0, frozenset(self._namespace.voters()))]
            self.last_index = self.applied_index = self.commit_index = index
            self._checkpointed_index = index
            self.last_epoch, self.position = epoch, LogPosition(epoch, index)
        finally:
            self._writing.release()
        self.moved()

    # Looking

    async def entries_from(self, index: int, limit: int) -> Sequence[Entry]:
        """Entries from `index` on, those not yet durable with them; none after the last.

        :raises IntegrityError: where the log here begins only later.
        """
        if self._recent and self._recent[0].index <= index:
            start = index - self._recent[0].index
            return self._recent[start : start + limit]
        return await self._journal_lane.run(self._journal.read, index, limit)

    async def epoch_before(self, index: int) -> int | None:
        """Of the entry before `index`; None where the log does not know any more."""
        return await self._epoch_at(index - 1)

    async def _epoch_at(self, index: int) -> int | None:
        if index == self.last_index:
            return self.last_epoch
        if index == 0:
            return 0
        try:
            entries = await self.entries_from(index, 1)
        except IntegrityError:
            registers = self._namespace.registers()
            return registers.applied_epoch if registers.applied_index == index else None
        return entries[0].epoch if entries else None

    # Out

    def commit_to(self, index: int) -> None:
        """Entries up to `index` are held by a majority."""
        if index > self.commit_index:
            self.commit_index = index
            self._turn()

    def _turn(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    async def _apply_loop(self) -> None:
        try:
            while not self._stopped:
                # What is not durable here is not applied: the state must never be ahead of the log.
                end = min(self.commit_index, self.position.index)
                if self.applied_index >= end:
                    self._wake = Deferred()
                    await self._wake
                    continue
                limit = min(MOST_APPLIED, end - self.applied_index)
                entries = await self.entries_from(self.applied_index + 1, limit)
                outcomes = await self._state_lane.run(self._namespace.apply, entries)
                self.applied_index = max(self.applied_index, entries[-1].index)
                self._on_applied(entries, outcomes)
                await self._checkpoint_if_due()
        except Exception as error:
            fatal = error if isinstance(error, GridError) else Unavailable(f"{error!r}")
            self._fail(fatal)

    async def _checkpoint_if_due(self) -> None:
        """Cut the log only below what is on stable storage without it (S8)."""
        if self.applied_index - self._checkpointed_index < self._sizes.checkpoint_entries:
            return
        index = await self._state_lane.run(self._namespace.checkpoint)
        if index:
            await self._in_journal(self._journal.compact_below, index + 1)
            self._checkpointed_index = index

    def _fail(self, error: GridError) -> None:
        if self.failure is None:
            self.failure = error
            _log.critical("this head cannot go on: {error}", error=error)
            self._on_fatal(error)
