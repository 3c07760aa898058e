"""What operators ask of the leading head, and what anybody may ask of its servers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from filegrid.config import NAME_ALLOWED, NAME_PATTERN
from filegrid.errors import InvalidRequest, from_fault
from filegrid.head.balance import Balance
from filegrid.head.drain import Drain
from filegrid.head.forecast import Forecasts
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.head.roster import Roster
from filegrid.model import Address, Role
from filegrid.net.link import Caller, Method
from filegrid.protocol.wire import backup_pb2, frame_pb2, values_pb2
from filegrid.protocol.wire import head_pb2 as wire
from filegrid.protocol.wire import journal_pb2 as journal

OPERATORS = frozenset({Role.OPERATOR, Role.HEAD})
ANYBODY = frozenset({Role.OPERATOR, Role.CLIENT})


class Operations:
    """The requests; each may be sent again without harm."""

    def __init__(
        self,
        *,
        registry: Registry,
        roster: Roster,
        drain: Drain,
        balance: Balance,
        forecasts: Forecasts,
        redundancy: Redundancy,
        propose: Callable[[journal.Command], Awaitable[journal.Outcome]],
        address_of: Callable[[str], str],
    ) -> None:
        self._registry = registry
        self._roster = roster
        self._drain = drain
        self._balance = balance
        self._forecasts = forecasts
        self._redundancy = redundancy
        self._propose = propose
        self._address_of = address_of
        self.methods = {
            "drain": Method(OPERATORS, self._drain_servers),
            "start_balance": Method(OPERATORS, self._start_balance),
            "repair_now": Method(OPERATORS, self._repair_now),
            "what_if": Method(ANYBODY, self._what_if),
            "discard_unknown": Method(OPERATORS, self._discard_unknown),
            "add_head": Method(OPERATORS, self._add_head),
            "remove_head": Method(OPERATORS, self._remove_head),
        }

    async def _add_head(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """It gets a vote once it can be reached and has caught up."""
        assert isinstance(request, values_pb2.AddHead)
        if not re.fullmatch(NAME_PATTERN, request.name):
            raise InvalidRequest(f"a head has {NAME_ALLOWED}", request.name)
        told = str(Address.parse(request.address))
        # Where it is known by another spelling, two links to it would take each other's place.
        address = self._address_of(request.name) or told
        change = values_pb2.AddHead(name=request.name, address=address)
        return await self._change(journal.Command(add_head=change))

    async def _remove_head(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """Its vote is taken from it as soon as the others can decide without it."""
        assert isinstance(request, values_pb2.RemoveHead)
        return await self._change(journal.Command(remove_head=request))

    async def _change(self, command: journal.Command) -> frame_pb2.Done:
        outcome = await self._propose(command)
        if outcome.WhichOneof("result") == "fault":
            raise from_fault(outcome.fault)
        return frame_pb2.Done()

    async def _discard_unknown(self, caller: Caller, request: Message) -> backup_pb2.UnknownChunks:
        """What was born in an earlier lineage and no file names may be collected (S12)."""
        assert isinstance(request, backup_pb2.DiscardUnknown)
        count = len(self._redundancy.unknown)
        if not request.dry_run:
            await self._propose(journal.Command(discard_unknown=request))
        return backup_pb2.UnknownChunks(count=count)

    async def _what_if(self, caller: Caller, request: Message) -> wire.Forecast:
        assert isinstance(request, wire.WhatIf)
        return await self._forecasts.make(request.targets, request.after)

    async def _repair_now(self, caller: Caller, request: Message) -> frame_pb2.Done:
        self._roster.wait_for_nobody()
        return frame_pb2.Done()

    async def _start_balance(self, caller: Caller, request: Message) -> frame_pb2.Done:
        self._balance.start()
        return frame_pb2.Done()

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
