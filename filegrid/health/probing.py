"""Probing the heads: one question at a time to each, a few times a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from filegrid.election.quorum import Member
from filegrid.errors import DeadlineExceeded, GridError
from filegrid.health.judgement import Answer
from filegrid.model import Address, Role
from filegrid.net.council import incarnate
from filegrid.net.dial import Dialler
from filegrid.net.link import Link, Service
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import frame_pb2
from filegrid.protocol.wire import health_pb2 as wire
from filegrid.runtime import Runtime

MOST_HEADS = 32
"""Those that a head may add to the ones that are configured; a grid has three or five."""

MOST_MISSES = 16
"""Probes in a row that a link may lose before it is dropped: the way may be another one."""


class Probing:
    """Keeps a link to every head and asks over it.

    :param probe: what to say at each turn.
    :param heard: told what a head answers.
    :param timeout_seconds: how long a head has for an answer.
    """

    def __init__(
        self,
        runtime: Runtime,
        heads: Iterable[Address],
        *,
        hello: Callable[[], frame_pb2.Hello],
        service: Service,
        probe: Callable[[], wire.Probe],
        heard: Callable[[Answer], None],
        timeout_seconds: float,
    ) -> None:
        self._probe = probe
        self._heard = heard
        self._timeout_seconds = timeout_seconds
        self._tasks = Tasks("probing")
        self._misses: dict[Link, int] = {}
        self._asked: set[Link] = set()
        self._stopped = False
        self._dialler = partial(Dialler, runtime, role=Role.HEAD, hello=hello, service=service)
        self._diallers = [self._dialler(address) for address in heads]

    def start(self) -> None:
        for dialler in self._diallers:
            dialler.start()

    async def stop(self) -> None:
        self._stopped = True
        for dialler in self._diallers:
            await dialler.stop()
        await self._tasks.stop()

    def _learn(self, addresses: Iterable[str]) -> None:
        """Heads that were added since this node was configured are probed too."""
        known = {str(dialler.address) for dialler in self._diallers}
        for address in set(addresses) - known:
            if len(self._diallers) < MOST_HEADS:
                self._diallers.append(dialler := self._dialler(Address.parse(address)))
                dialler.start()

    def turn(self) -> None:
        """Ask every head that can be reached and has answered what it was asked before."""
        for dialler in self._diallers:
            link = dialler.link
            if link is not None and link.alive and link not in self._asked:
                self._tasks.begin(self._ask(link))

    async def _ask(self, link: Link) -> None:
        self._asked.add(link)
        try:
            answer = await link.call(
                self._probe(), wire.Probed, timeout_seconds=self._timeout_seconds
            )
        except DeadlineExceeded as error:
            self._misses[link] = self._misses.get(link, 0) + 1
            if self._misses[link] >= MOST_MISSES:
                link.abort(error)
        except GridError:
            pass  # it does not answer: that is what this is about
        else:
            self._misses.pop(link, None)
            self._heard(_answer(link, answer))
            if not self._stopped:
                self._learn(answer.heads)
        finally:
            self._asked.discard(link)
            if not link.alive:
                self._misses.pop(link, None)


def _answer(link: Link, said: wire.Probed) -> Answer:
    return Answer(
        member=incarnate(link),
        leader=Member(said.leader, said.incarnation) if said.leader else None,
        epoch=said.epoch,
        serves=said.serves,
        last_index=said.last_index,
        applied_index=said.applied_index,
        disk_waits_seconds=said.disk_waits_ms / 1000,
        voters=said.voters,
        has_vote=not said.has_no_vote,
    )
