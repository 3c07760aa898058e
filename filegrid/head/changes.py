"""What each command of the log does to the namespace.

Everything here is a function of the entry and of the state alone: no clock, no random number, no
order that the log did not give. A command first looks, and may raise; once it has begun to change
something it cannot fail, so that a fault has changed nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from filegrid.errors import (
    TO_REPLACE,
    AlreadyExists,
    FolderNotEmpty,
    GridError,
    InvalidRequest,
    IsAFolder,
    NotAFolder,
    Unavailable,
    VersionConflict,
    to_fault,
)
from filegrid.head import chronicle
from filegrid.head.contents import Contents
from filegrid.head.membership import MOST_HEADS
from filegrid.head.nodes import Stored, totals
from filegrid.head.policies import POLICY_NAMES, Gain, Policies
from filegrid.head.schema import FILE, MOST_INTEGER, ROOT, RegisterFile
from filegrid.head.sessions import MOST_LINEAGE, Sessions, get_session
from filegrid.head.shelf import Shelf
from filegrid.head.trash import Trash
from filegrid.head.tree import Tree
from filegrid.model import (
    CHUNK_ID_BYTES,
    MOST_REPLICATION,
    SessionId,
    join_path,
    session_of,
    split_path,
)
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from filegrid.protocol.wire.backup_pb2 import DiscardUnknown
from filegrid.protocol.wire.health_pb2 import Event

_SERVER = "SELECT incarnation, rack, address FROM servers WHERE name = ?"
_STANDING = "SELECT standing FROM servers WHERE name = ?"
_DROP_VOTERS = "DELETE FROM voters"
_ADD_VOTER = "INSERT INTO voters VALUES (?, ?)"
_SET_HEAD = """INSERT INTO heads VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET address = excluded.address, wanted = excluded.wanted"""
_DROP_HEAD = """INSERT INTO heads VALUES (?, '', 0) ON CONFLICT (name) DO UPDATE SET wanted = 0"""
_IS_HEAD = """SELECT 1 FROM voters WHERE name = ?1
    UNION SELECT 1 FROM heads WHERE name = ?1"""
_COUNT_HEADS = """SELECT count(*) FROM (
        SELECT name FROM voters UNION SELECT name FROM heads WHERE wanted
    ) WHERE name <> ?"""
_ANOTHER_HEAD = """SELECT 1 FROM voters
    WHERE name <> ? AND name NOT IN (SELECT name FROM heads WHERE NOT wanted)"""
_SEE_STATUS = "see 'filegrid status'"
_SET_SERVER = """INSERT INTO servers (name, incarnation, rack, address) VALUES (?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, rack = excluded.rack,
    address = excluded.address"""
_SET_STANDING = "UPDATE servers SET standing = ?1 WHERE name = ?2 AND standing <> ?1"

YIELDED_TOLD_MS = 3_600_000
"""Between two times that the story tells of the trash giving up before its time."""

_TOGETHER = frozenset({"publish", "rename", "remove", "make_folder", "keep_sessions"})
"""What looks at the tables only through those who know what is not written yet. All other commands
are rare, and find everything written."""


class Changes:
    """The commands, each applied in the transaction of the caller."""

    def __init__(self, database: sqlite3.Connection, registers: RegisterFile) -> None:
        self._database = database
        self._registers = registers
        self._tree = Tree(database, registers)
        self._sessions = Sessions(database, registers)
        self._contents = Contents(database, registers, self._sessions.first_open)
        self._policies = Policies(database, self._tree, self._contents)
        self._trash = Trash(database, registers, self._tree, self._contents)
        self._shelf = Shelf(database, self._tree, self._contents, self._trash)
        self._of_clients: dict[str, Callable[[Any, journal.Entry], journal.Outcome]] = {
            "close_session": self._close_session,
            "make_folder": self._make_folder,
            "stage_chunks": self._stage_chunks,
            "publish": self._publish,
            "rename": self._rename,
            "remove": self._remove,
            "restore_trash": self._restore_trash,
            "empty_trash": self._empty_trash,
            "set_policy": self._set_policy,
            "keep_backup": self._shelf.keep,
        }
        self._of_heads: dict[str, Callable[[Any, journal.Entry], journal.Outcome]] = {
            "create_grid": self._create_grid,
            "barrier": self._barrier,
            "open_session": self._open_session,
            "keep_sessions": self._keep_sessions,
            "expire_sessions": self._expire_sessions,
            "purge_trash": self._purge_trash,
            "register_server": self._register_server,
            "set_standing": self._set_standing,
            "forget_released": self._forget_released,
            "configure": self._configure,
            "discard_unknown": self._discard_unknown,
            "apply_policies": self._apply_policies,
            "note": self._note,
            "add_head": self._add_head,
            "remove_head": self._remove_head,
        }

    def fetch(self, entries: Sequence[journal.Entry]) -> None:
        """Read at once what these entries will look at. Nothing is wrong where that is missing."""
        paths: list[list[str]] = []
        publishes: list[wire.Publish] = []
        for entry in entries:
            command = entry.command
            kind = command.WhichOneof("change")
            try:
                if kind == "publish":
                    publishes.append(command.publish)
                    paths.append(split_path(command.publish.path))
                elif kind == "rename":
                    paths.append(split_path(command.rename.source))
                    paths.append(split_path(command.rename.target))
                elif kind == "remove":
                    paths.append(split_path(command.remove.path))
            except GridError:
                continue  # applying the entry will say it
        self._tree.fetch(paths)
        self._contents.fetch(publishes)

    def apply(self, entry: journal.Entry) -> journal.Outcome:
        """Apply one entry; a fault of it is an outcome like others."""
        now = self._registers.now
        command = entry.command
        now.log_time_ms = max(now.log_time_ms, command.log_time_ms)
        kind = command.WhichOneof("change") or ""
        change = getattr(command, kind, None)
        alone = kind not in _TOGETHER
        if alone:
            self._write()
        try:
            if kind in self._of_clients:
                outcome = self._apply_once(self._of_clients[kind], change, entry)
            elif kind in self._of_heads:
                outcome = self._of_heads[kind](change, entry)
            else:
                raise InvalidRequest("a command of a kind that this release does not know")
        except GridError as error:
            outcome = journal.Outcome(fault=to_fault(error))
        if alone:
            self._tree.reread()
        now.applied_epoch, now.applied_index = entry.epoch, entry.index
        return outcome

    def finish(self) -> None:
        """Write what was gathered over the entries of one transaction."""
        self._tree.end()
        self._contents.end()
        self._trash.write()
        self._sessions.flush()
        self._registers.save()

    def forget(self) -> None:
        """After a rollback."""
        self._tree.forget()
        self._contents.forget()
        self._trash.forget()
        self._policies.forget()
        self._sessions.forget()
        self._registers.load()

    def _write(self) -> None:
        self._tree.write()
        self._contents.write()
        self._trash.write()

    def _apply_once(
        self,
        apply: Callable[[Any, journal.Entry], journal.Outcome],
        change: object,
        entry: journal.Entry,
    ) -> journal.Outcome:
        """Every change of a client goes by its session, and its answer is kept with it (S10)."""
        command = entry.command
        if not command.once.session:
            raise InvalidRequest("a change without a session")
        before = self._sessions.admit(command.once, command.client)
        if before is not None:
            return before
        try:
            outcome = apply(change, entry)
        except GridError as error:
            outcome = journal.Outcome(fault=to_fault(error))
        if not isinstance(change, wire.CloseSession):
            self._sessions.record(command.once, outcome)
        return outcome

    # Of clients

    def _close_session(self, change: wire.CloseSession, entry: journal.Entry) -> journal.Outcome:
        self._end_session(SessionId(entry.command.once.session))
        return journal.Outcome(count=1)

    def _make_folder(self, change: wire.MakeFolder, entry: journal.Entry) -> journal.Outcome:
        names = split_path(change.path)
        at = ROOT
        depth = 0
        existing = self._tree.child(0, b"")  # the root
        while depth < len(names):
            found = self._tree.child(at, names[depth].encode())
            if found is None:
                break
            if not found.is_folder:
                if depth == len(names) - 1:
                    raise AlreadyExists("a file has this name", join_path(names))
                path = join_path(names[: depth + 1])
                raise NotAFolder("this is a file, not a folder", path)
            at, existing, depth = found.id, found, depth + 1
        if depth == len(names):
            if not change.parents:
                raise AlreadyExists("the folder exists already", join_path(names))
            assert existing is not None
            return journal.Outcome(node=existing.to_wire(join_path(names)))
        if not change.parents:
            self._tree.find_folder(names[:-1])
        wall_ms, version = entry.command.wall_ms, entry.index
        for name in names[depth:]:
            at = self._tree.add_folder(at, name.encode(), mtime_ms=wall_ms, version=version)
        node = wire.Node(
            path=join_path(names), kind=wire.NODE_KIND_FOLDER, mtime_ms=wall_ms, version=version
        )
        return journal.Outcome(node=node)

    def _stage_chunks(self, change: wire.StageChunks, entry: journal.Entry) -> journal.Outcome:
        session = SessionId(entry.command.once.session)
        self._contents.check_id(change.content_id, session)
        self._contents.check_free(change.content_id, change.first_index, len(change.chunks))
        chunks = self._contents.new_chunks(change.chunks, session)
        self._contents.stage(change.content_id, change.first_index, chunks)
        return journal.Outcome(count=len(chunks))

    def _publish(self, change: wire.Publish, entry: journal.Entry) -> journal.Outcome:
        session = SessionId(entry.command.once.session)
        names = split_path(change.path)
        if not names:
            raise IsAFolder("this is a folder", "/")
        path = join_path(names)
        parent = self._tree.find_folder(names[:-1])
        old = self._tree.child(parent, names[-1].encode())
        base = self._check_base(change, old, path)
        self._contents.check_id(change.content_id, session)
        chunks = self._contents.new_chunks(change.chunks, session)
        self._contents.check_staged(change.content_id, change.inherited_chunks, change.first_index)
        replication, asked = self._replication_of(change, parent, old, entry)
        count = self._contents.check_whole(change, replication, base, chunks)
        gain = Gain(parent, 0 if old else 1, change.size - (old.size or 0 if old else 0))
        self._policies.check_room([gain])

        if old is not None:
            self._throw_away(old, path, entry)
        node = Stored(
            parent=parent,
            name=names[-1].encode(),
            id=self._tree.new_id(),
            kind=FILE,
            mtime_ms=entry.command.wall_ms,
            version=entry.index,
            content_id=change.content_id,
            size=change.size,
            digest=change.digest,
            replication=replication,
            chunk_bytes=change.chunk_bytes,
            chunk_count=count,
        )
        self._tree.add_file(node)
        new = self._contents.publish(
            change,
            node=node.id,
            replication=replication,
            asked=asked,
            base=base,
            chunks=chunks,
            count=count,
        )
        return journal.Outcome(node=node.to_wire(path), published=new)

    def _replication_of(
        self, change: wire.Publish, parent: int, old: Stored | None, entry: journal.Entry
    ) -> tuple[int, bool]:
        """What a new version gets, and whether its writer, or that of its base, asked for it."""
        if change.replication:
            return change.replication, True
        if change.base_version and old is not None and self._contents.asked(old.content_id):
            return old.replication or 0, True
        policy = self._policies.effective(parent)
        return policy.replication or entry.command.replication, False

    def _check_base(self, change: wire.Publish, old: Stored | None, path: str) -> bytes:
        """What is there may be replaced (S11); returns the content that chunks are inherited of."""
        if old is not None and old.is_folder:
            raise IsAFolder("this is a folder", path)
        if change.base_version:
            if old is None or old.version != change.base_version:
                raise VersionConflict("it was changed meanwhile", path, advice="read it again")
        elif old is not None and not change.replace:
            raise AlreadyExists("it exists already", path, advice=TO_REPLACE)
        if not change.inherited_chunks:
            return b""
        if not change.base_version or old is None:
            raise InvalidRequest("chunks are inherited of a base version only", path)
        if change.inherited_chunks > (old.chunk_count or 0):
            raise InvalidRequest("the base version has fewer chunks", path)
        return old.content_id or b""

    def _rename(self, change: wire.Rename, entry: journal.Entry) -> journal.Outcome:
        source_names, target_names = split_path(change.source), split_path(change.target)
        source = self._tree.need(source_names)
        path = join_path(target_names)
        if source_names == target_names:
            return journal.Outcome(node=source.to_wire(path))
        if target_names[: len(source_names)] == source_names:
            raise InvalidRequest("a folder cannot be moved into itself", join_path(source_names))
        target = self._tree.find(target_names)
        parent = self._tree.find_folder(target_names[:-1])
        files, size = self._weight(source)
        gains = [Gain(parent, files, size), Gain(source.parent, -files, -size)]
        if target is not None:
            self._check_replaceable(source, target, path, replace=change.replace)
            if not target.is_folder:
                gains.append(Gain(parent, -1, -(target.size or 0)))
        self._policies.check_room(gains)
        before = self._policies.effective(source.parent)
        if target is not None:
            if target.is_folder:
                self._tree.drop(target)
            else:
                self._throw_away(target, path, entry)
        self._tree.move(source, parent, target_names[-1].encode())
        resized = self._policies.moved(source, before, parent, entry.command.replication)
        if resized:
            source = self._tree.need(target_names)
        return journal.Outcome(node=source.to_wire(path), resized=resized)

    def _weight(self, node: Stored) -> tuple[int, int]:
        """Files and bytes of a node with all below it."""
        if not node.is_folder:
            return 1, node.size or 0
        self._tree.flush()
        return totals(self._database, node.id)

    def _check_replaceable(
        self, source: Stored, target: Stored, path: str, *, replace: bool
    ) -> None:
        if not replace:
            raise AlreadyExists("it exists already", path, advice=TO_REPLACE)
        if target.is_folder and not source.is_folder:
            raise IsAFolder("a file cannot replace a folder", path)
        if source.is_folder and not target.is_folder:
            raise NotAFolder("a folder cannot replace a file", path)
        if target.is_folder and not self._tree.is_empty(target.id):
            raise FolderNotEmpty("the folder is not empty", path)

    def _remove(self, change: wire.Remove, entry: journal.Entry) -> journal.Outcome:
        names = split_path(change.path)
        if not names:
            raise InvalidRequest("the root cannot be removed", "/")
        node = self._tree.need(names)
        path = join_path(names)
        if node.is_folder and not change.recursive and not self._tree.is_empty(node.id):
            raise FolderNotEmpty("the folder is not empty", path, advice="remove it recursively")
        self._throw_away(node, path, entry, now=change.now)
        return journal.Outcome(count=1)

    def _restore_trash(self, change: wire.RestoreTrash, entry: journal.Entry) -> journal.Outcome:
        node, path = self._trash.find(change.trash_id)
        names = split_path(change.target or path)
        if not names:
            raise InvalidRequest("the root cannot be restored", "/")
        if self._tree.find(names) is not None:
            raise AlreadyExists("it exists already", join_path(names), advice="name another path")
        parent = self._tree.find_folder(names[:-1])
        self._policies.check_room([Gain(parent, *self._weight(node))])
        self._trash.take_out(node, parent, names[-1].encode())
        # It was not in the trash that it got its replication, and no folder there says anything.
        resized = self._policies.moved(node, None, parent, entry.command.replication)
        if resized:
            node = self._tree.need(names)
        return journal.Outcome(node=node.to_wire(join_path(names)), resized=resized)

    def _empty_trash(self, change: wire.EmptyTrash, entry: journal.Entry) -> journal.Outcome:
        return journal.Outcome(count=self._trash.hurry(change.trash_ids))

    def _set_policy(self, change: wire.SetPolicy, entry: journal.Entry) -> journal.Outcome:
        names = split_path(change.path)
        node = self._tree.need(names)
        if not node.is_folder:
            raise NotAFolder("policies are of folders", join_path(names))
        if change.HasField("replication") and not 1 <= change.replication <= MOST_REPLICATION:
            raise InvalidRequest(f"replication is 1 to {MOST_REPLICATION}", join_path(names))
        if change.HasField("spread") and change.spread not in wire.Spread.values():
            raise InvalidRequest("a spread that this release does not know", str(change.spread))
        numbers = (change.trash_seconds, change.quota_bytes, change.quota_files)
        if max(numbers) > MOST_INTEGER:
            raise InvalidRequest(f"numbers end at {MOST_INTEGER}", join_path(names))
        unknown = [name for name in change.unset if name not in POLICY_NAMES]
        if unknown:
            raise InvalidRequest("folders say nothing of this", unknown[0])
        self._policies.change(node.id, change)
        return journal.Outcome(count=1)

    def _throw_away(
        self, node: Stored, path: str, entry: journal.Entry, *, now: bool = False
    ) -> None:
        command = entry.command
        policy = self._policies.effective(node.id if node.is_folder else node.parent)
        stay_ms = command.trash_ms
        if policy.trash_seconds is not None:
            stay_ms = min(policy.trash_seconds * 1000, MOST_INTEGER)
        if now:
            stay_ms = 0
        self._trash.put(node, path, stay_ms=stay_ms, wall_ms=command.wall_ms)

    # Of heads

    def _create_grid(self, change: journal.CreateGrid, entry: journal.Entry) -> journal.Outcome:
        now = self._registers.now
        if now.grid_id:
            raise AlreadyExists("a grid is created once", now.grid_id)  # S1
        if not change.grid_id or not 0 < change.lineage <= MOST_LINEAGE:
            raise InvalidRequest("a grid has an id and a lineage", change.grid_id)
        now.grid_id, now.lineage = change.grid_id, change.lineage
        now.founding = change.founding.hex()
        return journal.Outcome(count=1)

    def _barrier(self, change: journal.Barrier, entry: journal.Entry) -> journal.Outcome:
        elected = Event(
            kind=Event.KIND_ELECTION,
            epoch=entry.epoch,
            node=change.leader,
            at_ms=entry.command.wall_ms,
        )
        chronicle.note(self._database, [elected])
        return journal.Outcome()

    def _note(self, change: journal.Note, entry: journal.Entry) -> journal.Outcome:
        return journal.Outcome(count=chronicle.note(self._database, change.events))

    def _open_session(self, change: wire.OpenSession, entry: journal.Entry) -> journal.Outcome:
        if not self._registers.now.lineage:
            raise Unavailable("the grid is not created yet")
        return journal.Outcome(session=self._sessions.open(entry.command.client))

    def _keep_sessions(self, change: journal.KeepSessions, entry: journal.Entry) -> journal.Outcome:
        count = 0
        for session, ended_below in zip_longest(change.sessions, change.ended_below, fillvalue=0):
            renewed = self._sessions.renew(session, ended_below)
            if renewed and ended_below:
                self._contents.end_uploads(session, ended_below)
            count += renewed
        return journal.Outcome(count=count)

    def _expire_sessions(
        self, change: journal.ExpireSessions, entry: journal.Entry
    ) -> journal.Outcome:
        # One that was renewed after the command was made, but before it was applied, lives on.
        due = [session for session in change.sessions if self._sessions.is_due(session)]
        for session in due:
            self._end_session(SessionId(session))
        return journal.Outcome(count=len(due))

    def _end_session(self, session: SessionId) -> None:
        self._contents.end_uploads(session)
        self._sessions.end(session)

    def _purge_trash(self, change: journal.PurgeTrash, entry: journal.Entry) -> journal.Outcome:
        if change.early and (path := self._trash.hurry_oldest()):
            self._tell_yielded(path, entry)
        count, released = self._trash.purge(change.limit)
        return journal.Outcome(count=count, released=released)

    def _tell_yielded(self, path: str, entry: journal.Entry) -> None:
        """Nobody loses unawares what could still be restored; but there may be many."""
        at_ms = entry.command.wall_ms
        last = chronicle.last_event(self._database, "", [Event.KIND_TRASH_YIELDED])
        if last is None or not 0 <= at_ms - last.at_ms < YIELDED_TOLD_MS:
            text = f"{path}, and perhaps more"
            told = Event(kind=Event.KIND_TRASH_YIELDED, text=text, at_ms=at_ms)
            chronicle.note(self._database, [told])

    def _register_server(
        self, change: journal.RegisterServer, entry: journal.Entry
    ) -> journal.Outcome:
        row = (change.incarnation, change.rack, change.address)
        if self._database.execute(_SERVER, (change.name,)).fetchone() == row:
            return journal.Outcome(count=0)
        self._database.execute(_SET_SERVER, (change.name, *row))
        return journal.Outcome(count=1)

    def _set_standing(self, change: journal.SetStanding, entry: journal.Entry) -> journal.Outcome:
        """Of one that was not drained to the end, "drained" says nothing: the drain was undone."""
        if change.standing not in journal.Standing.values():
            raise InvalidRequest("a standing that this release does not know", str(change.standing))
        count = 0
        for name in change.servers:
            before = self._database.execute(_STANDING, (name,)).fetchone()
            if before is None or (
                change.standing == journal.STANDING_DRAINED
                and before[0] == journal.STANDING_SERVING
            ):
                continue
            count += self._database.execute(_SET_STANDING, (change.standing, name)).rowcount
        return journal.Outcome(count=count)

    def _forget_released(
        self, change: journal.ForgetReleased, entry: journal.Entry
    ) -> journal.Outcome:
        count = 0
        for chunk_id in change.chunk_ids:
            if len(chunk_id) != CHUNK_ID_BYTES:
                raise InvalidRequest("a malformed chunk id", chunk_id.hex())
        for chunk_id in change.chunk_ids:
            session = get_session(self._database, session_of(chunk_id))
            may_be_named = session is not None and session.may_publish(chunk_id)
            count += self._contents.forget_released(chunk_id, may_be_named=may_be_named)
        return journal.Outcome(count=count)

    def _configure(self, change: journal.Configure, entry: journal.Entry) -> journal.Outcome:
        rows = [(voter.name, voter.incarnation) for voter in change.voters]
        self._database.execute(_DROP_VOTERS)
        self._database.executemany(_ADD_VOTER, rows)
        return journal.Outcome(count=len(rows))

    def _add_head(self, change: wire.AddHead, entry: journal.Entry) -> journal.Outcome:
        count = self._database.execute(_COUNT_HEADS, (change.name,)).fetchone()[0]
        if count >= MOST_HEADS:
            raise InvalidRequest(f"a grid has at most {MOST_HEADS} heads", change.name)
        self._database.execute(_SET_HEAD, (change.name, change.address, 1))
        return journal.Outcome(count=1)

    def _remove_head(self, change: wire.RemoveHead, entry: journal.Entry) -> journal.Outcome:
        if not self._database.execute(_IS_HEAD, (change.name,)).fetchone():
            raise InvalidRequest("there is no such head", change.name, advice=_SEE_STATUS)
        if not self._database.execute(_ANOTHER_HEAD, (change.name,)).fetchone():
            raise InvalidRequest(
                "no other head would have a vote", change.name, advice="add another one first"
            )
        self._database.execute(_DROP_HEAD, (change.name,))
        return journal.Outcome(count=1)

    def _discard_unknown(self, change: DiscardUnknown, entry: journal.Entry) -> journal.Outcome:
        now = self._registers.now
        now.forgotten_lineage = now.lineage - 1
        return journal.Outcome(count=1)

    def _apply_policies(
        self, change: journal.ApplyPolicies, entry: journal.Entry
    ) -> journal.Outcome:
        count, resized = self._policies.apply(change.limit, entry.command.replication)
        return journal.Outcome(count=count, resized=resized)
