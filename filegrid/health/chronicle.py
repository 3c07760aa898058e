"""What a health node keeps of elections and verdicts: the last thousand, on its disk.

The file holds one event to a line, as protobuf's JSON, for people to read when no node runs::

    {"kind": "KIND_ELECTION", "epoch": "3", "node": "head-2", "atMs": "1767225600123"}
"""

from __future__ import annotations

from google.protobuf import json_format
from twisted.logger import Logger

from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.protocol.wire.health_pb2 import Event
from filegrid.runtime import Disk

MOST_EVENTS = 1000
"""An election takes about a second: these are a quarter of an hour of the worst day."""

_log = Logger()


def key_of(event: Event) -> tuple[int, ...]:
    """What two notes of the same event have in common, whoever noted it.

    There is one leader to an epoch; a verdict carries the time that its coordinator gave it.
    """
    is_verdict = event.kind == Event.KIND_VERDICT
    return (event.kind, event.epoch, event.at_ms if is_verdict else 0)


class ChronicleFile:
    """Methods block; one thread at a time calls them."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def read(self) -> list[Event]:
        """The oldest first; lines that cannot be read are left out: nothing rests on them.

        :raises DiskFailed: where the file cannot be read.
        """
        with grid_errors(self._path):
            if not self._disk.exists(self._path):
                return []
            lines = read_file(self._disk, self._path).splitlines()
        events = []
        for line in lines:
            try:
                events.append(json_format.Parse(line, Event(), ignore_unknown_fields=True))
            except (json_format.ParseError, UnicodeDecodeError):
                _log.warn("{path}: a line cannot be read: {line}", path=self._path, line=line)
        return events

    def write(self, events: list[Event]) -> None:
        """:raises DiskFailed: where they could not be made durable."""
        lines = [json_format.MessageToJson(event, indent=None) + "\n" for event in events]
        with grid_errors(self._path):
            replace_file(self._disk, self._path, "".join(lines).encode())


class Chronicle:
    """The events, the oldest first, each once."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events[-MOST_EVENTS:]
        self._keys = {key_of(event) for event in self.events}

    def add(self, event: Event) -> bool:
        """Whether it is new."""
        if key_of(event) in self._keys:
            return False
        self.events.append(event)
        if len(self.events) > MOST_EVENTS:
            del self.events[0]
        self._keys = {key_of(one) for one in self.events}
        return True

    @property
    def last_verdict(self) -> Event | None:
        verdicts = (one for one in reversed(self.events) if one.kind == Event.KIND_VERDICT)
        return next(verdicts, None)
