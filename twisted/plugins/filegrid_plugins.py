"""The commands `twistd filegrid-head`, `twistd filegrid-chunk` and `twistd filegrid-health`.

Every run of any twistd loads this file: it imports nothing of FileGrid.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.python.reflect import namedAny


class GridServiceMaker(ServiceMaker):
    """A service by its dotted name, whose module has ``Options`` and ``make_service(options)``."""

    @property
    def makeService(self) -> Any:
        return namedAny("filegrid.start").maker(self.module, self.tapname)


head = GridServiceMaker(
    "FileGrid head",
    "filegrid.head.plugin",
    "A head of a FileGrid: names, manifests, and orders to chunk servers.",
    "filegrid-head",
)
chunk = GridServiceMaker(
    "FileGrid chunk server",
    "filegrid.chunk.plugin",
    "A chunk server of a FileGrid: keeps and serves replicas.",
    "filegrid-chunk",
)
health = GridServiceMaker(
    "FileGrid health node",
    "filegrid.health.plugin",
    "A health node of a FileGrid: with the others it judges the head that leads.",
    "filegrid-health",
)
