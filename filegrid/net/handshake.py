"""Mutual TLS over any transport: nothing of ours meets a peer that has not proved who it is.

A gate stands where the application's protocol will. It sees the handshake through, within a
deadline, takes the peer's identity from its certificate, and only then has the application's
protocol built, whose transport it is from then on. :class:`ServerSide` and :class:`ClientSide` are
ordinary protocol factories; the transport beneath may be TCP or a pair in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from filegrid.errors import GridError, NotPermitted, Unavailable
from filegrid.model import Address, Identity, Role
from filegrid.net.certificates import identity_of
from filegrid.net.credentials import VERIFY_BOTH, Credentials
from filegrid.net.records import Slabs
from filegrid.net.socket_tls import TlsTransport

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


class Gate(TlsTransport):
    """Sees one handshake through, and then carries the application's bytes."""

    def __init__(self, side: _Side, peer: str) -> None:
        connection = SSL.Connection(side.credentials.context(side.clock.seconds()))
        connection.set_verify(VERIFY_BOTH, self.judge)
        if side.is_client:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        super().__init__(connection, side.slabs, side.clock)
        self.peer = peer
        self._side = side
        self._deadline: IDelayedCall | None = None
        self._verdict: NotPermitted | None = None
        self._settled = False

    def connectionMade(self) -> None:
        self._deadline = self._side.clock.callLater(
            HANDSHAKE_SECONDS,
            lambda: self.refuse(Unavailable(f"no handshake within {HANDSHAKE_SECONDS:.0f} s")),
        )
        super().connectionMade()

    def judge(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, good: int
    ) -> bool:
        """Takes OpenSSL's verdict as it is, and remembers it: its error queue does not say it."""
        if not good:
            what, advice = _VERDICTS.get(error, (f"its certificate is bad (X.509 {error})", ""))
            self._verdict = NotPermitted(what, advice=advice)
        return bool(good)

    def shake_hands(self) -> None:
        if self._settled:
            return
        connection = self.getHandle()
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self.flush()
            return
        except SSL.Error:
            self.fail(Failure())
            return
        self.flush()
        try:
            application = self._side.build(self._side.admit(connection))
        except GridError as error:
            self.refuse(error)
            return
        self._settle()
        self.serve(application)
        self._side.opened(application)

    def refuse(self, error: GridError) -> None:
        """Drop the peer; a second reason is not reported."""
        if not self._settled:
            self._settle()
            self._side.refused(self, error)
        self.abortConnection()

    def lost(self, reason: Failure) -> Failure:
        if not self._settled:
            self._settle()
            self._side.refused(self, self._verdict or explain(reason))
        if not reason.check(SSL.Error):
            return reason
        error = explain(reason)
        error.subject = self.peer
        return Failure(error)

    def _settle(self) -> None:
        self._settled = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._side.gates.discard(self)


class _Side(Factory):
    noisy = False

    def __init__(
        self,
        credentials: Credentials,
        build: Build,
        clock: IReactorTime,
        slabs: Slabs,
        *,
        is_client: bool,
    ) -> None:
        self.build = build
        self.clock = clock
        self.credentials = credentials
        self.gates: set[Gate] = set()
        self.is_client = is_client
        self.slabs = slabs

    def behind_gate(self, peer: str) -> Gate:
        gate = Gate(self, peer)
        self.gates.add(gate)
        return gate

    def admit(self, connection: SSL.Connection) -> Identity:
        """:raises NotPermitted: where the peer is not of this grid."""
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise NotPermitted("it showed no certificate")
        identity = identity_of(certificate)
        if identity.grid_id != self.credentials.identity.grid_id:
            raise NotPermitted(f"it is of another grid, {identity.grid_id}")
        return identity

    def opened(self, application: IProtocol) -> None:
        raise NotImplementedError

    def refused(self, gate: Gate, error: GridError) -> None:
        raise NotImplementedError


class ServerSide(_Side):
    """Accepts peers; logs each that is refused, once."""

    _log = Logger()

    def __init__(
        self, credentials: Credentials, build: Build, clock: IReactorTime, slabs: Slabs
    ) -> None:
        super().__init__(credentials, build, clock, slabs, is_client=False)

    def buildProtocol(self, addr: IAddress | None) -> Gate | None:
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
        self,
        credentials: Credentials,
        build: Build,
        clock: IReactorTime,
        slabs: Slabs,
        peer: str,
    ) -> None:
        super().__init__(credentials, build, clock, slabs, is_client=True)
        self.up: Deferred[IProtocol] = Deferred(self._cancelled)
        self._peer = peer

    def buildProtocol(self, addr: IAddress | None) -> Gate:
        return self.behind_gate(self._peer)

    def admit(self, connection: SSL.Connection) -> Identity:
        identity = super().admit(connection)
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
