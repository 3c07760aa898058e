"""Asking the heads: calls that are retried, and changes that are applied once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from filegrid.client.bundles import Bundles
from filegrid.client.heads import Heads
from filegrid.client.patience import Patience
from filegrid.errors import (
    Busy,
    DeadlineExceeded,
    GridError,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
)
from filegrid.model import Address, Identity, SessionId, number_of, unique_id
from filegrid.net.dial import hello_of
from filegrid.net.link import Answer, expect
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire import values_pb2 as wire
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Runtime

FIRST_ATTEMPT_SECONDS = 1.5
"""A head that does not answer for so long is not asked again before the others were: one that is
cut off, or stopped, says nothing. No shorter than a new leader needs to come up."""

ATTEMPT_SECONDS = 6.0
"""What later attempts grow to, for a head that leads and is only slow."""

GOODBYE_SECONDS = 2.0
"""What closing waits for at most; a session that is left open runs out by itself."""

KEEPS_PER_LEASE = 3
"""One renewal may fail, and the next, before the session is lost."""

GIVEN_UP_SECONDS = 10.0
"""After which the heads are told at the latest of uploads that were given up: what those stored
takes room, and keeps servers from being drained."""

_PASSING = (Unavailable, DeadlineExceeded)
"""The same request may succeed later, or at another head."""

SEE_STATUS = "see filegrid status"

SESSION_ENDED = (OutcomeUnknown, InvalidRequest)
"""What a head says of a session that it does not know."""

_REFUSED = (Busy, NotLeader)
"""Answers that say that the request was not even looked at."""


class OpenedSession:
    """A session of ours at the heads: what they told us with it, and what we numbered in it."""

    def __init__(self, opened: head_pb2.SessionOpened, kept_at: float) -> None:
        self.id = SessionId(opened.session)
        self.lease_seconds = float(opened.lease_seconds)
        self.chunk_bytes = opened.chunk_bytes
        self.replication = opened.replication
        self.min_replicas = opened.min_replicas
        self.kept_at = kept_at
        self._numbers = 0
        self._uploads: dict[int, None] = {}  # the first number of each, in order
        self._sequences = 0
        self._unanswered: dict[int, None] = {}  # in order

    def unique_id(self) -> bytes:
        """A new chunk or content id; none is ever given twice (S15)."""
        self._numbers += 1
        return unique_id(self.id, self._numbers)

    def begin_upload(self) -> bytes:
        """The id of a content that is being made; :meth:`end_upload` ends it, or the session."""
        content_id = self.unique_id()
        self._uploads[self._numbers] = None
        return content_id

    def end_upload(self, content_id: bytes) -> None:
        """It is published, or nobody will publish it any more: what else it made may go."""
        self._uploads.pop(number_of(content_id), None)

    @property
    def ended_below(self) -> int:
        """All uploads whose contents have lower numbers than this have ended, and so has what they
        made: an upload numbers its content first."""
        return next(iter(self._uploads), self._numbers + 1)

    def once(self) -> wire.Once:
        """The identity of a new change; :meth:`answered` ends it."""
        self._sequences += 1
        self._unanswered[self._sequences] = None
        return wire.Once(
            session=self.id,
            sequence=self._sequences,
            answered_below=next(iter(self._unanswered)),
        )

    def answered(self, once: wire.Once) -> None:
        """Its answer came, or nobody waits for it any more."""
        self._unanswered.pop(once.sequence, None)


class Session:
    """What a client asks of the heads, whichever of them leads.

    :param timeout_seconds: how long one operation waits for the grid.
    """

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        heads: Sequence[Address],
        timeout_seconds: float,
    ) -> None:
        self.runtime = runtime
        self.timeout_seconds = timeout_seconds
        self._heads = Heads(runtime, heads, lambda: hello_of(identity))
        self._bundles = Bundles(runtime)
        self._current: OpenedSession | None = None
        self._opening = Tasks("opening a session")
        self._waiting: list[Deferred[None]] = []
        self._tasks = Tasks("keeping the session")
        self._telling = Tasks("telling of uploads that were given up")

    def start(self) -> None:
        self._heads.start()

    async def close(self) -> None:
        """End the session, where a head can be told soon, and close the links."""
        await self._tasks.stop()
        await self._telling.stop()
        current, self._current = self._current, None
        if current is not None:
            with suppress(GridError):  # it runs out by itself
                await self.change(
                    wire.CloseSession(), Done, current, Patience(self.runtime, GOODBYE_SECONDS)
                )
        await self._bundles.close()
        await self._heads.stop()

    def patience(self) -> Patience:
        return Patience(self.runtime, self.timeout_seconds)

    async def call(
        self, request: Message, answer: type[Answer], patience: Patience | None = None
    ) -> Answer:
        """Ask for something that changes nothing, or that may be done twice.

        :raises Unavailable: when no head served it while the patience lasted.
        :raises GridError: the head's answer.
        """
        return await self._ask(request, answer, patience or self.patience(), None)

    async def change(
        self,
        request: Message,
        answer: type[Answer],
        session: OpenedSession | None = None,
        patience: Patience | None = None,
    ) -> Answer:
        """Ask for a change; it is applied once at most, however often it is sent (S10).

        :raises OutcomeUnknown: when it was sent and no answer came while the patience lasted.
        :raises Unavailable: when it surely reached no head.
        :raises GridError: the head's answer.
        """
        patience = patience or self.patience()
        session = session or await self.opened()
        once = session.once()
        try:
            return await self._ask(request, answer, patience, once)
        except OutcomeUnknown:
            self.forget(session)
            raise
        finally:
            session.answered(once)

    async def opened(self) -> OpenedSession:
        """The session for what is begun now; opened where there is none that lives."""
        while self._current is None or self._is_stale(self._current):
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            if not len(self._opening):
                self._opening.begin(self._open_for_all())
            await waiting
        return self._current

    def forget(self, session: OpenedSession) -> None:
        """It has run out: the next operation opens another."""
        if self._current is session:
            self._current = None

    def give_up(self, session: OpenedSession, content_id: bytes) -> None:
        """Nobody will publish this upload any more."""
        session.end_upload(content_id)
        if not len(self._telling):
            self._telling.begin(self._tell(session))

    # The session's life.

    async def _tell(self, session: OpenedSession) -> None:
        await deferLater(self.runtime.clock, GIVEN_UP_SECONDS)
        if self._current is session:
            with suppress(GridError):  # the next renewal tells as well
                await self._keep(session)

    def _is_stale(self, session: OpenedSession) -> bool:
        return self.runtime.clock.seconds() - session.kept_at > session.lease_seconds

    async def _open_for_all(self) -> None:
        """Once for everybody who waits: there may be hundreds, and all go on, or fail, together."""
        while self._waiting:
            outcome: Failure | None = None
            try:
                await self._renew_or_open()
            except GridError:
                outcome = Failure()
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                if not one.called:
                    one.callback(outcome)

    async def _renew_or_open(self) -> None:
        if self._current is not None:
            await self._keep(self._current)  # as after a sleep of this machine
        if self._current is None:
            self._current = await self._open()
            if not len(self._tasks):
                self._tasks.begin(self._keep_on())

    async def _open(self) -> OpenedSession:
        now = self.runtime.clock.seconds()
        opened = await self.call(wire.OpenSession(), head_pb2.SessionOpened)
        self._heads.add(opened.heads)
        return OpenedSession(opened, now)

    async def _keep_on(self) -> None:
        while (session := self._current) is not None:
            await deferLater(self.runtime.clock, session.lease_seconds / KEEPS_PER_LEASE)
            if self._current is session:
                with suppress(GridError):  # the next one may come through; if not, it is stale
                    await self._keep(session)

    async def _keep(self, session: OpenedSession) -> None:
        now = self.runtime.clock.seconds()
        try:
            request = head_pb2.KeepSession(session=session.id, ended_below=session.ended_below)
            kept = await self.call(request, Done)
        except SESSION_ENDED:
            self.forget(session)
        else:
            self._heads.add(kept.heads)
            session.kept_at = now

    # One request.

    async def _ask(
        self, request: Message, answer: type[Answer], patience: Patience, once: wire.Once | None
    ) -> Answer:
        doubtful = False  # whether a head may have taken the change
        attempt_seconds = FIRST_ATTEMPT_SECONDS
        while True:
            try:
                address, link = self._heads.best() or await self._heads.link(patience)
            except Unavailable as unreachable:
                raise self._given_up(request, unreachable, doubtful) from None
            timeout_seconds = min(attempt_seconds, patience.left_seconds)
            try:
                if once is None or not self._bundles.takes(request):
                    return await link.call(
                        request, answer, timeout_seconds=timeout_seconds, once=once
                    )
                found = await self._bundles.call(link, request, once, timeout_seconds)
                return expect(answer, found, link.peer)
            except _PASSING as error:
                if once is not None and not isinstance(error, _REFUSED):
                    doubtful = True
                self._heads.learn(address, error)
                if isinstance(error, DeadlineExceeded):
                    attempt_seconds = min(2 * attempt_seconds, ATTEMPT_SECONDS)
                if not await patience.pause(error.retry_after_seconds):
                    raise self._given_up(request, error, doubtful) from None

    def _given_up(self, request: Message, error: GridError, doubtful: bool) -> GridError:
        if doubtful:
            subject = getattr(request, "path", "") or getattr(request, "source", "")
            return OutcomeUnknown(
                f"no answer came to the change; it may have been applied ({error})",
                subject,
                advice="look before trying again",
            )
        if isinstance(error, NotLeader):
            away = "; ".join(self._heads.away())
            return Unavailable(
                f"no head leads: nothing can be read or changed before one does"
                f" ({away or error.what})",
                advice="a majority of the heads has to run: start those that do not, and see"
                " 'filegrid status'",
            )
        if isinstance(error, DeadlineExceeded):
            return Unavailable("no head answered in time", str(self._heads), advice=SEE_STATUS)
        return error
