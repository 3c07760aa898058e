"""Making links: dialling one, keeping one up, pooling those of the data plane."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from filegrid.errors import GridError, NotPermitted, Unavailable
from filegrid.model import Address, Identity, Role
from filegrid.net.link import Answer, Link, NoService, Service
from filegrid.protocol.connection import PROTOCOL_VERSION, ROLE_ON_WIRE
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import frame_pb2 as wire
from filegrid.runtime import Runtime

CONNECT_SECONDS = 5.0
"""TCP, TLS and HELLO together; a machine that takes longer is as good as gone."""

LEAST_BACKOFF_SECONDS = 0.1
MOST_BACKOFF_SECONDS = 2.0
"""A head that comes back finds its chunk servers within this time."""

IDLE_SECONDS = 30.0
"""A data connection that nobody used for so long is closed."""

KEPT_PER_PEER = 8
"""Idle data connections to one address that are kept so long; each holds TLS buffers of some 100
KiB."""

MOST_IDLE_PER_PEER = 64
SPARE_SECONDS = 2.0
"""More of them, that long: as many as there were transfers at once a moment ago, as the next ones
come. A handshake costs both ends more than a transfer of some 100 KiB."""

_log = Logger()


def hello_of(
    identity: Identity,
    *,
    incarnation: bytes = b"",
    boot_count: int = 0,
    on_disk: wire.OnDisk | None = None,
) -> wire.Hello:
    """What a node with this certificate says first."""
    return wire.Hello(
        protocol_version=PROTOCOL_VERSION,
        grid_id=identity.grid_id,
        role=ROLE_ON_WIRE[identity.role],
        name=identity.name,
        incarnation=incarnation,
        boot_count=boot_count,
        on_disk=on_disk,
    )


def acceptor(
    plane: Plane, runtime: Runtime, hello: Callable[[], wire.Hello], service: Service
) -> Callable[[Identity], Protocol]:
    """What a listener builds for each peer that has proved who it is."""

    def build(peer: Identity) -> Link:
        link = Link(plane, clock=runtime.clock, hello=hello(), peer=peer, service=service)
        link.up.addErrback(_refused, peer)
        return link

    return build


def _refused(failure: Failure, peer: Identity) -> None:
    _log.info("{peer} did not get as far as HELLO: {reason}", peer=peer, reason=failure.value)


async def dial(
    runtime: Runtime,
    address: Address,
    *,
    plane: Plane,
    role: Role,
    hello: wire.Hello,
    service: Service | None = None,
    timeout_seconds: float = CONNECT_SECONDS,
) -> Link:
    """A link to the node of this role at this address, up.

    :raises Unavailable: where none comes up in time.
    :raises NotPermitted: where somebody else is there, or does not let us in.
    """
    answering = service if service is not None else NoService()

    def build(peer: Identity) -> Link:
        if peer.role is not role:
            raise NotPermitted(f"{peer} answers where a {role.value} should", str(address))
        return Link(plane, clock=runtime.clock, hello=hello, peer=peer, service=answering)

    link = await runtime.network.connect(address, build, timeout_seconds=timeout_seconds)
    assert isinstance(link, Link)
    try:
        await link.up
    except CancelledError:
        link.abort(Unavailable("the connection is not wanted any more", str(address)))
        raise
    return link


class Dialler:
    """Keeps one control link to one address up, dialling again whenever it is lost.

    :ivar link: the link while it is up.
    :ivar trouble: why it is not.
    """

    def __init__(
        self,
        runtime: Runtime,
        address: Address,
        *,
        role: Role,
        hello: Callable[[], wire.Hello],
        service: Service | None = None,
    ) -> None:
        self.address = address
        self.link: Link | None = None
        self.trouble: GridError = Unavailable("not connected yet", str(address))
        self._runtime = runtime
        self._role = role
        self._hello = hello
        self._service = _Watching(service if service is not None else NoService(), self._lost)
        self._backoff_seconds = LEAST_BACKOFF_SECONDS
        self._timer: IDelayedCall | None = None
        self._attempt: Deferred[None] | None = None
        self._waiting: list[Deferred[Link]] = []
        self._stopped = True

    def start(self) -> None:
        self._stopped = False
        self._dial()

    async def stop(self) -> None:
        """Close the link; nothing is dialled again."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempt is not None:
            self._attempt.cancel()
        if self.link is not None:
            self.link.close()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(Failure(Unavailable("the connection was closed", str(self.address))))

    def when_up(self) -> Deferred[Link]:
        """Fires with the link, now or as soon as there is one; cancel it to stop waiting."""
        waiter: Deferred[Link] = Deferred(self._waiting.remove)
        if self.link is not None:
            waiter.callback(self.link)
        else:
            self._waiting.append(waiter)
        return waiter

    def _dial(self) -> None:
        self._timer = None
        self._attempt = Deferred.fromCoroutine(self._connect())

    async def _connect(self) -> None:
        try:
            link = await dial(
                self._runtime,
                self.address,
                plane=Plane.CONTROL,
                role=self._role,
                hello=self._hello(),
                service=self._service,
            )
        except GridError as error:
            self._failed(error)
        except CancelledError:
            return
        else:
            self._came_up(link)
        finally:
            self._attempt = None

    def _came_up(self, link: Link) -> None:
        if self._stopped:
            link.close()
            return
        _log.info("linked to {peer} at {address}", peer=link.peer, address=self.address)
        self._backoff_seconds = LEAST_BACKOFF_SECONDS
        self.link = link
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(link)

    def _lost(self, link: Link, error: GridError) -> None:
        if self.link is link:
            self.link = None
            self._failed(error)

    def _failed(self, error: GridError) -> None:
        if str(error) != str(self.trouble):
            _log.info("no link to {address}: {reason}", address=self.address, reason=error)
        self.trouble = error
        if self._stopped:
            return
        # Full jitter, so that a head that comes back is not met by all its servers at once.
        delay = self._runtime.random.uniform(0.5, 1.0) * self._backoff_seconds
        self._backoff_seconds = min(self._backoff_seconds * 2, MOST_BACKOFF_SECONDS)
        self._timer = self._runtime.clock.callLater(delay, self._dial)


