"""The error tree.

Every error says what happened, to which path or node, and what to do next; its class says whose
fault it is, the code it has on the wire, whether trying again may help, and the command's exit
code. Each is also the built-in that people already catch, where there is one.
"""

from __future__ import annotations

from copy import copy
from enum import Enum
from typing import ClassVar

from filegrid.protocol.wire import values_pb2 as wire

__all__ = [
    "AlreadyExists",
    "Blame",
    "Busy",
    "Cancelled",
    "ContentCollected",
    "DeadlineExceeded",
    "DiskFailed",
    "DuplicateName",
    "FolderNotEmpty",
    "FrameTooLarge",
    "GridError",
    "IntegrityError",
    "InternalError",
    "InvalidPath",
    "InvalidRequest",
    "IsAFolder",
    "MalformedFrame",
    "NoSpace",
    "NoSuchChunk",
    "NoSuchPath",
    "NotAFolder",
    "NotLeader",
    "NotPermitted",
    "OutcomeUnknown",
    "OutdatedDisk",
    "Retry",
    "SourceChanged",
    "StaleEpoch",
    "Unavailable",
    "UnsupportedVersion",
    "VersionConflict",
    "WrongGrid",
    "from_fault",
    "to_fault",
]


class Retry(Enum):
    """Whether the same request may succeed when it is sent again."""

    NO = "no"
    LATER = "later"
    ELSEWHERE = "elsewhere"  # at another head or another chunk server


class Blame(Enum):
    """Who has to do something about an error."""

    CALLER = "caller"
    GRID = "grid"
    PEER = "peer"


class GridError(Exception):
    """Anything that FileGrid reports.

    :param what: what happened, in a few words, without the subject.
    :param subject: the path, chunk or node to which it happened.
    :param advice: what the reader should do next.
    :param retry_after_seconds: with an error that passes, when to try again.
    """

    code: ClassVar[wire.ErrorCode.ValueType] = wire.ERROR_CODE_INTERNAL
    blame: ClassVar[Blame] = Blame.GRID
    retry: ClassVar[Retry] = Retry.NO
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        subject: str = "",
        *,
        advice: str = "",
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.subject = subject
        self.advice = advice
        self.retry_after_seconds = retry_after_seconds

    def about(self, subject: str) -> GridError:
        """The same of one thing: what went wrong for many may be one error."""
        error = copy(self)
        error.subject = subject
        return error

    def __str__(self) -> str:
        text = f"{self.subject}: {self.what}" if self.subject else self.what
        return f"{text}; {self.advice}" if self.advice else text


class InternalError(GridError):
    """A node met a fault of its own; its log has the traceback."""


class InvalidRequest(GridError, ValueError):
    """A request that no state of the grid could satisfy."""

    code = wire.ERROR_CODE_INVALID_REQUEST
    blame = Blame.CALLER
    exit_code = 2


class InvalidPath(InvalidRequest):
    """Not a grid path: see :func:`filegrid.model.split_path`."""

    code = wire.ERROR_CODE_INVALID_PATH


class NoSuchPath(GridError, FileNotFoundError):
    """Nothing has this path."""

    code = wire.ERROR_CODE_NO_SUCH_PATH
    blame = Blame.CALLER
    exit_code = 3


TO_REPLACE = "name another path, or replace it (--force, overwrite=True)"
"""Advice where a path is taken that could be replaced."""


class AlreadyExists(GridError, FileExistsError):
    """The path is taken, and the caller did not ask to replace what is there."""

    code = wire.ERROR_CODE_ALREADY_EXISTS
    blame = Blame.CALLER
    exit_code = 4


class NotAFolder(GridError, NotADirectoryError):
    """A folder is needed here, and this is a file."""

    code = wire.ERROR_CODE_NOT_A_FOLDER
    blame = Blame.CALLER


class IsAFolder(GridError, IsADirectoryError):
    """A file is needed here, and this is a folder."""

    code = wire.ERROR_CODE_IS_A_FOLDER
    blame = Blame.CALLER


class FolderNotEmpty(GridError, OSError):
    """A folder with something in it is removed only on purpose."""

    code = wire.ERROR_CODE_FOLDER_NOT_EMPTY
    blame = Blame.CALLER


class VersionConflict(GridError):
    """Somebody else changed the file meanwhile; nothing was applied."""

    code = wire.ERROR_CODE_VERSION_CONFLICT
    blame = Blame.CALLER


class SourceChanged(GridError):
    """The local file changed while it was being uploaded; nothing was published."""

    code = wire.ERROR_CODE_SOURCE_CHANGED
    blame = Blame.CALLER


class NotPermitted(GridError, PermissionError):
    """The certificate does not open this."""

    code = wire.ERROR_CODE_NOT_PERMITTED
    blame = Blame.CALLER
    exit_code = 7


