"""What a head's state costs as files become many: time for each change and look, and memory.

    python -m benchmarks.many_files [--files 1000000] [--replicas 3] [--folder FOLDER] [--json FILE]

Applies creations of files of one chunk to a namespace on this machine's disk, in groups as the log
would have them, notes where the replicas are, and looks at random files in between. One process
and no network: the rest of a head does not grow with the number of files.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from filegrid.disk import RealDisk
from filegrid.head.locations import Locations
from filegrid.head.namespace import Namespace
from filegrid.model import Chunk, ChunkId, SessionId, digest_over, unique_id
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire

GROUP = 64
STEPS = 10
FILES_PER_FOLDER = 10_000
FILE_BYTES = 4096
SERVERS = 12
LOOKS = 2000
CHECKPOINT_GROUPS = 50_000 // GROUP
"""As often as a head does."""

MIB = 1024 * 1024


class Log:
    """Entries as a leader would write them."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._index = 0
        self._sequence = 0
        grid = journal.CreateGrid(grid_id="g", lineage=1, founding=bytes(16))
        self.apply([self._entry(create_grid=grid)])
        opened = self.apply([self._entry(open_session=wire.OpenSession())])
        self._session = SessionId(opened[0].session)

    def apply(self, entries: list[journal.Entry]) -> list[journal.Outcome]:
        outcomes = self._namespace.apply(entries)
        assert not any(one.HasField("fault") for one in outcomes), outcomes
        return outcomes

    def make_folder(self, path: str) -> None:
        folder = wire.MakeFolder(path=path)
        self.apply([self._entry(once=self._once(), make_folder=folder)])

    def creation(self, path: str) -> tuple[journal.Entry, Chunk]:
        """A file, and the chunk that is in it."""
        once = self._once()
        number = 2 * once.sequence  # contents and chunks have their numbers in turn
        digest = digest_over([number.to_bytes(8, "big")])
        chunk = Chunk(
            id=ChunkId(unique_id(self._session, number + 1)), length=FILE_BYTES, digest=digest
        )
        publish = wire.Publish(
            path=path,
            content_id=unique_id(self._session, number),
            chunks=[chunk.to_wire()],
            digest=digest_over([digest]),
            size=FILE_BYTES,
            replication=3,
            chunk_bytes=64 * MIB,
        )
        return self._entry(once=once, publish=publish), chunk

    def _once(self) -> wire.Once:
        self._sequence += 1
        return wire.Once(
            session=self._session,
            sequence=self._sequence,
            answered_below=max(1, self._sequence - GROUP),
        )

    def _entry(self, **command: Any) -> journal.Entry:
        self._index += 1
        made = journal.Command(client="c", log_time_ms=self._index, **command)
        return journal.Entry(epoch=1, index=self._index, command=made)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--files", type=int, default=1_000_000)
    arguments.add_argument("--replicas", type=int, default=3, help="of each file's chunk")
    arguments.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    arguments.add_argument("--json", type=Path, help="write the report there, too")
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for row in measure(options.files, options.replicas, Path(folder)):
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    text = json.dumps(rows, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def measure(files: int, replicas: int, folder: Path) -> Iterator[dict[str, float]]:
    path = str(folder / "namespace.sqlite")
    disk = RealDisk()
    namespace = Namespace(disk.database(path), disk.database(path))
    log = Log(namespace)
    locations = Locations()
    made = groups = 0
    for _ in range(STEPS):
        seconds: list[float] = []
        cpu = report_cpu = 0.0
        end = made + files // STEPS
        while made < end:
            if made % FILES_PER_FOLDER == 0:
                log.make_folder(f"/{made // FILES_PER_FOLDER}")
            last = min(end, (made // FILES_PER_FOLDER + 1) * FILES_PER_FOLDER, made + GROUP)
            group = [log.creation(_path(number)) for number in range(made, last)]
            begun, cpu_begun = time.perf_counter(), time.process_time()
            log.apply([entry for entry, _ in group])
            seconds.append((time.perf_counter() - begun) / len(group))
            cpu += time.process_time() - cpu_begun
            cpu_begun = time.process_time()
            chunks = [chunk for _, chunk in group]
            for server in random.sample(range(SERVERS), replicas):
                locations.add(f"chunk-{server}", chunks)
            report_cpu += time.process_time() - cpu_begun
            made, groups = last, groups + 1
            if groups % CHECKPOINT_GROUPS == 0:
                namespace.checkpoint()
        looks: list[float] = []
        cpu_begun = time.process_time()
        for number in random.sample(range(made), LOOKS):
            begun = time.perf_counter()
            namespace.stat(_path(number))
            looks.append(time.perf_counter() - begun)
        look_cpu = time.process_time() - cpu_begun
        yield {
            "files": made,
            "create_cpu_us": round(cpu / (files // STEPS) * 1e6, 1),
            "reports_cpu_us": round(report_cpu / (files // STEPS) * 1e6, 1),
            "stat_cpu_us": round(look_cpu / LOOKS * 1e6, 1),
            "create_us_p50": round(statistics.median(seconds) * 1e6, 1),
            "create_us_p99": round(sorted(seconds)[len(seconds) * 99 // 100] * 1e6, 1),
            "stat_us_p50": round(statistics.median(looks) * 1e6, 1),
            "stat_us_p99": round(sorted(looks)[LOOKS * 99 // 100] * 1e6, 1),
            "memory_mib": round(psutil.Process().memory_info().rss / MIB),
            "database_mib": round(sum(one.stat().st_size for one in folder.iterdir()) / MIB),
        }


def _path(number: int) -> str:
    return f"/{number // FILES_PER_FOLDER}/file-{number:09}"


if __name__ == "__main__":
    main()
