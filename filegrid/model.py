"""The values that everybody speaks of: ids, digests, paths, addresses, identities."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NewType

from blake3 import blake3

from filegrid.errors import InvalidPath, InvalidRequest
from filegrid.protocol.wire import values_pb2 as wire

ChunkId = NewType("ChunkId", bytes)
"""16 bytes: the session that made it and a number unique within the session, both big-endian."""

ContentId = NewType("ContentId", bytes)
"""Names one version of a file's contents; of the form, and from the numbers, of chunk ids."""

SessionId = NewType("SessionId", int)
Digest = NewType("Digest", bytes)
Epoch = NewType("Epoch", int)

BLOCK_BYTES = 64 * 1024
"""What one block digest covers, and so the least that a verified read touches."""

DIGEST_BYTES = 32
CHUNK_ID_BYTES = 16
DEFAULT_CHUNK_BYTES = 64 * 1024 * 1024

MOST_REPLICATION = 16
"""More copies than this protect from nothing that these do not, and every write waits for all."""

MOST_PATH_BYTES = 4096
"""As PATH_MAX: longer ones could not be downloaded to a folder."""
MOST_NAME_BYTES = 255
"""As NAME_MAX of the common file systems."""

_ID = struct.Struct(">QQ")


def unique_id(session: SessionId, number: int) -> bytes:
    """The id of the chunk or content that `session` made with `number`."""
    return _ID.pack(session, number)


def session_of(unique: bytes) -> SessionId:
    """The session that made this chunk or content id."""
    return SessionId(_ID.unpack(unique)[0])


def number_of(unique: bytes) -> int:
    """With which number its session made this chunk or content id."""
    number: int = _ID.unpack(unique)[1]
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A sealed run of bytes: what it is called, how long it is, what it must hash to."""

    id: ChunkId
    length: int
    digest: Digest

    def to_wire(self) -> wire.ChunkRef:
        return wire.ChunkRef(id=self.id, length=self.length, digest=self.digest)

    @classmethod
    def from_wire(cls, ref: wire.ChunkRef) -> Chunk:
        """:raises InvalidRequest: where the id or the digest has not its length."""
        if len(ref.id) != CHUNK_ID_BYTES or len(ref.digest) != DIGEST_BYTES:
            raise InvalidRequest("a chunk reference with a malformed id or digest", ref.id.hex())
        return cls(id=ChunkId(ref.id), length=ref.length, digest=Digest(ref.digest))


def digest_over(digests: Iterable[bytes]) -> Digest:
    """BLAKE3 over digests: of a chunk from its blocks', of a file from its chunks'."""
    return Digest(blake3(b"".join(digests)).digest())


def blocks_in(length: int) -> int:
    """How many blocks a chunk of `length` bytes has; the last may be short."""
    return -(-length // BLOCK_BYTES)


_ODD_NAMES = frozenset({"", ".", ".."})


def split_path(path: str) -> list[str]:
    """The names along an absolute grid path; none for the root.

    A name is any non-empty UTF-8 text of at most 255 bytes without ``/`` and NUL, and is neither
    ``.`` nor ``..``. Names are compared byte by byte: NFC and NFD spellings are two names.

    :raises InvalidPath: for anything else, or a path longer than 4096 bytes.
    """
    if not path.startswith("/"):
        raise InvalidPath("a grid path is absolute", path or "''", advice="begin it with /")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise InvalidPath("a grid path is valid UTF-8", shown) from None
    if len(encoded) > MOST_PATH_BYTES:
        raise InvalidPath(f"a path has at most {MOST_PATH_BYTES} bytes", path[:60] + "...")
    if path == "/":
        return []
    names = path[1:].split("/")
    if names[-1] == "":
        names.pop()  # a trailing slash is what shells complete folders with
    if len(encoded) <= MOST_NAME_BYTES and "\0" not in path and not _ODD_NAMES.intersection(names):
        return names  # as nearly all are
    for name in names:
        if name == "":
            raise InvalidPath("a path has no empty names", path, advice="remove the double slash")
        if name in (".", ".."):
            raise InvalidPath(f"a path has no {name!r}", path, advice="write it out")
        if "\0" in name:
            raise InvalidPath("a name has no NUL", path.replace("\0", "\\0"))
        if len(name.encode()) > MOST_NAME_BYTES:
            raise InvalidPath(f"a name has at most {MOST_NAME_BYTES} bytes", name[:60] + "...")
    return names


def join_path(names: Iterable[str]) -> str:
    return "/" + "/".join(names)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From ``host:port`` or ``[v6]:port``.

        :raises InvalidRequest: where it is neither.
        """
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise InvalidRequest("an address is HOST:PORT", text or "''")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A node that is known by its name before it is met."""

    name: str
    address: Address

    @classmethod
    def parse(cls, text: str) -> Peer:
        """From ``name=host:port``.

        :raises InvalidRequest: where it is not of this form.
        """
        name, equals, address = text.partition("=")
        if not equals or not name:
            raise InvalidRequest("a peer is NAME=HOST:PORT", text or "''")
        return cls(name, Address.parse(address))

    def __str__(self) -> str:
        return f"{self.name}={self.address}"


class Role(str, Enum):
    """What a certificate opens."""

    HEAD = "head"
    CHUNK = "chunk"
    HEALTH = "health"
    CLIENT = "client"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate says that its holder is."""

    grid_id: str
    role: Role
    name: str

    def __str__(self) -> str:
        return f"{self.role.value} {self.name}"
