"""A record on the screen."""

import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from fewshot_bench.cli._console import screen
from fewshot_bench.cli.progress import Progress
from fewshot_bench.results.record import VALIDATION, with_result
from fewshot_bench.results.runs import query_words, sampler_protocol, sampler_words
from fewshot_bench.utils.devices import EventClock
from fewshot_bench.utils.text import printable, printable_values


def show_run(make: Callable[[Progress], tuple[dict[str, Any], Path]], as_json: bool) -> None:
    """Make a run while its progress is shown, then print its record."""
    # Whatever a plugin prints, standard output holds the record alone.
    with Progress() as progress, redirect_stdout(sys.stderr) if as_json else nullcontext():
        record, folder = make(progress)
    show_record(record, folder, as_json=as_json)


def show_record(record: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print a finished run: a table, or the record itself as JSON and nothing else."""
    if as_json:
        sys.stdout.write((folder / "record.json").read_text("utf-8"))
        return
    record = printable_values(with_result(record))
    console = screen()
    console.print(_table(record))
    images = f"the choice of episodes from these {record['part']} images"
    covers = f"{images}; not new images, classes or training seeds"
    if record["test"]["sampling"] == "open":
        covers = f"new images of these {record['part']} classes; not new classes or seeds"
    console.print(f"The interval covers {covers}.")
    for note in record["notes"]:
        console.print(f"Note: {note}")
    console.print(f"Record: {printable(str(folder))}")


def _table(record: dict[str, Any]) -> Table:
    task, timing, test = record["task"], record["timing"], record["test"]
    title = f"{record['method']} on {record['dataset']}, {task['way']}-way {task['shot']}-shot"
    of_validation = record["part"] == VALIDATION
    title += ", validation split" if of_validation else ""
    columns = Column(no_wrap=True), Column(overflow="fold")
    table = Table(*columns, title=title, show_header=False, title_justify="left")
    step, phases, steps = timing["step_ms"], timing["phases"] or {}, ""
    if step:
        rate = f"{timing['tasks_per_s']:.1f} tasks/s"
        steps = f"median {ms(step['median'])}, p95 {ms(step['p95'])}, {rate}"
    flops, speed = timing["flops_per_step"], _scaled(timing["flops_per_s"], "FLOP/s")
    rows = {
        "accuracy": _accuracy(test),
        "episodes": f"{test['episodes']}, spread per episode {percent(test['per_episode_sd'])}",
        "protocol": _protocol(record),
        "validation": "" if of_validation else _validation(record),
        "training": _training(record),
        "step": steps,
        "of a step": ", ".join(f"{n.replace('_', ' + ')} {ms(v)}" for n, v in phases.items()),
        "learn a task": ms(timing["adapt_ms"]),
        "classify it": ms(timing["predict_ms"]),
        "peak memory": _scaled(timing["peak_memory_bytes"], "B"),
        "FLOPs": f"{_scaled(flops, 'FLOP')} per step, {speed}" if flops else "",
        "device": _device(record),
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    for name, value in test["metrics"].items():
        half = value["half_width"]
        mean = "not finite" if value["mean"] is None else f"{value['mean']:.4f}"
        lower = "" if value["higher_is_better"] in (None, True) else " (lower is better)"
        table.add_row(name, mean + (f" ± {half:.4f}" if half else "") + lower)
    return table


def _accuracy(test: dict[str, Any]) -> str:
    text = percent(test["accuracy"])
    if test["half_width"] is None:
        return f"{text} (one episode: no interval)"
    if not test["per_episode_sd"]:
        return f"{text} (no variation over episodes)"
    return f"{text} ± {100 * test['half_width']:.2f} ({test['level']:.0%} Student, over episodes)"


def _protocol(record: dict[str, Any]) -> str:
    test = record["test"]
    kind = "transductive" if test["transductive"] else "inductive"
    protocol = {**sampler_protocol(record), "sampling": test["sampling"], **record["task"]}
    drawn = f"{test['sampling']} sampling{sampler_words(protocol)}"
    text = f"{kind}, {drawn}, {query_words(protocol)}"
    if protocol["unequal"]:
        text += " ({} to {} in these episodes)".format(*record["sampler"]["query"])
    return text


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def ms(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"


def _device(record: dict[str, Any]) -> str:
    name, clock = record["device"]["name"], (record["timing"].get("clocks") or {}).get("step_ms")
    return f"{name}; steps timed by {clock}" if clock == EventClock.name else f"{name}"


def _validation(record: dict[str, Any]) -> str:
    validation = record["validation"]
    if record["training"] or not validation or validation.get("half_width") is None:
        return ""
    half = 100 * validation["half_width"]
    return f"{percent(validation['accuracy'])} ± {half:.2f}; choose settings by this"


def _training(record: dict[str, Any]) -> str:
    training, validation = record["training"], record["validation"]
    if not training:
        return "none"
    text = f"{training['steps']} steps in {training['seconds']:.0f} s"
    if validation and validation["accuracy"] is not None:
        best = percent(validation["accuracy"])
        text += f"; weights of step {validation['best_step']} (validation {best})"
    return text


def _scaled(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:  # what rounds to 1,000 is 1 of the next unit
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
