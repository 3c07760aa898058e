"""The backups of the metadata that the grid keeps in itself, as the namespace has them.

Each is a content like that of a file, so that its chunks are replicated, repaired and in the end
collected as all others. It hangs in a folder beside the root, where no path leads: users neither
see nor remove it, and it counts in no total. Its chunks say on disk what they are
(:data:`filegrid.backup.STORED_AS`), which is how a rebuild finds them without any head.
"""

from __future__ import annotations

import sqlite3
import struct
from dataclasses import dataclass

from filegrid.errors import InvalidRequest
from filegrid.head.contents import Contents
from filegrid.head.nodes import Stored, child, children
from filegrid.head.schema import BACKUPS, FILE
from filegrid.head.trash import Trash
from filegrid.head.tree import Tree
from filegrid.model import SessionId
from filegrid.protocol.wire import journal_pb2 as journal

MOST_KEPT = 1000
"""More than that nobody asks for, and all are looked at with every status."""

_BESIDE_ROOT = 0
_NAME = struct.Struct(
    ">QQ"
)  # log time in milliseconds, index: in the order in which they were kept
_PLACE = "SELECT parent, name FROM nodes WHERE id = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A backup in the grid.

    :ivar log_time_ms: when it was kept, in the log's own time (S9).
    :ivar wall_ms: the same by the leader's wall clock, for people.
    :ivar bytes: its length.
    """

    log_time_ms: int
    wall_ms: int
    bytes: int


def kept(database: sqlite3.Connection) -> list[Kept]:
    """All of them, the oldest first."""
    folder = child(database, _BESIDE_ROOT, BACKUPS)
    if folder is None:
        return []
    return [
        Kept(log_time_ms=_NAME.unpack(one.name)[0], wall_ms=one.mtime_ms, bytes=one.size or 0)
        for one in children(database, folder.id, limit=MOST_KEPT)
    ]


def is_kept(database: sqlite3.Connection, node: int) -> bool:
    """Whether this node is one of them."""
    row = database.execute(_PLACE, (node,)).fetchone()
    above = database.execute(_PLACE, (row[0],)).fetchone() if row else None
    return above is not None and tuple(above) == (_BESIDE_ROOT, BACKUPS)


class Shelf:
    """Changes of what is kept, in the transaction of the caller."""

    def __init__(
        self, database: sqlite3.Connection, tree: Tree, contents: Contents, trash: Trash
    ) -> None:
        self._database = database
        self._tree = tree
        self._contents = contents
        self._trash = trash

    def keep(self, change: journal.KeepBackup, entry: journal.Entry) -> journal.Outcome:
        """Add one, and let go of the oldest beyond `most`: into the trash, due at once, so that
        they are taken apart in small steps as all that is removed.

        :raises InvalidRequest: where it is not whole; then nothing has changed.
        """
        content, session = change.content, SessionId(entry.command.once.session)
        if not 1 <= change.most < MOST_KEPT:
            raise InvalidRequest(f"{change.most} backups cannot be kept")
        if content.path or content.inherited_chunks or content.base_version:
            raise InvalidRequest("a backup has no path, and none before it")
        self._contents.check_id(content.content_id, session)
        chunks = self._contents.new_chunks(content.chunks, session)
        self._contents.check_staged(content.content_id, 0, content.first_index)
        count = self._contents.check_whole(content, content.replication, b"", chunks)

        wall_ms, log_time_ms = entry.command.wall_ms, entry.command.log_time_ms
        folder = self._tree.child(_BESIDE_ROOT, BACKUPS)
        parent = folder.id if folder is not None else self._tree.add_folder(
            _BESIDE_ROOT, BACKUPS, mtime_ms=wall_ms, version=entry.index
        )  # fmt: skip
        node = Stored(
            parent=parent,
            name=_NAME.pack(log_time_ms, entry.index),
            id=self._tree.new_id(),
            kind=FILE,
            mtime_ms=wall_ms,
            version=entry.index,
            content_id=content.content_id,
            size=content.size,
            digest=content.digest,
            replication=content.replication,
            chunk_bytes=content.chunk_bytes,
            chunk_count=count,
        )
        self._tree.add_file(node)
        new = self._contents.publish(
            content,
            node=node.id,
            replication=content.replication,
            asked=True,  # no folder's policy says anything of it
            base=b"",
            chunks=chunks,
            count=count,
        )
        self._contents.write()
        self._tree.write()
        for old in children(self._database, parent, limit=MOST_KEPT)[: -change.most]:
            self._trash.put(old, "", stay_ms=0, wall_ms=wall_ms)
        return journal.Outcome(count=1, published=new)
