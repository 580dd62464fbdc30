"""``fsb plan``."""

from __future__ import annotations

import json as json_
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewshot_bench.cli.compare import finished_runs
from fewshot_bench.config.schema import RunConfig
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.hooks.registry import CORE
from fewshot_bench.hooks.single_file import only_typed

if TYPE_CHECKING:
    from fewshot_bench.results.pilots import Pilot
    from fewshot_bench.results.runs import Run


PILOTS = (
    "two pilot runs on the same episodes, or one; unless named, the newest run in --runs-dir and "
    "the newest of another method on its episodes"
)
RUNS_DIR = "where pilots are if none is named"
SAMPLING = "closed or open  [default: as the pilots]"
JSON = "print the plan as JSON (fractions)"
PAIRED = "The differences will vary as those of these two trained networks do."
UNPAIRED = (
    "One pilot: the other method is taken to vary as much and not to be paired, so this many "
    "episodes are enough where pairing helps; a second pilot shows how much it does."
)
UNEQUAL = "Unequal numbers of queries per class in the pilots: other counts cannot be foretold."
ONE_QUERY = "One query per class in the pilots: other query counts cannot be foretold."
BINOMIAL = (
    "With the query count only the binomial part of the variance changes; given episode and "
    "class, the methods are taken to err independently. If they err on the same queries, more "
    "queries help less than this says."
)


