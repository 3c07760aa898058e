"""What `twistd filegrid-head` runs."""

from __future__ import annotations

from twisted.application.service import IService

from filegrid.head.opening import open_head
from filegrid.head.service import Head
from filegrid.model import Role
from filegrid.node import NodeService, Opening
from filegrid.options import ServiceOptions


class Options(ServiceOptions):
    role = "head"
    optFlags = [["create", None, "Create the grid, once, on an empty data folder."]]


def make_service(options: Options) -> IService:
    """A head with these options.

    :raises GridError: one line: what is wrong, and what mends it.
    """
    return NodeService(Role.HEAD, options.settings(), _open, create=bool(options["create"]))


def _open(opening: Opening) -> Head:
    return open_head(
        opening.runtime,
        opening.settings,
        opening.identity,
        create=opening.create,
        on_fatal=opening.on_fatal,
        certificate_expires_ms=opening.certificate_expires_ms,
    )
