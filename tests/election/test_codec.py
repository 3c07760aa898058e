"""Messages and ballots on the wire."""

from __future__ import annotations

from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.election.codec import ballot_from_wire, ballot_to_wire, from_wire, to_wire
from filegrid.election.messages import Ballot, LogPosition, Message
from filegrid.election.quorum import Member
from filegrid.errors import UnsupportedVersion
from filegrid.protocol.wire import election_pb2 as wire

_NUMBERS = st.integers(0, 2**64 - 1)
_MEMBERS = st.builds(Member, st.text(min_size=1), st.binary())
_FIELDS = {
    "epoch": _NUMBERS,
    "sequence": _NUMBERS,
    "priority": st.integers(-(2**63), 2**63 - 1),
    "log": st.builds(LogPosition, _NUMBERS, _NUMBERS),
    "target": st.none() | _MEMBERS,
    "backs": st.booleans(),
}
_MESSAGES: st.SearchStrategy[Message] = st.sampled_from(get_args(Message)).flatmap(
    lambda kind: st.builds(kind, **{name: _FIELDS[name] for name in kind.__slots__})
)


class CodecTests(SynchronousTestCase):
    """What is sent or stored is what is read."""

    @settings(max_examples=50, deadline=None, database=None)
    @given(message=_MESSAGES)
    def test_messages(self, message: Message) -> None:
        """Every message comes back as it was, whatever is in it."""
        data = to_wire(message).SerializeToString()
        self.assertEqual(from_wire(wire.ElectionMessage.FromString(data)), message)

    @settings(max_examples=20, deadline=None, database=None)
    @given(ballot=st.builds(Ballot, _NUMBERS, st.none() | _MEMBERS))
    def test_ballots(self, ballot: Ballot) -> None:
        """So does every ballot."""
        data = ballot_to_wire(ballot).SerializeToString()
        self.assertEqual(ballot_from_wire(wire.Ballot.FromString(data)), ballot)

    def test_all_kinds(self) -> None:
        """There is one field for each kind of message."""
        kinds = wire.ElectionMessage.DESCRIPTOR.oneofs_by_name["kind"].fields
        self.assertEqual(len(kinds), len(get_args(Message)))

    def test_newer_release(self) -> None:
        """A message that this release does not know is refused by name (S24)."""
        self.assertRaises(UnsupportedVersion, from_wire, wire.ElectionMessage())
