"""What other heads said of their disks, and what they have when they come again."""

from __future__ import annotations

from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.codec import to_wire
from filegrid.election.messages import Election, LeaseGrant, LogPosition, Message, Vote
from filegrid.errors import GridError, OutdatedDisk, Unavailable
from filegrid.head.witness import Facts, Witness
from filegrid.model import Identity, Role
from filegrid.net.link import Link
from filegrid.protocol.wire import frame_pb2


class FakeLink:
    """A link as far as a witness looks at it: who is at the other end."""

    def __init__(self, boot: int, run: bytes, index: int, epoch: int, incarnation: bytes) -> None:
        on_disk = frame_pb2.OnDisk(run=run, log_index=index, epoch=epoch)
        self.peer = Identity("g", Role.HEAD, "head-2")
        self.peer_hello = frame_pb2.Hello(incarnation=incarnation, boot_count=boot, on_disk=on_disk)


class WitnessCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[GridError] = []
        self.witness = Witness("head-1", self.told.append)

    def link(
        self, boot: int, index: int, epoch: int, *, run: bytes = b"", incarnation: bytes = b"i"
    ) -> Link:
        return cast(Link, FakeLink(boot, run or bytes([boot]), index, epoch, incarnation))

    def meet(self, boot: int, index: int, epoch: int, **more: bytes) -> Link:
        link = self.link(boot, index, epoch, **more)
        self.witness.link_up(link)
        return link

    def refuse(self, boot: int, index: int, epoch: int, **more: bytes) -> str:
        link = self.link(boot, index, epoch, **more)
        return str(self.assertRaises(OutdatedDisk, self.witness.link_up, link))

    def say(self, link: Link, message: Message) -> None:
        self.witness.hear_message(link, to_wire(message))


class Meets(WitnessCase):
    def test_restarts(self) -> None:
        """One that has all that it said is welcome, however often it starts."""
        self.witness.hear(self.meet(1, 10, 2), Facts(log_index=15, epoch=3))
        self.meet(1, 10, 2)  # another link to the same process
        self.witness.hear(self.meet(2, 15, 3), Facts(log_index=16))
        self.meet(5, 16, 3)

    def test_entries_lost(self) -> None:
        """Entries that it had, and that are committed, are missed, at every start."""
        self.witness.hear(self.meet(1, 10, 2), Facts(log_index=15))
        self.assertIn("entries up to 14", self.refuse(2, 14, 2))
        self.refuse(3, 14, 9)
        self.meet(4, 15, 2)

    def test_vote_lost(self) -> None:
        """So is an epoch that it voted in, or granted a lease in."""
        for epoch, message in ((3, Vote(3)), (4, LeaseGrant(4, 1))):
            link = self.meet(epoch, 10, epoch - 1)
            self.say(link, message)
            self.refuse(epoch + 1, 10, epoch - 1)

    def test_not_stored(self) -> None:
        """Of an epoch that it merely asks about nothing is on its disk."""
        self.say(self.meet(1, 10, 2), Election(3, LogPosition(2, 10), 0))
        self.meet(2, 10, 2)

    def test_started_less_often(self) -> None:
        """A count of starts that was seen before, in another process, is one of an old disk."""
        self.meet(4, 10, 2)
        self.refuse(3, 10, 2)
        self.assertIn("for the 4. time", self.refuse(4, 10, 2, run=b"other"))
        self.meet(4, 10, 2)

    def test_last_words(self) -> None:
        """What an earlier process said and what comes late counts against a later one."""
        link = self.meet(1, 10, 2)
        self.meet(2, 10, 2)
        self.witness.hear(link, Facts(log_index=11))
        self.refuse(2, 10, 2)

    def test_other_incarnation(self) -> None:
        """One that was emptied has promised nothing."""
        self.witness.hear(self.meet(9, 10, 2), Facts(log_index=15, epoch=9))
        self.meet(1, 0, 0, incarnation=b"j")


class IsTold(WitnessCase):
    def test_of_itself(self) -> None:
        """A refusal of this head's own disk is passed on; other losses of links are nothing."""
        link = self.meet(1, 10, 2)
        self.witness.link_down(link, Unavailable("lost"))
        self.witness.link_down(link, OutdatedDisk("older", "head-2"))
        self.assertEqual(self.told, [])
        self.witness.link_down(link, OutdatedDisk("older", "head-1"))
        self.assertEqual(len(self.told), 1)
