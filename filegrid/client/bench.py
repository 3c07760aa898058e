"""Measures a running grid by using it: throughput, latencies, operations a second."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filegrid.client.grid import GridClient
from filegrid.client.window import Window
from filegrid.measure import percentiles, rounded
from filegrid.model import BLOCK_BYTES

MIB = 1024 * 1024
SMALL_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much is done.

    :ivar mib: of the one large file.
    :ivar reads: of 64 KiB at random places in it, one after the other.
    :ivar files: of 4 KiB, and as many empty ones.
    :ivar in_flight: operations on them at a time.
    """

    mib: int = 256
    reads: int = 500
    files: int = 500
    in_flight: int = 16


class Bench:
    """One measurement, in a folder of its own that is removed in the end.

    :param told: told what is being measured, and how it went.
    """

    def __init__(
        self,
        client: GridClient,
        amount: Amount,
        told: Callable[[str, dict[str, Any]], None] = lambda name, figures: None,
    ) -> None:
        self._client = client
        self._runtime = client.access.runtime
        self._amount = amount
        self._told = told
        self._folder = f"/.bench-{self._runtime.random.getrandbits(48):012x}"
        self._figures: dict[str, Any] = {}

    async def run(self) -> dict[str, Any]:
        """The figures by the kind of work.

        :raises GridError: of the first operation that failed.
        """
        await self._client.mkdir(self._folder)
        try:
            await self._large()
            await self._small()
            await self._names()
        finally:
            await self._client.remove(self._folder, recursive=True, now=True)
        return self._figures

    async def _large(self) -> None:
        path = f"{self._folder}/large"
        source = await self._runtime.threads.run(_make_source, self._amount.mib)
        try:
            await self._transfer("put", lambda: self._client.put(source, path))
        finally:
            await self._runtime.threads.run(source.unlink)
        sink = _Sink(self._now)
        begun = self._now()
        await self._transfer("get", lambda: self._client.get(path, sink))  # type: ignore[arg-type]  # has all that is asked of it
        self._figures["get"]["first_byte_seconds"] = rounded(sink.first_at - begun)
        content = await self._client.open_read(path)
        last = max(0, content.stat.size - BLOCK_BYTES)
        offsets = [self._runtime.random.randint(0, last) for _ in range(self._amount.reads)]
        await self._operations(
            "random read of 64 KiB",
            (lambda at=at: content.pread(at, BLOCK_BYTES) for at in offsets),  # type: ignore[misc]  # bound now
            in_flight=1,
        )

    async def _small(self) -> None:
        data = self._runtime.random.randbytes(SMALL_BYTES)
        paths = [f"{self._folder}/small-{number}" for number in range(self._amount.files)]
        await self._each("write of 4 KiB", paths, lambda path: self._client.write_bytes(path, data))
        await self._each("read of 4 KiB", paths, self._client.read_bytes)

    async def _names(self) -> None:
        paths = [f"{self._folder}/empty-{number}" for number in range(self._amount.files)]
        await self._each("create", paths, lambda path: self._client.write_bytes(path, b""))
        await self._each("stat", paths, self._client.stat)
        await self._list()
        await self._each("rename", paths, lambda path: self._client.rename(path, f"{path}-renamed"))
        renamed = [f"{path}-renamed" for path in paths]
        await self._each("remove", renamed, lambda path: self._client.remove(path, now=True))

    async def _list(self) -> None:
        begun, entries = self._now(), 0
        async for _ in self._client.listdir(self._folder):
            entries += 1
        seconds = self._now() - begun
        self._tell("list", {"entries": entries, "per_second": _rate(entries, seconds)})

    async def _transfer(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        begun = self._now()
        await work()
        seconds = self._now() - begun
        figures = {
            "mib": self._amount.mib,
            "seconds": rounded(seconds),
            "mib_per_second": _rate(self._amount.mib, seconds),
        }
        self._tell(name, figures)

    async def _each(
        self, name: str, paths: list[str], work: Callable[[str], Awaitable[object]]
    ) -> None:
        await self._operations(
            name,
            (lambda path=path: work(path) for path in paths),  # type: ignore[misc]  # bound now
            in_flight=self._amount.in_flight,
        )

    async def _operations(
        self, name: str, operations: Iterator[Callable[[], Awaitable[object]]], *, in_flight: int
    ) -> None:
        latencies: list[float] = []

        async def timed(operation: Callable[[], Awaitable[object]]) -> None:
            begun = self._now()
            await operation()
            latencies.append(self._now() - begun)

        begun = self._now()
        async with Window(in_flight) as window:
            for operation in operations:
                await window.add(timed(operation))
        seconds = self._now() - begun
        if latencies:
            figures = {
                "operations": len(latencies),
                "in_flight": in_flight,
                "per_second": _rate(len(latencies), seconds),
                "latency_seconds": percentiles(latencies),
            }
            self._tell(name, figures)

    def _tell(self, name: str, figures: dict[str, Any]) -> None:
        self._figures[name] = figures
        self._told(name, figures)

    def _now(self) -> float:
        return self._runtime.clock.seconds()


class _Sink:
    """A file object that keeps nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.first_at = 0.0
        self._now = now

    def write(self, data: memoryview) -> int:
        self.first_at = self.first_at or self._now()
        return len(data)


def _make_source(mib: int) -> Path:
    """A local file that no disk or line could make smaller."""
    descriptor, name = tempfile.mkstemp(prefix="filegrid-bench-")
    with open(descriptor, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    return Path(name)


def _rate(count: float, seconds: float) -> float:
    return rounded(count / seconds) if seconds > 0 else 0.0
