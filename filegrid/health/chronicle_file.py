"""The file in which a health node keeps elections and verdicts.

It holds one event to a line, as protobuf's JSON, for people to read when no node runs::

    {"kind": "KIND_ELECTION", "epoch": "3", "node": "head-2", "atMs": "1767225600123"}
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import json_format
from twisted.logger import Logger

from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.protocol.wire.health_pb2 import Event
from filegrid.runtime import Disk

_log = Logger()


class ChronicleFile:
    """Methods block; one thread at a time calls them."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def read(self) -> list[Event]:
        """Lines that cannot be read are left out: nothing rests on them.

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

    def write(self, events: Sequence[Event]) -> None:
        """:raises DiskFailed: where they could not be made durable."""
        lines = [json_format.MessageToJson(event, indent=None) + "\n" for event in events]
        with grid_errors(self._path):
            replace_file(self._disk, self._path, "".join(lines).encode())
