"""`filegrid status` and `filegrid fsck`: how the grid is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from filegrid.cli.listings import local_time
from filegrid.cli.opened import as_json, grid_paths, open_grid, shown
from filegrid.cli.output import human_bytes, note, print_json
from filegrid.errors import IntegrityError, Unavailable

if TYPE_CHECKING:
    from filegrid.client.check import Finding, Summary

_SERVER_TITLES = (
    *("chunk server", "state", "rack", "address"),
    *("used", "free", "chunks", "cpu", "verified"),
)

DAMAGED = 1
"""fsck's exit code where nothing is lost and something is not as it should be."""


@click.command()
@as_json
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show the state of the grid. With no leader, the exit code is 5."""
    with open_grid() as grid:
        state = grid.status()
    if as_json:
        print_json(state)
    else:
        show_status(state)
    for warning in state["warnings"]:
        note(f"warning: {warning}")
    if state["leader"] is None:
        ctx.exit(Unavailable.exit_code)


def show_status(state: dict[str, Any]) -> None:
    leader = state["leader"] or "none: no changes are possible now"
    chunks = state["chunks"]
    click.echo(f"grid    {state['grid_id']}")
    click.echo(f"leader  {leader}, epoch {state['epoch']}")
    click.echo(f"state   {state['condition']}")
    for reason in state["because"]:
        click.echo(f"        {reason}")
    click.echo(f"files   {state['files']}, {human_bytes(state['bytes'])}")
    others = [
        f"{chunks[name]} {name.replace('_', '-')}"
        for name in ("under_replicated", "missing", "corrupt", "repairing")
        if chunks[name]
    ]
    counts = ", ".join([f"{chunks['healthy']} healthy", *others])
    click.echo(f"chunks  {chunks['total']}: {counts}")
    if state["backups"]["interval_seconds"]:
        click.echo(f"backups {backup_line(state['backups'])}")
    for work in state["work"]:
        click.echo(work_line(work))
    if state["heads"]:
        click.echo()
        rows = [
            (head["name"], head["role"], head["address"], str(head["log_index"]))
            for head in state["heads"]
        ]
        table(("head", "role", "address", "log index"), rows)
    if state["health"]:
        click.echo()
        members = [(one["name"], one["role"], one["address"]) for one in state["health"]]
        table(("health", "role", "address"), members)
    if state["verdicts"]:
        click.echo()
        for event in state["verdicts"]:
            click.echo(event_line(event))
    if state["chunk_servers"]:
        click.echo()
        table(
            _SERVER_TITLES,
            [server_row(server) for server in state["chunk_servers"]],
        )


def backup_line(backups: dict[str, Any]) -> str:
    """How it stands with the copies of the metadata that the grid keeps in itself."""
    if not backups["kept"]:
        return f"none kept in the grid yet, one every {backups['interval_seconds']} s"
    size = human_bytes(backups["last_bytes"])
    return f"{backups['kept']} kept in the grid, the last of {local_time(backups['last'])}, {size}"


def work_line(work: dict[str, Any]) -> str:
    """What goes on by itself, and how far it is."""
    what = f"{work['kind']} of {work['server']}" if work["server"] else work["kind"]
    left = f"{human_bytes(work['bytes_left'])} left"
    if work["chunks_left"]:
        left = f"{work['chunks_left']} chunks, {left}"
    if work["waits_for"]:
        left += f", waits: {work['waits_for']}"
    elif work["seconds_left"] and work["seconds_left"] >= 1:
        left += f", some {timedelta(seconds=round(work['seconds_left']))} at most speed"
    return f"{what}: {left}"


@click.command()
@as_json
def events(as_json: bool) -> None:
    """Tell in order what came to pass: servers that joined, died and returned, repairs, rot that
    was found and healed, elections and verdicts."""
    with open_grid() as grid:
        found = grid.events()
    if as_json:
        print_json(found)
    else:
        for event in found["events"]:
            click.echo(event_line(event))
    if found["incomplete"]:
        note("warning: not every health node can be reached, and they keep the events")


def event_line(event: dict[str, Any]) -> str:
    node = event["node"]
    told = {
        "election": f"{node} was elected and leads epoch {event['epoch']}",
        "verdict": f"{node}, leading epoch {event['epoch']}, was found unfit",
        "coordinator": f"{node} coordinates the health nodes",
        "joined": f"{node} joined",
        "died": f"{node} died",
        "returned": f"{node} returned",
        "left": f"{node} was stopped in good order",
        "suspect": f"{node} is suspect",
        "trusted": f"{node} is trusted again",
        "repair_begun": "repair has begun",
        "repair_ended": "repair has ended",
        "rot_found": f"{node} found damage",
        "rot_healed": f"the damage on {node} is healed",
        "disk": f"{node}'s disk",
        "backup_failed": f"{node} could not keep a backup in the grid",
        "backup_kept": f"{node} keeps backups in the grid again",
        "trash_yielded": "disks are full: the trash gave up before its time",
    }
    text = told.get(event["kind"], f"{event['kind']}: {node}")
    if event["text"]:
        text += f": {event['text']}"
    evidence = "; ".join(f"{name}: {why}" for name, why in event["evidence"].items())
    return f"{local_time(event['at'])}  {text}{f' ({evidence})' if evidence else ''}"


def server_row(server: dict[str, Any]) -> tuple[str, ...]:
    used = max(0, server["capacity_bytes"] - server["free_bytes"])
    return (
        server["name"],
        server["state"],
        server["rack"],
        server["address"],
        human_bytes(used),
        human_bytes(server["free_bytes"]),
        str(server["chunks"]),
        f"{server['cpu_percent']:.0f}%",
        verified(server),
    )


def verified(server: dict[str, Any]) -> str:
    """Since when all of a chunk server's replicas were read back, or how many were not yet."""
    scrub = server["scrub"]
    if scrub["never_verified"]:
        return f"{scrub['never_verified']} not yet"
    return f"since {local_time(scrub['oldest_verified'])}" if scrub["oldest_verified"] else "-"


