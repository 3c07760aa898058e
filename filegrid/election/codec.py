"""Messages and ballots as protobuf has them (``election.proto``)."""

from __future__ import annotations

from typing import Any

from filegrid.election.messages import (
    Answer,
    Ballot,
    Coordinator,
    Election,
    LeaseGrant,
    LogPosition,
    Message,
    PreVote,
    Release,
    Renewal,
    Stale,
    TransferLeadership,
    Vote,
    VoteRequest,
)
from filegrid.election.quorum import Member
from filegrid.errors import UnsupportedVersion
from filegrid.protocol.wire import election_pb2 as wire

_FIELDS: dict[type[Message], str] = {
    Election: "election",
    Answer: "answer",
    PreVote: "pre_vote",
    VoteRequest: "vote_request",
    Vote: "vote",
    Coordinator: "coordinator",
    Renewal: "renewal",
    LeaseGrant: "grant",
    Stale: "stale",
    Release: "release",
    TransferLeadership: "transfer_leadership",
}
_CLASSES: dict[str, Any] = {field: kind for kind, field in _FIELDS.items()}


def to_wire(message: Message) -> wire.ElectionMessage:
    out = wire.ElectionMessage()
    field = getattr(out, _FIELDS[type(message)])
    field.SetInParent()  # a message of nothing but zeros is still that message
    for name in message.__slots__:
        value = getattr(message, name)
        if isinstance(value, LogPosition):
            field.log.epoch, field.log.index = value.epoch, value.index
        elif isinstance(value, Member):
            field.target, field.target_incarnation = value.name, value.incarnation
        elif value is not None:
            setattr(field, name, value)
    return out


def from_wire(data: wire.ElectionMessage) -> Message:
    """:raises UnsupportedVersion: for a message that only a later release knows (S24)."""
    kind = data.WhichOneof("kind")
    if kind is None:
        raise UnsupportedVersion(
            "an election message of a newer release",
            advice="run the same release on all nodes that elect",
        )
    field = getattr(data, kind)
    values: dict[str, object] = {}
    for name in _CLASSES[kind].__slots__:
        value = getattr(field, name)
        if name == "log":
            value = LogPosition(value.epoch, value.index)
        elif name == "target":
            value = _member(value, field.target_incarnation)
        values[name] = value
    message: Message = _CLASSES[kind](**values)
    return message


def ballot_to_wire(ballot: Ballot) -> wire.Ballot:
    out = wire.Ballot(epoch=ballot.epoch)
    if ballot.candidate is not None:
        out.candidate = ballot.candidate.name
        out.candidate_incarnation = ballot.candidate.incarnation
    return out


def ballot_from_wire(data: wire.Ballot) -> Ballot:
    return Ballot(data.epoch, _member(data.candidate, data.candidate_incarnation))


def _member(name: str, incarnation: bytes) -> Member | None:
    return Member(name, incarnation) if name else None
