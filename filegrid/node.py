"""A node as a Twisted service: opened when it starts, ended in good order when it stops."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from filegrid.config import Settings
from filegrid.errors import GridError, NotPermitted
from filegrid.model import Identity, Role
from filegrid.net.credentials import Credentials
from filegrid.net.reactor import make_runtime
from filegrid.runtime import Runtime
from filegrid.start import check_port, fail_start


class Node(Protocol):
    """What a service of FileGrid is inside."""

    def start(self) -> Coroutine[Deferred[Any], Any, None]: ...

    def stop(self) -> Coroutine[Deferred[Any], Any, None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a node is opened with."""

    runtime: Runtime
    settings: Settings
    identity: Identity
    certificate_expires_ms: Callable[[], int]
    create: bool
    on_fatal: Callable[[GridError], None]


class NodeService(Service):
    """A head, a chunk server or a health node under twistd.

    What can be judged before twistd goes to the background is judged when this is made.

    :param open_node: opens the data folder and makes the node; it blocks.
    :param create: whether a missing data folder, or grid, may be made.
    :raises GridError: one line: what is wrong, and what mends it.
    """

    def __init__(
        self,
        role: Role,
        settings: Settings,
        open_node: Callable[[Opening], Node],
        *,
        create: bool,
    ) -> None:
        self._command = f"filegrid-{role.value}"
        self._settings = settings
        self._open_node = open_node
        self._create = create
        self._node: Node | None = None
        self._credentials = Credentials(settings.tls.certificate, settings.tls.authority)
        identity = self._credentials.identity
        if (identity.role, identity.name) != (role, settings.node.name):
            raise NotPermitted(
                f"this certificate is for {identity}, not for {role.value} {settings.node.name}",
                str(settings.tls.certificate),
                advice="name the right one in tls.certificate, or mend node.name",
            )
        check_port(settings.node.listen)

    def startService(self) -> None:
        from twisted.internet import reactor

        runtime = make_runtime(reactor, self._credentials)
        opening = Opening(
            runtime=runtime,
            settings=self._settings,
            identity=self._credentials.identity,
            certificate_expires_ms=lambda: self._credentials.expires_ms(runtime.clock.seconds()),
            create=self._create,
            on_fatal=lambda error: fail_start(reactor, self._command, error),
        )
        self._node = self._open_node(opening)
        # Modules, classes and what was just opened stay to the end: the garbage collector, which
        # stops everything for tens of milliseconds to look at them, need not look again.
        gc.collect()
        gc.freeze()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        starting = Deferred.fromCoroutine(self._node.start())
        starting.addErrback(self._not_started)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's
        return Deferred.fromCoroutine(self._node.stop()) if self._node is not None else None

    def _not_started(self, failure: Failure) -> None:
        from twisted.internet import reactor

        assert failure.value is not None
        fail_start(reactor, self._command, failure.value)
