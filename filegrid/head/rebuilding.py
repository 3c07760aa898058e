"""A namespace made of what chunk servers hold, on top of the newest backup where there is one.

What a version's session tells is used first: one that the backup saw end without publishing it was
given up. Everything else that is not in the backup is newer than it. Whole versions get their path,
the newest where several claim one; what has to give way, and what is not whole, goes to
``/lost+found``: nothing is thrown away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from filegrid.errors import InvalidPath
from filegrid.head.contents import Contents
from filegrid.head.nodes import Stored
from filegrid.head.salvage import Salvage, Version
from filegrid.head.schema import FILE, ROOT, RegisterFile
from filegrid.head.sessions import get_session, was_opened
from filegrid.head.tree import Tree
from filegrid.model import Chunk, digest_over, join_path, session_of, split_path
from filegrid.protocol.wire.values_pb2 import Publish

LOST = "lost+found"

MOST_LOST_NAME_BYTES = 200
"""Of the old name; the version's id follows, and names have 255 bytes at most."""

_IS_CONTENT = "SELECT 1 FROM contents WHERE content_id = ?"
_IS_NAMED = "SELECT 1 FROM chunks WHERE chunk_id = ? LIMIT 1"
_CONTENTS_OF_CHUNKS = "SELECT content_id, chunk_id FROM chunks JOIN contents USING (content_id)"


@dataclass(slots=True)
class Rebuilt:
    """What came of it."""

    found: int = 0
    """Versions that the backup did not have and that got their path."""
    lost: list[str] = field(default_factory=list)
    """What was put under /lost+found."""
    given_up: int = 0
    """Versions whose upload had ended, unpublished, when the backup was made."""
    lacking: int = 0
    """Files of the backup of which chunks are not there."""


def begin_anew(database: sqlite3.Connection, grid_id: str) -> None:
    """Make an empty state a grid's own, as if its log had had one entry; there is no backup."""
    registers = RegisterFile(database)
    registers.now.grid_id = grid_id
    registers.now.applied_epoch = registers.now.applied_index = 1
    registers.save()


def rebuild(database: sqlite3.Connection, salvage: Salvage, *, replication: int) -> Rebuilt:
    """Add what was salvaged to a state. Blocks.

    :param replication: for versions that do not say it.
    """
    work = _Rebuilding(database, replication)
    database.execute("BEGIN IMMEDIATE")
    work.rebuilt.lacking = len(
        {
            content_id
            for content_id, chunk_id in database.execute(_CONTENTS_OF_CHUNKS)
            if chunk_id not in salvage.chunk_ids
        }
    )
    for version in sorted(salvage.versions(), key=lambda one: (one.written_ms, one.content_id)):
        work.add(version)
    work.finish()
    database.execute("COMMIT")
    return work.rebuilt


