"""Mutual TLS over any transport: nothing of ours meets a peer that has not proved who it is.

A gate stands where the application's protocol will. It sees the handshake through, within a
deadline, takes the peer's identity from its certificate, and only then has the application's
protocol built. :class:`ServerSide` and :class:`ClientSide` are ordinary protocol factories; the
transport may be TCP or a pair in memory.

What the application's protocol gets as its transport takes ``bytes`` and ``memoryview`` alike and
has copied them when ``write`` returns. It joins no small writes: callers do that themselves.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from filegrid.errors import GridError, NotPermitted, Unavailable
from filegrid.model import Address, Identity, Role
from filegrid.net.certificates import identity_of
from filegrid.net.credentials import VERIFY_BOTH, Credentials

Build = Callable[[Identity], IProtocol]
"""Makes the application's protocol for a peer, or raises a GridError to refuse it."""

HANDSHAKE_SECONDS = 10.0
"""A peer that is slower than this holds a descriptor for nothing."""
MOST_HANDSHAKES = 256
"""At once, at one listener; above it strangers could use up all descriptors and memory."""

_SERVING = (Role.HEAD, Role.CHUNK, Role.HEALTH)
"""Whose certificates serve: with a user's, one could otherwise pose as a head."""

_ASK_FOR_RENEWAL = "renew it with: filegrid ca renew"
_VERDICTS = {  # X509_V_ERR_..., see openssl-verification-options(1)
    7: ("its certificate's signature is false", ""),
    9: ("its certificate is not valid yet", "compare the machines' clocks"),
    10: ("its certificate has expired", _ASK_FOR_RENEWAL),
    18: ("its certificate is of an unknown authority", "is it a node of this grid?"),
    19: ("its certificate is of an unknown authority", "is it a node of this grid?"),
    20: ("its certificate is of an unknown authority", "is it a node of this grid?"),
    21: ("its certificate is of an unknown authority", "is it a node of this grid?"),
}


def explain(reason: Failure) -> GridError:
    """What the loss of a connection inside TLS means."""
    if reason.check(ConnectionClosed):
        return Unavailable("it closed the connection during the handshake")
    if not reason.check(SSL.Error):
        return Unavailable(reason.getErrorMessage())
    text = _openssl_text(reason.value)
    if "did not return a certificate" in text:
        return NotPermitted("it showed no certificate")
    if "alert" in text and ("certificate" in text or "unknown ca" in text):
        said = text.rpartition("alert ")[2]
        return NotPermitted(
            f"it refused our certificate ({said})",
            advice="is it of this grid, and still valid? See: filegrid ca list",
        )
    return Unavailable(f"TLS 1.3 with it failed ({text})")


def _openssl_text(error: BaseException | None) -> str:
    """The last word of OpenSSL's error queue: [(library, function, reason), ...]."""
    queue = error.args[0] if error is not None and error.args else None
    return str(queue[-1][-1]) if isinstance(queue, list) and queue else "broken off"


@implementer(IHandshakeListener)
class Gate(Protocol):
    """Sees one handshake through, and then passes on all that happens."""

    def __init__(self, side: _Side, peer: str) -> None:
        self.peer = peer
        self._side = side
        self._tls: TLSMemoryBIOProtocol | None = None
        self._deadline: IDelayedCall | None = None
        self._verdict: NotPermitted | None = None
        self._application: IProtocol | None = None
        self._settled = False

    def connectionMade(self) -> None:
        assert isinstance(self.transport, TLSMemoryBIOProtocol)
        self._tls = self.transport
        if ITCPTransport.providedBy(self._tls.transport):
            self._tls.setTcpNoDelay(True)
        self._deadline = self._side.clock.callLater(
            HANDSHAKE_SECONDS,
            lambda: self.refuse(Unavailable(f"no handshake within {HANDSHAKE_SECONDS:.0f} s")),
        )

    def judge(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, good: int
    ) -> bool:
        """Takes OpenSSL's verdict as it is, and remembers it: its error queue does not say it."""
        if not good:
            what, advice = _VERDICTS.get(error, (f"its certificate is bad (X.509 {error})", ""))
            self._verdict = NotPermitted(what, advice=advice)
        return bool(good)

    def handshakeCompleted(self) -> None:
        assert self._tls is not None
        if self._settled:
            return
        try:
            application = self._side.build(self._side.admit(self._tls))
        except GridError as error:
            self.refuse(error)
            return
        self._settle()
        self._application = application
        application.makeConnection(self._tls)
        self._side.opened(application)

    def refuse(self, error: GridError) -> None:
        """Drop the peer; a second reason is not reported."""
        if not self._settled:
            self._settle()
            self._side.refused(self, error)
        if self._tls is not None:
            self._tls.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._application is not None:
            self._application.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        application, self._application = self._application, None
        self._tls = None
        if application is not None:
            if reason.check(SSL.Error):
                error = explain(reason)
                error.subject = self.peer
                reason = Failure(error)
            application.connectionLost(reason)
        else:
            self.refuse(self._verdict or explain(reason))

    def _settle(self) -> None:
        self._settled = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._side.gates.discard(self)


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class _Connections:
    """Makes OpenSSL's part of each connection, with the credentials of this moment."""

    def __init__(self, credentials: Credentials, clock: IReactorTime) -> None:
        self._credentials = credentials
        self._clock = clock

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._credentials.context(self._clock.seconds()))
        gate = tlsProtocol.wrappedProtocol
        assert isinstance(gate, Gate)
        connection.set_verify(VERIFY_BOTH, gate.judge)
        return connection

    clientConnectionForTLS = serverConnectionForTLS


