"""The data plane's transport beside Twisted's own TLS and blocking sockets: the same bytes.

    python -m benchmarks.transport [--mib 1024] [--runs 5] [--json FILE]

One process sends from memory over loopback, a second takes the bytes and passes them on as they
come, a third takes them and drops them, under mutual TLS 1.3 with the same certificates and
cipher. The three kinds take turns. Prints processor seconds a GiB of all three processes together,
from the first byte to the last, and the speed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from benchmarks.floor import Paper
from benchmarks.measuring import GIB, MIB, report, told
from filegrid.measure import spread
from filegrid.model import Address, Role
from filegrid.net.authority import Authority
from filegrid.net.credentials import Credentials
from filegrid.net.reactor import make_runtime
from filegrid.runtime import Bytes

PIECE_BYTES = 512 * 1024
"""Written at once; smaller ones cost Twisted's own transport more."""

CONNECT_SECONDS = 10.0
WAIT_SECONDS = 300.0

KINDS = ("filegrid", "twisted", "blocking")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--mib", type=int, default=1024)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        paper = _paper(Path(scratch))
        for turn in range(options.runs):
            for kind in KINDS:
                found[kind].append(_transfer(kind, paper, options.mib * MIB))
            told(f"run {turn + 1} of {options.runs}")
    gibs = options.mib * MIB / GIB
    figures: dict[str, Any] = {
        kind: {
            "cpu_seconds_per_gib": spread([cpu / gibs for cpu, _ in found[kind]]),
            "mib_per_second": spread([options.mib / seconds for _, seconds in found[kind]]),
        }
        for kind in KINDS
    }
    for kind in KINDS[1:]:
        pairs = zip(found[kind], found["filegrid"], strict=True)
        figures[kind]["times_the_cpu_of_filegrid"] = spread([a[0] / b[0] for a, b in pairs])
    report({"mib": options.mib, "transport": figures}, options.json)


def _paper(folder: Path) -> Paper:
    Authority.create(folder / "ca", "0123abcd")
    certificate = folder / "chunk-1.pem"
    Authority.load(folder / "ca").issue(Role.CHUNK, "chunk-1").write(certificate)
    return Paper(str(certificate), str(folder / "ca" / "ca.pem"))


def _transfer(kind: str, paper: Paper, size: int) -> tuple[float, float]:
    """Processor seconds of all ends, and seconds by the clock."""
    spawn = multiprocessing.get_context("spawn")
    ends = []
    port = 0
    for what in ("take", "pass", "give"):
        ours, theirs = spawn.Pipe()
        end = spawn.Process(target=_run, args=(what, kind, paper, size, port, theirs), daemon=True)
        end.start()
        if what != "give":
            port = _received(ours)
        ends.append((end, ours))
    told = [_received(ours) for _, ours in ends]
    for end, _ in ends:
        end.join(CONNECT_SECONDS)
    return sum(cpu for cpu, _ in told), told[-1][1]


def _received(pipe: Connection) -> Any:
    if not pipe.poll(WAIT_SECONDS):
        raise SystemExit("one of the two processes says nothing")
    return pipe.recv()


# In the three processes.


def _run(what: str, kind: str, paper: Paper, size: int, port: int, pipe: Connection) -> None:
    meter = _Meter(size, pipe)
    if kind == "blocking":
        _run_blocking(what, paper, port, meter)
    else:
        _run_reactor(what, kind, paper, port, meter)


class _Meter:
    """Counts the bytes, and tells what they took."""

    def __init__(self, size: int, pipe: Connection) -> None:
        self.size = self.left = size
        self.pipe = pipe
        self._piece = memoryview(os.urandom(PIECE_BYTES))

    def begin(self) -> None:
        self._begun = time.process_time(), time.perf_counter()

    def next_piece(self) -> memoryview:
        """The next bytes to send; empty at the end."""
        piece = self._piece[: self.left]
        self.left -= len(piece)
        return piece

    def pieces(self) -> Iterator[memoryview]:
        return iter(self.next_piece, memoryview(b""))

    def end(self) -> None:
        cpu, clock = self._begun
        self.pipe.send((time.process_time() - cpu, time.perf_counter() - clock))


def _run_reactor(what: str, kind: str, paper: Paper, port: int, meter: _Meter) -> None:
    from twisted.internet import reactor

    loop: Any = reactor
    credentials = Credentials(paper.certificate, paper.authority)
    net = (_Ours if kind == "filegrid" else _Stock)(loop, credentials)
    if what == "give":
        net.connect(port, _Giver(meter, loop.stop, net.wrap))
    elif what == "take":
        net.listen(_Taker(meter, loop.stop), meter.pipe.send)
    else:
        back, ahead = _Back(meter, loop.stop), _Ahead()
        back.ahead, ahead.back = ahead, back
        net.connect(port, ahead)
        net.listen(back, meter.pipe.send)
    loop.run()


