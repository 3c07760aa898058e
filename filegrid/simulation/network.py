"""A network in memory, on a simulated clock, that keeps TCP's promises and breaks everything else.

Inside a connection no byte is lost or reordered. Between two hosts bytes take time, come in any
split, stall while the way is cut (in one direction or both), and connections are reset when a host
crashes. Identities are handed over as certificates would; there is no TLS.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IProtocol, IPushProducer, IReactorTime
from twisted.python.failure import Failure

from filegrid.errors import GridError, NotPermitted, Unavailable
from filegrid.model import Address, Identity
from filegrid.runtime import Bytes, Listener

BUFFER_BYTES = 128 * 1024
"""What a sender may have under way before its producer is paused, as a socket's buffers."""

SEGMENT_BYTES = 64 * 1024
"""The most that arrives at once."""


BYTES_PER_SECOND = 1e9
"""Of a way that nothing is wrong with."""


@dataclass(slots=True, kw_only=True)
class Weather:
    """How bytes fare from one host to another; change it at any time."""

    latency_seconds: float = 0.0002
    jitter_seconds: float = 0.0
    bytes_per_second: float = BYTES_PER_SECOND
    cut: bool = False
    splits: bool = False  # deliver in random small pieces


@dataclass(slots=True)
class _Host:
    name: str
    run: int = 0  # of its process
    paused: bool = False
    connections: dict[_Side, None] = field(default_factory=dict)  # in order: every run is alike
    listeners: dict[int, _Listening] = field(default_factory=dict)


class SimulatedNetwork:
    """All hosts and what lies between them."""

    def __init__(self, clock: IReactorTime, random: random.Random) -> None:
        self.clock = clock
        self.random = random
        self._hosts: dict[str, _Host] = {}
        self._weather: dict[tuple[str, str], Weather] = {}
        self._sides: dict[_Side, None] = {}
        self._next_port = 20000

    def host(self, name: str, identity: Identity) -> HostNetwork:
        """What the node of this identity on this host sees of the network."""
        return HostNetwork(self, self._hosts.setdefault(name, _Host(name)), identity)

    def weather(self, source: str, target: str) -> Weather:
        return self._weather.setdefault((source, target), Weather())

    def cut(self, source: str, target: str, *, both_ways: bool = True) -> None:
        """Nothing passes from now on; connections stay up and wait."""
        self._set_cut(source, target, both_ways, cut=True)

    def mend(self, source: str, target: str, *, both_ways: bool = True) -> None:
        """What waited goes on."""
        self._set_cut(source, target, both_ways, cut=False)

    def _set_cut(self, source: str, target: str, both_ways: bool, *, cut: bool) -> None:
        self.weather(source, target).cut = cut
        if both_ways:
            self.weather(target, source).cut = cut
        if not cut and source in self._hosts:
            for side in list(self._hosts[source].connections):
                if side.peer._host.name == target:
                    side.carry()
                    side.peer.carry()

    def isolate(self, host: str) -> None:
        for other in self._hosts:
            if other != host:
                self.cut(host, other)

    def rejoin(self, host: str) -> None:
        for other in self._hosts:
            if other != host:
                self.mend(host, other)

    def crash(self, host: str) -> None:
        """The host's process is gone: its ports are closed, its peers see a reset."""
        gone = self._hosts[host]
        gone.run += 1
        gone.paused = False
        gone.listeners.clear()
        for side in list(gone.connections):
            side.vanish()

    def reset(self, host: str) -> None:
        """All connections of a host break; its process lives on."""
        for side in list(self._hosts[host].connections):
            side.abortConnection()

    @property
    def host_names(self) -> list[str]:
        return list(self._hosts)

    @property
    def connections(self) -> int:
        """How many there are between all hosts."""
        return len(self._sides) // 2

    def connected_hosts(self) -> list[str]:
        """Those that have a connection."""
        return [host.name for host in self._hosts.values() if host.connections]

    def pause(self, host: str) -> None:
        """The host's process is stopped: what it sent goes on its way, what comes waits."""
        self._hosts[host].paused = True

    def resume(self, host: str) -> None:
        self._hosts[host].paused = False
        for side in list(self._hosts[host].connections):
            side.carry()
            side.peer.carry()

    def _deliverable(self, source: str, target: str) -> bool:
        return not self.weather(source, target).cut


@dataclass(slots=True)
class _Listening:
    host: _Host
    identity: Identity
    address: Address
    build: Callable[[Identity], IProtocol]

    def close(self) -> Deferred[None]:
        self.host.listeners.pop(self.address.port, None)
        return succeed(None)


