"""What holds for a folder and all below it: replication, spread, time in the trash, and quotas.

A value that is not set at a folder is that of the nearest folder above it that sets one; where
none does, the grid's setting holds. A quota counts all below its folder, what is in the trash not;
where folders with quotas lie in each other, all of them have to be kept.

Existing files follow a changed replication by background work: folders that are to be looked
through wait in the table ``policy_work``, each with the last name that was looked at. A file whose
writer asked for a replication keeps it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from filegrid.errors import NoSpace
from filegrid.head.contents import Contents
from filegrid.head.nodes import Stored, children, names_to, totals
from filegrid.head.schema import FOLDER, ROOT, TRASH
from filegrid.head.tree import Tree
from filegrid.model import join_path
from filegrid.protocol.wire import values_pb2 as wire

POLICY_NAMES = ("replication", "spread", "trash_seconds", "quota_bytes", "quota_files")
"""What a folder may say; columns of the table, and fields of wire.SetPolicy."""

_ANY = "SELECT EXISTS (SELECT 1 FROM policies) OR EXISTS (SELECT 1 FROM policy_work)"
_VALUES = "replication, spread, trash_seconds, quota_bytes, quota_files"
_STEP = f"""SELECT parent, {_VALUES} FROM nodes LEFT JOIN policies ON folder = id
    WHERE id = ?"""
_OF = f"SELECT {_VALUES} FROM policies WHERE folder = ?"
_SET = f"INSERT OR REPLACE INTO policies (folder, {_VALUES}) VALUES (?, ?, ?, ?, ?, ?)"
_UNSET = "DELETE FROM policies WHERE folder = ?"
_LIST = f"SELECT folder, {_VALUES} FROM policies WHERE folder > ? ORDER BY folder LIMIT ?"
_BELOW = "SELECT id, kind FROM nodes WHERE parent = ? AND name = ?"

_ADD_WORK = "INSERT OR REPLACE INTO policy_work VALUES (?, x'')"
_FIRST_WORK = "SELECT folder, after FROM policy_work ORDER BY folder LIMIT 1"
_MOVE_WORK = "UPDATE policy_work SET after = ? WHERE folder = ?"
_DROP_WORK = "DELETE FROM policy_work WHERE folder = ?"
_COUNT_WORK = "SELECT count(*) FROM policy_work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a folder says, or what holds for it; None: nothing is said."""

    replication: int | None = None
    spread: int | None = None  # wire.Spread
    trash_seconds: int | None = None
    quota_bytes: int | None = None
    quota_files: int | None = None

    @property
    def is_empty(self) -> bool:
        return self == _NOTHING


_NOTHING = Policy()


class Gain(NamedTuple):
    """Something comes to be below a folder, or with negative numbers goes from there."""

    folder: int
    files: int
    bytes: int


class Listed(NamedTuple):
    """A folder that says something."""

    folder: int
    path: str
    policy: Policy
    files: int
    bytes: int


def effective(database: sqlite3.Connection, folder: int) -> Policy:
    """What holds in a folder; the quotas are those of the nearest folder that has one."""
    return _first_said(_upwards(database, folder))


def _first_said(way: Iterable[tuple[int, Policy | None]]) -> Policy:
    found = _NOTHING
    for _, policy in way:
        if policy is not None:
            found = Policy(
                replication=_first(found.replication, policy.replication),
                spread=_first(found.spread, policy.spread),
                trash_seconds=_first(found.trash_seconds, policy.trash_seconds),
                quota_bytes=_first(found.quota_bytes, policy.quota_bytes),
                quota_files=_first(found.quota_files, policy.quota_files),
            )
    return found


def nearest_folder(database: sqlite3.Connection, names: Iterable[str]) -> int:
    """The deepest folder on the way along `names` that exists."""
    at = ROOT
    for name in names:
        row = database.execute(_BELOW, (at, name.encode())).fetchone()
        if row is None or row[1] != FOLDER:
            break
        at = row[0]
    return at


def list_policies(database: sqlite3.Connection, after: int, limit: int) -> list[Listed]:
    """Folders that say something, in the order of their numbers; in the trash without a path."""
    found = []
    for folder, *values in database.execute(_LIST, (after, limit)).fetchall():
        names = names_to(database, folder)
        path = join_path(names) if names is not None else ""
        files, size = totals(database, folder)
        found.append(Listed(folder, path, _policy(values), files, size))
    return found


def work_left(database: sqlite3.Connection) -> int:
    """How many folders are known to be looked through yet; 0: all files follow the policies."""
    count: int = database.execute(_COUNT_WORK).fetchone()[0]
    return count


