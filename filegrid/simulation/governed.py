"""A folder that says what holds in it, as the client knows it that alone changes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from filegrid.client.stat import Trashed
from filegrid.simulation.promises import POLICY_PROMISE, Broken


@dataclass(slots=True, kw_only=True)
class Thrown:
    """Something that was removed or replaced.

    :ivar files: contents by what follows `path` in theirs.
    :ivar kept_until: seconds of the campaign; until then it is surely in the trash.
    """

    path: str
    files: dict[str, bytes]
    kept_until: float

    def is_shown_as(self, listed: Trashed) -> bool:
        size = sum(map(len, self.files.values()))
        return (listed.path, listed.files, listed.bytes) == (self.path, len(self.files), size)


@dataclass(slots=True, kw_only=True)
class Governed:
    """A folder that says what holds in it, as its steward knows it.

    :ivar files: contents by whole paths.
    :ivar keep_seconds: of what is removed; :ivar replication: None where it is the grid's.
    :ivar steady: the replication was never another one.
    """

    path: str
    keep_seconds: int
    quota_files: int
    quota_bytes: int
    replication: int | None
    steady: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    trash: list[Thrown] = field(default_factory=list)

    def thrown(self, listed: Trashed) -> Thrown:
        """What this is; no two things in the trash look alike.

        :raises Broken: where nobody threw it away.
        """
        for one in self.trash:
            if one.is_shown_as(listed):
                return one
        raise Broken(POLICY_PROMISE, f"nobody threw away {listed}")

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def is_over(self, *, files: int, size: int) -> bool:
        """Whether a change by so many files and bytes is beyond the quota."""
        too_many = files > 0 and len(self.files) + files > self.quota_files
        return too_many or (size > 0 and self.size + size > self.quota_bytes)
