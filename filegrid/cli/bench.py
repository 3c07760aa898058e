"""`filegrid bench`: how fast this grid is, from here."""

from __future__ import annotations

from typing import Any

import click

from filegrid.cli.opened import as_json, open_grid
from filegrid.cli.output import print_json


@click.command()
@click.option("--mib", type=click.IntRange(1, 65536), default=256, show_default=True,
              help="Size of the large file that is put and got.")  # fmt: skip
@click.option("--reads", type=click.IntRange(0, 1_000_000), default=500, show_default=True,
              help="Reads of 64 KiB at random places in it.")  # fmt: skip
@click.option("--files", type=click.IntRange(0, 1_000_000), default=500, show_default=True,
              help="Small files, and names, for the operations on many.")  # fmt: skip
@click.option("--in-flight", type=click.IntRange(1, 1024), default=16, show_default=True,
              help="Operations on those at a time.")  # fmt: skip
@as_json
def bench(mib: int, reads: int, files: int, in_flight: int, as_json: bool) -> None:
    """Measure a running grid: throughput, latency percentiles, operations a second.

    One large file is written, read, and read at random places; small files are written and read;
    names are made, looked up, listed, renamed and removed. All of it is in a folder of its own,
    /.bench-..., which is removed in the end. The file that is put lies in TMPDIR meanwhile.
    """
    from filegrid.client.bench import Amount, Bench

    amount = Amount(mib=mib, reads=reads, files=files, in_flight=in_flight)
    with open_grid() as grid:
        measurement = Bench(grid.client, amount, (lambda *_: None) if as_json else show)
        figures = grid.runner.run(measurement.run)
    if as_json:
        print_json(figures)


def show(name: str, figures: dict[str, Any]) -> None:
    """One line of one kind of work, once it is measured."""
    if "mib_per_second" in figures:
        text = f"{figures['mib_per_second']:10,.0f} MiB/s"
    else:
        text = f"{figures['per_second']:10,.0f} a second"
    if "latency_seconds" in figures:
        latency = {key: value * 1000 for key, value in figures["latency_seconds"].items()}
        text += (
            f"   p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms,"
            f" p99.9 {latency['p999']:.2f} ms, with {figures['in_flight']} in flight"
        )
    click.echo(f"{name:22}{text}")


COMMANDS = [bench]
