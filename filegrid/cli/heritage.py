"""What an earlier grid on this machine leaves to one that is restored or rebuilt.

Nothing of the old home is changed. Chunks never change either, so the new home has them as further
names of the same files (hard links), which take no space and no time; where the new home is on
another file system they are copied. Everything else of a chunk server is copied.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filegrid.cli.ca import authority_folder, certificate_file
from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Home, Shape
from filegrid.disk import RealDisk
from filegrid.errors import InvalidRequest, NoSuchPath, WrongGrid
from filegrid.model import Role

_LEFT_BEHIND = ("tmp", "quarantine", "lock")
"""Of a chunk server's data: what was never finished, what is damaged, and what only locks."""

_SEALED = "chunks"
"""The folder whose files never change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heritage:
    """The folder of a grid whose heads are lost.

    :ivar home: what it was made of; None where that is lost too.
    :ivar chunk_servers: the data folders of chunk servers, by name.
    """

    folder: Path
    grid_id: str
    home: Home | None
    chunk_servers: dict[str, Path]

    @classmethod
    def find(cls, folder: Path) -> Heritage:
        """:raises NoSuchPath: where there is no chunk server's data.
        :raises InvalidRequest: where a node of that grid runs.
        :raises WrongGrid: where the data is of several grids.
        """
        grid = LocalGrid(folder)
        if grid.exists and (running := grid.running()):
            raise InvalidRequest(
                f"{running[0]} of that grid runs",
                str(folder),
                advice=f"stop it first: filegrid down --home {folder}",
            )
        found = dict(_data_folders(grid.folder / "nodes"))
        servers = {name: path for name, (_, path) in found.items()}
        if not servers:
            raise NoSuchPath("holds no data of chunk servers (nodes/chunk-1, ...)", str(folder))
        grids = sorted({grid_id for grid_id, _ in found.values()})
        if len(grids) > 1:
            raise WrongGrid(f"holds data of several grids: {', '.join(grids)}", str(folder))
        return cls(
            folder=grid.folder,
            grid_id=grids[0],
            home=grid.home if grid.exists else None,
            chunk_servers=servers,
        )

    @property
    def shape(self) -> Shape:
        """What the new grid is made of: the same, as far as that is known."""
        if self.home is not None:
            return self.home.shape
        highest = max(int(name.partition("-")[2]) for name in self.chunk_servers)
        return Shape(chunk_servers=highest)

    @property
    def ports(self) -> dict[str, int] | None:
        """The same, so that whoever knows the old grid's addresses finds the new one."""
        return self.home.ports if self.home is not None else None

    @property
    def highest_lineage(self) -> int:
        """Of the heads that a chunk server ever obeyed (S12).

        :raises IntegrityError: where that is damaged.
        """
        from filegrid.chunk.fence import Fence

        lineages = [0]
        for path in self.chunk_servers.values():
            fence = Fence(RealDisk(), str(path / "fence"))
            fence.load()
            lineages.append(fence.highest[0])
        return max(lineages)

    # What goes into the folder of the new grid

    def leave_certificates(self, target: Path) -> bool:
        """Whether there was an authority to leave, with certificates that it issued."""
        old = authority_folder(self.folder)
        if not (old / "ca.pem").exists():
            return False
        shutil.copytree(old, authority_folder(target))
        certificates = certificate_file(self.folder, "any").parent
        if certificates.is_dir():
            shutil.copytree(certificates, certificate_file(target, "any").parent)
        return True

    def leave_settings(self, target: Path) -> None:
        """Settings as they were last, also where somebody changed them since the grid was made."""
        if self.home is None:
            return
        nodes = [f"etc/{node}.toml" for node in self.home.ports]
        for file in ("grid.toml", "operator.toml", *nodes):
            if (self.folder / file).exists():
                shutil.copy2(self.folder / file, target / file)

    def leave_chunks(self, target: Path) -> None:
        """The data of every chunk server."""
        for name, path in self.chunk_servers.items():
            _inherit(path, target / "nodes" / name)


def _data_folders(nodes: Path) -> Iterator[tuple[str, tuple[str, Path]]]:
    """The chunk servers whose data is there: name, grid id, folder."""
    for file in sorted(nodes.glob("chunk-*/node")):
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            name, role, grid_id = said["name"], said["role"], said["grid_id"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(f"cannot be understood: {error}", str(file)) from None
        if (role, name) != (Role.CHUNK.value, file.parent.name):
            raise InvalidRequest(f"is of {role} {name}", str(file))
        yield name, (grid_id, file.parent)


def _inherit(source: Path, target: Path) -> None:
    """All that counts of a chunk server's data, durably."""
    target.mkdir(mode=0o700, parents=True)
    for entry in sorted(source.iterdir()):
        if entry.name in _LEFT_BEHIND:
            continue
        if entry.is_dir():
            work = _link if entry.name == _SEALED else _copy
            shutil.copytree(entry, target / entry.name, copy_function=work)
        else:
            _copy(str(entry), str(target / entry.name))
    for folder, _, _ in os.walk(target):
        RealDisk().sync_folder(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        _copy(source, target)


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    shutil.copymode(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
