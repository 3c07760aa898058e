"""What `twistd filegrid-chunk` runs."""

from __future__ import annotations

import psutil
from twisted.application.service import IService

from filegrid.chunk.service import ChunkServer, open_chunk_server
from filegrid.model import Role
from filegrid.node import NodeService, Opening
from filegrid.options import ServiceOptions


class Options(ServiceOptions):
    role = "chunk"
    optFlags = [["create", None, "Make the data folder: this chunk server is new."]]


def make_service(options: Options) -> IService:
    """A chunk server with these options.

    :raises GridError: one line: what is wrong, and what mends it.
    """
    return NodeService(Role.CHUNK, options.settings(), _open, create=bool(options["create"]))


def _open(opening: Opening) -> ChunkServer:
    return open_chunk_server(
        opening.runtime,
        opening.settings,
        opening.identity,
        create=opening.create,
        cpu_percent=psutil.cpu_percent,
        certificate_expires_ms=opening.certificate_expires_ms,
    )
