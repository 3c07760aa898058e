"""The folder of a whole grid on one machine: what is in it, and what it was made of.

======================  ==========================================================
``home.json``           what was made; written last, so a home with it is complete
``ca/``                 the grid's authority
``certificates/*.pem``  of each node, of one client and of one operator
``etc/NODE.toml``       each node's settings
``nodes/NODE/``         each node's data
``run/NODE.pid``        the process ids of nodes that run
``log/NODE.log``        the nodes' logs
``grid.toml``           for clients; ``operator.toml`` for the operator
======================  ==========================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filegrid.config import Settings, check_overrides
from filegrid.errors import InvalidRequest, NoSuchPath, UnsupportedVersion
from filegrid.schema import Toml, keys, parse_text

FORMAT = 1

MOST_HEADS = 7
"""Every change waits for a majority of them."""

MOST_HEALTH = 7
"""Each talks to each, some times a second."""

_OWN_TO_EACH_NODE = (
    "node.name",
    "node.data",
    "node.listen",
    "node.advertise",
    "node.heads",
    "node.health",
    "node.rack",
    "tls.certificate",
    "tls.authority",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a grid is made of."""

    heads: int = 3
    health: int = 3
    chunk_servers: int = 5
    racks: int = 3
    base_port: int | None = None
    """The first node's port, the others' follow; None: free ones."""
    settings: dict[str, str] = field(default_factory=dict)
    """Texts by ``section.key``."""

    def check(self) -> None:
        """:raises InvalidRequest: where there can be no such grid."""
        if not 1 <= self.heads <= MOST_HEADS or self.heads % 2 == 0:
            raise InvalidRequest(
                "a majority decides: an even number of heads outlives no more than one less",
                f"--heads {self.heads}",
                advice=f"take an odd number up to {MOST_HEADS}",
            )
        if not 0 <= self.health <= MOST_HEALTH or (self.health and self.health % 2 == 0):
            raise InvalidRequest(
                "a majority decides: an even number of health nodes outlives no more than one less",
                f"--health {self.health}",
                advice=f"take an odd number up to {MOST_HEALTH}, or 0 for none",
            )
        if not self.racks >= 1:
            raise InvalidRequest("a grid has a rack at least", f"--racks {self.racks}")
        if not 1 <= self.chunk_servers <= 1000:
            raise InvalidRequest(
                "a grid on one machine has 1 to 1000", f"--chunk-servers {self.chunk_servers}"
            )
        if self.base_port is not None and not 1 <= self.base_port <= 65536 - len(self.nodes()):
            raise InvalidRequest(
                f"no room for {len(self.nodes())} ports from here", f"--base-port {self.base_port}"
            )
        for own in _OWN_TO_EACH_NODE:
            if own in self.settings:
                raise InvalidRequest("is different for each node", f"--set {own}")
        check_overrides(self.settings, "--set")

    def nodes(self) -> list[str]:
        """Every node's name, heads first."""
        counts = (("head", self.heads), ("health", self.health), ("chunk", self.chunk_servers))
        return [f"{role}-{number}" for role, count in counts for number in range(1, count + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What home.json says."""

    shape: Shape
    ports: dict[str, int]
    created: bool = False
    """Whether the head has started once: it never makes a second namespace (S1)."""


def role_of(node: str) -> str:
    return node.partition("-")[0]


def load_home(folder: Path) -> Home:
    """:raises NoSuchPath: where `folder` is not the home of a grid."""
    try:
        text = (folder / "home.json").read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchPath(
            "is not the home of a grid", str(folder), advice="make one: filegrid up --home DIR"
        ) from None
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise UnsupportedVersion(
                f"is of format {document['format']}, and this release reads {FORMAT}",
                str(folder / "home.json"),
                advice="use the release that made it",
            )
        return Home(
            shape=Shape(**document["shape"]),
            ports=document["ports"],
            created=document["created"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"is damaged: {error}", str(folder / "home.json")) from None


def save_home(folder: Path, home: Home) -> None:
    """Write home.json in one durable step."""
    target, fresh = folder / "home.json", folder / "home.json.new"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, **asdict(home)}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(target)


def check_same(home: Home, given: Mapping[str, object], settings: Mapping[str, str]) -> None:
    """Refuse flags that contradict the home.

    :param given: fields of :class:`Shape` that were said; None where not.
    """
    for name, value in given.items():
        made_with = getattr(home.shape, name)
        if value is not None and value != made_with:
            flag = "--" + name.replace("_", "-")
            raise InvalidRequest(
                f"this grid was made with {'none' if made_with is None else made_with}",
                f"{flag} {value}",
                advice="leave the flag out, or make another grid",
            )
    check_overrides(settings, "--set")
    for dotted, value in settings.items():
        if settings_of(settings)[dotted] != settings_of(home.shape.settings).get(dotted):
            raise InvalidRequest(
                "this grid was made with another value",
                f"--set {dotted}={value}",
                advice="change it in etc/NODE.toml and start the nodes again",
            )


def settings_of(texts: Mapping[str, str]) -> dict[str, Toml]:
    """The values of texts that :func:`check_overrides` let pass."""
    known = {key.dotted: key for key in keys(Settings)}
    return {dotted: parse_text(known[dotted], text) for dotted, text in texts.items()}