class HostNetwork:
    """:class:`filegrid.runtime.Network` for one node."""

    def __init__(self, network: SimulatedNetwork, host: _Host, identity: Identity) -> None:
        self._network = network
        self._host = host
        self._identity = identity

    def listen(
        self, address: Address, build: Callable[[Identity], IProtocol]
    ) -> Deferred[Listener]:
        port = address.port
        if not port:
            port = self._network._next_port
            self._network._next_port += 1
        if port in self._host.listeners:
            taken: Deferred[Listener] = Deferred()
            taken.errback(Unavailable(f"port {port} is taken", self._host.name))
            return taken
        listening = _Listening(self._host, self._identity, Address(self._host.name, port), build)
        self._host.listeners[port] = listening
        accepted: Deferred[Listener] = succeed(listening)
        return accepted

    def connect(
        self,
        address: Address,
        build: Callable[[Identity], IProtocol],
        *,
        timeout_seconds: float,
    ) -> Deferred[IProtocol]:
        attempt = _Attempt(self._network, self._host, self._identity, address, build)
        return attempt.start(timeout_seconds)


class _Attempt:
    """A connection being made: a round trip through the weather, then both ends are built."""

    def __init__(
        self,
        network: SimulatedNetwork,
        host: _Host,
        identity: Identity,
        address: Address,
        build: Callable[[Identity], IProtocol],
    ) -> None:
        self._network = network
        self._host = host
        self._run = host.run
        self._identity = identity
        self._address = address
        self._build = build
        self._done: Deferred[IProtocol] = Deferred(lambda _: self._give_up())
        self._calls: list[IDelayedCall] = []

    def start(self, timeout_seconds: float) -> Deferred[IProtocol]:
        self._later(timeout_seconds, self._time_out)
        self._try()
        return self._done

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._calls = [call for call in self._calls if call.active()]
        self._calls.append(self._network.clock.callLater(seconds, self._if_alive, work))

    def _if_alive(self, work: Callable[[], None]) -> None:
        """Nobody is left to be connected where the process has ended meanwhile."""
        if self._run == self._host.run:
            work()

    def _try(self) -> None:
        here, there = self._host.name, self._address.host
        passes = self._network._deliverable(here, there) and self._network._deliverable(there, here)
        passes = passes and not self._paused()
        out, back = self._network.weather(here, there), self._network.weather(there, here)
        if passes:
            self._later(out.latency_seconds + back.latency_seconds, self._arrive)
        else:
            self._later(0.2, self._try)  # as SYN is sent again

    def _paused(self) -> bool:
        """Whether either end has a process that does nothing now."""
        target = self._network._hosts.get(self._address.host)
        return self._host.paused or (target is not None and target.paused)

    def _arrive(self) -> None:
        if self._paused():
            self._try()
            return
        target = self._network._hosts.get(self._address.host)
        listening = target.listeners.get(self._address.port) if target is not None else None
        if target is None or listening is None:
            self._fail(Unavailable("the connection was refused", str(self._address)))
            return
        if listening.identity.grid_id != self._identity.grid_id:
            self._fail(NotPermitted("the certificate is of another grid", str(self._address)))
            return
        try:
            ours = self._build(listening.identity)
        except GridError as error:
            self._fail(error)
            return
        theirs = listening.build(self._identity)
        near = _Side(self._network, self._host, ours)
        far = _Side(self._network, target, theirs)
        near.peer, far.peer = far, near
        self._give_up()
        far.open()
        near.open()
        self._done.callback(ours)

    def _time_out(self) -> None:
        if self._host.paused:
            self._later(0.2, self._time_out)
            return
        self._fail(Unavailable("nobody answers", str(self._address)))

    def _fail(self, error: GridError) -> None:
        self._give_up()
        self._done.errback(Failure(error))

    def _give_up(self) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()
        self._calls = []


