"""A whole grid on this machine: its nodes as processes, each a twistd of its own."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from filegrid.cli.local_home import Home, Shape, check_same, load_home, role_of, save_home
from filegrid.cli.local_make import check_ports, make_home
from filegrid.errors import DeadlineExceeded, InvalidRequest, Unavailable

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
"""The twistd of this same environment, whatever PATH says."""

START_SECONDS = 60.0
STOP_SECONDS = 30.0
READY_SECONDS = 60.0
_LOOK_SECONDS = 0.05

_MOST_LOG_BYTES = 16 * 1024
"""How much of a log's end is searched for the reason of a failed start."""


@dataclass(frozen=True, slots=True)
class _Starting:
    """A twistd that was launched and has not gone to the background yet."""

    node: str
    process: subprocess.Popen[str]
    log_bytes: int


class LocalGrid:
    """The grid in the folder `folder`. Methods block.

    :param twistd: the command that nodes are started with.
    """

    def __init__(self, folder: str | Path, twistd: Sequence[str] = TWISTD) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self._twistd = twistd

    @property
    def exists(self) -> bool:
        return (self.folder / "home.json").exists()

    @property
    def home(self) -> Home:
        """:raises NoSuchPath: where there is no grid."""
        return load_home(self.folder)

    @property
    def nodes(self) -> list[str]:
        """Every node's name, heads first."""
        return list(self.home.ports)

    @property
    def grid_file(self) -> Path:
        """The configuration of clients."""
        return self.folder / "grid.toml"

    @property
    def operator_file(self) -> Path:
        """The configuration of the operator."""
        return self.folder / "operator.toml"

    def make(self, shape: Shape) -> None:
        """Make the folder; raises as :func:`filegrid.cli.local_make.make_home` does.

        :raises Unavailable: where a port that was asked for is taken; nothing was made.
        """
        shape.check()
        if shape.base_port is not None:
            check_ports(range(shape.base_port, shape.base_port + len(shape.nodes())))
        make_home(self.folder, shape)

    def check_same(self, given: Mapping[str, object], settings: Mapping[str, str]) -> None:
        """:raises InvalidRequest: where flags contradict what the grid was made with."""
        check_same(self.home, given, settings)

    def pid(self, node: str) -> int | None:
        """The process that runs `node`; None where it does not run."""
        self._known(node)
        found = self._process(node)
        return found.pid if found else None

    def running(self) -> list[str]:
        return [node for node in self.nodes if self._process(node)]

    def start(self, *names: str) -> None:
        """Start those of `names` that do not run, at the same time.

        :raises Unavailable: with the reason that the first that did not start gives.
        """
        for name in names:
            self._known(name)
        starting: list[_Starting] = []
        try:
            for name in names:
                if self._process(name) is None:
                    starting.append(self._launch(name))
            failures = [failed for one in starting if (failed := self._started(one)) is not None]
        except BaseException:
            # Whoever stops the grid after Ctrl-C finds nodes by the files that these write.
            for one in starting:
                one.process.communicate(timeout=START_SECONDS)
            raise
        if failures:
            raise failures[0]

    def stop(self, *names: str, timeout_seconds: float = STOP_SECONDS) -> None:
        """SIGTERM to those of `names` that run, and wait until they are gone.

        :raises DeadlineExceeded: where one is still there after `timeout_seconds`.
        """
        for name in names:
            self._known(name)
        found = {name: process for name in names if (process := self._process(name))}
        for process in found.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGCONT)  # one that is paused cannot end
        self._wait_gone(found, timeout_seconds)

    def kill(self, name: str) -> None:
        """SIGKILL to the node, and wait until it is gone."""
        self._known(name)
        process = self._process(name)
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        self._wait_gone({name: process}, STOP_SECONDS)

    def down(self) -> None:
        """Stop every node in good order: those that report to heads first, the heads last."""
        names = self.nodes
        self.stop(*(name for name in names if role_of(name) != "head"))
        self.stop(*(name for name in names if role_of(name) == "head"))

    def wait_ready(
        self, not_ready: Callable[[], str | None], timeout_seconds: float = READY_SECONDS
    ) -> None:
        """Wait until the grid takes writes.

        :param not_ready: says why it does not take them yet, or None.
        :raises Unavailable: where a node ended meanwhile, with its reason.
        :raises DeadlineExceeded: after `timeout_seconds`.
        """
        names = self.nodes
        deadline_at = time.monotonic() + timeout_seconds
        while (why := not_ready()) is not None:
            for name in names:
                if self._process(name) is None:
                    raise self._failure(name, self._log_from(name, -_MOST_LOG_BYTES))
            if time.monotonic() > deadline_at:
                raise DeadlineExceeded(
                    f"not ready after {timeout_seconds:g} seconds: {why}",
                    str(self.folder),
                    advice=f"see {self.folder / 'log'}",
                )
            time.sleep(_LOOK_SECONDS)
        if not self.home.created:
            # Should all heads lose their data from now on, no empty one starts all over (S1).
            save_home(self.folder, replace(self.home, created=True))

    def _known(self, node: str) -> None:
        names = self.nodes
        if node not in names:
            near = difflib.get_close_matches(node, names, n=1)
            advice = f"did you mean {near[0]}?" if near else f"it has {', '.join(names[:20])}"
            raise InvalidRequest("this grid has no such node", node, advice=advice)

    def _pid_file(self, node: str) -> Path:
        return self.folder / "run" / f"{node}.pid"

    def _log_file(self, node: str) -> Path:
        return self.folder / "log" / f"{node}.log"

    def _process(self, node: str) -> psutil.Process | None:
        """The node's process; never another that was given its number since."""
        pid_file = self._pid_file(node)
        try:
            process = psutil.Process(int(pid_file.read_text()))
            ours = process.status() != psutil.STATUS_ZOMBIE and str(pid_file) in process.cmdline()
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def _launch(self, node: str) -> _Starting:
        self._pid_file(node).unlink(missing_ok=True)  # twistd minds one with a number in use
        log = self._log_file(node)
        command = [*self._twistd, "--pidfile", str(self._pid_file(node)), "--logfile", str(log)]
        command += ["--umask", "077", f"filegrid-{role_of(node)}"]
        command += ["--config", str(self.folder / "etc" / f"{node}.toml")]
        if self._is_first_start(node):
            command.append("--create")
        return _Starting(
            node,
            subprocess.Popen(
                command,
                cwd=self.folder / "run",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C is for us: a node half started is stopped by us
            ),
            log.stat().st_size if log.exists() else 0,
        )

    def _is_first_start(self, node: str) -> bool:
        """Whether the node may make what it does not find.

        The first head makes the namespace, once (S1); the others learn it from that one. A chunk
        server makes its folder where it is gone: within the home it is no disk that somebody
        forgot to mount (S20), and a server that comes back empty is a new one to the heads. A
        health node needs no leave for its folder.
        """
        if role_of(node) == "health":
            return False
        if role_of(node) == "head":
            return node == "head-1" and not self.home.created
        data = self.folder / "nodes" / node
        return not (data.exists() and any(data.iterdir()))

    def _started(self, starting: _Starting) -> Unavailable | None:
        """Wait until twistd is in the background; None where it got there."""
        node, process = starting.node, starting.process
        try:
            said, _ = process.communicate(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            self.kill(node)
            return Unavailable(f"did not start in {START_SECONDS:g} seconds", node)
        if process.returncode != 0:
            return self._failure(node, self._log_from(node, starting.log_bytes) + said)
        return None

    def _failure(self, node: str, said: str) -> Unavailable:
        """The error that tells why `node` does not run, from what it printed and logged."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        own = re.findall(rf"(?m)(?:^|\] )filegrid-{role_of(node)}: (.*)$", said)
        reason = own[-1] if own else lines[-1] if lines else "it said nothing"
        log = self._log_file(node)
        advice = "" if own else f"see {log}"
        return Unavailable(f"did not start: {reason}", node, advice=advice)

    def _log_from(self, node: str, offset: int) -> str:
        """The node's log from `offset` on, or its last bytes for a negative one."""
        try:
            with open(self._log_file(node), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(size + offset, 0) if offset < 0 else offset
                # The log may have begun anew (it rotates), and may be long.
                file.seek(max(start if start <= size else 0, size - _MOST_LOG_BYTES))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _wait_gone(self, found: Mapping[str, psutil.Process], timeout_seconds: float) -> None:
        deadline_at = time.monotonic() + timeout_seconds
        for name, process in found.items():
            while self._process(name) is not None or _lives(process):
                if time.monotonic() > deadline_at:
                    raise DeadlineExceeded(
                        f"still runs {timeout_seconds:g} seconds after it was told to end",
                        name,
                        advice=f"end it with: filegrid kill {name} --home {self.folder}",
                    )
                time.sleep(_LOOK_SECONDS)
            self._pid_file(name).unlink(missing_ok=True)


def _lives(process: psutil.Process) -> bool:
    """Whether the process is there; a zombie, which nobody waits for, is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


__all__ = ["LocalGrid", "Shape"]
