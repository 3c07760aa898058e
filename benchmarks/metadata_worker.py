"""A process of the metadata benchmark: told over stdin what to do, it answers on stdout.

Each line is a JSON object with a `verb`; the answer is one too. :mod:`metadata` starts it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import epollreactor

epollreactor.install()

from echo import Asker, Echo, builder  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred, DeferredList  # noqa: E402

from filegrid.client.grid import GridClient  # noqa: E402
from filegrid.config import load, load_client  # noqa: E402
from filegrid.model import Address  # noqa: E402
from filegrid.net.credentials import Credentials  # noqa: E402
from filegrid.net.reactor import make_runtime  # noqa: E402


class Worker:
    def __init__(self, config: str) -> None:
        self._config = config
        self._client: GridClient | None = None
        self._runtime: Any = None

    async def do(self, task: dict[str, Any]) -> dict[str, Any]:
        return await getattr(self, f"do_{task.pop('verb')}")(**task)

    async def do_connect(self) -> dict[str, Any]:
        self._client = await GridClient.connect(reactor, self._config, timeout_seconds=60)
        await self._client.mkdir("/bench", parents=True)
        return {}

    async def do_mkdir(self, path: str) -> dict[str, Any]:
        assert self._client is not None
        await self._client.mkdir(path, parents=True)
        return {}

    async def do_run(
        self, what: str, folder: str, first: int, count: int, in_flight: int
    ) -> dict[str, Any]:
        """Do `what` to `count` files, `in_flight` at a time."""
        client = self._client
        assert client is not None

        async def create(name: str) -> object:
            return await client.write_bytes(name, b"")

        async def stat(name: str) -> object:
            return await client.stat(name)

        async def rename(name: str) -> object:
            return await client.rename(name, f"{name}-moved")

        async def remove(name: str) -> object:
            return await client.remove(f"{name}-moved")

        work: Callable[[str], Coroutine[Any, Any, object]] = locals()[what]
        numbers = iter(range(first, first + count))
        seconds: list[float] = []

        async def one_after_another() -> None:
            for number in numbers:
                begun = time.monotonic()
                await work(f"{folder}/file-{number:07}")
                seconds.append(time.monotonic() - begun)

        begun = time.monotonic()
        cpu = time.process_time()
        lines = [Deferred.fromCoroutine(one_after_another()) for _ in range(in_flight)]
        await all_of(lines)
        return {
            "begun": begun,
            "ended": time.monotonic(),
            "cpu": time.process_time() - cpu,
            "seconds": seconds,
        }

    async def do_list(self, folder: str) -> dict[str, Any]:
        assert self._client is not None
        begun, count = time.monotonic(), 0
        async for _ in self._client.listdir(folder):
            count += 1
        return {"begun": begun, "ended": time.monotonic(), "count": count}

    async def do_echo_serve(self, settings: str) -> dict[str, Any]:
        tls = load(Path(settings), "head").tls
        self._runtime = make_runtime(reactor, Credentials(tls.certificate, tls.authority))
        listener = await self._runtime.network.listen(Address("127.0.0.1", 0), builder(Echo))
        return {"port": listener.address.port}

    async def do_echo(self, port: int, count: int, in_flight: int) -> dict[str, Any]:
        if self._runtime is None:
            tls = load_client(Path(self._config)).tls
            self._runtime = make_runtime(reactor, Credentials(tls.certificate, tls.authority))
        asker = Asker(in_flight, count)
        await self._runtime.network.connect(
            Address("127.0.0.1", port), builder(lambda: asker), timeout_seconds=5
        )
        seconds = await asker.done
        asker.transport.loseConnection()
        return {"seconds": seconds}


async def all_of(lines: list[Deferred[None]]) -> None:
    for ok, result in await DeferredList(lines, consumeErrors=True):
        if not ok:
            raise result.value


def main() -> None:
    worker = Worker(sys.argv[1])

    def told(line: str) -> None:
        def say(answer: Any) -> None:
            if not isinstance(answer, dict):
                answer = {"error": answer.getTraceback()}
            print(json.dumps(answer), flush=True)

        Deferred.fromCoroutine(worker.do(json.loads(line))).addBoth(say)

    def listen() -> None:
        for line in sys.stdin:
            reactor.callFromThread(told, line)  # type: ignore[attr-defined]
        reactor.callFromThread(reactor.stop)  # type: ignore[attr-defined]

    threading.Thread(target=listen, daemon=True).start()
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