def plan(
    runs: Annotated[list[Path] | None, typer.Argument(help=PILOTS, show_default=False)] = None,
    runs_dir: Annotated[Path, typer.Option(help=RUNS_DIR)] = Path("runs"),
    difference: Annotated[float, typer.Option(help="to find, in points of accuracy")] = 0.5,
    power: Annotated[float, typer.Option(help="chance to find it")] = 0.8,
    alpha: Annotated[float, typer.Option(help="level of the two-sided test")] = 0.05,
    sampling: Annotated[str | None, typer.Option(help=SAMPLING)] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """Compute how many episodes a comparison needs.

    It needs one or two pilot runs. With open sampling also, which query count lets the data
    set's images reach the power.
    """
    if not 0 < difference <= 100:
        raise ConfigError(f"--difference: expected points over 0, at most 100, got {difference:g}.")
    if not 0 < alpha < 1:
        raise ConfigError(f"--alpha: expected a number between 0 and 1, got {alpha:g}.")
    if not alpha < power < 1:
        raise ConfigError(f"--power: expected {alpha:g} (--alpha) to 1, got {power:g}.")
    if sampling not in (None, "closed", "open"):
        raise ConfigError(f"--sampling: expected closed or open, got {sampling}.")
    from fewshot_bench.results.pilots import pilot_of

    if runs:
        found, problems = finished_runs(runs, "a pilot", needed=False)
        if problems:
            raise RecordError(problems[0].rstrip(".") + ".")
        if len(found) > 2:
            most = f"fsb plan takes one or two runs, not {len(found)}"
            raise ConfigError(f"{most}; name their folders.")
    else:
        found = _newest(runs_dir)
    pilot, aim = pilot_of(found), difference / 100
    result = _plan(pilot, aim, power, alpha)
    result["sampling"] = sampling or pilot.runs[0].record["test"]["sampling"]
    if result["sampling"] == "open":
        result |= _open(pilot, aim, power, alpha)
    result["assumed"] = _assumed(pilot, result)
    if json:
        typer.echo(json_.dumps(result, indent=2))
    else:
        _show(pilot, result)


def _newest(runs_dir: Path) -> list[Run]:
    """The newest run, and the newest of another method that can be paired with it."""
    from fewshot_bench.results.layout import episodes_differ
    from fewshot_bench.results.runs import age, load_runs

    found = load_runs([runs_dir])[0] if runs_dir.exists() else []
    if not found:
        raise RecordError(f"no finished run in '{runs_dir}'; run a pilot first: fsb run METHOD")
    newest, *others = sorted(found, key=age, reverse=True)
    unlike = [run for run in others if run.record["method"] != newest.record["method"]]
    return [newest, *[run for run in unlike if not episodes_differ(run, newest)][:1]]


def _plan(pilot: Pilot, difference: float, power: float, alpha: float) -> dict[str, Any]:
    from fewshot_bench.results.stats import detectable_difference, episodes_needed

    try:
        needed = episodes_needed(pilot.sd(), difference, power, alpha)
    except ValueError as error:
        raise ConfigError(f"--difference {100 * difference:g}: {error}.") from error
    return {
        "difference": difference,
        "power": power,
        "alpha": alpha,
        "runs": [run.record["id"] for run in pilot.runs],
        "paired": len(pilot.runs) == 2,
        "query": pilot.query,
        "sd": pilot.sd(),
        "sd_that_falls": None if pilot.falls is None else math.sqrt(pilot.falls),
        "episodes": needed,
        "pilot_episodes": pilot.episodes,
        "pilot_finds": detectable_difference(pilot.sd(), pilot.episodes, power, alpha),
    }


def _open(pilot: Pilot, difference: float, power: float, alpha: float) -> dict[str, Any]:
    """Episodes of the open plan and their power at each query count."""
    from fewshot_bench.results.stats import detectable_difference, paired_power

    rows = []
    for query, episodes in _open_plans(pilot):
        sd = pilot.sd(query)
        row: dict[str, Any] = {"query": query, "episodes": episodes, "sd": sd}
        row["power"] = paired_power(sd, difference, episodes, alpha)
        row["finds"] = detectable_difference(sd, episodes, power, alpha)
        rows.append({**row, "reaches": row["power"] >= power})
    if not rows:
        raise ConfigError("no open plan of at least 2 episodes fits into the test split.")
    best = max(rows, key=lambda row: row["power"])
    return {"open": rows, "best_query": best["query"], "reached": best["reaches"]}


def _open_plans(pilot: Pilot) -> Iterator[tuple[int, int]]:
    """(query count, episodes) of each open plan of the pilots' task with 2 episodes or more."""
    from fewshot_bench.data.table import ClassTable
    from fewshot_bench.rng import key_of
    from fewshot_bench.runs.context import RunContext

    record = pilot.runs[0].record
    config = replace(RunConfig.from_dict(record["config"]), cache_dir=None)
    context = RunContext(config)
    with only_typed(()):
        data = context.data
    if data.content.digest(record["part"]) != record["evaluated_digest"]:
        raise RecordError(f"{config.dataset} differs from the data of the pilots.")
    table, task = ClassTable(data.splits.test), context.eval_task
    sampler = context.registry.resolve("samplers", f"{CORE}:open").load()
    most = int(table.class_count.min()) - task.shot - task.unlabeled
    seed, family = key_of("test", config.episode_seed), config.within_family
    counts = [*range(1, 20)]  # each up to 20, then in steps of about a quarter
    while counts[-1] < most:
        counts.append(counts[-1] + max(1, counts[-1] // 4))
    counts = [count for count in counts if count < most] + [most]
    for query in counts if pilot.falls is not None else [pilot.query]:
        length = sampler(table, replace(task, query=query), seed, within_family=family).length
        if length < 2:
            return
        yield query, length


def _assumed(pilot: Pilot, result: dict[str, Any]) -> list[str]:
    from fewshot_bench.results.runs import sampler_words
    from fewshot_bench.results.training import against_words

    notes = [PAIRED if result["paired"] else UNPAIRED]
    if result["paired"] and (training := against_words(*([run] for run in pilot.runs))):
        different = f"The pilots were trained differently, {training}"
        notes.append(f"{different}; equal trainings may vary otherwise.")
    if "open" in result:
        protocol = pilot.runs[0].protocol()
        if drawn := sampler_words(protocol):
            notes.append(f"The pilots' episodes were{drawn}, those of the plan are open.")
        foretold = ONE_QUERY if pilot.falls is None else BINOMIAL
        notes.append(UNEQUAL if protocol["unequal"] else foretold)
    return notes


def _show(pilot: Pilot, result: dict[str, Any]) -> None:
    from rich.table import Table

    from fewshot_bench.cli._console import screen

    console = screen()
    names = ("difference", "sd", "pilot_finds")
    points = {name: f"{100 * result[name]:.2f} points" for name in names}
    power = f"power {result['power']:g} (two-sided paired t test at {result['alpha']:g})"
    spread = "differences vary" if result["paired"] else "differences of unpaired runs vary"
    console.print(" against ".join(result["runs"]))
    console.print(
        f"To find {points['difference']} with {power}: {result['episodes']} episodes of "
        f"{pilot.episodes_in_words}.\nPer episode, {spread} by {points['sd']} (standard "
        f"deviation). The pilots' {result['pilot_episodes']} episodes find {points['pilot_finds']}."
    )
    if "open" in result:
        heads = ("queries", "episodes", "sd", "power", "finds")
        table = Table(*heads, title="open sampling: all that the split has", title_justify="left")
        for row in result["open"]:
            sd, finds = (f"{100 * row[name]:.2f}" for name in ("sd", "finds"))
            style = "bold" if row["query"] == result["best_query"] else ""
            counts = str(row["query"]), str(row["episodes"])
            table.add_row(*counts, sd, f"{row['power']:.3f}", finds, style=style)
        console.print(table)
        reached = "it is reached" if result["reached"] else "no query count reaches the power asked"
        best = f"The power is greatest with {result['best_query']} queries per class"
        console.print(f"{best}; {reached}.")
    console.print(" ".join(result["assumed"]), style="dim")
