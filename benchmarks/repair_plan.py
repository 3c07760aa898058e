"""What it takes to plan a dead server's repair: 100 servers, a million chunks, in one process.

    python -m benchmarks.repair_plan [--servers 100] [--chunks 1000000]

The namespace and the locations are real databases. A server is declared dead; measured is the
processor time of looking at all that it held, and of planning a copy of each of these, in turns as
the leading head does it, with the answers of the chunk servers made up.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from filegrid.head.liveness import Liveness, State
from filegrid.head.locations import Locations
from filegrid.head.namespace import Namespace
from filegrid.head.placement import Candidate
from filegrid.head.planning import Work, plan
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.model import Chunk, ChunkId, Digest, SessionId, unique_id
from filegrid.protocol.wire import journal_pb2 as journal

MIB = 1024 * 1024
CHUNKS_PER_FILE = 1000
CHUNK_BYTES = 64 * MIB
GROUP = 10_000


def fill(
    database: sqlite3.Connection, locations: Locations, servers: list[Candidate], chunks: int
) -> None:
    """Rows as publications and reports make them."""
    rng = random.Random(1)
    held: dict[str, list[Chunk]] = {server.name: [] for server in servers}
    database.execute("BEGIN")
    for number in range(chunks):
        content, position = divmod(number, CHUNKS_PER_FILE)
        content_id = unique_id(SessionId(1), content)
        chunk = Chunk(
            id=ChunkId(unique_id(SessionId(2 + content), position)),
            length=CHUNK_BYTES,
            digest=Digest(rng.randbytes(32)),
        )
        if position == 0:
            row = (content_id, 10 + content, 1, b"d" * 32, 3, CHUNK_BYTES, CHUNKS_PER_FILE, 1)
            database.execute("INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        database.execute(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)",
            (content_id, position, chunk.id, chunk.length, chunk.digest),
        )
        for server in rng.sample(servers, 3):
            held[server.name].append(chunk)
    database.execute("COMMIT")
    for name, theirs in held.items():
        for start in range(0, len(theirs), GROUP):
            locations.add(name, theirs[start : start + GROUP])


def measure(servers: int, chunks: int) -> dict[str, float]:
    everybody = [
        Candidate(
            name=f"chunk-{number}",
            rack=f"dc1/r{number % 10}",
            capacity_bytes=1 << 45,
            free_bytes=1 << 44,
        )
        for number in range(servers)
    ]
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "namespace.sqlite")
        namespace = Namespace(database)
        commands = [
            journal.Command(register_server=journal.RegisterServer(name=one.name, rack=one.rack))
            for one in everybody
        ]
        namespace.apply(
            [
                journal.Entry(epoch=1, index=index + 1, command=command)
                for index, command in enumerate(commands)
            ]
        )
        locations = Locations()
        begun = time.process_time()
        fill(database, locations, everybody, chunks)
        print(f"made in {time.process_time() - begun:.0f} s of processor time", flush=True)
        return plan_all(namespace, locations, everybody)


def plan_all(
    namespace: Namespace, locations: Locations, everybody: list[Candidate]
) -> dict[str, float]:
    liveness = Liveness(suspect_seconds=2, dead_seconds=5, most_gap_seconds=1e9)
    for one in everybody:
        liveness.joined(one.name, 0.0)
    redundancy = Redundancy(namespace, locations, liveness, Registry(namespace), lambda: 10.0)
    liveness.judge(0.0)
    dead = everybody[0].name
    for one in everybody[1:]:
        liveness.heard(one.name, 6.0)
    begun = time.process_time()
    died = liveness.judge(6.0)
    assert died == [dead] and liveness.state(dead) is State.DEAD, died
    redundancy.scan_server(dead)
    longest = 0.0
    while True:
        step = time.process_time()
        more = redundancy.step()
        longest = max(longest, time.process_time() - step)
        if not more:
            break
    looked = time.process_time() - begun

    candidates = everybody[1:]
    racks = {one.name: one.rack for one in everybody}
    live = {one.name for one in candidates}
    deficits = len(redundancy.deficits)
    rng = random.Random(2)
    begun = time.process_time()
    turns, copies = 0, 0
    while redundancy.deficits:
        work = {name: Work(read_bytes=1e12, write_bytes=1e12) for name in live}
        found = plan(
            redundancy.deficits.by_urgency(),
            candidates,
            racks,
            work=work,
            running=(),
            live=live,
            suspect=(),
            now=20.0,
            random=rng,
        )
        turns += 1
        copies += len(found.copies)
        assert found.copies
        for copy in found.copies:
            redundancy.deficits.drop(copy.deficit.record.chunk.id)
    planned = time.process_time() - begun
    assert copies == deficits, (copies, deficits)
    return {
        "servers": len(everybody),
        "chunks_of_the_dead": deficits,
        "look_cpu_seconds": round(looked, 3),
        "longest_step_seconds": round(longest, 4),
        "plan_cpu_seconds": round(planned, 3),
        "plan_turns": turns,
        "all_cpu_seconds": round(looked + planned, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.servers, arguments.chunks)))


if __name__ == "__main__":
    main()
