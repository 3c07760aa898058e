"""The leader's log on its way to the other heads, and what that commits.

Entries are sent as they come, also while earlier messages are not answered: where the other head
is far away, or its disk slow, several are on their way. They arrive in order, as they travel over
one link, and the other head takes them one after the other. As long as it is not known to follow,
because it was not asked yet, refused, or did not answer, one message at a time looks for the place
from which on its log is to be made ours.

A head without a vote gets only what is committed. Otherwise one that is being removed could be the
only one to hear of that before the leader is lost: the others, who may still need its vote, would
not get it for their shorter logs, and it would not stand, as it has none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from filegrid.election.quorum import Member
from filegrid.errors import GridError, IntegrityError
from filegrid.head.headlog import HeadLog
from filegrid.head.witness import Facts, Witness
from filegrid.net.link import Link
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import replication_pb2 as wire
from filegrid.protocol.wire.journal_pb2 import Entry
from filegrid.runtime import Runtime

MOST_ENTRIES = 256
"""In one message; with 1 MiB groups, below the limit of a frame."""

MOST_BYTES = 1024 * 1024

MOST_UNANSWERED = 4
"""Messages to one head; what comes meanwhile gathers for the next."""

ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 0.05
"""After a failure; a head that comes back is behind no longer than that."""

OBEY_SECONDS = 0.005
"""A head that does not obey yet is about to hear who was elected; then all wait for it."""

TELL_SECONDS = 0.02
"""After which followers learn of a commit that no later entry told them of. Entries never wait."""

_log = Logger()


@dataclass(slots=True)
class _Peer:
    """:ivar matched: the other's log is ours up to here, on its stable storage.
    :ivar next_index: of what is to be sent next.
    :ivar follows: whether the last answer was that it took what was sent.
    :ivar unanswered: messages.
    :ivar again_seconds: after which one that does not obey is asked again.
    """

    member: Member
    next_index: int
    matched: int = 0
    follows: bool = False
    unanswered: int = 0
    told_commit: int = 0
    again_seconds: float = OBEY_SECONDS

    @property
    def takes_more(self) -> bool:
        return self.unanswered < (MOST_UNANSWERED if self.follows else 1)


def committed(matched: dict[Member, int], voters: Collection[Member]) -> int:
    """The highest index that a majority of the voters holds."""
    held = sorted((matched.get(voter, 0) for voter in voters), reverse=True)
    return held[len(held) // 2] if held else 0


def _fitting(entries: Sequence[Entry]) -> int:
    """How many go into one message; at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += entry.ByteSize()
        if count and size > MOST_BYTES:
            return count
    return len(entries)


