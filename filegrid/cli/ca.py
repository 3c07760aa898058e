"""`filegrid ca`: the grid's own authority, and the certificates of nodes and users.

Under the home folder: ``ca/`` is the authority, ``certificates/NAME.pem`` what it issued.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from filegrid.cli.output import print_json
from filegrid.errors import AlreadyExists
from filegrid.model import Role

if TYPE_CHECKING:
    from filegrid.net.authority import Authority, Issued

Command = TypeVar("Command", bound=Callable[..., Any])

_Home = click.option(
    "--home",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The grid's folder on this machine; the authority is in its ca/.",
)


def _days(default: int) -> Callable[[Command], Command]:
    return click.option("--days", type=click.IntRange(min=1), default=default, show_default=True)


def authority_folder(home: Path) -> Path:
    """Where the authority of the grid in `home` is kept."""
    return home / "ca"


def certificate_file(home: Path, name: str) -> Path:
    """Where a certificate and its key go, unless the person says otherwise."""
    return home / "certificates" / f"{name}.pem"


@click.group()
def ca() -> None:
    """The grid's certificate authority, and the certificates of nodes and users."""


@ca.command()
@_Home
@_days(3650)
def init(home: Path, days: int) -> None:
    """Make a new authority, and with it the id of a new grid."""
    from filegrid.net.authority import Authority

    authority = Authority.create(authority_folder(home), uuid.uuid4().hex, days)
    click.echo(f"authority of grid {authority.grid_id}: {authority.certificate_file}")


@ca.command()
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("name")
@_Home
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where certificate and key go, in one file.  [default: HOME/certificates/NAME.pem]",
)
@_days(365)
def issue(role: str, name: str, home: Path, out: Path | None, days: int) -> None:
    """Issue a certificate for the node or user NAME in the given ROLE."""
    authority = _load(home)
    file = out or certificate_file(home, name)
    if file.exists():
        advice = "renew it with: filegrid ca renew, or choose another place with --out"
        raise AlreadyExists("holds a certificate already", str(file), advice=advice)
    authority.issue(Role(role), name, days=days).write(file)
    click.echo(f"{role} {name}: {file} (its holder needs {authority.certificate_file} as well)")


@ca.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="All in HOME/certificates.")
@_Home
@_days(365)
def renew(files: tuple[Path, ...], everything: bool, home: Path, days: int) -> None:
    """Replace certificates by new ones, with new keys, for the same holders.

    Running services and clients take them up within a second, for their next connections.
    """
    if everything == bool(files):
        raise click.UsageError("name the files to renew, or say --all")
    authority = _load(home)
    if everything:
        files = tuple(sorted((home / "certificates").glob("*.pem")))
    for file in files:
        identity = authority.renew(file, days=days)
        click.echo(f"{identity}: {file}")


@ca.command(name="list")
@_Home
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_issued(home: Path, as_json: bool) -> None:
    """Show the newest certificate of every node and user, and when it ends."""
    authority = _load(home)
    lines = authority.listing()
    if as_json:
        certificates = [_to_json(line) for line in lines]
        print_json({"grid_id": authority.grid_id, "certificates": certificates})
        return
    for line in lines:
        ends = f"{line.not_after:%Y-%m-%d}"
        click.echo(f"{line.role.value:8}  {line.name:24}  {ends}  {line.state.value}")


def _load(home: Path) -> Authority:
    from filegrid.net.authority import Authority

    return Authority.load(authority_folder(home))


def _to_json(line: Issued) -> dict[str, str]:
    return {
        "role": line.role.value,
        "name": line.name,
        "serial": line.serial,
        "not_after": line.not_after.isoformat(),
        "state": line.state.value,
    }


COMMANDS = (ca,)
