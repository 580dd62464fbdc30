"""Published results and ours: ``uv run python benchmarks/published.py RUN_OR_FOLDER...``.

A run is used for a row if it has the row's method, preset, task, data set and options, and no other
option was set except those that do not change its numbers (seed, folders, device). Rows without a
run are written as unmeasured, with the command that would measure them.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_bench.results.runs import Run, age, command_of, load_runs

HERE = Path(__file__).parent
NEAR = 0.3  # points
# Options that may be set without changing the experiment.
CHOSEN = {
    "preset", "dataset", "way", "shot", "seed", "episode_seed", "device", "engine", "task_chunk",
    "profile", "pictures", "runs_dir", "data_root", "cache_dir", "metrics", "observers",
    "checkpoint_every", "keep_checkpoints", "detect_anomaly",
}  # fmt: skip
HEAD = """# Published results and ours

Written by `uv run python benchmarks/published.py`. Accuracy in %, ± as published, and for ours the
95 % Student interval over episodes. "contained": whether our interval contains the published
number; "near": whether the two differ by at most the published half width, or 0.3 points.
[docs/published.md](../../docs/published.md) lists reasons to miss a number, and their options.

"""
COLUMNS = (
    "data set", "task", "method, preset, options", "published", "ours", "contained", "near",
    "training", "device", "commit",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """One number of a paper; ``half_width`` is None if it gives none."""

    method: str
    preset: str
    cite: str
    dataset: str
    way: int
    shot: int
    accuracy: float
    half_width: float | None
    options: Mapping[str, Any]

    @property
    def title(self) -> str:
        """``omniglot 5w1s maml paper``, and the options: of one row alone."""
        task = f"{self.dataset} {self.way}w{self.shot}s {self.method} {self.preset}"
        return " ".join([task, *self.typed()])

    @property
    def words(self) -> str:
        """``98.7 ± 0.4 (Finn et al. 2017)``."""
        spread = "" if self.half_width is None else f" ± {self.half_width:g}"
        return f"{self.accuracy:.2f}{spread} ({self.cite})"

    @property
    def command(self) -> str:
        """What measures it."""
        task = f"--dataset {self.dataset} --way {self.way} --shot {self.shot}"
        return " ".join([f"fsb run {self.method} {task} --preset {self.preset}", *self.typed()])

    def typed(self) -> Iterator[str]:
        """The row's options as they are typed."""
        for name, value in self.options.items():
            if isinstance(value, bool):
                yield f"--{name}" if value else f"--no-{name}"
            else:
                yield f"--{name} {value}"

    def near(self, accuracy: float) -> bool:
        """Whether a measured accuracy, in %, is as near as it should be."""
        return abs(accuracy - self.accuracy) <= max(self.half_width or 0.0, NEAR)


def published(path: Path) -> Iterator[Published]:
    """Every figure of a file."""
    for source in tomllib.loads(path.read_text("utf-8"))["source"]:
        names = {name: source.pop(name) for name in ("method", "preset", "cite")}
        options = source.pop("options", {})
        for dataset, tasks in source.items():
            for task, (accuracy, *half_width) in tasks.items():
                way, shot = map(int, re.findall(r"\d+", task))
                interval = half_width[0] if half_width else None
                yield Published(
                    **names, dataset=dataset, way=way, shot=shot,
                    accuracy=accuracy, half_width=interval, options=options,
                )  # fmt: skip


def in_order(path: Path) -> list[Published]:
    """The rows that are measured on a GPU, in their order.

    Raises:
        KeyError: the order names a row that there is none of.
    """
    known = {figure.title: figure for figure in published(path)}
    return [known[title] for title in tomllib.loads(path.read_text("utf-8"))["gpu"]]


def stands_for(record: Mapping[str, Any], figure: Published) -> bool:
    """Whether a record is of the experiment that a figure was published for."""
    config = record["config"]
    task = (config["way"], config["shot"])
    names = (record["method"], config["preset"], config["dataset"])
    if (names, task) != (
        (figure.method, figure.preset, figure.dataset),
        (figure.way, figure.shot),
    ):
        return False
    options = {name.replace("-", "_"): value for name, value in figure.options.items()}
    settings = config | config["method_options"] | config["backbone_options"]
    if any(settings.get(name) != value for name, value in options.items()):
        return False
    user = {name for name, source in config["sources"].items() if source == "user"}
    return user <= CHOSEN | set(options) and record["evaluated_from"] is None


def row(figure: Published, runs: list[Run]) -> str:
    """A line of the table, of the newest run that stands for the figure."""
    first = f"| {figure.dataset} | {figure.way}-way {figure.shot}-shot "
    names = ", ".join([figure.method, figure.preset, *figure.typed()])
    first += f"| {names} | {figure.words} "
    own = [run for run in runs if stands_for(run.record, figure)]
    if not own:
        return first + f"| unmeasured: `{figure.command}` | | | | | |"
    record = max(own, key=age).record
    test, environment = record["test"], record["environment"]
    accuracy = 100 * test["accuracy"]
    half_width = 100 * test["half_width"]
    contained = "yes" if abs(accuracy - figure.accuracy) <= half_width else "no"
    spread = f"± {half_width:.2f}" if half_width else "(no variation)"
    near = "yes" if figure.near(accuracy) else f"no ({accuracy - figure.accuracy:+.2f})"
    seconds = record["training"]["seconds"] if record["training"] else 0.0
    cells = (
        f"{accuracy:.2f} {spread}: `{command_of(record)}`",
        contained,
        near,
        f"{seconds / 60:.0f} min",
        record["device"]["name"],
        str(environment.get("commit")),
    )
    return first + "| " + " | ".join(cells) + " |"


def table(runs: list[Run]) -> str:
    """The page."""
    figures = list(published(HERE / "published.toml"))
    order = {name: i for i, name in enumerate(dict.fromkeys(f.dataset for f in figures))}
    figures.sort(key=lambda f: (order[f.dataset], f.way, f.shot))
    rules = "|---" * len(COLUMNS) + "|\n"
    head = HEAD + "| " + " | ".join(COLUMNS) + " |\n" + rules
    return head + "\n".join(row(figure, runs) for figure in figures) + "\n"


def fill(page: str, runs: list[Run]) -> str:
    """A page whose rows that these runs stand for are written anew; the others stay."""
    known = {}
    for figure in published(HERE / "published.toml"):
        if any(stands_for(run.record, figure) for run in runs):
            known[row(figure, []).partition("| unmeasured:")[0]] = row(figure, runs)
    lines = page.splitlines()
    for i, line in enumerate(lines):
        begin = next((begin for begin in known if line.startswith(begin)), None)
        if begin is not None:
            lines[i] = known[begin]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="runs, or folders of runs")
    parser.add_argument("-o", type=Path, default=HERE / "results" / "published.md")
    arguments = parser.parse_args()
    runs, problems = load_runs(arguments.runs)
    for problem in problems:
        print(problem)
    arguments.o.write_text(table(runs), "utf-8")


if __name__ == "__main__":
    main()