class _Side:
    """One end of a connection: a transport, and the bytes on their way from it."""

    peer: _Side

    def __init__(self, network: SimulatedNetwork, host: _Host, protocol: IProtocol) -> None:
        self._network = network
        self._host = host
        self._protocol = protocol
        self._sending: deque[bytes] = deque()  # written, not yet arrived
        self._sending_bytes = 0
        self._carrying: IDelayedCall | None = None
        self._free_at = 0.0
        self._producer: IPushProducer | None = None
        self._producer_paused = False
        self._reading = True
        self._closing = False
        self._gone = False

    def open(self) -> None:
        self._host.connections[self] = None
        self._network._sides[self] = None
        self._protocol.makeConnection(self)  # type: ignore[arg-type]

    # The transport's face.

    def write(self, data: Bytes) -> None:
        if self._gone or self._closing or not data:
            return
        kept = bytes(data)
        self._sending.append(kept)
        self._sending_bytes += len(kept)
        if self._sending_bytes >= BUFFER_BYTES and self._producer and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()
        self.carry()

    def writeSequence(self, data: Sequence[Bytes]) -> None:
        for piece in data:
            self.write(piece)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming and self._producer is None
        if self._gone:
            producer.stopProducing()
            return
        self._producer = producer
        self._producer_paused = self._sending_bytes >= BUFFER_BYTES
        if self._producer_paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        self._producer_paused = False

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self.peer.carry()

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self._closing = True
        self.carry()

    def abortConnection(self) -> None:
        if not self._gone:
            self.vanish(notify_self=True)

    def getPeer(self) -> Address:
        return Address(self.peer._host.name, 0)

    def getHost(self) -> Address:
        return Address(self._host.name, 0)

    # The way to the peer.

    def carry(self) -> None:
        """Set the next piece on its way, where there is one and the weather allows."""
        if self._carrying is not None or self._gone:
            return
        if not self._sending and not self._closing:
            return
        weather = self._network.weather(self._host.name, self.peer._host.name)
        if weather.cut or not self.peer._takes():
            return
        now = self._network.clock.seconds()
        size = len(self._sending[0]) if self._sending else 0
        start = max(now, self._free_at)
        self._free_at = start + min(size, SEGMENT_BYTES) / weather.bytes_per_second
        delay = self._free_at - now
        # Latency is felt by the first piece of a burst; those behind it are already under way.
        if start == now:
            delay += weather.latency_seconds
            if weather.jitter_seconds:
                delay += self._network.random.uniform(0, weather.jitter_seconds)
        self._carrying = self._network.clock.callLater(delay, self._arrived)

    def _arrived(self) -> None:
        self._carrying = None
        weather = self._network.weather(self._host.name, self.peer._host.name)
        if self._gone or weather.cut or not self.peer._takes():
            self._free_at = 0.0
            return
        if not self._sending:
            if self._closing:
                self._closed()
            return
        piece = self._next_piece(weather)
        self._sending_bytes -= len(piece)
        self.peer._receive(piece)
        if self._producer_paused and self._sending_bytes < BUFFER_BYTES // 2 and self._producer:
            self._producer_paused = False
            self._producer.resumeProducing()
        self.carry()

    def _next_piece(self, weather: Weather) -> bytes:
        """A segment: several small writes together, or a part of a large one."""
        most = SEGMENT_BYTES
        if weather.splits:
            most = self._network.random.randint(1, 3000)
        parts: list[bytes] = []
        room = most
        while self._sending and room:
            first = self._sending.popleft()
            parts.append(first[:room])
            if len(first) > room:
                self._sending.appendleft(first[room:])
            room -= len(parts[-1])
        return b"".join(parts)

    def _takes(self) -> bool:
        return self._reading and not self._host.paused

    def _receive(self, piece: bytes) -> None:
        if not self._gone:
            self._protocol.dataReceived(piece)

    def _closed(self) -> None:
        """All was delivered and this side wants to end: both ends are told."""
        self.vanish(notify_self=True, clean=True)

    def vanish(self, *, notify_self: bool = False, clean: bool = False) -> None:
        """End the connection: with `notify_self` also at this end, not only at the peer's."""
        if self._gone:
            return
        reason = Failure(ConnectionDone() if clean else ConnectionLost())
        self._leave()
        if notify_self:
            self._network.clock.callLater(0, self._lose_here, reason, self._host.run)
        self._tell_peer(reason)

    def _tell_peer(self, reason: Failure) -> None:
        weather = self._network.weather(self._host.name, self.peer._host.name)
        if self.peer._gone:
            return
        if weather.cut:
            # Half-open: the peer learns of it once something passes again.
            self._network.clock.callLater(0.2, self._tell_peer, reason)
            return
        self._network.clock.callLater(weather.latency_seconds, self.peer._lose, reason)

    def _lose(self, reason: Failure) -> None:
        if self._host.paused:
            self._network.clock.callLater(0.2, self._lose, reason)
        elif not self._gone:
            self._leave()
            self._protocol.connectionLost(reason)

    def _lose_here(self, reason: Failure, run: int) -> None:
        if self._host.run == run:  # else the process is gone, and nobody is there to be told
            self._protocol.connectionLost(reason)

    def _leave(self) -> None:
        self._gone = True
        self._host.connections.pop(self, None)
        self._network._sides.pop(self, None)
        if self._carrying is not None and self._carrying.active():
            self._carrying.cancel()
        self._carrying = None
        self._sending.clear()
        self._sending_bytes = 0
        if self._producer is not None:
            self._producer.stopProducing()