class _Watching:
    """A service, and somebody who wants to know when its link goes down."""

    def __init__(self, service: Service, lost: Callable[[Link, GridError], None]) -> None:
        self._service = service
        self._lost = lost
        self.methods = service.methods

    def link_up(self, link: Link) -> None:
        self._service.link_up(link)

    def link_down(self, link: Link, error: GridError) -> None:
        self._service.link_down(link, error)
        self._lost(link, error)


class DataPool:
    """Connections of the data plane, each lent to one transfer at a time."""

    def __init__(self, runtime: Runtime, hello: Callable[[], wire.Hello]) -> None:
        self._runtime = runtime
        self._hello = hello
        self._idle: dict[Address, list[tuple[Link, IDelayedCall]]] = {}
        self._lent: dict[Link, None] = {}  # in order: every run is alike

    async def acquire(self, address: Address) -> Link:
        """A link to the chunk server at this address, idle or new.

        :raises Unavailable: where none comes up in time.
        """
        idle = self._idle.get(address, [])
        while idle:
            link, timer = idle.pop()
            timer.cancel()
            if link.alive:
                self._lent[link] = None
                return link
        link = await dial(
            self._runtime, address, plane=Plane.DATA, role=Role.CHUNK, hello=self._hello()
        )
        self._lent[link] = None
        return link

    def release(self, address: Address, link: Link) -> None:
        """Give it back after a transfer that ended well; after any other, :meth:`drop` it."""
        self._lent.pop(link, None)
        idle = self._idle.setdefault(address, [])
        if not link.alive or len(idle) >= MOST_IDLE_PER_PEER:
            link.close()
            return
        seconds = IDLE_SECONDS if len(idle) < KEPT_PER_PEER else SPARE_SECONDS
        timer = self._runtime.clock.callLater(seconds, self._expire, address, link)
        idle.append((link, timer))

    def drop(self, link: Link) -> None:
        """End a link on which something of an unfinished transfer may still come."""
        self._lent.pop(link, None)
        link.abort(Unavailable("the transfer was given up", str(link.peer)))

    def close(self) -> None:
        idle, self._idle = self._idle, {}
        for links in idle.values():
            for link, timer in links:
                timer.cancel()
                link.close()
        for link in list(self._lent):
            self.drop(link)

    async def ask(
        self, address: Address, request: Message, answer: type[Answer], *, timeout_seconds: float
    ) -> Answer:
        """One call without a transfer, on a pooled connection."""
        link = await self.acquire(address)
        try:
            found = await link.call(request, answer, timeout_seconds=timeout_seconds)
        except Exception:
            self.drop(link)
            raise
        self.release(address, link)
        return found

    def _expire(self, address: Address, link: Link) -> None:
        self._idle[address] = [pair for pair in self._idle[address] if pair[0] is not link]
        link.close()
