"""What other heads have said of their disks, and whether a disk still holds it (S3).

A disk that comes back as it was before, from a snapshot of its machine or an old copy, has
forgotten votes, and entries that a majority was believed to hold. Such a head is damaged, and the
one way to know it is that others remember what it told them: each does for as long as it runs, and
keeps no link to a head that has less. A head that is told so by another ends.

Only what a head was to have on stable storage when it said it counts: epochs that it voted or
granted a lease in, or led; and entries that are committed, since others may be taken back. What it
says when its process begins is compared with what it said in earlier processes. That comes before
its first vote, which waits for a whole lease (S5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from filegrid.election.quorum import Member
from filegrid.errors import GridError, OutdatedDisk
from filegrid.net.council import incarnate
from filegrid.net.link import Link, NoService
from filegrid.protocol.wire import election_pb2, frame_pb2

_STORED_FIRST = ("vote", "grant", "coordinator", "renewal")
"""Kinds of messages whose epoch their sender has stored before it sends them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """At least so much is on a disk."""

    log_index: int = 0
    epoch: int = 0

    def __or__(self, other: Facts) -> Facts:
        return Facts(
            log_index=max(self.log_index, other.log_index), epoch=max(self.epoch, other.epoch)
        )

    def holds(self, other: Facts) -> bool:
        return self.log_index >= other.log_index and self.epoch >= other.epoch


@dataclass(slots=True, kw_only=True)
class _Known:
    """Of one incarnation: its newest process, what it said there, and what in those before it."""

    boot_count: int
    run: bytes
    said: Facts = Facts()
    said_before: Facts = Facts()


class Witness(NoService):
    """One head's memory of the others; the service of the links that it dials to them.

    :param name: of this head.
    :param on_outdated: called where another head says that the disk of this one is older.
    """

    def __init__(self, name: str, on_outdated: Callable[[GridError], None]) -> None:
        self._name = name
        self._on_outdated = on_outdated
        self._known: dict[Member, _Known] = {}

    def link_up(self, link: Link) -> None:
        """Another head has said HELLO.

        :raises OutdatedDisk: where its disk lacks something.
        """
        hello = link.peer_hello
        assert hello is not None
        if not hello.HasField("on_disk"):
            return
        member, begins_with = incarnate(link), _facts(hello.on_disk)
        known = self._known.get(member)
        if known is None:
            known = self._known[member] = _Known(boot_count=hello.boot_count, run=hello.on_disk.run)
        is_new = hello.boot_count > known.boot_count
        said_before = known.said_before | known.said if is_new else known.said_before
        if not begins_with.holds(said_before):
            raise _outdated(
                member,
                f"it has entries up to {begins_with.log_index} and epochs up to"
                f" {begins_with.epoch}, and had {said_before.log_index} and {said_before.epoch}",
            )
        if not is_new and (hello.boot_count, hello.on_disk.run) != (known.boot_count, known.run):
            raise _outdated(
                member, f"it starts for the {hello.boot_count}. time, after the {known.boot_count}."
            )
        if is_new:
            known.boot_count, known.run = hello.boot_count, hello.on_disk.run
            known.said, known.said_before = Facts(), said_before

    def link_down(self, link: Link, error: GridError) -> None:
        """A link to another head is lost; it may have been refused."""
        if isinstance(error, OutdatedDisk) and error.subject == self._name:
            self._on_outdated(error)

    def told(self, member: Member) -> Facts:
        """All that a head ever said of its disk, to this one."""
        known = self._known.get(member)
        return Facts() if known is None else known.said | known.said_before

    def hear(self, link: Link, facts: Facts) -> None:
        """The head at the other end has told that so much is on its disk."""
        hello = link.peer_hello
        known = self._known.get(incarnate(link))
        if known is None or hello is None:
            return
        if hello.boot_count == known.boot_count:
            known.said |= facts
        else:  # its last words, that come late
            known.said_before |= facts

    def hear_message(self, link: Link, request: Message) -> None:
        """As :meth:`hear`, of a message of the election."""
        assert isinstance(request, election_pb2.ElectionMessage)
        kind = request.WhichOneof("kind")
        if kind in _STORED_FIRST:
            self.hear(link, Facts(epoch=getattr(request, kind).epoch))


def _facts(on_disk: frame_pb2.OnDisk) -> Facts:
    return Facts(log_index=on_disk.log_index, epoch=on_disk.epoch)


def _outdated(member: Member, why: str) -> OutdatedDisk:
    return OutdatedDisk(
        f"the disk is older than what this head said before: {why}",
        member.name,
        advice="empty its data folder: it joins again as a new head",
    )
