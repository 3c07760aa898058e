"""What the machine can do without a grid: plain blocking TLS sockets, hash, write and fdatasync.

Each :class:`Hop` is a process of its own that takes one connection after the other. A put is
chained through three of them (each receives, forwards, hashes and writes a piece, then the next;
in the end each syncs, and answers once the one behind it has), a get is one stream from one of
them. :func:`naive_put` and :func:`naive_get` are the way that a grid must beat: all bytes through
one proxy, chunk after chunk, replica after replica.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from filegrid.disk import RealFile
from filegrid.model import BLOCK_BYTES

PIECE_BYTES = 256 * 1024
WRITEBACK_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 64 * 1024 * 1024

_REQUEST = struct.Struct(">3sQQ")  # what, from which byte of the file on, and how many
_DONE = b"+"


@dataclass(frozen=True, slots=True)
class Paper:
    """Certificates for both sides of every connection."""

    certificate: str
    authority: str

    def context(self, purpose: int) -> ssl.SSLContext:
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate)
        return context


class Hop:
    """One process, and the port that it listens on."""

    def __init__(self, paper: Paper, file: Path, onward: tuple[int, ...] = ()) -> None:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, paper, file, onward), daemon=True
        )
        self._process.start()
        self.port: int = ours.recv()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Three hops in a chain, whose first is used alone for reading; and a proxy before three."""

    paper: Paper
    hops: list[Hop]
    proxy: Hop
    naive: list[Hop]

    @property
    def pids(self) -> dict[str, int]:
        named = {f"hop {number}": hop.pid for number, hop in enumerate(self.hops + self.naive, 1)}
        return named | {"proxy": self.proxy.pid}


@contextmanager
def floor(paper: Paper, folder: Path) -> Iterator[Floor]:
    """:param folder: for the hops' files."""
    files = [folder / f"floor-{number}" for number in (1, 2, 3)]
    hops: list[Hop] = []
    for file in reversed(files):
        hops.insert(0, Hop(paper, file, tuple(hop.port for hop in hops[:1])))
    naive = [Hop(paper, folder / f"naive-{number}") for number in (1, 2, 3)]
    proxy = Hop(paper, folder / "unused", tuple(hop.port for hop in naive))
    try:
        yield Floor(paper=paper, hops=hops, proxy=proxy, naive=naive)
    finally:
        for hop in [*hops, *naive, proxy]:
            hop.stop()


def floor_put(floor: Floor, source: Path) -> None:
    """`source` through three processes onto three files, hashed here and by each."""
    _send_file(floor.paper, floor.hops[0].port, b"put", source, source.stat().st_size)


def floor_get(floor: Floor, size: int) -> float:
    """The first `size` bytes that the first hop has, hashed here; seconds to the first byte."""
    return _fetch(floor.paper, floor.hops[0].port, b"get", 0, size)


def naive_put(floor: Floor, source: Path) -> None:
    _send_file(floor.paper, floor.proxy.port, b"via", source, CHUNK_BYTES)


def naive_get(floor: Floor, size: int) -> float:
    first = 0.0
    for start in range(0, size, CHUNK_BYTES):
        length = min(CHUNK_BYTES, size - start)
        waited = _fetch(floor.paper, floor.proxy.port, b"fro", start, length)
        first = first or waited
    return first


def _fetch(paper: Paper, port: int, what: bytes, offset: int, size: int) -> float:
    begun, first = time.perf_counter(), 0.0
    with _connect(paper, port) as peer:
        peer.sendall(_REQUEST.pack(what, offset, size))
        for piece in _receive(peer, size):
            first = first or time.perf_counter() - begun
            _hash(piece)
    return first


def _send_file(paper: Paper, port: int, what: bytes, source: Path, most: int) -> None:
    with open(source, "rb", buffering=0) as file:
        size = source.stat().st_size
        for start in range(0, size, most):
            length = min(most, size - start)
            with _connect(paper, port) as peer:
                peer.sendall(_REQUEST.pack(what, start, length))
                while length:
                    piece = file.read(min(PIECE_BYTES, length))
                    _hash(memoryview(piece))
                    peer.sendall(piece)
                    length -= len(piece)
                _answer(peer)


def _connect(paper: Paper, port: int) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return paper.context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain)


def _serve(pipe: object, paper: Paper, file: Path, onward: tuple[int, ...]) -> None:
    context = paper.context(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])  # type: ignore[attr-defined]
        while True:
            with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
                what, start, size = _REQUEST.unpack(peer.recv(_REQUEST.size))
                _WORK[what](peer, start, size, paper, file, onward)


def _take(
    peer: ssl.SSLSocket, start: int, size: int, paper: Paper, path: Path, onward: tuple[int, ...]
) -> None:
    """Receive, forward, hash and write, a piece at a time; sync, and answer after the next one."""
    behind = _connect(paper, onward[0]) if onward else None
    if behind is not None:
        behind.sendall(_REQUEST.pack(b"put", start, size))
    file = RealFile(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    file.truncate(start)
    offset = started = start
    for piece in _receive(peer, size):
        if behind is not None:
            behind.sendall(piece)
        _hash(piece)
        file.pwrite([piece], offset)
        offset += len(piece)
        if offset - started >= WRITEBACK_BYTES:
            file.start_writeback(started, offset - started)
            started = offset
    file.datasync()
    file.close()
    if behind is not None:
        _answer(behind)
        behind.close()
    peer.sendall(_DONE)


def _give(
    peer: ssl.SSLSocket, start: int, size: int, paper: Paper, path: Path, onward: tuple[int, ...]
) -> None:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while size:
            piece = file.read(min(PIECE_BYTES, size))
            if not piece:
                raise ConnectionError("the file is shorter than was asked for")
            size -= len(piece)
            peer.sendall(piece)


def _take_for_others(
    peer: ssl.SSLSocket, start: int, size: int, paper: Paper, path: Path, onward: tuple[int, ...]
) -> None:
    """The proxy: all of a chunk first, then to one replica after the other."""
    chunk = b"".join(bytes(piece) for piece in _receive(peer, size))
    for port in onward:
        with _connect(paper, port) as replica:
            replica.sendall(_REQUEST.pack(b"put", start, size))
            replica.sendall(chunk)
            _answer(replica)
    peer.sendall(_DONE)


def _give_of_others(
    peer: ssl.SSLSocket, start: int, size: int, paper: Paper, path: Path, onward: tuple[int, ...]
) -> None:
    with _connect(paper, onward[0]) as replica:
        replica.sendall(_REQUEST.pack(b"get", start, size))
        chunk = b"".join(bytes(piece) for piece in _receive(replica, size))
    peer.sendall(chunk)


_WORK = {b"put": _take, b"get": _give, b"via": _take_for_others, b"fro": _give_of_others}


def _receive(peer: ssl.SSLSocket, size: int) -> Iterator[memoryview]:
    """Pieces in one buffer that is used again."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    while size:
        filled = 0
        while filled < min(PIECE_BYTES, size):
            count = peer.recv_into(buffer[filled : min(PIECE_BYTES, size)])
            if not count:
                raise ConnectionError("the peer ended in the middle")
            filled += count
        size -= filled
        yield buffer[:filled]


def _hash(piece: memoryview) -> None:
    for start in range(0, len(piece), BLOCK_BYTES):
        blake3(piece[start : start + BLOCK_BYTES]).digest()


def _answer(peer: ssl.SSLSocket) -> None:
    if peer.recv(1) != _DONE:
        raise ConnectionError("the hop failed")
