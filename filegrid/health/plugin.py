"""What `twistd filegrid-health` runs."""

from __future__ import annotations

from twisted.application.service import IService

from filegrid.health.service import HealthNode, open_health_node
from filegrid.model import Role
from filegrid.node import NodeService, Opening
from filegrid.options import ServiceOptions


class Options(ServiceOptions):
    role = "health"


def make_service(options: Options) -> IService:
    """A health node with these options.

    :raises GridError: one line: what is wrong, and what mends it.
    """
    return NodeService(Role.HEALTH, options.settings(), _open, create=False)


def _open(opening: Opening) -> HealthNode:
    return open_health_node(
        opening.runtime,
        opening.settings,
        opening.identity,
        on_fatal=opening.on_fatal,
        certificate_expires_ms=opening.certificate_expires_ms,
    )
