"""The chunk servers as the log knows them, kept at hand: their racks, and who is to leave."""

from __future__ import annotations

from collections.abc import Iterable

from filegrid.errors import InvalidRequest
from filegrid.head.view import Server, Standing, View

RACK = "rack:"
"""What a rack is told from a server by, where people name either."""


class Registry:
    """What was last logged of each chunk server."""

    def __init__(self, namespace: View) -> None:
        self._namespace = namespace
        self._servers: dict[str, Server] = {}
        self.refresh()

    def refresh(self) -> list[str]:
        """Look again; returns the servers whose standing has changed."""
        before, self._servers = self._servers, {one.name: one for one in self._namespace.servers()}
        return [
            name
            for name, server in self._servers.items()
            if name not in before or before[name].standing is not server.standing
        ]

    def rack(self, name: str) -> str:
        """Empty for a server that joined a moment ago."""
        server = self._servers.get(name)
        return server.rack if server is not None else ""

    def standing(self, name: str) -> Standing:
        server = self._servers.get(name)
        return server.standing if server is not None else Standing.SERVING

    def leaves(self, name: str) -> bool:
        """Whether its replicas do not count as those that stay."""
        return self.standing(name) is not Standing.SERVING

    def leaving(self) -> list[str]:
        return [name for name in self._servers if self.leaves(name)]

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
