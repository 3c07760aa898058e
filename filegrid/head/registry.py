"""The chunk servers as the log knows them, kept at hand: their racks, and who is to leave."""

from __future__ import annotations

from collections.abc import Iterable

from filegrid.errors import InvalidRequest
from filegrid.head.view import Server, Standing, View

RACK = "rack:"
"""What a rack is told from a server by, where people name either."""


class Registry:
    """What was last logged of each chunk server.

    :ivar leaving: servers whose replicas do not count as those that stay.
    :ivar racks: the rack of each; without servers that joined a moment ago.
    """

    def __init__(self, namespace: View) -> None:
        self._namespace = namespace
        self._servers: dict[str, Server] = {}
        self.leaving: frozenset[str] = frozenset()
        self.racks: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> list[str]:
        """Look again; returns the servers whose standing has changed."""
        before, self._servers = self._servers, {one.name: one for one in self._namespace.servers()}
        self.racks = {name: one.rack for name, one in self._servers.items()}
        self.leaving = frozenset(
            name for name, one in self._servers.items() if one.standing is not Standing.SERVING
        )
        return [
            name
            for name, server in self._servers.items()
            if name not in before or before[name].standing is not server.standing
        ]

    def standing(self, name: str) -> Standing:
        server = self._servers.get(name)
        return server.standing if server is not None else Standing.SERVING

    def select(self, targets: Iterable[str]) -> list[str]:
        """The servers that are meant by names and by racks (``rack:dc1``, ``rack:dc1/r2``).

        :raises InvalidRequest: where a target means nobody.
        """
        chosen: dict[str, None] = {}
        for target in targets:
            if target.startswith(RACK):
                rack = target.removeprefix(RACK).strip("/")
                found = [
                    name
                    for name, server in self._servers.items()
                    if f"{server.rack}/".startswith(f"{rack}/") and rack
                ]
            else:
                found = [target] if target in self._servers else []
            if not found:
                raise InvalidRequest(
                    "there is no such chunk server or rack",
                    target,
                    advice="see 'filegrid status'; a rack is written rack:dc1/r1",
                )
            chosen.update(dict.fromkeys(found))
        return list(chosen)