class Policies:
    """Changes of the policies, and what they demand of other changes."""

    def __init__(self, database: sqlite3.Connection, tree: Tree, contents: Contents) -> None:
        self._database = database
        self._tree = tree
        self._contents = contents
        self._any: bool | None = None  # asked with every change, and mostly nobody says anything

    # Looking

    def effective(self, folder: int) -> Policy:
        return _NOTHING if self._nobody else _first_said(self._upwards(folder))

    @property
    def _nobody(self) -> bool:
        """Whether no folder says anything, and all files have followed what any said before."""
        if self._any is None:
            self._any = bool(self._database.execute(_ANY).fetchone()[0])
        return not self._any

    def _upwards(self, folder: int) -> Iterable[tuple[int, Policy | None]]:
        if self._nobody:
            return ()
        self._tree.write()
        return _upwards(self._database, folder)

    def check_room(self, gains: Iterable[Gain]) -> None:
        """All these together keep all quotas.

        :raises NoSpace: naming the folder whose quota they pass.
        """
        if self._nobody:
            return
        files: Counter[int] = Counter()
        size: Counter[int] = Counter()
        limits: dict[int, Policy] = {}
        for gain in gains:
            for folder, policy in self._upwards(gain.folder):
                if policy is not None and (policy.quota_bytes, policy.quota_files) != (None, None):
                    limits[folder] = policy
                    files[folder] += gain.files
                    size[folder] += gain.bytes
        if not limits:
            return
        self._tree.flush()
        for folder, policy in limits.items():
            used_files, used_bytes = totals(self._database, folder)
            self._check(folder, "bytes", policy.quota_bytes, used_bytes, size[folder])
            self._check(folder, "files", policy.quota_files, used_files, files[folder])

    def _check(self, folder: int, unit: str, limit: int | None, used: int, more: int) -> None:
        if limit is None or more <= 0 or used + more <= limit:
            return
        path = join_path(names_to(self._database, folder) or [])
        raise NoSpace(
            f"the quota of {limit} {unit} does not allow {used + more}",
            path,
            advice=f"remove something there, or raise it with 'filegrid quota set {path}'",
        )

    # Changing

    def change(self, folder: int, change: wire.SetPolicy) -> Policy:
        """Set and unset values of a folder; returns what it says now."""
        self._any = None
        row = self._database.execute(_OF, (folder,)).fetchone()
        before = after = _policy(row) if row else _NOTHING
        said = {field.name: value for field, value in change.ListFields()}
        after = replace(after, **{name: said[name] for name in POLICY_NAMES if name in said})
        after = replace(after, **dict.fromkeys(change.unset))
        if after.is_empty:
            self._database.execute(_UNSET, (folder,))
        else:
            values = [getattr(after, name) for name in POLICY_NAMES]
            self._database.execute(_SET, (folder, *values))
        if after.replication != before.replication:
            self._look_through(folder)
        return after

    def moved(
        self, node: Stored, before: Policy | None, parent: int, default_replication: int
    ) -> list[bytes]:
        """`node` now hangs below `parent`, and `before` held where it was; None: nobody knows.

        :returns: the contents that want another number of replicas now; those below a folder
            follow later.
        """
        if before is not None and self._nobody:
            return []
        wanted = self.effective(parent).replication
        if before is not None and before.replication == wanted and not work_left(self._database):
            return []  # it has followed that
        if node.is_folder:
            self._look_through(node.id)
            return []
        return self._resize(node, wanted or default_replication)

    def apply(self, limit: int, default_replication: int) -> tuple[int, list[bytes]]:
        """Look through the next folders, at most `limit` nodes; what is there follows the policy.

        :returns: how many nodes they were, `limit` where more may wait; and the contents that
            want another number of replicas now.
        """
        changed: list[bytes] = []
        left = limit
        while left > 0:
            row = self._database.execute(_FIRST_WORK).fetchone()
            if row is None:
                break
            folder, after = row
            if names_to(self._database, folder) is None:
                # Thrown away meanwhile: it stays as it was, and follows once it is restored.
                self._database.execute(_DROP_WORK, (folder,))
                left -= 1
                continue
            wanted = self.effective(folder).replication or default_replication
            page = children(self._database, folder, after=after, limit=left)
            for node in page:
                if node.is_folder:
                    self._look_through(node.id)
                else:
                    changed += self._resize(node, wanted)
            if len(page) < left:
                self._database.execute(_DROP_WORK, (folder,))
            else:
                self._database.execute(_MOVE_WORK, (page[-1].name, folder))
            left -= max(1, len(page))
        self._any = None
        return limit - left, changed

    def forget(self) -> None:
        """After a rollback: drop what may not be so any more."""
        self._any = None

    def _look_through(self, folder: int) -> None:
        self._any = None
        self._database.execute(_ADD_WORK, (folder,))

    def _resize(self, node: Stored, wanted: int) -> list[bytes]:
        assert node.content_id is not None
        if not wanted or not self._contents.resize(node.content_id, wanted):
            return []
        self._tree.reread()  # a file is read together with the replication of its content
        return [node.content_id]


def _upwards(database: sqlite3.Connection, folder: int) -> Iterator[tuple[int, Policy | None]]:
    """A folder and those above it, each with what it says; nothing where nobody says anything."""
    if not database.execute(_ANY).fetchone()[0]:
        return
    at = folder
    while at and at != TRASH:
        row = database.execute(_STEP, (at,)).fetchone()
        if row is None:
            return
        parent, *values = row
        yield at, _policy(values) if any(value is not None for value in values) else None
        at = parent


def _policy(values: Iterable[int | None]) -> Policy:
    return Policy(**dict(zip(POLICY_NAMES, values, strict=True)))


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
