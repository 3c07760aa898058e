"""The namespace against a model in a few lines, whatever is done in whatever order."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial import unittest

from filegrid.errors import (
    AlreadyExists,
    FolderNotEmpty,
    GridError,
    InvalidRequest,
    IsAFolder,
    NoSuchPath,
    NotAFolder,
)
from filegrid.head.namespace import Namespace
from filegrid.head.view import Counts
from filegrid.model import Chunk
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from tests.head.entries import CHUNK_BYTES, TRASH_MS, Driver

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)
Names = tuple[str, ...]


def text(path: Names) -> str:
    return "/" + "/".join(path)


class Model:
    """Paths to the chunks of a file, or to None for a folder; and what is in the trash."""

    def __init__(self) -> None:
        self.nodes: dict[Names, list[Chunk] | None] = {(): None}
        self.trash: list[tuple[int, list[list[Chunk]]]] = []

    def folder(self, path: Names) -> None:
        for depth in range(len(path) + 1):
            if path[:depth] not in self.nodes:
                raise NoSuchPath("")
            if self.nodes[path[:depth]] is not None:
                raise NotAFolder("")

    def need(self, path: Names) -> None:
        self.folder(path[:-1])
        if path not in self.nodes:
            raise NoSuchPath("")

    def below(self, path: Names) -> list[Names]:
        return [one for one in self.nodes if one[: len(path)] == path]

    def throw_away(self, path: Names, due_ms: int) -> None:
        gone = [self.nodes.pop(one) for one in self.below(path)]
        self.trash.append((due_ms, [chunks for chunks in gone if chunks is not None]))

    def make(self, path: Names, parents: bool) -> None:
        for depth in range(1, len(path)):
            if self.nodes.get(path[:depth]) is not None:
                raise NotAFolder("")
            if path[:depth] not in self.nodes and not parents:
                raise NoSuchPath("")
        if path in self.nodes and (self.nodes[path] is not None or not parents):
            raise AlreadyExists("")
        for depth in range(1, len(path) + 1):
            self.nodes.setdefault(path[:depth], None)

    def publish(self, path: Names, chunks: list[Chunk], replace: bool, due_ms: int) -> None:
        self.folder(path[:-1])
        if path in self.nodes:
            if self.nodes[path] is None:
                raise IsAFolder("")
            if not replace:
                raise AlreadyExists("")
            self.throw_away(path, due_ms)
        self.nodes[path] = chunks

    def remove(self, path: Names, recursive: bool, due_ms: int) -> None:
        self.need(path)
        if len(self.below(path)) > 1 and not recursive:
            raise FolderNotEmpty("")
        self.throw_away(path, due_ms)

    def rename(self, source: Names, target: Names, replace: bool, due_ms: int) -> None:
        self.need(source)
        if source == target:
            return
        if target[: len(source)] == source:
            raise InvalidRequest("")
        self.folder(target[:-1])
        if target in self.nodes:
            if not replace:
                raise AlreadyExists("")
            kinds = self.nodes[source] is None, self.nodes[target] is None
            if kinds == (False, True):
                raise IsAFolder("")
            if kinds == (True, False):
                raise NotAFolder("")
            if len(self.below(target)) > 1:
                raise FolderNotEmpty("")
            if kinds == (False, False):
                self.throw_away(target, due_ms)
        for one in self.below(source):
            self.nodes[target + one[len(source) :]] = self.nodes.pop(one)

    def files(self) -> list[list[Chunk]]:
        return [chunks for chunks in self.nodes.values() if chunks is not None]

    def named(self) -> set[bytes]:
        contents = self.files() + [chunks for _, gone in self.trash for chunks in gone]
        return {chunk.id for chunks in contents for chunk in chunks}


class Comparison(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.grid = Driver()
        self.model = Model()
        self.published: set[bytes] = set()
        self.released: set[bytes] = set()

    def teardown(self) -> None:
        """In groups, which read and write many rows at once, the log makes the same state."""
        log, dump = self.grid.log, self.grid.dump()
        self.grid.database.close()
        for size in (4, len(log)):
            self.assert_dump(log, size, dump)

    def assert_dump(self, log: list[journal.Entry], size: int, dump: list[str]) -> None:
        database = sqlite3.connect(":memory:")
        namespace = Namespace(database)
        for start in range(0, len(log), size):
            namespace.apply(log[start : start + size])
        assert list(database.iterdump()) == dump, size
        database.close()

    @rule(back=st.integers(1, 8))
    def repeat(self, back: int) -> None:
        """A change that is asked for again is not made again, in the same group or later."""
        command = self.grid.log[max(-back, -len(self.grid.log))].command
        if command.HasField("once"):
            self.grid.apply(command)

    def agree(self, outcome: journal.Outcome, change: Any, *args: Any) -> None:
        expected = wire.ERROR_CODE_UNSPECIFIED
        try:
            change(*args)
        except GridError as error:
            expected = error.code
        assert outcome.fault.code == expected, (outcome, change, args)

    @property
    def due_ms(self) -> int:
        return self.grid.now_ms + TRASH_MS

    @rule(path=PATHS, parents=st.booleans())
    def make(self, path: Names, parents: bool) -> None:
        self.agree(self.grid.make(text(path), parents=parents), self.model.make, path, parents)

    @rule(path=PATHS, count=st.integers(0, 2), replace=st.booleans())
    def publish(self, path: Names, count: int, replace: bool) -> None:
        chunks = [self.grid.new_chunk() for _ in range(count)]
        outcome = self.grid.put(text(path), *chunks, replace=replace)
        self.published |= set(outcome.published)
        self.agree(outcome, self.model.publish, path, chunks, replace, self.due_ms)

    @precondition(lambda self: self.model.files())
    @rule(data=st.data(), kept=st.integers(0, 2))
    def append(self, data: st.DataObject, kept: int) -> None:
        files = [path for path, chunks in self.model.nodes.items() if chunks is not None]
        path = data.draw(st.sampled_from(sorted(files)))
        base = (self.model.nodes[path] or [])[:kept]
        chunk = self.grid.new_chunk()
        outcome = self.grid.put(
            text(path),
            chunk,
            before=base,
            base_version=self.grid.namespace.stat(text(path)).version,
            inherited_chunks=len(base),
        )
        self.published |= set(outcome.published)
        self.agree(outcome, self.model.publish, path, [*base, chunk], True, self.due_ms)

    @rule(path=PATHS, recursive=st.booleans(), now=st.booleans())
    def remove(self, path: Names, recursive: bool, now: bool) -> None:
        outcome = self.grid.remove(text(path), recursive=recursive, now=now)
        due_ms = self.grid.now_ms if now else self.due_ms
        self.agree(outcome, self.model.remove, path, recursive, due_ms)

    @rule(source=PATHS, goal=PATHS, replace=st.booleans())
    def rename(self, source: Names, goal: Names, replace: bool) -> None:
        outcome = self.grid.rename(text(source), text(goal), replace=replace)
        self.agree(outcome, self.model.rename, source, goal, replace, self.due_ms)

    @rule(elapsed_ms=st.sampled_from([0, TRASH_MS // 2, TRASH_MS]), limit=st.integers(1, 5))
    def purge(self, elapsed_ms: int, limit: int) -> None:
        """All that is due, in steps; the trash that is not due stays whole."""
        self.grid.now_ms += elapsed_ms
        while True:
            outcome = self.grid.purge(limit)
            self.released |= set(outcome.released)
            if outcome.count < limit:
                break
        now_ms = self.grid.now_ms
        assert not self.grid.namespace.purge_due(now_ms)
        self.model.trash = [(due, gone) for due, gone in self.model.trash if due > now_ms]

    @invariant()
    def same_tree(self) -> None:
        for path, chunks in self.model.nodes.items():
            node = self.grid.namespace.stat(text(path))
            if chunks is None:
                names = sorted(text(one) for one in self.model.nodes if one and one[:-1] == path)
                assert self.grid.names(text(path)) == names
            else:
                assert self.grid.namespace.manifest(node.content_id, 0, 9) == (chunks, False)
                assert self.grid.namespace.path_of(node.content_id) == text(path)

    @invariant()
    def same_counts(self) -> None:
        files, named = self.model.files(), self.model.named()
        size = sum(len(chunks) * CHUNK_BYTES for chunks in files)
        expected = Counts(files=len(files), bytes=size, chunks=len(named))
        assert self.grid.namespace.counts() == expected

    @invariant()
    def released_when_unnamed(self) -> None:
        """A chunk is released exactly when no content names it."""
        assert self.released == self.published - self.model.named()
        listed = self.grid.namespace.chunks_after(b"", 10_000)
        assert {record.chunk.id for record in listed} == self.model.named()
        released = self.grid.namespace.released_before(self.grid.now_ms + 1, 10_000)
        assert {chunk.id for chunk in released} == self.released


class ComparisonTests(unittest.SynchronousTestCase):
    def test_comparison(self) -> None:
        """The namespace does what the model does, and releases what nobody names."""
        run_state_machine_as_test(
            Comparison,
            settings=settings(
                max_examples=30, stateful_step_count=30, deadline=None, database=None
            ),
        )


def busy_log() -> list[journal.Entry]:
    """Some of everything, faults with it."""
    grid = Driver()
    grid.make("/a/b", parents=True)
    one = grid.new_chunk()
    base = grid.put("/a/b/f", one, grid.new_chunk(5)).node
    grid.put(
        "/a/b/f", grid.new_chunk(), before=[one], base_version=base.version, inherited_chunks=1
    )
    grid.put("/a/b/f")
    grid.rename("/a/b", "/c")
    grid.make("/x/y/z")
    grid.put("/g", grid.new_chunk())
    grid.rename("/g", "/c/f", replace=True)
    grid.remove("/a", now=True)
    for number in range(1, 6):
        folder = wire.MakeFolder(path=f"/many-{number}")
        grid.once(make_folder=folder, sequence=number, answered_below=number - 1)
    grid.once(make_folder=folder, sequence=2)
    grid.make("/two")
    grid.once(set_policy=wire.SetPolicy(path="/two", replication=2, quota_files=2))
    grid.put("/one", grid.new_chunk(), replication=0)
    grid.rename("/one", "/two/one")  # its replication follows the folder's
    grid.rename("/two/one", "/two/two")
    grid.make("/two/deep/er", parents=True)
    grid.put("/two/deep/er/f", replication=0)
    grid.put("/two/deep/er/above-the-quota")
    grid.rename("/two/deep", "/deep")
    grid.does(apply_policies=journal.ApplyPolicies(limit=10))
    grid.put("/two/deep")
    grid.open_session("bob")
    grid.now_ms += TRASH_MS
    grid.purge(2)
    grid.purge(100)
    grid.remove("/c", recursive=True)
    grid.does(register_server=journal.RegisterServer(name="chunk-1", address="h:1"))
    grid.once(close_session=wire.CloseSession())
    grid.database.close()
    return grid.log


class Determinism(unittest.SynchronousTestCase):
    def test_same_state(self) -> None:
        """The same entries make the same database, in whatever groups they are applied."""
        log = busy_log()
        dumps = []
        for size in (1, 3, len(log)):
            database = sqlite3.connect(":memory:")
            namespace = Namespace(database)
            for start in range(0, len(log), size):
                namespace.apply(log[start : start + size])
            dumps.append(list(database.iterdump()))
            database.close()
        self.assertEqual(dumps[0], dumps[1])
        self.assertEqual(dumps[0], dumps[2])

    def test_applied_again(self) -> None:
        """After a restart anywhere the whole log can be applied again (S8)."""
        log = busy_log()
        whole = sqlite3.connect(":memory:")
        outcomes = Namespace(whole).apply(log)
        for cut in range(len(log)):
            database = sqlite3.connect(":memory:")
            Namespace(database).apply(log[:cut])
            namespace = Namespace(database)
            again = namespace.apply(log)
            self.assertEqual(again[:cut], [journal.Outcome()] * cut)
            self.assertEqual(again[cut:], outcomes[cut:])
            self.assertEqual(list(database.iterdump()), list(whole.iterdump()))
            database.close()
        whole.close()

    def test_rolled_back(self) -> None:
        """A group that cannot be applied as a whole leaves nothing, and may be applied again."""
        log = busy_log()
        database = sqlite3.connect(":memory:")
        namespace = Namespace(database)
        half = len(log) // 2
        namespace.apply(log[:half])
        before = list(database.iterdump())
        self.assertRaises(
            AssertionError, namespace.apply, [*log[half:-1], log[0], log[-1], log[-1]]
        )
        self.assertEqual(list(database.iterdump()), before)
        namespace.apply(log[half:])
        self.assertEqual(namespace.applied_index, len(log))
        database.close()

    def test_two_connections(self) -> None:
        """On a file one connection applies while another reads what was committed."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "names.db")
            writer = sqlite3.connect(path)
            Namespace(writer)
            reader = sqlite3.connect(path)
            namespace = Namespace(writer, reader)
            log = busy_log()
            namespace.apply(log[:5])
            self.assertEqual(namespace.stat("/a/b/f").version, 5)
            self.assertEqual(namespace.checkpoint(), 5)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM nodes").fetchall()
            namespace.apply(log[5:])
            writer.execute("PRAGMA busy_timeout = 0")
            self.assertEqual(namespace.checkpoint(), 0)
            reader.execute("COMMIT")
            self.assertEqual(namespace.checkpoint(), len(log))
            writer.close()
            reader.close()