def table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@click.command()
@click.argument("path", callback=grid_paths, default="/")
@click.option("--verify", is_flag=True, help="Have every replica read and compared.")
@as_json
@click.pass_context
def fsck(ctx: click.Context, path: str, verify: bool, as_json: bool) -> None:
    """Say which chunks of PATH and below are under-replicated, missing or corrupt.

    The exit code is 0 only where all is well: 6 where something is missing or corrupt, 1 where
    replicas are too few or cannot be reached. Corrupt replicas that --verify finds are made anew
    by the grid.
    """
    from filegrid.client.check import Checker

    findings: list[Finding] = []

    def found(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            click.echo(finding_line(finding))

    with open_grid() as grid:
        checker = Checker(grid.client, found)
        grid.runner.run(lambda: checker.verify(path) if verify else checker.ask(path))
    summary = checker.summary
    ok = not findings and not summary.incomplete
    if as_json:
        print_json(fsck_document(summary, findings, ok))
    else:
        show_summary(summary, ok, verify)
    if not ok:
        ctx.exit(fsck_code(summary))


def finding_line(finding: Finding) -> str:
    trouble = finding.trouble.value.replace("_", "-")
    path = shown(finding.path) if finding.path else "(in the trash)"
    documents = [replica.document() for replica in finding.replicas]
    replicas = ", ".join(f"{one['server']} {one['state']}" for one in documents)
    since = f", for {finding.waiting_seconds:.0f} s" if finding.waiting_seconds else ""
    return (
        f"{path}: chunk {finding.index} is {trouble}: {replicas or 'no replica is known'}"
        f" ({finding.wanted} wanted{since})"
    )


def fsck_document(summary: Summary, findings: list[Finding], ok: bool) -> dict[str, Any]:
    from filegrid.client.check import Trouble

    document: dict[str, Any] = {
        "checked_files": summary.files,
        "checked_chunks": summary.chunks,
        "checked_replicas": summary.replicas,
    }
    for trouble in Trouble:
        document[trouble.value] = [one.document() for one in findings if one.trouble is trouble]
    return {**document, "ok": ok}


def show_summary(summary: Summary, ok: bool, verify: bool) -> None:
    looked_at = f"{summary.files} files, {summary.chunks} chunks"
    if verify:
        looked_at += f", {summary.replicas} replicas read"
    if summary.incomplete:
        note("warning: some chunk servers have not told yet what they hold")
    troubles = ", ".join(
        f"{count} {trouble.value.replace('_', '-')}" for trouble, count in summary.troubles.items()
    )
    click.echo(f"{looked_at}: {'all is well' if ok else troubles or 'not all is known'}")


def fsck_code(summary: Summary) -> int:
    from filegrid.client.check import Trouble

    lost = summary.troubles.keys() & {Trouble.CORRUPT, Trouble.MISSING}
    return IntegrityError.exit_code if lost else DAMAGED
