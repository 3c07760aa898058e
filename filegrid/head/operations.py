"""What operators ask of the leading head."""

from __future__ import annotations

from google.protobuf.message import Message

from filegrid.head.drain import Drain
from filegrid.head.registry import Registry
from filegrid.model import Role
from filegrid.net.link import Caller, Method
from filegrid.protocol.wire import head_pb2 as wire

OPERATORS = frozenset({Role.OPERATOR, Role.HEAD})


class Operations:
    """The requests of operators; each may be sent again without harm."""

    def __init__(self, *, registry: Registry, drain: Drain) -> None:
        self._registry = registry
        self._drain = drain
        self.methods = {"drain": Method(OPERATORS, self._drain_servers)}

    async def _drain_servers(self, caller: Caller, request: Message) -> wire.DrainReports:
        assert isinstance(request, wire.Drain)
        names = self._registry.select(request.targets)
        if not request.dry_run:
            await self._drain.order(names, undo=request.undo)
        answer = wire.DrainReports()
        for name in names:
            left = await self._drain.left(name, names)
            answer.servers.add(
                server=name,
                state=self._drain.state(name),
                chunks_left=left.chunks,
                bytes_left=left.bytes,
                open_uploads=left.uploads,
                blockers=left.blockers,
            )
        return answer
