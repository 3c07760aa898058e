"""A chunk server's links to the heads: joining, and telling what came and went."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from filegrid.chunk.inventory import Inventory
from filegrid.errors import DuplicateName, GridError
from filegrid.model import Address, Role
from filegrid.net.dial import Dialler
from filegrid.net.link import Link, Method
from filegrid.net.tasks import gather
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import frame_pb2
from filegrid.runtime import Runtime

MOST_HEADS = 32
"""With those that heads tell of; a grid has three or five."""

MOST_CHANGES = 1000
"""Chunks in one message; more wait for the next."""

FOLLOWER_SECONDS = 0.5
"""How late a head that only follows may hear of changes: told of each group of small files at once,
it and we would spend more on telling than on the files. The leader is told at once."""

ANSWER_SECONDS = 10.0

LEAVE_SECONDS = 1.0
"""Whoever stops this server waits for it."""

_log = Logger()


class HeadLinks:
    """One kept link to each head. This server joins over it and then tells its changes.

    :param methods: what the head may ask over the link.
    :param join: what to say at joining, made anew each time.
    """

    def __init__(
        self,
        runtime: Runtime,
        addresses: Iterable[Address],
        inventory: Inventory,
        *,
        hello: Callable[[], frame_pb2.Hello],
        methods: dict[str, Method],
        join: Callable[[], wire.Join],
        run: int,
    ) -> None:
        self.methods = methods
        self._runtime = runtime
        self._inventory = inventory
        self._join = join
        self._run = run
        self._told: dict[Link, _Telling] = {}
        self._leader: Link | None = None
        self._dialler = partial(Dialler, runtime, role=Role.HEAD, hello=hello, service=self)
        self._diallers = [self._dialler(address) for address in addresses]
        self._stopped = False

    def start(self) -> None:
        for dialler in self._diallers:
            dialler.start()

    async def stop(self) -> None:
        """Take leave of all heads that can be reached, so that nobody takes this for a crash."""
        self._stopped = True
        joined = [link for link, telling in self._told.items() if telling.joined]
        await gather(self._say_leave(link) for link in joined)
        for dialler in self._diallers:
            await dialler.stop()

    def learn(self, addresses: Iterable[str]) -> None:
        """Join the heads too that were added since this server was configured."""
        known = {str(dialler.address) for dialler in self._diallers}
        for address in set(addresses) - known:
            if len(self._diallers) < MOST_HEADS and not self._stopped:
                self._diallers.append(dialler := self._dialler(Address.parse(address)))
                dialler.start()

    def leads(self, link: Link) -> None:
        """The head on this link gives orders: it is told of changes at once."""
        if self._leader is link:
            return
        for each, telling in self._told.items():
            telling.leads = each is link
        self._leader = link
        if link in self._told:
            self._told[link].hurry()

    def link_up(self, link: Link) -> None:
        if any(one.peer == link.peer for one in self._told):
            # It is dialled under two addresses, and would take the one link for a second body.
            link.close(DuplicateName("this head is linked already", link.peer.name))
            return
        # Listening begins before the head can ask for the inventory, so nothing falls between.
        telling = self._told[link] = _Telling(self._runtime, link, self._run)
        telling.forget = self._inventory.listen(telling.add)
        joining = Deferred.fromCoroutine(self._say_join(link))
        joining.addErrback(partial(self._not_joined, link))

    def link_down(self, link: Link, error: GridError) -> None:
        telling = self._told.pop(link, None)
        if telling is not None:
            telling.stop()

    async def _say_join(self, link: Link) -> None:
        joined = await link.call(self._join(), wire.Joined, timeout_seconds=ANSWER_SECONDS)
        self.learn(joined.heads)
        telling = self._told.get(link)
        if telling is not None:
            telling.start()

    async def _say_leave(self, link: Link) -> None:
        try:
            leave = wire.Leave(run=self._run)
            await link.call(leave, frame_pb2.Done, timeout_seconds=LEAVE_SECONDS)
        except GridError as error:
            _log.info("{head} was not told of the stop: {error}", head=link.peer, error=error)

    def _not_joined(self, link: Link, failure: object) -> None:
        reason = getattr(failure, "value", failure)
        _log.error("{head} does not take this server: {reason}", head=link.peer, reason=reason)
        link.close()


class _Telling:
    """Changes on their way to one head: in order, one message at a time, gathered meanwhile."""

    forget: Callable[[], None]

    def __init__(self, runtime: Runtime, link: Link, run: int) -> None:
        self._runtime = runtime
        self._link = link
        self._waiting: list[wire.Changes] = []
        self._run = run
        self._started = False
        self._sending = False
        self._soon: IDelayedCall | None = None
        self.leads = False

    @property
    def joined(self) -> bool:
        return self._started

    def add(self, change: wire.Changes) -> None:
        self._waiting.append(change)
        self._tell_soon()

    def start(self) -> None:
        self._started = True
        self._tell_soon()

    def stop(self) -> None:
        self.forget()
        self._waiting.clear()
        if self._soon is not None and self._soon.active():
            self._soon.cancel()

    def hurry(self) -> None:
        """Tell now what waits."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._started and not self._sending and self._soon is None and self._waiting:
            delay_seconds = 0 if self.leads else FOLLOWER_SECONDS
            self._soon = self._runtime.clock.callLater(delay_seconds, self._tell)

    def _tell(self) -> None:
        self._soon = None
        message = self._next_message()
        self._sending = True
        told = Deferred.fromCoroutine(
            self._link.call(message, frame_pb2.Done, timeout_seconds=ANSWER_SECONDS)
        )
        told.addCallbacks(self._was_told, self._was_not_told)

    def _next_message(self) -> wire.Changes:
        """The changes that wait, up to the first that is of a chunk already in the message.

        A message has no order between coming and going, so each chunk is in it once.
        """
        message = wire.Changes(run=self._run)
        named: set[bytes] = set()
        for count, change in enumerate(self._waiting):
            ids = [ref.id for ref in change.added] + [*change.removed, *change.damaged]
            if count and (len(named) + len(ids) > MOST_CHANGES or not named.isdisjoint(ids)):
                del self._waiting[:count]
                return message
            named.update(ids)
            message.MergeFrom(change)
        self._waiting.clear()
        return message

    def _was_told(self, answer: Message) -> None:
        self._sending = False
        self._tell_soon()

    def _was_not_told(self, failure: object) -> None:
        # What this head knows of us is wrong now: begin anew, with a full inventory.
        reason = getattr(failure, "value", failure)
        _log.warn("{head} did not take changes: {reason}", head=self._link.peer, reason=reason)
        self._link.close()
