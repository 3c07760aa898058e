"""`filegrid simulate`: whole grids in this process, from seeds, and what breaks their promises."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import TYPE_CHECKING, Any

import click

from filegrid.cli.opened import as_json
from filegrid.cli.output import note, print_json

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Result
    from filegrid.simulation.scenario import Scenario

BROKEN = 1
"""The exit code where a promise was broken."""

SECONDS_PER_MINUTE = 60.0

MINUTES_PER_PROCESS = 30.0
"""Simulated: each leaves some 8 MiB behind, of nodes that were killed (simulation/process.py)."""


class Seeds(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.3
    """``7`` or ``1-200``."""

    name = "A-B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> range:
        first, _, last = str(value).partition("-")
        try:
            found = range(int(first), int(last or first) + 1)
        except ValueError:
            self.fail(f"{value} is neither a number nor a range such as 1-200", param, ctx)
        if not found:
            self.fail(f"{value} is empty", param, ctx)
        return found


def fault_names(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    from filegrid.simulation.scenario import FAULTS

    if value is None:
        return None
    names = tuple(name for name in value.split(",") if name)
    if unknown := [name for name in names if name not in FAULTS]:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(FAULTS)}")
    return names


def numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> frozenset[int] | None:
    if value is None:
        return None
    try:
        return frozenset(int(number) for number in value.split(",") if number)
    except ValueError:
        raise click.BadParameter(f"{value} is no list of numbers") from None


@click.command()
@click.option("--seed", "--seeds", "seeds", type=Seeds(), default="1-20", show_default=True,
              help="One run, or one for each of these.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(min=0.05), default=10.0, show_default=True,
              help="Simulated, of faults; then comes the calm in which all must heal.")  # fmt: skip
@click.option("--hours", type=click.FloatRange(min=0.001), help="Instead of --minutes.")
@click.option("--heads", type=click.IntRange(1, 9), default=3, show_default=True)
@click.option("--health", type=click.IntRange(0, 9), default=3, show_default=True)
@click.option("--chunk-servers", type=click.IntRange(3, 100), default=5, show_default=True)
@click.option("--disks", type=click.IntRange(1, 9), default=1, show_default=True,
              help="Of each chunk server.")  # fmt: skip
@click.option("--racks", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--replication", type=click.IntRange(1, 9), default=3, show_default=True)
@click.option("--clients", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--vary", "varied", is_flag=True,
              help="All these numbers as each seed draws them.")  # fmt: skip
@click.option("--faults", callback=fault_names, metavar="NAME,NAME",
              help="Only strikes of these kinds.")  # fmt: skip
@click.option("--only", "strikes", callback=numbers, metavar="N,N",
              help="Only the strikes with these numbers, to repeat what was shrunk.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 256), default=os.cpu_count() or 1,
              help="Runs at the same time.  [default: one for each processor]")  # fmt: skip
@click.option("--shrink/--no-shrink", "shrinks", default=True, show_default=True,
              help="Look for fewer strikes that break the same promise.")  # fmt: skip
@as_json
@click.pass_context
def simulate(
    ctx: click.Context,
    /,
    seeds: range,
    minutes: float,
    hours: float | None,
    varied: bool,
    faults: tuple[str, ...] | None,
    strikes: frozenset[int] | None,
    jobs: int,
    shrinks: bool,
    as_json: bool,
    **sizes: Any,
) -> None:
    """Run whole grids in simulated time, break them, and see whether they keep their promises.

    The nodes and the clients are the real ones; clock, network, disks and chance are simulated, and
    all of a run follows from its seed. Machines crash, pause and lose their disks, the network
    splits, clocks differ; then everything is mended, and must heal. Ends with 1, and with the line
    that repeats it, at the first promise that is broken.
    """
    from filegrid.simulation.scenario import FAULTS, Scenario

    given = [f"--{name.replace('_', '-')}" for name in sizes if _is_given(ctx, name)]
    if varied and given:
        raise click.UsageError(f"--vary draws what {given[0]} says: give one of them")
    minutes = 60 * hours if hours is not None else minutes
    scenario = Scenario(
        seconds=minutes * SECONDS_PER_MINUTE,
        faults=FAULTS if faults is None else faults,
        strikes=strikes,
        varied=varied,
        **sizes,
    )
    results: list[Result] = []
    with running(scenario, seeds, min(jobs, len(seeds))) as finished:
        for result in finished:
            results.append(result)
            if not as_json:
                click.echo(result_line(scenario, result))
            if not result.ok:
                break
    broken = next((one for one in results if not one.ok), None)
    few = sorted(strikes) if strikes is not None else None
    if broken is not None and shrinks:
        few = shrunk(scenario, broken)
    again = repeat_line(ctx, broken.seed, few) if broken is not None else ""
    if as_json:
        print_json({"runs": [asdict(one) for one in results], "repeat": again or None,
                    "ok": broken is None})  # fmt: skip
    elif broken is not None:
        click.echo("\n".join(broken.told))
        click.echo(f"broken: {broken.promise}\n{broken.detail}\nrepeat it with: {again}")
    if broken is not None:
        ctx.exit(BROKEN)


@contextmanager
def running(scenario: Scenario, seeds: Sequence[int], jobs: int) -> Iterator[Iterator[Result]]:
    """The results, in the order of the seeds; of several seeds in processes of their own."""
    if len(seeds) == 1:
        yield (run(scenario, seed) for seed in seeds)
        return
    with processes(scenario, jobs) as pool:
        yield pool.imap(partial(run, scenario), seeds)


def processes(scenario: Scenario, jobs: int) -> Pool:
    """Each is replaced by another before it has grown too large."""
    runs = max(1, round(MINUTES_PER_PROCESS * SECONDS_PER_MINUTE / scenario.seconds))
    return get_context("spawn").Pool(jobs, maxtasksperchild=runs)


def run(scenario: Scenario, seed: int) -> Result:
    from twisted.logger import globalLogBeginner

    from filegrid.simulation.campaign import Campaign

    # Nodes that are struck say so at length, which is of no interest here.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    return Campaign(scenario, seed).run()


def shrunk(scenario: Scenario, broken: Result) -> list[int]:
    """The numbers of few strikes that break the same promise."""
    from filegrid.simulation.scenario import strike_numbers
    from filegrid.simulation.shrinking import MOST_TRIES, shrink

    is_long = MOST_TRIES * scenario.seconds > MINUTES_PER_PROCESS * SECONDS_PER_MINUTE
    pool = processes(scenario, jobs=1) if is_long else None

    def fails(numbers: Sequence[int]) -> bool:
        if sys.stderr.isatty():
            click.echo(f"\rshrinking: {len(numbers)} strikes ", nl=False, err=True)
        again = replace(scenario, strikes=frozenset(numbers)), broken.seed
        result = pool.apply(run, again) if pool is not None else run(*again)
        return result.promise == broken.promise

    with pool or nullcontext():
        few = shrink(strike_numbers(scenario, broken.seed), fails)
    if sys.stderr.isatty():
        note("")
    return few


def result_line(scenario: Scenario, result: Result) -> str:
    strikes, of = sum(result.strikes.values()), ""
    if scenario.varied:
        one = scenario.of(result.seed)
        sizes = one.heads, one.health, one.chunk_servers, one.racks, one.replication, one.clients
        of = " of {}+{} heads, {} servers, {} racks, {} replicas, {} clients".format(*sizes)
    return (
        f"seed {result.seed}{of}: {'ok' if result.ok else 'BROKEN'}, {result.operations} operations"
        f" ({result.refused} refused, {result.unknown} unknown), {strikes} strikes,"
        f" longest wait {result.longest_pause_seconds:.1f} s"
    )


def repeat_line(ctx: click.Context, seed: int, strikes: Sequence[int] | None) -> str:
    """The command that runs this seed, with these strikes, again."""
    words = ["filegrid", "simulate", "--seed", str(seed)]
    for param in ctx.command.params:
        name = str(param.name)
        if name in ("seeds", "strikes", "jobs", "shrinks", "as_json") or not _is_given(ctx, name):
            continue
        words.append(param.opts[0])
        value = ctx.params[name]
        if value is not True:
            words.append(",".join(value) if isinstance(value, tuple) else f"{value:g}")
    if strikes is not None:
        words += ["--only", ",".join(map(str, strikes))]
    return shlex.join(words)


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


COMMANDS = [simulate]
