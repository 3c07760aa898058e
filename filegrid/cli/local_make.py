"""Making the folder of a whole grid on one machine; nothing is started here."""

from __future__ import annotations

import errno
import random
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from filegrid.cli.ca import authority_folder, certificate_file
from filegrid.cli.local_home import Home, Shape, role_of, save_home, settings_of
from filegrid.config import Settings
from filegrid.errors import AlreadyExists, Unavailable
from filegrid.model import DEFAULT_CHUNK_BYTES, Role
from filegrid.schema import Toml, keys, write_toml

if TYPE_CHECKING:
    from filegrid.cli.heritage import Heritage

HOST = "127.0.0.1"
_MAKING = ".making"

_PORTS = range(15000, 32000)
"""Below what Linux gives to outgoing connections (32768 to 60999): one of those could take the
port of a node that is stopped for a while."""


def make_home(
    folder: Path,
    shape: Shape,
    *,
    heritage: Heritage | None = None,
    fill: Callable[[Path], None] = lambda _: None,
) -> Home:
    """Make the folder of a new grid; nothing is started.

    All is made in a corner and moved into place, so that what an interrupted run leaves behind
    can be told from a grid.

    :param heritage: what an earlier grid leaves to this one.
    :param fill: puts more into the corner, once the rest is there.
    :raises InvalidRequest: where there can be no such grid; nothing was made.
    :raises AlreadyExists: where `folder` holds anything.
    """
    shape.check()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / _MAKING, ignore_errors=True)
    held = sorted(path.name for path in folder.iterdir())
    if held:
        raise AlreadyExists(
            f"is not empty: it holds {held[0]}", str(folder), advice="choose a new folder"
        )
    home = Home(
        shape=shape,
        ports=(heritage and heritage.ports) or _ports(shape),
        created=heritage is not None,  # none of its heads is to make a namespace (S1)
    )
    corner = folder / _MAKING
    for name in ("etc", "nodes", "run", "log"):
        (corner / name).mkdir(mode=0o700, parents=True)
    grid_id = _write_certificates(corner, shape, heritage)
    _write_configurations(corner, home, grid_id)
    if heritage is not None:
        heritage.leave_settings(corner)
        heritage.leave_chunks(corner)
    fill(corner)
    for path in sorted(corner.iterdir()):
        path.rename(folder / path.name)
    corner.rmdir()
    save_home(folder, home)
    return home


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                found.append(port)
    if len(found) < count:
        raise Unavailable(f"fewer than {count} ports are free", HOST, advice="give --base-port")
    return found


def check_ports(ports: Iterable[int]) -> None:
    """Find out before a grid is made whether its nodes could listen.

    :raises Unavailable: where one is taken.
    """
    for port in ports:
        with socket.socket() as probe:
            # As listeners do: connections that ended a moment ago are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise Unavailable(
                    f"cannot listen here: {error.strerror}",
                    f"{HOST}:{port}",
                    advice="give another --base-port",
                ) from None


def _ports(shape: Shape) -> dict[str, int]:
    nodes = shape.nodes()
    if shape.base_port is None:
        return dict(zip(nodes, free_ports(len(nodes)), strict=True))
    return {node: shape.base_port + place for place, node in enumerate(nodes)}


def _write_certificates(folder: Path, shape: Shape, heritage: Heritage | None) -> str:
    """Make the authority and everybody's certificate, as far as they are not inherited; return the
    grid's id."""
    from filegrid.net.authority import Authority

    grid_id = heritage.grid_id if heritage is not None else uuid.uuid4().hex
    inherited = heritage is not None and heritage.leave_certificates(folder)
    if not inherited:
        Authority.create(authority_folder(folder), grid_id)
    holders = [(Role(role_of(node)), node) for node in shape.nodes()]
    holders += [(Role.CLIENT, "client"), (Role.OPERATOR, "operator")]
    missing = [one for one in holders if not certificate_file(folder, one[1]).exists()]
    if missing:
        authority = Authority.load(authority_folder(folder))
        for role, name in missing:
            authority.issue(role, name).write(certificate_file(folder, name))
    return grid_id


def _write_configurations(folder: Path, home: Home, grid_id: str) -> None:
    heads: list[str] = [
        f"{HOST}:{port}" for node, port in home.ports.items() if role_of(node) == "head"
    ]
    health = [
        f"{node}={HOST}:{port}" for node, port in home.ports.items() if role_of(node) == "health"
    ]
    chunk_bytes = settings_of(home.shape.settings).get("grid.chunk_bytes", DEFAULT_CHUNK_BYTES)
    for user, file in (("client", "grid.toml"), ("operator", "operator.toml")):
        text = write_toml(
            {
                "grid": {"id": grid_id, "heads": heads, "chunk_bytes": chunk_bytes},
                "tls": _tls(folder, folder, user),
            }
        )
        (folder / file).write_text(text, encoding="utf-8")
    for node, port in home.ports.items():
        sections = _node_sections(folder, home.shape, node, port, heads, health)
        (folder / "etc" / f"{node}.toml").write_text(write_toml(sections), encoding="utf-8")


def _node_sections(
    folder: Path, shape: Shape, node: str, port: int, heads: list[str], health: list[str]
) -> dict[str, dict[str, Toml]]:
    role = role_of(node)
    own: dict[str, Toml] = {
        "name": node,
        "data": f"../nodes/{node}",
        "listen": f"{HOST}:{port}",
        "heads": heads,
    }
    if role != "chunk":
        own["health"] = health
    else:
        own["rack"] = f"dc1/r{(int(node.partition('-')[2]) - 1) % shape.racks + 1}"
    sections = {"node": own, "tls": _tls(folder, folder / "etc", node)}
    values = settings_of(shape.settings)
    for key in keys(Settings, role):
        if key.dotted in values:
            sections.setdefault(key.section, {})[key.name] = values[key.dotted]
    return sections


def _tls(folder: Path, base: Path, name: str) -> dict[str, Toml]:
    """Paths relative to `base`: a grid's folder can be moved as a whole."""
    up = "" if base == folder else "../"
    certificate = certificate_file(folder, name).relative_to(folder)
    authority = (authority_folder(folder) / "ca.pem").relative_to(folder)
    return {"certificate": f"{up}{certificate}", "authority": f"{up}{authority}"}
