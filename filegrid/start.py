"""Starting a service under twistd: what goes wrong is said in one line, and twistd exits non-zero.

A service that cannot start says so at one of three moments, the earlier the better:

1. ``make_service(options)`` raises. twistd has not gone to the background yet: the line is on
   standard error and the exit code is 1. Settings, certificates and ports are looked at here. It
   is too early to open databases, to lock files or to start threads: none of these outlives the
   fork that takes twistd to the background.
2. ``startService()`` raises. The line is on standard error and in the log, and twistd, also the
   one that goes to the background, exits with 1.
3. Later, in the reactor: the service calls :func:`fail_start`. The line is in the log, and on
   standard error unless twistd is in the background; that process exits with 1.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService, MultiService
from twisted.logger import Logger
from twisted.python.reflect import namedAny

from filegrid.errors import GridError, Unavailable
from filegrid.model import Address

_log = Logger()


class StartFailed(Exception):
    """A service did not start; what was wrong has been said."""


def maker(module: str, command: str) -> Callable[[Any], IService]:
    """What twistd calls to make the service of `module`, which has a ``make_service(options)``.

    :param command: what error lines begin with, such as ``filegrid-head``.
    """

    def make(options: Any) -> IService:
        try:
            service: IService = namedAny(module).make_service(options)
        except (GridError, OSError) as error:
            raise SystemExit(_line(command, error)) from None
        return _Guarded(command, service)

    return make


def application(role: str, config: Path) -> Any:
    """For a .tac file: the service of `role` with its sample settings.

    :param role: ``head``, ``chunk`` or ``health``.
    :param config: the TOML file, unless the variable FILEGRID_CONFIG names another.
    """
    module, command = f"filegrid.{role}.plugin", f"filegrid-{role}"
    options = namedAny(module).Options()
    options.parseOptions(["--config", os.environ.get("FILEGRID_CONFIG") or str(config)])
    made = Application(command)
    maker(module, command)(options).setServiceParent(made)
    return made


def check_port(address: Address) -> None:
    """Refuse a port that another process listens on, before anything else is done.

    :raises Unavailable: where `address` cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
            # Bound is not enough: with SO_REUSEADDR two may bind and only one listen.
            probe.listen(1)
    except OSError as error:
        raise Unavailable(
            f"cannot listen here: {error.strerror or error}",
            str(address),
            advice="stop what uses the port, or change node.listen",
        ) from None


def fail_start(reactor: Any, command: str, error: BaseException) -> None:
    """End this twistd: its service could not start after all. Say why, stop, exit with 1."""
    _say(_line(command, error), error)
    # twistd exits with 0 whenever its reactor stops: the last word is had behind its back.
    atexit.register(_exit_with_1)
    reactor.callWhenRunning(reactor.stop)


def _exit_with_1() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(1)


class _Guarded(MultiService):
    """The service, and one line in the place of a traceback where it does not start."""

    def __init__(self, command: str, service: IService) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._command = command
        service.setServiceParent(self)
        # twistd puts /dev/null in the place of standard error when it goes to the background.
        self._stderr = None
        with contextlib.suppress(OSError):
            self._stderr = os.dup(2)

    def privilegedStartService(self) -> None:
        with self._one_line():
            super().privilegedStartService()  # type: ignore[no-untyped-call]  # Twisted's

    def startService(self) -> None:
        with self._one_line():
            super().startService()  # type: ignore[no-untyped-call]  # Twisted's
        self._let_go_of_stderr()

    @contextlib.contextmanager
    def _one_line(self) -> Any:
        try:
            yield
        except Exception as error:
            from twisted.internet import reactor

            line = _line(self._command, error)
            _say(line, error, self._stderr)
            self._let_go_of_stderr()
            # Threads that were started would keep the process; they end with the reactor.
            reactor.fireSystemEvent("shutdown")
            # What twistd's caller sees is the line; the traceback of a bug is in the log.
            sys.excepthook = lambda *_: None
            raise StartFailed(line) from None

    def _let_go_of_stderr(self) -> None:
        if self._stderr is not None:
            os.close(self._stderr)
            self._stderr = None


def _line(command: str, error: BaseException) -> str:
    if isinstance(error, GridError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = f"{type(error).__name__}: {error}; this is a bug, its traceback is in the log"
    return f"{command}: {' '.join(text.split())}"


def _say(line: str, error: BaseException, stderr: int | None = 2) -> None:
    """Put the line into the log and on standard error."""
    if isinstance(error, (GridError, OSError)):
        _log.critical("{line}", line=line)
    else:
        _log.critical("{line}\n{error!r}", line=line, error=error, log_failure=_failure(error))
    if stderr is not None:
        with contextlib.suppress(OSError):
            os.write(stderr, f"{line}\n".encode())


def _failure(error: BaseException) -> Any:
    from twisted.python.failure import Failure

    return Failure(error)
