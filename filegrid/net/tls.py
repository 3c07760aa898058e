"""The real network: mutual TLS over TCP."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)

from filegrid.errors import Unavailable
from filegrid.model import Address
from filegrid.net.credentials import Credentials
from filegrid.net.handshake import Build, ClientSide, ServerSide
from filegrid.net.records import Slabs
from filegrid.runtime import Listener

_BACKLOG = 512
"""Connections that the kernel holds for us; fewer are lost when all clients of a grid return."""


class TlsNetwork:
    """:class:`filegrid.runtime.Network` over TCP.

    :param reactor: makes the TCP connections.
    :param clock: the runtime's: handshakes and connection attempts are timed by it.
    """

    def __init__(self, reactor: object, credentials: Credentials, clock: IReactorTime) -> None:
        # IReactorTCP and more, which endpoints ask for in pieces and mypy cannot join.
        self._reactor: Any = reactor
        self._credentials = credentials
        self._clock = clock
        self._slabs = Slabs()

    def listen(self, address: Address, build: Build) -> Deferred[Listener]:
        return Deferred.fromCoroutine(self._listen(address, build))

    async def _listen(self, address: Address, build: Build) -> Listener:
        side = ServerSide(self._credentials, build, self._clock, self._slabs)
        try:
            port = self._reactor.listenTCP(
                address.port, side, backlog=_BACKLOG, interface=address.host
            )
        except CannotListenError as error:
            raise _cannot_listen(address, error) from None
        return _Port(port, side)

    def connect(
        self, address: Address, build: Build, *, timeout_seconds: float
    ) -> Deferred[IProtocol]:
        def too_late(result: object, timeout: float) -> IProtocol:
            raise Unavailable(f"no answer within {timeout:g} s", str(address))

        attempt = Deferred.fromCoroutine(self._connect(address, build, timeout_seconds))
        return attempt.addTimeout(timeout_seconds, self._clock, onTimeoutCancel=too_late)

    async def _connect(self, address: Address, build: Build, timeout_seconds: float) -> IProtocol:
        side = ClientSide(self._credentials, build, self._clock, self._slabs, str(address))
        try:
            await self._endpoint(address, timeout_seconds).connect(side)
        except ConnectingCancelledError:
            raise CancelledError from None
        except (ConnectError, DNSLookupError, ValueError) as error:
            raise _cannot_connect(address, error) from None
        return await side.up

    def _endpoint(self, address: Address, timeout_seconds: float) -> IStreamClientEndpoint:
        where = (self._reactor, address.host, address.port, timeout_seconds)
        if isIPAddress(address.host):
            return TCP4ClientEndpoint(*where)
        if isIPv6Address(address.host):
            return TCP6ClientEndpoint(*where)
        return HostnameEndpoint(*where)


class _Port:
    """A listening port and the handshakes that go on behind it."""

    def __init__(self, port: IListeningPort, side: ServerSide) -> None:
        self._port = port
        self._side = side
        host: Any = port.getHost()
        self.address = Address(host.host, host.port)

    def close(self) -> Deferred[None]:
        self._side.close()
        return maybeDeferred(self._port.stopListening).addCallback(lambda _: None)


def _cannot_listen(address: Address, error: CannotListenError) -> Unavailable:
    cause = error.socketError
    code = getattr(cause, "errno", None)
    if code == errno.EADDRINUSE:
        advice = "stop what listens on it, or configure another"
        return Unavailable(f"port {address.port} is taken", str(address), advice=advice)
    if code == errno.EACCES:
        advice = "take one above 1023"
        return Unavailable(f"port {address.port} needs root", str(address), advice=advice)
    return Unavailable(f"cannot listen: {getattr(cause, 'strerror', cause)}", str(address))


def _cannot_connect(address: Address, error: Exception) -> Unavailable:
    if isinstance(error, ConnectionRefusedError):
        return Unavailable("nobody listens there", str(address), advice="is the node running?")
    if isinstance(error, DNSLookupError):
        return Unavailable("no such host name", str(address))
    return Unavailable(f"cannot be reached: {str(error).rstrip('.')}", str(address))