class Unavailable(GridError, ConnectionError):
    """The grid, or the part of it that is needed, cannot be reached or cannot serve now."""

    code = wire.ERROR_CODE_UNAVAILABLE
    retry = Retry.LATER
    exit_code = 5


class Busy(Unavailable):
    """More work than this node takes at once; try again after `retry_after_seconds`."""

    code = wire.ERROR_CODE_BUSY


class NotLeader(Unavailable):
    """A head that does not lead was asked what only the leader answers.

    :param leader: the leader's address, where it is known.
    """

    code = wire.ERROR_CODE_NOT_LEADER
    retry = Retry.ELSEWHERE

    def __init__(self, what: str, subject: str = "", *, leader: str = "", advice: str = "") -> None:
        super().__init__(what, subject, advice=advice)
        self.leader = leader


class DeadlineExceeded(GridError, TimeoutError):
    """No answer within the time that the caller gave; nothing was changed."""

    code = wire.ERROR_CODE_DEADLINE_EXCEEDED
    exit_code = 5


class OutcomeUnknown(GridError):
    """A change was sent and no answer came: it may or may not have been applied."""

    code = wire.ERROR_CODE_OUTCOME_UNKNOWN
    exit_code = 9


class Cancelled(GridError):
    """The caller took its request back."""

    code = wire.ERROR_CODE_CANCELLED
    blame = Blame.CALLER


class IntegrityError(GridError):
    """Bytes do not match their digest; they were not delivered."""

    code = wire.ERROR_CODE_INTEGRITY
    retry = Retry.ELSEWHERE
    exit_code = 6


class NoSuchChunk(GridError):
    """This chunk server does not hold the chunk."""

    code = wire.ERROR_CODE_NO_SUCH_CHUNK
    retry = Retry.ELSEWHERE


class ContentCollected(GridError):
    """The version that was opened has been removed for good since."""

    code = wire.ERROR_CODE_CONTENT_COLLECTED
    exit_code = 3


class NoSpace(GridError, OSError):
    """No room for the bytes, on one server or on the grid."""

    code = wire.ERROR_CODE_NO_SPACE
    retry = Retry.ELSEWHERE
    exit_code = 8


class DiskFailed(GridError, OSError):
    """A disk did not do what it was asked; what it was writing was dropped."""

    code = wire.ERROR_CODE_DISK_FAILED
    retry = Retry.ELSEWHERE


class StaleEpoch(GridError):
    """An order of a head that no longer leads."""

    code = wire.ERROR_CODE_STALE_EPOCH
    blame = Blame.PEER


class MalformedFrame(GridError):
    """Bytes that are not this protocol; the connection is closed."""

    code = wire.ERROR_CODE_MALFORMED_FRAME
    blame = Blame.PEER


class FrameTooLarge(MalformedFrame):
    """A frame above the limit that the error names; the connection is closed."""

    code = wire.ERROR_CODE_FRAME_TOO_LARGE


class UnsupportedVersion(GridError):
    """A frame, file or HELLO of a version that this release does not read."""

    code = wire.ERROR_CODE_UNSUPPORTED_VERSION
    blame = Blame.PEER


class WrongGrid(GridError):
    """A peer, certificate or data folder of another grid."""

    code = wire.ERROR_CODE_WRONG_GRID
    blame = Blame.PEER


class DuplicateName(GridError):
    """A second live node under one name or with one data folder."""

    code = wire.ERROR_CODE_DUPLICATE_NAME
    blame = Blame.PEER


class OutdatedDisk(GridError):
    """A head's disk holds less than the head once said of it: it came back as it was before."""

    code = wire.ERROR_CODE_OUTDATED_DISK
    blame = Blame.PEER


def _family(root: type[GridError]) -> dict[int, type[GridError]]:
    found: dict[int, type[GridError]] = {root.code: root}
    for child in root.__subclasses__():
        found.update(_family(child))
    return found


_BY_CODE: dict[int, type[GridError]] = {
    **_family(GridError),
    wire.ERROR_CODE_INTERNAL: InternalError,
}


def to_fault(error: GridError) -> wire.Fault:
    """What `error` looks like on the wire."""
    return wire.Fault(
        code=error.code,
        what=error.what,
        subject=error.subject,
        advice=error.advice,
        retry_after_ms=round(error.retry_after_seconds * 1000),
        leader=error.leader if isinstance(error, NotLeader) else "",
    )


def from_fault(fault: wire.Fault) -> GridError:
    """The error that a peer reported; a code of a newer release becomes :class:`InternalError`."""
    kind = _BY_CODE.get(fault.code, InternalError)
    if issubclass(kind, NotLeader):
        return kind(fault.what, fault.subject, leader=fault.leader, advice=fault.advice)
    return kind(
        fault.what,
        fault.subject,
        advice=fault.advice,
        retry_after_seconds=fault.retry_after_ms / 1000,
    )
