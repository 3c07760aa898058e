"""What clients ask a head: names, uploads, manifests, and the state of the grid."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace

from google.protobuf.message import Message
from twisted.logger import Logger

from filegrid.config import Grid
from filegrid.errors import (
    Busy,
    GridError,
    InvalidRequest,
    NoSpace,
    Unavailable,
    from_fault,
    to_fault,
)
from filegrid.head.liveness import State
from filegrid.head.locations import Locations
from filegrid.head.placement import place
from filegrid.head.redundancy import Redundancy
from filegrid.head.roster import Roster
from filegrid.head.sessions import SESSION_LEASE_MS
from filegrid.head.view import View
from filegrid.model import Chunk, ChunkId, Role, SessionId
from filegrid.net.link import Caller, Handler, Method
from filegrid.protocol.wire import chunk_pb2, frame_pb2, head_pb2, values_pb2
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.runtime import Runtime

MOST_LISTED = 1000
"""Nodes in one page of a listing; with names of 255 bytes below the limit of a frame."""

MOST_CHANGES = 64
"""In one call: a quarter of a group of the log."""

MOST_STATS = 256
"""Looked at in one call, a few milliseconds of this head's time."""

MOST_LISTED_WITH_CHUNKS = 100
"""Likewise, each with its chunk's replicas: some milliseconds of this head's time."""

MOST_PLACED = 1024
"""Chunks in one page of a manifest."""

MOST_ALLOCATED = 64
"""Chunks placed in one call: what is placed much ahead is placed on old news."""

MOST_COMPLAINTS = 64
"""Being looked into at once; clients repeat those that are turned away."""

VERIFY_SECONDS = 60.0

CLIENTS = frozenset({Role.CLIENT, Role.OPERATOR})

VERBS = (
    *("open_session", "close_session", "keep_session"),
    *("make_folder", "stage_chunks", "publish", "rename", "remove"),
    *(
        "stat",
        "stat_many",
        "list",
        "manifest",
        "open_file",
        "allocate",
        "complain",
        *("list_deficits", "change_many"),
    ),
    *("restore_trash", "empty_trash", "list_trash"),
    *("set_policy", "list_policies"),
)
"""What only the leader answers."""

_log = Logger()