class _Side(TLSMemoryBIOFactory):
    protocol = TLSMemoryBIOProtocol  # not the default, which delays and joins small writes
    noisy = False

    def __init__(
        self, credentials: Credentials, build: Build, clock: IReactorTime, *, is_client: bool
    ) -> None:
        inner = Factory()
        inner.noisy = False
        super().__init__(_Connections(credentials, clock), is_client, inner, clock=clock)
        self.build = build
        self.clock = clock
        self.gates: set[Gate] = set()
        self._credentials = credentials

    def behind_gate(self, peer: str) -> TLSMemoryBIOProtocol:
        gate = Gate(self, peer)
        self.gates.add(gate)
        return TLSMemoryBIOProtocol(self, gate)

    def admit(self, tls: TLSMemoryBIOProtocol) -> Identity:
        """:raises NotPermitted: where the peer is not of this grid."""
        certificate = tls.getHandle().get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise NotPermitted("it showed no certificate")
        identity = identity_of(certificate)
        if identity.grid_id != self._credentials.identity.grid_id:
            raise NotPermitted(f"it is of another grid, {identity.grid_id}")
        return identity

    def opened(self, application: IProtocol) -> None:
        raise NotImplementedError

    def refused(self, gate: Gate, error: GridError) -> None:
        raise NotImplementedError


class ServerSide(_Side):
    """Accepts peers; logs each that is refused, once."""

    _log = Logger()

    def __init__(self, credentials: Credentials, build: Build, clock: IReactorTime) -> None:
        super().__init__(credentials, build, clock, is_client=False)

    def buildProtocol(  # type: ignore[override]  # WrappingFactory forgets that None refuses
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        if len(self.gates) >= MOST_HANDSHAKES:
            self._warn(_text(addr), f"{MOST_HANDSHAKES} handshakes are pending already")
            return None  # the port closes the connection at once
        return self.behind_gate(_text(addr))

    def opened(self, application: IProtocol) -> None:
        pass

    def refused(self, gate: Gate, error: GridError) -> None:
        self._warn(gate.peer, str(error))

    def close(self) -> None:
        """Drop the handshakes that are not done; connections that are up stay up."""
        for gate in list(self.gates):
            gate.refuse(Unavailable("this node is stopping"))

    def _warn(self, address: str, reason: str) -> None:
        self._log.warn("{address} refused: {reason}", address=address, reason=reason)


class ClientSide(_Side):
    """For one connection to one peer.

    :ivar up: fires with the application's protocol once it is connected, or fails with
        NotPermitted or Unavailable. Cancelling it drops the connection.
    """

    def __init__(
        self, credentials: Credentials, build: Build, clock: IReactorTime, peer: str
    ) -> None:
        super().__init__(credentials, build, clock, is_client=True)
        self.up: Deferred[IProtocol] = Deferred(self._cancelled)
        self._peer = peer

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol:
        return self.behind_gate(self._peer)

    def admit(self, tls: TLSMemoryBIOProtocol) -> Identity:
        identity = super().admit(tls)
        if identity.role not in _SERVING:
            raise NotPermitted(f"it is {identity}, which may not serve")
        return identity

    def opened(self, application: IProtocol) -> None:
        self.up.callback(application)

    def refused(self, gate: Gate, error: GridError) -> None:
        error.subject = error.subject or self._peer
        if not self.up.called:
            self.up.errback(error)

    def _cancelled(self, up: Deferred[IProtocol]) -> None:
        up.errback(CancelledError())
        for gate in list(self.gates):
            gate.refuse(Unavailable("given up"))


def _text(address: IAddress | None) -> str:
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return str(address) if host is None or port is None else str(Address(host, port))
