"""Where the chunks of a file lie, why there, and what they survive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from filegrid.client.check import Checked, inspect_file
from filegrid.client.grid import GridClient
from filegrid.client.manifest import Placed
from filegrid.client.stat import Stat
from filegrid.errors import IsAFolder
from filegrid.protocol.wire import head_pb2 as wire

USABLE = ("live", "draining", "drained")
"""States of servers whose replicas can be read."""


async def explain(client: GridClient, path: str) -> dict[str, Any]:
    """As `filegrid explain --json` prints it.

    :raises NoSuchPath, IsAFolder: as they say.
    """
    stat = await client.stat(path)
    if stat.is_folder:
        raise IsAFolder("this is a folder", stat.path)
    status = await client.access.session.call(wire.GetStatus(), wire.Status)
    servers = {server.name: server for server in status.chunk_servers}
    chunks = [
        explain_chunk(index, stat, placed, checked, servers)
        for index, (placed, checked) in enumerate(await inspect_file(client, stat))
    ]
    return {"path": stat.path, "replication": stat.replication, "chunks": chunks}


def explain_chunk(
    index: int,
    stat: Stat,
    placed: Placed,
    checked: Sequence[Checked],
    servers: Mapping[str, wire.ServerStatus],
) -> dict[str, Any]:
    """Of one chunk; pure."""
    good = [
        one.server
        for one in checked
        if one.state == wire.REPLICA_STATE_GOOD and servers[one.server].state in USABLE
    ]
    return {
        "index": index,
        "id": placed.chunk.id.hex(),
        "length": placed.chunk.length,
        "replicas": [
            {
                **one.document(),
                "rack": servers[one.server].rack,
                "server_state": servers[one.server].state,
            }
            for one in checked
        ],
        "survives": survival(good, servers),
        "why": reasons(stat.replication, good, checked, servers),
    }


def survival(good: Sequence[str], servers: Mapping[str, wire.ServerStatus]) -> dict[str, int]:
    """How many servers, and how many racks, whichever they are, may be lost."""
    racks = {servers[name].rack for name in good}
    return {"servers": max(0, len(good) - 1), "racks": max(0, len(racks) - 1)}


def reasons(
    wanted: int,
    good: Sequence[str],
    checked: Sequence[Checked],
    servers: Mapping[str, wire.ServerStatus],
) -> list[str]:
    """Why the replicas lie where they do, and what is going to change."""
    told = []
    taking = {one.rack for one in servers.values() if one.state == "live"}
    per_rack = Counter(servers[name].rack for name in good)
    if len(good) > 1 and len(per_rack) == len(good):
        told.append("each replica is on a rack of its own")
    for rack, count in sorted(per_rack.items()):
        if count > 1:
            free = sorted(taking - per_rack.keys())
            if len(taking) < wanted:
                why = f"{len(taking)} racks have live servers, for {wanted} replicas"
            elif free:
                why = f"{', '.join(free)} had no server that could take it then"
            else:
                why = "all racks have one already"
            told.append(f"{count} replicas share rack {rack}: {why}")
    for one in checked:
        state = servers[one.server].state
        if one.state == wire.REPLICA_STATE_CORRUPT:
            told.append(f"the replica on {one.server} is damaged and is made anew")
        elif state in ("draining", "drained"):
            told.append(f"{one.server} is {state}: its replica does not count as one that stays")
        elif one.server not in good:
            told.append(f"the replica on {one.server} cannot be had now: the server is {state}")
    staying = [name for name in good if servers[name].state == "live"]
    if len(staying) < wanted:
        told.append(f"{wanted - len(staying)} more of {wanted} replicas are to be made")
    elif len(staying) > wanted:
        told.append(f"{len(staying) - wanted} replicas are too many and are to go")
    if len(staying) >= wanted:
        told.append("within a rack, servers were drawn by free space and by how busy they were")
    return told