class Verbs:
    """The requests of clients.

    :param propose: commits a command, applies it, and gives its outcome.
    :param status: the state of the grid as a whole.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Grid,
        *,
        namespace: View,
        roster: Roster,
        locations: Locations,
        redundancy: Redundancy,
        propose: Callable[[journal.Command], Awaitable[journal.Outcome]],
        propose_many: Callable[
            [Sequence[journal.Command]], Awaitable[list[journal.Outcome | GridError]]
        ],
        status: Callable[[], head_pb2.Status],
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._namespace = namespace
        self._roster = roster
        self._locations = locations
        self._redundancy = redundancy
        self._propose = propose
        self._propose_many = propose_many
        self._status = status
        self._complaints: set[tuple[bytes, str]] = set()

        handlers: dict[str, Handler] = {
            "open_session": self._open_session,
            "close_session": self._change,
            "keep_session": self._keep_session,
            "make_folder": self._change,
            "stage_chunks": self._change,
            "publish": self._change,
            "change_many": self._change_many,
            "rename": self._change,
            "remove": self._change,
            "stat": self._stat,
            "stat_many": self._stat_many,
            "list": self._list,
            "manifest": self._manifest,
            "open_file": self._open_file,
            "allocate": self._allocate,
            "complain": self._complain,
            "get_status": self._get_status,
            "list_deficits": self._list_deficits,
            "restore_trash": self._change,
            "empty_trash": self._change,
            "list_trash": self._list_trash,
            "set_policy": self._change,
            "list_policies": self._list_policies,
        }
        self.methods = {name: Method(CLIENTS, handler) for name, handler in handlers.items()}

    # Changes: each is a command of the log, answered once it is committed and applied.

    async def _change(self, caller: Caller, request: Message) -> Message:
        if not caller.call.HasField("once"):
            raise InvalidRequest("a change needs a session and a sequence number")
        outcome = await self._command(caller, request)
        if outcome.WhichOneof("result") == "node":
            return outcome.node
        return frame_pb2.Done()

    async def _open_session(self, caller: Caller, request: Message) -> head_pb2.SessionOpened:
        outcome = await self._command(caller, request)
        return head_pb2.SessionOpened(
            session=outcome.session,
            lease_seconds=SESSION_LEASE_MS // 1000,
            chunk_bytes=self._settings.chunk_bytes,
            replication=self._settings.replication,
            min_replicas=self._settings.min_replicas,
            heads=self._roster.heads,
        )

    async def _keep_session(self, caller: Caller, request: Message) -> frame_pb2.Done:
        assert isinstance(request, head_pb2.KeepSession)
        self._need_session(caller, request.session)
        keep = journal.KeepSessions(sessions=[request.session], ended_below=[request.ended_below])
        await self._command(caller, keep)
        return frame_pb2.Done(heads=self._roster.heads)

    async def _change_many(self, caller: Caller, request: Message) -> head_pb2.Changed:
        """Several at once; each has an answer of its own, whatever becomes of the others."""
        assert isinstance(request, head_pb2.ChangeMany)
        if len(request.changes) > MOST_CHANGES:
            raise InvalidRequest(f"at most {MOST_CHANGES} changes can be made together")
        commands = []
        for one in request.changes:
            kind = one.WhichOneof("change")
            if kind is None or not one.HasField("once"):
                raise InvalidRequest("a change needs a session and a sequence number")
            commands.append(self._to_command(caller, getattr(one, kind), one.once))
        answer = head_pb2.Changed()
        for outcome in await self._propose_many(commands):
            if isinstance(outcome, GridError):
                answer.outcomes.add(fault=to_fault(outcome))
                continue
            result = outcome.WhichOneof("result")
            if result == "fault":
                answer.outcomes.add(fault=outcome.fault)
            elif result == "node":
                answer.outcomes.add(node=outcome.node)
            else:
                answer.outcomes.add()
        return answer

    async def _command(self, caller: Caller, change: Message) -> journal.Outcome:
        once = caller.call.once if caller.call.HasField("once") else None
        outcome = await self._propose(self._to_command(caller, change, once))
        if outcome.WhichOneof("result") == "fault":
            raise from_fault(outcome.fault)
        return outcome

    def _to_command(
        self, caller: Caller, change: Message, once: values_pb2.Once | None
    ) -> journal.Command:
        command = journal.Command(client=caller.peer.name)
        if once is not None:
            command.once.CopyFrom(once)
        field = getattr(command, _CHANGE_FIELD[change.DESCRIPTOR.full_name])
        field.CopyFrom(change)
        field.SetInParent()
        command.trash_ms = self._settings.trash_seconds * 1000
        command.replication = self._settings.replication
        return command

    def _need_session(self, caller: Caller, session_id: int) -> None:
        session = self._namespace.session(SessionId(session_id))
        if session is None or session.client != caller.peer.name:
            raise InvalidRequest("the session is not open", advice="open a new one and begin again")

    # Reads.

    async def _stat(self, caller: Caller, request: Message) -> values_pb2.Node:
        assert isinstance(request, head_pb2.Stat)
        return self._namespace.stat(request.path)

    async def _stat_many(self, caller: Caller, request: Message) -> head_pb2.Stats:
        assert isinstance(request, head_pb2.StatMany)
        if len(request.paths) > MOST_STATS:
            raise InvalidRequest(f"at most {MOST_STATS} paths can be looked at together")
        answer = head_pb2.Stats()
        for one in self._namespace.stat_many(request.paths):
            if isinstance(one, GridError):
                answer.found.add(fault=to_fault(one))
            else:
                answer.found.add(node=one)
        return answer

    async def _list(self, caller: Caller, request: Message) -> head_pb2.Listing:
        assert isinstance(request, head_pb2.List)
        most = MOST_LISTED_WITH_CHUNKS if request.with_chunks else MOST_LISTED
        limit = min(request.limit or most, most)
        nodes, more = self._namespace.list_folder(request.path, request.after, limit)
        answer = head_pb2.Listing(nodes=nodes, more=more)
        if request.with_chunks:
            for node in nodes:
                page = answer.pages.add()
                if node.chunk_count == 1:
                    page.CopyFrom(self._page(node.content_id, 0, 1))
        return answer

    async def _list_trash(self, caller: Caller, request: Message) -> head_pb2.TrashListing:
        assert isinstance(request, head_pb2.ListTrash)
        limit = min(request.limit or MOST_LISTED, MOST_LISTED)
        found = self._namespace.list_trash(request.after, limit + 1)
        now_ms = self._namespace.registers().log_time_ms
        answer = head_pb2.TrashListing(more=len(found) > limit)
        for one in found[:limit]:
            answer.entries.add(
                trash_id=one.id,
                path=one.path,
                kind=values_pb2.NODE_KIND_FOLDER if one.is_folder else values_pb2.NODE_KIND_FILE,
                files=one.files,
                bytes=one.bytes,
                removed_ms=one.removed_ms,
                left_ms=one.due_ms - now_ms,
            )
        return answer

    async def _list_policies(self, caller: Caller, request: Message) -> head_pb2.Policies:
        assert isinstance(request, head_pb2.ListPolicies)
        limit = min(request.limit or MOST_LISTED, MOST_LISTED)
        found = self._namespace.list_policies(request.after, limit + 1)
        answer = head_pb2.Policies(
            more=len(found) > limit, applying=self._namespace.policies_to_apply()
        )
        for one in found[:limit]:
            said = {name: value for name, value in asdict(one.policy).items() if value is not None}
            answer.policies.add(
                folder=one.folder,
                path=one.path,
                used_bytes=one.bytes,
                used_files=one.files,
                **said,
            )
        return answer

    async def _manifest(self, caller: Caller, request: Message) -> head_pb2.ManifestPage:
        assert isinstance(request, head_pb2.Manifest)
        return self._page(request.content_id, request.first_index, request.limit)

    async def _open_file(self, caller: Caller, request: Message) -> head_pb2.OpenedFile:
        assert isinstance(request, head_pb2.OpenFile)
        node = self._namespace.stat(request.path)
        if node.kind == values_pb2.NODE_KIND_FOLDER:
            return head_pb2.OpenedFile(node=node)
        return head_pb2.OpenedFile(node=node, page=self._page(node.content_id, 0, request.limit))

    def _page(self, content_id: bytes, first_index: int, limit: int) -> head_pb2.ManifestPage:
        limit = min(limit or MOST_PLACED, MOST_PLACED)
        chunks, more = self._namespace.manifest(content_id, first_index, limit)
        return head_pb2.ManifestPage(
            chunks=[
                head_pb2.PlacedChunk(chunk=chunk.to_wire(), replicas=self.replicas(chunk))
                for chunk in chunks
            ],
            more=more,
            locations_incomplete=not self._roster.complete,
        )

    def replicas(self, chunk: Chunk) -> list[head_pb2.Replica]:
        """Every replica that is known of, the good ones first."""
        found = [
            head_pb2.Replica(
                server=name,
                address=self._roster[name].address,
                state=self._replica_state(name),
            )
            for name in self._locations.holders(chunk)
        ]
        found += [
            head_pb2.Replica(
                server=name,
                address=self._roster[name].address,
                state=head_pb2.REPLICA_STATE_CORRUPT,
            )
            for name in sorted(self._redundancy.condemned.get(chunk.id, ()))
        ]
        return sorted(found, key=lambda replica: (replica.state, replica.server))

    def _replica_state(self, name: str) -> head_pb2.ReplicaState.ValueType:
        state = self._roster.state(name)
        if state is State.LIVE and self._roster.suspicion(name):
            return head_pb2.REPLICA_STATE_SUSPECT
        return _REPLICA_STATE[state]

    async def _allocate(self, caller: Caller, request: Message) -> head_pb2.Allocation:
        """Choose servers for chunks that are about to be written; nothing of it is logged."""
        assert isinstance(request, head_pb2.Allocate)
        self._need_session(caller, request.session)
        policy = self._namespace.policy_of(request.path or "/")
        replication = request.replication or policy.replication or self._settings.replication
        spread = request.spread if request.HasField("spread") else policy.spread
        needed = min(self._settings.min_replicas, replication)
        candidates, suspects = self._roster.candidates(), self._roster.candidates(suspect=True)
        answer = head_pb2.Allocation(replication=replication)
        if spread == values_pb2.SPREAD_HOST:
            answer.spread = values_pb2.SPREAD_HOST
            candidates = [replace(one, rack=one.name) for one in candidates]
            suspects = [replace(one, rack=one.name) for one in suspects]
        for _ in range(min(request.count, MOST_ALLOCATED)):
            chosen = place(
                candidates,
                replication,
                chunk_bytes=request.bytes,
                random=self._runtime.random,
                exclude=request.exclude,
            )
            # One that is suspect is better than none, and the last of the pipeline.
            chosen += place(
                suspects,
                replication - len(chosen),
                chunk_bytes=request.bytes,
                random=self._runtime.random,
                holder_racks=[one.rack for one in chosen],
                exclude=request.exclude,
            )
            if len(chosen) < needed:
                raise self._too_few(needed, request)
            answer.chunks.add(
                targets=[
                    head_pb2.Target(server=one.name, address=self._roster[one.name].address)
                    for one in chosen
                ]
            )
        return answer

    def _too_few(self, needed: int, request: head_pb2.Allocate) -> GridError:
        both = self._roster.candidates() + self._roster.candidates(suspect=True)
        usable = [one for one in both if one.name not in request.exclude]
        if len(usable) < needed:
            return Unavailable(
                f"{len(usable)} chunk servers can take a chunk, {needed} are needed",
                advice="start more chunk servers, or see 'filegrid status'",
            )
        roomy = sum(one.has_room(request.bytes) for one in usable)
        return NoSpace(
            f"{roomy} chunk servers have room for a chunk of {request.bytes} bytes, {needed} are"
            " needed",
            advice="add space, or remove files with 'filegrid rm --now'",
        )

    async def _complain(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """A reader got wrong bytes, or none: have the server look at its replica itself.

        Whatever the complaint, it counts against the server (see suspicion.py).
        """
        assert isinstance(request, head_pb2.Complain)
        self._roster.complain(request.server, caller.peer.name, request.reason)
        if request.kind != head_pb2.Complain.KIND_DAMAGED:
            return frame_pb2.Done()
        chunk_id, name = ChunkId(request.chunk_id), request.server
        is_known = name in self._locations.reporters(chunk_id)
        if not is_known or (chunk_id, name) in self._complaints:
            return frame_pb2.Done()
        if len(self._complaints) >= MOST_COMPLAINTS:
            raise Busy(f"{MOST_COMPLAINTS} complaints are being looked into", retry_after_seconds=1)
        server = self._roster[name]
        if server.link is None:
            return frame_pb2.Done()
        _log.warn(
            "{client} complains of {chunk} on {server}: {reason}",
            client=caller.peer,
            chunk=chunk_id.hex(),
            server=name,
            reason=request.reason,
        )
        self._complaints.add((chunk_id, name))
        try:
            inspection = await server.link.call(
                chunk_pb2.InspectChunks(chunk_ids=[chunk_id], verify=True),
                chunk_pb2.Inspection,
                timeout_seconds=VERIFY_SECONDS,
            )
        finally:
            self._complaints.discard((chunk_id, name))
        if inspection.replicas[0].state == head_pb2.REPLICA_STATE_MISSING:
            self._locations.remove(name, [chunk_id])
            self._redundancy.touch([chunk_id])
        return frame_pb2.Done()

    async def _get_status(self, caller: Caller, request: Message) -> head_pb2.Status:
        return self._status()

    async def _list_deficits(self, caller: Caller, request: Message) -> head_pb2.Deficits:
        assert isinstance(request, head_pb2.ListDeficits)
        limit = min(request.limit or MOST_PLACED, MOST_PLACED)
        later = (one for one in self._redundancy.deficits if one > request.after)
        ids = heapq.nsmallest(limit + 1, later)  # there may be a million
        answer = head_pb2.Deficits(
            more=len(ids) > limit,
            locations_incomplete=not (self._roster.complete and self._redundancy.settled),
        )
        now = self._runtime.clock.seconds()
        for chunk_id in ids[:limit]:
            record = self._redundancy.deficits[chunk_id].record
            answer.deficits.add(
                chunk=record.chunk.to_wire(),
                path=self._namespace.path_of(record.content_id),
                index=record.index,
                wanted=record.replication,
                replicas=self.replicas(record.chunk),
                waiting_ms=round((now - self._redundancy.deficits[chunk_id].since) * 1000),
            )
        return answer


_REPLICA_STATE = {
    State.LIVE: head_pb2.REPLICA_STATE_GOOD,
    State.SUSPECT: head_pb2.REPLICA_STATE_SUSPECT,
    State.DEAD: head_pb2.REPLICA_STATE_MISSING,
}

_CHANGE_FIELD = {
    field.message_type.full_name: field.name
    for field in journal.Command.DESCRIPTOR.oneofs_by_name["change"].fields
    if field.message_type is not None
}