class Shipping:
    """One reign's sending, to everybody who votes or wants to.

    :param first_index: of this epoch; only an entry of the leader's own epoch commits itself and
        what is before it (S4; Ongaro 2014, 3.6.2).
    :param link_to: the link to a head in its present incarnation, where it is up.
    """

    def __init__(
        self,
        runtime: Runtime,
        log: HeadLog,
        *,
        me: Member,
        epoch: int,
        first_index: int,
        link_to: Callable[[Member], Link | None],
        install: Callable[[Link, int], Awaitable[int]],
        witness: Witness,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._me = me
        self._epoch = epoch
        self._first_index = first_index
        self._link_to = link_to
        self._install = install
        self._witness = witness
        self._peers: dict[Member, _Peer] = {}
        self._news: list[Deferred[None]] = []
        self._tasks = Tasks("shipping the log")
        self._ended = False

    @property
    def voters(self) -> frozenset[Member]:
        return self._log.voters

    def matched(self, member: Member) -> int:
        """Up to where this head's log is known to be ours."""
        if member == self._me:
            return self._log.position.index
        peer = self._peers.get(member)
        return peer.matched if peer is not None else 0

    def serve(self, members: Collection[Member]) -> None:
        """Ship to these from now on, and to no others."""
        for member in set(self._peers) - set(members):
            del self._peers[member]
        for member in sorted(members, key=lambda one: one.name):  # in order: every run is alike
            if member != self._me and member not in self._peers:
                peer = self._peers[member] = _Peer(member, self._log.last_index + 1)
                self._tasks.begin(self._ship(peer))
        self.tell()

    def tell(self) -> None:
        """There is something new to ship."""
        self.count()
        self._wake()

    def count(self) -> None:
        """See what a majority holds by now."""
        matched = {member: peer.matched for member, peer in self._peers.items()}
        matched[self._me] = self._log.position.index
        index = committed(matched, self._log.voters)
        if max(self._first_index, self._log.commit_index + 1) <= index and not self._ended:
            self._log.commit_to(index)
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, []
        for one in news:
            if not one.called:
                one.callback(None)

    def end(self) -> None:
        """Count nothing any more: from now on the log here may be another leader's."""
        self._ended = True

    async def ended(self) -> None:
        """Return once nothing is being sent any more."""
        await self._tasks.stop()

    async def _ship(self, peer: _Peer) -> None:
        while self._peers.get(peer.member) is peer and not self._ended:
            link = self._link_to(peer.member)
            if link is None:
                await self._runtime.sleep(AGAIN_SECONDS)
                continue
            if not peer.takes_more:
                await self._hear()
                continue
            is_idle = peer.follows and peer.next_index > self._last_for(peer.member)
            if is_idle and not await self._rest(peer):
                continue
            try:
                await self._send(link, peer)
            except GridError as error:
                _log.info("{peer} does not follow yet: {error}", peer=peer.member, error=error)
                await self._runtime.sleep(AGAIN_SECONDS)

    def _last_for(self, member: Member) -> int:
        """The last entry that may be shipped to it now."""
        return self._log.last_index if member in self.voters else self._log.commit_index

    def _hear(self) -> Deferred[None]:
        """Of the next news: an entry, a commit or an answer."""
        news: Deferred[None] = Deferred(lambda _: None)
        self._news.append(news)
        return news

    async def _rest(self, peer: _Peer) -> bool:
        """Wait for news; returns whether a commit is to be told that no entry told in time."""
        news = self._hear()
        if peer.told_commit >= self._log.commit_index:
            await news
            return False
        timer = self._runtime.clock.callLater(TELL_SECONDS, news.callback, None)
        try:
            await news
        finally:
            is_due = not timer.active()
            if not is_due:
                timer.cancel()
        return is_due

    async def _send(self, link: Link, peer: _Peer) -> None:
        first = peer.next_index
        try:
            prev_epoch = await self._log.epoch_before(first)
            most = min(MOST_ENTRIES, max(0, self._last_for(peer.member) + 1 - first))
            entries = await self._log.entries_from(first, most)
        except IntegrityError:
            prev_epoch = None
        if self._ended or peer.next_index != first:
            # What was read may be of two logs, before and after another leader's entries; or an
            # answer said meanwhile that something else is to be sent.
            return
        if prev_epoch is None:
            # Its log ends before ours begins.
            peer.matched = await self._install(link, self._epoch)
            peer.next_index = peer.matched + 1
            return
        request = wire.AppendEntries(
            epoch=self._epoch,
            prev_index=first - 1,
            prev_epoch=prev_epoch,
            entries=entries[: _fitting(entries)],
            commit_index=self._log.commit_index,
            founding=self._log.founding,
            held_index=min(self._log.commit_index, self._log.position.index),
        )
        peer.next_index += len(request.entries)
        peer.unanswered += 1
        self._tasks.begin(self._ask(link, peer, request))

    async def _ask(self, link: Link, peer: _Peer, request: wire.AppendEntries) -> None:
        """Send it, and go by the answer: entries count for a majority once they are taken."""
        try:
            answer = await link.call(request, wire.Appended, timeout_seconds=ANSWER_SECONDS)
            peer.follows = answer.accepted
            if answer.accepted:
                peer.matched = max(peer.matched, answer.last_index)
                peer.next_index = max(peer.next_index, peer.matched + 1)
                peer.told_commit = max(peer.told_commit, request.commit_index)
                self.count()
                held_index = min(peer.matched, self._log.commit_index)
                self._witness.hear(link, Facts(log_index=held_index))
            elif answer.obeyed:
                hint = min(request.prev_index, answer.last_index + 1)
                peer.next_index = max(1, min(peer.next_index, hint))
            else:
                peer.next_index = min(peer.next_index, request.prev_index + 1)
                await self._runtime.sleep(peer.again_seconds)  # the election tells who is right
                peer.again_seconds = min(2 * peer.again_seconds, AGAIN_SECONDS)
        except GridError as error:
            # It may have come or not: again from there.
            peer.follows, peer.next_index = False, min(peer.next_index, request.prev_index + 1)
            _log.info("{peer} does not follow yet: {error}", peer=peer.member, error=error)
            await self._runtime.sleep(AGAIN_SECONDS)
        peer.unanswered -= 1
        self._wake()
