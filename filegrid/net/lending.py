"""Open files handed to other processes of this machine over a Unix socket.

The socket's name is in the abstract namespace: it needs no folder, ends with its process, and is
seen by the processes of this machine alone. Who may have which file was settled elsewhere; here a
token of 16 random bytes, good once and for seconds, stands for that.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from filegrid.disk import RealFile
from filegrid.errors import Busy
from filegrid.runtime import File

TOKEN_BYTES = 16

LENT_SECONDS = 5.0
"""A file that nobody fetches for so long is closed: each is a descriptor of ours."""

MOST_LENT = 128
"""Files that wait to be fetched; above it the reader is told to take the bytes over the network."""

BORROW_SECONDS = 2.0
"""A lender that does not hand the file over in this time has no time to read it either."""


class DescriptorLending:
    """:class:`filegrid.runtime.Lending` with SCM_RIGHTS. Listens once something is lent.

    :param reactor: Twisted's.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._name = ""
        self._port: Any = None  # IListeningPort
        self._lent: dict[bytes, tuple[File, IDelayedCall]] = {}

    def lend(self, file: File) -> tuple[str, bytes]:
        """:raises Busy: where too many files wait; the file is closed then."""
        if len(self._lent) >= MOST_LENT:
            file.close()
            raise Busy(f"{MOST_LENT} files wait to be fetched")
        if not self._name:
            self._name = f"filegrid-{secrets.token_hex(16)}"
            self._port = self._reactor.listenUNIX(f"\0{self._name}", _Desk(self))
        token = secrets.token_bytes(TOKEN_BYTES)
        self._lent[token] = file, self._reactor.callLater(LENT_SECONDS, self._expire, token)
        return self._name, token

    def take(self, token: bytes) -> File | None:
        """The file that is lent under the token, which is used up by this."""
        found = self._lent.pop(token, None)
        if found is None:
            return None
        file, timer = found
        if timer.active():
            timer.cancel()
        return file

    def borrow(self, where: str, token: bytes) -> RealFile:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as desk:
            desk.settimeout(BORROW_SECONDS)
            desk.connect(f"\0{where}")
            desk.sendall(token)
            _, fds, _, _ = socket.recv_fds(desk, 1, 1)
        if not fds:
            raise OSError("nothing is lent under this token")
        fd = fds[0]
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("what was handed over is no file")
        return RealFile(fd)

    async def stop(self) -> None:
        """Lend nothing more."""
        for token in list(self._lent):
            self._expire(token)
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)

    def _expire(self, token: bytes) -> None:
        file = self.take(token)
        if file is not None:
            file.close()


class _Handing(Protocol):
    """One borrower at the desk."""

    def __init__(self, lending: DescriptorLending, timer: IDelayedCall) -> None:
        self._lending = lending
        self._timer = timer
        self._token = b""
        self._file: File | None = None

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport  # IUNIXTransport
        self._token += data
        if len(self._token) < TOKEN_BYTES or self._file is not None:
            return
        self._file = self._lending.take(self._token)
        if isinstance(self._file, RealFile):
            transport.sendFileDescriptor(self._file.fileno())
            transport.write(b"+")
        transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer.active():
            self._timer.cancel()
        if self._file is not None:
            self._file.close()


class _Desk(Factory):
    noisy = False

    def __init__(self, lending: DescriptorLending) -> None:
        self._lending = lending

    def buildProtocol(self, addr: object) -> Protocol:
        def too_slow() -> None:
            transport: Any = handing.transport
            transport.abortConnection()

        timer = self._lending._reactor.callLater(BORROW_SECONDS, too_slow)
        handing = _Handing(self._lending, timer)
        return handing
