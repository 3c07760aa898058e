"""FileGrid: a redundant, fast, private file store for a team with unreliable machines.

>>> import filegrid
>>> with filegrid.connect("grid.toml") as grid:  # doctest: +SKIP
...     grid.put("local.bin", "/remote.bin")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from filegrid.errors import (
    AlreadyExists,
    Busy,
    Cancelled,
    ContentCollected,
    DeadlineExceeded,
    DiskFailed,
    FolderNotEmpty,
    GridError,
    IntegrityError,
    InternalError,
    InvalidPath,
    InvalidRequest,
    IsAFolder,
    NoSpace,
    NoSuchPath,
    NotAFolder,
    NotPermitted,
    OutcomeUnknown,
    SourceChanged,
    Unavailable,
    UnsupportedVersion,
    VersionConflict,
    WrongGrid,
)

if TYPE_CHECKING:
    from filegrid.client.blocking import Grid

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Busy",
    "Cancelled",
    "ContentCollected",
    "DeadlineExceeded",
    "DiskFailed",
    "FolderNotEmpty",
    "GridError",
    "IntegrityError",
    "InternalError",
    "InvalidPath",
    "InvalidRequest",
    "IsAFolder",
    "NoSpace",
    "NoSuchPath",
    "NotAFolder",
    "NotPermitted",
    "OutcomeUnknown",
    "SourceChanged",
    "Unavailable",
    "UnsupportedVersion",
    "VersionConflict",
    "WrongGrid",
    "__version__",
    "connect",
]


def connect(
    config: str | os.PathLike[str] | None = None, *, timeout_seconds: float | None = None
) -> Grid:
    """The grid that the configuration file `config` names, for blocking callers.

    None looks where the command looks: FILEGRID_GRID, ./grid.toml, ~/.config/filegrid/grid.toml.

    :param timeout_seconds: how long each operation waits for the grid without progress; None
        takes it from the file, where 30 is the default.
    :raises NoSuchPath: where there is no configuration.
    :raises NotPermitted: where the credentials that it names cannot be used.
    """
    # Only here: the services import this package too, and need neither client nor reactor.
    from filegrid.client.blocking import connect as connect_blocking

    return connect_blocking(config, timeout_seconds=timeout_seconds)
