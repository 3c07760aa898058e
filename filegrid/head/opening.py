"""A head from its data folder: all that is on its disk is opened, checked and finished first."""

from __future__ import annotations

from collections.abc import Callable

from filegrid.ballot import BallotFile
from filegrid.config import Settings
from filegrid.datafolder import DataFolder
from filegrid.errors import GridError, InvalidRequest
from filegrid.head.catching_up import finish
from filegrid.head.headlog import MOST_APPLIED
from filegrid.head.journal import USUAL_SIZES, Journal, LogSizes
from filegrid.head.lineage import LOG, STATE
from filegrid.head.locations import Locations
from filegrid.head.namespace import Namespace
from filegrid.head.service import Head
from filegrid.model import Identity
from filegrid.runtime import Runtime


def open_head(
    runtime: Runtime,
    settings: Settings,
    identity: Identity,
    *,
    create: bool,
    on_fatal: Callable[[GridError], None],
    certificate_expires_ms: Callable[[], int] = lambda: 0,
    sizes: LogSizes = USUAL_SIZES,
) -> Head:
    """Open a head's data folder and all that is in it. Blocks.

    A missing folder is made: an empty head cannot do harm, it joins as a new one (S2).

    :param create: make the grid, where there is none yet.
    :raises GridError: one line: what is wrong with the folder, and what mends it.
    """
    folder = DataFolder.open(
        runtime.disk,
        str(settings.node.data),
        identity=identity,
        create=True,
        rng=runtime.random,
    )
    log = Journal.open(runtime.disk, folder.within(LOG), sizes)
    state = folder.within(STATE)
    namespace = Namespace(runtime.disk.database(state), runtime.disk.database(state))
    finish(runtime.disk, folder, log, namespace)
    alone = settings.node.heads in ((), (settings.address,))
    if alone and not create and not _has_voters(log, namespace):
        raise InvalidRequest(
            "there is no grid in this head's data, and no other head to learn it from",
            folder.path,
            advice="bring its data back, or create a new grid with --create",
        )
    ballots = BallotFile(runtime.disk, folder.within("ballot"))
    return Head(
        runtime,
        settings,
        identity,
        folder=folder,
        journal=log,
        namespace=namespace,
        locations=Locations(),
        ballots=ballots,
        ballot=ballots.read(),
        create=create,
        on_fatal=on_fatal,
        certificate_expires_ms=certificate_expires_ms,
    )


def _has_voters(log: Journal, namespace: Namespace) -> bool:
    """Whether a grid was ever made here (S1); the entry that says who votes is one of the first."""
    first = log.read(namespace.applied_index + 1, MOST_APPLIED)
    return bool(namespace.voters()) or any(one.command.HasField("configure") for one in first)
