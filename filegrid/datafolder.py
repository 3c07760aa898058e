"""The folder in which a node keeps its data, and what tells it from all others.

Its file ``node`` is JSON, for people to read::

    {"format": 1, "grid_id": "…", "role": "chunk", "name": "chunk-1",
     "incarnation": "32 hexadecimal digits", "boot_count": 7}

The incarnation is made with the folder, so that a node that lost its data is a new one (S2); the
boot count rises at every start, so that one whose disk came back older is found out (S3).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TypedDict

from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.errors import (
    DiskFailed,
    DuplicateName,
    IntegrityError,
    InvalidRequest,
    UnsupportedVersion,
    WrongGrid,
)
from filegrid.model import Identity, Role
from filegrid.runtime import Disk, Lock

NODE_FILE = "node"
"""In every data folder, and in no other."""

_FORMAT_VERSION = 1
_INCARNATION_BYTES = 16


class _Record(TypedDict):
    """What the file ``node`` holds."""

    format: int
    grid_id: str
    role: str
    name: str
    incarnation: str
    boot_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """A data folder that this process has opened, alone."""

    path: str
    grid_id: str
    role: Role
    name: str
    incarnation: bytes
    """16 random bytes, made with the folder."""
    boot_count: int
    """How often it was opened, this time included."""
    _lock: Lock

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: str,
        *,
        identity: Identity,
        create: bool,
        rng: random.Random,
    ) -> DataFolder:
        """Open a node's data folder and count the start, durably. Blocks.

        :param create: make it where it is missing. Without that a missing or empty folder is
            taken for a disk that is not mounted, never for a node that lost its data (S20).
        :param rng: where the incarnation of a new folder comes from.
        :raises WrongGrid: where it belongs to another grid.
        :raises InvalidRequest: where it belongs to another node.
        :raises DuplicateName: where another process has it open.
        :raises UnsupportedVersion: where a newer release made it (S24).
        :raises IntegrityError: where the file ``node`` cannot be understood.
        :raises DiskFailed: where it is missing, or cannot be read or written.
        :raises NoSpace: where the disk is full.
        """
        with grid_errors(path):
            if create:
                disk.make_folders(path)
            elif not disk.exists(f"{path}/{NODE_FILE}"):
                raise DiskFailed(
                    "there is no data folder here",
                    path,
                    advice="mount its disk, or ask for a new one if the node is new",
                )
            lock = _take_lock(disk, path)
            try:
                record = _read(disk, path) or _Record(
                    format=_FORMAT_VERSION,
                    grid_id=identity.grid_id,
                    role=identity.role.value,
                    name=identity.name,
                    incarnation=rng.randbytes(_INCARNATION_BYTES).hex(),
                    boot_count=0,
                )
                _check_owner(record, path, identity)
                record["boot_count"] += 1
                content = json.dumps(record, indent=2) + "\n"
                replace_file(disk, f"{path}/{NODE_FILE}", content.encode())
            except BaseException:
                lock.close()
                raise
        return cls(
            path=path,
            grid_id=identity.grid_id,
            role=identity.role,
            name=identity.name,
            incarnation=bytes.fromhex(record["incarnation"]),
            boot_count=record["boot_count"],
            _lock=lock,
        )

    def within(self, relative: str) -> str:
        """The path of something in it."""
        return f"{self.path}/{relative}"

    def close(self) -> None:
        """Let another process open it."""
        self._lock.close()


def _take_lock(disk: Disk, path: str) -> Lock:
    try:
        return disk.lock(f"{path}/lock")
    except BlockingIOError:
        raise DuplicateName(
            "another process has this data folder open", path, advice="stop that one first"
        ) from None


def _read(disk: Disk, path: str) -> _Record | None:
    try:
        content = read_file(disk, f"{path}/{NODE_FILE}")
    except FileNotFoundError:
        return None
    try:
        found = json.loads(content)
        version = int(found["format"])
        if version > _FORMAT_VERSION:
            raise UnsupportedVersion(
                f"the data folder has format {version}, and this release reads up to "
                f"{_FORMAT_VERSION}",
                path,
                advice="start the release that made it",
            )
        if len(bytes.fromhex(found["incarnation"])) != _INCARNATION_BYTES:
            raise ValueError("an incarnation of another length")
        return _Record(
            format=version,
            grid_id=str(found["grid_id"]),
            role=str(found["role"]),
            name=str(found["name"]),
            incarnation=str(found["incarnation"]),
            boot_count=int(found["boot_count"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            "the file cannot be understood",
            f"{path}/{NODE_FILE}",
            advice="restore it, or move the whole folder aside so that the node starts anew",
        ) from error


def _check_owner(record: _Record, path: str, identity: Identity) -> None:
    if record["grid_id"] != identity.grid_id:
        raise WrongGrid(
            f"a data folder of grid {record['grid_id']}, and this node is of {identity.grid_id}",
            path,
            advice="give the node a folder of its own",
        )
    if (record["role"], record["name"]) != (identity.role.value, identity.name):
        raise InvalidRequest(
            f"the data folder of {record['role']} {record['name']}, and this is {identity}",
            path,
            advice="give each node a folder of its own",
        )
