"""A head that answers what it is told to, on a simulated network."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from filegrid.errors import GridError, to_fault
from filegrid.model import Address, Identity, Role
from filegrid.net.dial import acceptor, hello_of
from filegrid.net.link import Caller, Link, Method
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire.frame_pb2 import Call, Done
from filegrid.protocol.wire.values_pb2 import Node
from filegrid.runtime import Listener, Runtime
from filegrid.simulation.disk import SimulatedDisk
from filegrid.simulation.network import SimulatedNetwork
from filegrid.simulation.process import SimulatedThreads

GRID_ID = "simulated"
LEASE_SECONDS = 60

Answering = Callable[[Message], Message | None]
"""Raises a GridError, or returns the answer, or None for none at all."""


class World:
    """A clock, a network, and what a client is made of."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = SimulatedNetwork(self.clock, random.Random(1))

    def runtime(self, identity: Identity) -> Runtime:
        return Runtime(
            clock=self.clock,
            network=self.network.host(identity.name, identity),
            disk=SimulatedDisk(random.Random(2)),
            threads=SimulatedThreads(self.clock),
            random=random.Random(3),
            wall_seconds=self.clock.seconds,
        )

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)


class ScriptedHead:
    """Answers sessions by itself, and the rest as `script` says, by the request's name.

    :ivar calls: what it was asked, in order.
    """

    def __init__(self, world: World, name: str) -> None:
        self.calls: list[Call] = []
        self.script: dict[str, Answering] = {
            "open_session": self._open_session,
            "keep_session": lambda request: Done(),
            "close_session": lambda request: Done(),
            "change_many": self._change_many,
        }
        self.name = name
        self.address = Address(name, 7000)
        self._world = world
        self._identity = Identity(GRID_ID, Role.HEAD, name)
        self._sessions = 0
        self._listener: Listener | None = None
        self.methods: Mapping[str, Method] = {
            field.name: Method(frozenset(Role), self._answer)
            for field in Call.DESCRIPTOR.oneofs_by_name["request"].fields
        }

    def start(self) -> None:
        runtime = self._world.runtime(self._identity)
        build = acceptor(Plane.CONTROL, runtime, lambda: hello_of(self._identity), self)
        runtime.network.listen(self.address, build)

    def kill(self) -> None:
        self._world.network.crash(self.name)

    def asked(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.WhichOneof("request") == name]

    def link_up(self, link: Link) -> None:
        pass

    def link_down(self, link: Link, error: GridError) -> None:
        pass

    async def _answer(self, caller: Caller, request: Message) -> Message:
        self.calls.append(caller.call)
        answer = self.script[caller.call.WhichOneof("request") or ""](request)
        if answer is None:
            never: Deferred[Message] = Deferred()
            return await never
        return answer

    def _change_many(self, request: Message) -> Message | None:
        """Each as if it had come alone, also in :attr:`calls`."""
        assert isinstance(request, head_pb2.ChangeMany)
        answer = head_pb2.Changed()
        for one in request.changes:
            kind = one.WhichOneof("change") or ""
            self.calls.append(Call(once=one.once, **{kind: getattr(one, kind)}))
            try:
                found = self.script[kind](getattr(one, kind))
            except GridError as error:
                answer.outcomes.add(fault=to_fault(error))
                continue
            if found is None:
                return None
            answer.outcomes.add(node=found if isinstance(found, Node) else None)
        return answer

    def _open_session(self, request: Message) -> Message:
        self._sessions += 1
        return head_pb2.SessionOpened(
            session=self._sessions,
            lease_seconds=LEASE_SECONDS,
            chunk_bytes=1 << 20,
            replication=3,
            min_replicas=2,
        )