class _Rebuilding:
    """One rebuild, in the transaction of its caller."""

    def __init__(self, database: sqlite3.Connection, replication: int) -> None:
        self.rebuilt = Rebuilt()
        self._database = database
        self._replication = replication
        self._registers = RegisterFile(database)
        self._tree = Tree(database, self._registers)
        self._contents = Contents(database, self._registers)
        self._lost: tuple[int, str] | None = None

    def finish(self) -> None:
        self._tree.end()
        self._registers.save()

    def add(self, version: Version) -> None:
        if self._is(_IS_CONTENT, version.content_id):
            return
        session = session_of(version.content_id)
        if was_opened(self._registers.now, session) and not get_session(self._database, session):
            self.rebuilt.given_up += 1
            return
        chunks = [chunk for run in version.runs.values() for chunk in run]
        if all(self._is(_IS_NAMED, chunk.id) for chunk in chunks):
            return  # an append that kept nothing of its own
        if not version.whole:
            self._keep_parts(version)
        elif (place := self._place(version)) is not None:
            self._add_file(*place, version.content_id, version, chunks)
            self.rebuilt.found += 1
        else:
            folder, path = self._lost_folder()
            name = _lost_name(version.path, version.content_id)
            self._add_file(folder, name, version.content_id, version, chunks)
            self.rebuilt.lost.append(f"{path}/{name.decode()}")

    def _place(self, version: Version) -> tuple[int, bytes] | None:
        """The folder and name of its path, made free; None where something else keeps it."""
        try:
            names = split_path(version.path)
        except InvalidPath:
            return None
        if not names:
            return None
        folder = ROOT
        for name in names[:-1]:
            found = self._tree.child(folder, name.encode())
            if found is not None and not found.is_folder:
                return None
            folder = found.id if found is not None else self._add_folder(folder, name, version)
        last = names[-1].encode()
        there = self._tree.child(folder, last)
        if there is not None:
            if there.is_folder or there.mtime_ms > version.written_ms:
                return None
            lost, path = self._lost_folder()
            aside = _lost_name(join_path(names), there.content_id or b"")
            self._tree.move(there, lost, aside)
            self.rebuilt.lost.append(f"{path}/{aside.decode()}")
        return folder, last

    def _keep_parts(self, version: Version) -> None:
        """What there is of a version that is not whole: each run of its chunks as a file."""
        folder, path = self._lost_folder()
        name = _lost_name(version.path, version.content_id).decode()
        parts = self._add_folder(folder, name, version)
        for first, run in version.runs.items():
            # The id of one of its chunks, which is no content's; unless it is another part's, of a
            # version that kept the same chunks: then that one will do.
            free = (chunk.id for chunk in run if not self._is(_IS_CONTENT, chunk.id))
            if content_id := next(free, None):
                self._add_file(parts, f"from-chunk-{first:08}".encode(), content_id, version, run)
        self.rebuilt.lost.append(f"{path}/{name}/")

    def _add_folder(self, parent: int, name: str, version: Version) -> int:
        return self._tree.add_folder(
            parent,
            name.encode(),
            mtime_ms=version.written_ms,
            version=self._registers.now.applied_index,
        )

    def _add_file(
        self,
        folder: int,
        name: bytes,
        content_id: bytes,
        version: Version,
        chunks: Sequence[Chunk],
    ) -> None:
        publish = Publish(
            content_id=content_id,
            size=sum(chunk.length for chunk in chunks),
            digest=digest_over(chunk.digest for chunk in chunks),
            replication=version.replication or self._replication,
            chunk_bytes=version.chunk_bytes,
        )
        node = Stored(
            parent=folder,
            name=name,
            id=self._tree.new_id(),
            kind=FILE,
            mtime_ms=version.written_ms,
            version=self._registers.now.applied_index,
            content_id=content_id,
            size=publish.size,
            digest=publish.digest,
            replication=publish.replication,
            chunk_bytes=publish.chunk_bytes,
            chunk_count=len(chunks),
        )
        shared = sum(self._is(_IS_NAMED, chunk.id) for chunk in chunks)
        for chunk in chunks:
            self._contents.forget_released(chunk.id, may_be_named=False)  # it is named again
        self._tree.add_file(node)
        self._contents.publish(
            publish,
            node=node.id,
            replication=publish.replication,
            asked=False,  # no chunk says so: it follows the policy of its folder from now on
            base=b"",
            chunks=chunks,
            count=len(chunks),
        )
        self._registers.now.chunks -= shared
        # Of the versions to come some share chunks with this one, or want its path.
        self._contents.write()
        self._tree.reread()

    def _lost_folder(self) -> tuple[int, str]:
        """Its number and path; made when it is needed first."""
        if self._lost is None:
            name, number = LOST, 0
            while (there := self._tree.child(ROOT, name.encode())) and not there.is_folder:
                number += 1
                name = f"{LOST}.{number}"
            folder = there.id if there else self._tree.add_folder(
                ROOT, name.encode(), mtime_ms=0, version=self._registers.now.applied_index
            )  # fmt: skip
            self._lost = folder, f"/{name}"
        return self._lost

    def _is(self, question: str, unique_id: bytes) -> bool:
        return self._database.execute(question, (unique_id,)).fetchone() is not None


def _lost_name(path: str, content_id: bytes) -> bytes:
    """A name that tells where it was, and is nobody else's."""
    name = path.rpartition("/")[2].encode("utf-8", "replace").replace(b"\0", b"_")
    kept = name[:MOST_LOST_NAME_BYTES].decode("utf-8", "ignore") or "unnamed"
    return f"{kept}.{content_id.hex()}".encode()
