"""What callers are told of a file or folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire import values_pb2 as wire

MILLISECONDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """A file or folder as it was at one moment."""

    path: str
    kind: Literal["file", "folder"]
    size: int
    """Bytes; 0 of a folder."""
    mtime: float
    """Seconds since 1970, by the clock of the head that made the version."""
    replication: int
    """Replicas that each chunk should have; 0 of a folder."""
    digest: str
    """Hexadecimal, over the digests of the chunks; empty of a folder."""
    version: int
    """Grows with every change of what the path names."""
    chunk_bytes: int
    chunk_count: int
    content_id: bytes
    """Names this version of the contents."""

    @property
    def name(self) -> str:
        """The last name of the path; empty of the root."""
        return self.path.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        return self.kind == "folder"

    @classmethod
    def from_wire(cls, node: wire.Node) -> Stat:
        return cls(
            path=node.path,
            kind="folder" if node.kind == wire.NODE_KIND_FOLDER else "file",
            size=node.size,
            mtime=node.mtime_ms / MILLISECONDS,
            replication=node.replication,
            digest=node.digest.hex(),
            version=node.version,
            chunk_bytes=node.chunk_bytes,
            chunk_count=node.chunk_count,
            content_id=node.content_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trashed:
    """Something in the trash, with all that is below it."""

    id: int
    path: str
    """Where it was."""
    kind: Literal["file", "folder"]
    files: int
    bytes: int
    removed: float
    """Seconds since 1970."""
    left_seconds: float
    """Until it is gone for good."""

    @classmethod
    def from_wire(cls, entry: head_pb2.TrashEntry) -> Trashed:
        return cls(
            id=entry.trash_id,
            path=entry.path,
            kind="folder" if entry.kind == wire.NODE_KIND_FOLDER else "file",
            files=entry.files,
            bytes=entry.bytes,
            removed=entry.removed_ms / MILLISECONDS,
            left_seconds=entry.left_ms / MILLISECONDS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPolicy:
    """What a folder says for all below it, and what lies there; None: it says nothing."""

    path: str
    replication: int | None
    spread: Literal["rack", "host"] | None
    trash_seconds: int | None
    quota_bytes: int | None
    quota_files: int | None
    used_bytes: int
    used_files: int

    @classmethod
    def from_wire(cls, one: head_pb2.FolderPolicy) -> FolderPolicy:
        spread: Literal["rack", "host"] = "host" if one.spread == wire.SPREAD_HOST else "rack"
        return cls(
            path=one.path,
            replication=one.replication if one.HasField("replication") else None,
            spread=spread if one.HasField("spread") else None,
            trash_seconds=one.trash_seconds if one.HasField("trash_seconds") else None,
            quota_bytes=one.quota_bytes if one.HasField("quota_bytes") else None,
            quota_files=one.quota_files if one.HasField("quota_files") else None,
            used_bytes=one.used_bytes,
            used_files=one.used_files,
        )