class _Ours:
    """FileGrid's own network."""

    wrap: Callable[[memoryview], Bytes] = memoryview

    def __init__(self, loop: Any, credentials: Credentials) -> None:
        self._network = make_runtime(loop, credentials).network

    def listen(self, protocol: Protocol, tell: Callable[[int], None]) -> None:
        listening = self._network.listen(Address("127.0.0.1", 0), lambda peer: protocol)
        listening.addCallback(lambda port: tell(port.address.port))

    def connect(self, port: int, protocol: Protocol) -> None:
        where = Address("127.0.0.1", port)
        self._network.connect(where, lambda peer: protocol, timeout_seconds=CONNECT_SECONDS)


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class _Stock:
    """Twisted's TLS, with the same certificates and cipher."""

    wrap = bytes  # what it takes

    def __init__(self, loop: Any, credentials: Credentials) -> None:
        self._loop = loop
        self._context = credentials.context(0.0)

    def listen(self, protocol: Protocol, tell: Callable[[int], None]) -> None:
        port = self._loop.listenSSL(0, _factory(Factory(), protocol), self, interface="127.0.0.1")
        tell(port.getHost().port)

    def connect(self, port: int, protocol: Protocol) -> None:
        self._loop.connectSSL("127.0.0.1", port, _factory(ClientFactory(), protocol), self)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    clientConnectionForTLS = serverConnectionForTLS


def _factory(factory: Any, protocol: Protocol) -> Any:
    factory.buildProtocol = lambda address: protocol
    return factory


class _Taker(Protocol):
    def __init__(self, meter: _Meter, stop: Callable[[], None]) -> None:
        self._meter = meter
        self._stop = stop

    def connectionMade(self) -> None:
        self._meter.begin()

    def dataReceived(self, data: Bytes) -> None:
        self._meter.left -= len(data)
        if not self._meter.left:
            self._meter.end()
            self.transport.write(b"+")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop()


class _Back(Protocol):
    """The end of who passes on that takes."""

    ahead: _Ahead

    def __init__(self, meter: _Meter, stop: Callable[[], None]) -> None:
        self._meter = meter
        self._stop = stop

    def connectionMade(self) -> None:
        self._meter.begin()
        self.ahead.transport.registerProducer(self.transport, True)  # type: ignore[arg-type]

    def dataReceived(self, data: Bytes) -> None:
        self.ahead.transport.write(data)  # type: ignore[arg-type]

    def passed(self) -> None:
        self._meter.end()
        self.transport.write(b"+")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ahead.transport.unregisterProducer()
        self.ahead.transport.loseConnection()
        self._stop()


class _Ahead(Protocol):
    """The end of who passes on that gives."""

    back: _Back

    def dataReceived(self, data: Bytes) -> None:
        self.back.passed()


@implementer(IPushProducer)
class _Giver(Protocol):
    def __init__(
        self,
        meter: _Meter,
        stop: Callable[[], None],
        wrap: Callable[[memoryview], Bytes],
    ) -> None:
        self._meter = meter
        self._stop = stop
        self._wrap = wrap
        self._paused = False

    def connectionMade(self) -> None:
        self._meter.begin()
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused and (piece := self._meter.next_piece()):
            self.transport.write(self._wrap(piece))  # type: ignore[arg-type]
        if not self._meter.left:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost says so."""

    def dataReceived(self, data: Bytes) -> None:
        self._meter.end()
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop()


def _run_blocking(what: str, paper: Paper, port: int, meter: _Meter) -> None:
    with ExitStack() as open_ends:
        ahead = back = None
        if what != "take":
            plain = socket.create_connection(("127.0.0.1", port))
            tls = paper.context(ssl.PROTOCOL_TLS_CLIENT)
            ahead = open_ends.enter_context(tls.wrap_socket(plain))
        if what != "give":
            with socket.create_server(("127.0.0.1", 0)) as listening:
                meter.pipe.send(listening.getsockname()[1])
                plain, _ = listening.accept()
            tls = paper.context(ssl.PROTOCOL_TLS_SERVER)
            back = open_ends.enter_context(tls.wrap_socket(plain, server_side=True))
        meter.begin()
        for piece in meter.pieces() if back is None else _taken(back, meter):
            if ahead is not None:
                ahead.sendall(piece)
        if ahead is not None:
            ahead.recv(1)
        meter.end()
        if back is not None:
            back.sendall(b"+")


def _taken(peer: ssl.SSLSocket, meter: _Meter) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(PIECE_BYTES))
    while meter.left:
        count = peer.recv_into(buffer)
        meter.left -= count
        yield buffer[:count]


if __name__ == "__main__":
    main()
