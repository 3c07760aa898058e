"""`filegrid up`, `down`, `start`, `stop` and `kill`: a whole grid on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from filegrid.cli.output import connect, note, print_json
from filegrid.errors import DeadlineExceeded, InvalidRequest, Unavailable

if TYPE_CHECKING:
    from filegrid.cli.local_grid import LocalGrid

_Home = click.option(
    "--home",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The grid's folder on this machine.",
)
_Node = click.argument("node")

_ASK_SECONDS = 5.0


def readiness(grid: LocalGrid) -> Callable[[], str | None]:
    """What says why `grid` does not take writes yet; None once it does, on all its servers."""
    expected = set(grid.nodes)

    def not_ready() -> str | None:
        try:
            with connect(grid.grid_file, _ASK_SECONDS) as client:
                status = client.status()
        except (Unavailable, DeadlineExceeded) as error:
            return str(error)
        if status["leader"] is None:
            return "no head leads yet"
        there = {
            server["name"]
            for server in status["chunk_servers"]
            if server["state"] not in ("suspect", "dead")
        }
        members = [*status["heads"], *status["health"]]
        there |= {member["name"] for member in members if member["role"] != "down"}
        if expected - there:
            return f"waiting for {', '.join(sorted(expected - there))}"
        roles = {member["role"] for member in status["health"]}
        if roles and "coordinator" not in roles:
            return "no health node coordinates yet"
        return None

    return not_ready


def parse_settings(texts: tuple[str, ...]) -> dict[str, str]:
    """``section.key=value``, each.

    :raises InvalidRequest: where a text is not of this form.
    """
    settings: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or "." not in name:
            raise InvalidRequest("is not section.key=value", f"--set {text}")
        settings[name.strip()] = value.strip()
    return settings


@click.command()
@_Home
@click.option("--heads", type=int, help="How many heads, an odd number.  [default: 3]")
@click.option("--health", type=int, help="How many health nodes, odd or none.  [default: 3]")
@click.option("--chunk-servers", type=int, help="How many chunk servers.  [default: 5]")
@click.option("--racks", type=int, help="Racks that they are spread over.  [default: 3]")
@click.option("--base-port", type=int, help="The first node's port.  [default: free ports]")
@click.option(
    "--set", "texts", multiple=True, metavar="SECTION.KEY=VALUE", help="A setting; can be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def up(home: Path, texts: tuple[str, ...], as_json: bool, **flags: int | None) -> None:
    """Start a whole grid on this machine, and make it first where there is none.

    Returns once the grid takes writes. A grid that was stopped goes on with its data; one that
    runs is left alone.
    """
    from filegrid.cli.local_grid import LocalGrid, Shape

    grid, settings = LocalGrid(home), parse_settings(texts)
    if grid.exists:
        grid.check_same(flags, settings)
    else:
        given = {name: value for name, value in flags.items() if value is not None}
        grid.make(Shape(**given, settings=settings))
    grid.start(*grid.nodes)
    grid.wait_ready(readiness(grid))
    if as_json:
        print_json(_to_json(grid))
    else:
        click.echo(_how_to_use(grid))


def _to_json(grid: LocalGrid) -> dict[str, object]:
    ports = grid.home.ports
    return {
        "home": str(grid.folder),
        "grid": str(grid.grid_file),
        "operator": str(grid.operator_file),
        "nodes": [
            {"name": name, "address": f"127.0.0.1:{port}", "pid": grid.pid(name)}
            for name, port in ports.items()
        ],
    }


def _how_to_use(grid: LocalGrid) -> str:
    count = Counter(name.partition("-")[0] for name in grid.nodes)
    return "\n".join(
        [
            f"The grid in {grid.folder} takes writes: {count['head']} heads,"
            f" {count['health']} health nodes, {count['chunk']} chunk servers. Use it with:",
            f"  export FILEGRID_GRID={grid.grid_file}",
            "  filegrid put LOCAL /path",
            "  filegrid status",
            f"What only an operator may do: --grid {grid.operator_file}",
            f"Stop it with: filegrid down --home {grid.folder}",
        ]
    )


@click.command()
@_Home
def down(home: Path) -> None:
    """Stop a whole grid on this machine cleanly; its data stays."""
    from filegrid.cli.local_grid import LocalGrid

    LocalGrid(home).down()


@click.command()
@_Node
@_Home
def start(node: str, home: Path) -> None:
    """Start one NODE of a grid on this machine."""
    from filegrid.cli.local_grid import LocalGrid

    grid = LocalGrid(home)
    if grid.pid(node) is not None:
        note(f"{node} runs already")
    grid.start(node)


@click.command()
@_Node
@_Home
def stop(node: str, home: Path) -> None:
    """Stop one NODE of a grid on this machine cleanly (SIGTERM)."""
    from filegrid.cli.local_grid import LocalGrid

    grid = LocalGrid(home)
    if grid.pid(node) is None:
        note(f"{node} does not run")
    grid.stop(node)


@click.command()
@_Node
@_Home
def kill(node: str, home: Path) -> None:
    """Kill one NODE of a grid on this machine (SIGKILL), as a crash would."""
    from filegrid.cli.local_grid import LocalGrid

    grid = LocalGrid(home)
    if grid.pid(node) is None:
        note(f"{node} does not run")
    grid.kill(node)


COMMANDS: list[click.Command] = [up, down, start, stop, kill]
