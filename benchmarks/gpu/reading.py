"""What ``results.json`` says: figures of every stage, and the bars that they are held against.

Results of an older ``measure.py`` have fewer numbers in a row; what follows from others is worked
out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import by_kind

Row = dict[str, Any]
UNMEASURED = "unmeasured"
PRECISIONS = {"fp32": "fp32", "tf32": "TF32", "bf16": "bf16"}
TITLES = {
    "W1_second_order": "W1 MAML, second order, 32 tasks",
    "W1_first_order": "W1 MAML, first order, 32 tasks",
    "W1_one_shot_one_step": "W1 MAML, one shot, one inner step, 32 tasks",
    "W2_5way": "W2 ProtoNet, 5-way, one task",
    "W2_60way": "W2 ProtoNet, 60-way, one task",
    "W5": "W5 MetaGAN of the tutorial, 32 tasks",
    "W4_maml": "W4 MAML, 600 test episodes",
    "W4_protonet_batch_statistics": "W4 ProtoNet, batch statistics",
    "W4_protonet_running_statistics": "W4 ProtoNet, running statistics",
    "W3": "W3 episodes, 64 at a time",
}
TRAINED = tuple(item for item in TITLES if not item.startswith(("W3", "W4")))
TRAINING_PARTS = ("maml", "protonet", "metagan")


class Results:
    """The results of a visit.

    Arguments:
        data: of ``results.json``.
        published: folder of the results that parts may have been left to.
        file: of these results; with it each row says as ``visit`` which file it is of.
    """

    def __init__(
        self, data: Mapping[str, Any], published: Path | None = None, file: str = ""
    ) -> None:
        self.data, self.file = data, file
        self.parts: dict[str, Any] = dict(data["parts"])
        self.known: dict[str, str] = dict(data.get("known") or {})
        for name, file in self.known.items():
            path = None if published is None else published / file
            if path is not None and path.exists():
                self.parts[name] = json.loads(path.read_text("utf-8"))["parts"][name]

    @property
    def machine(self) -> Row:
        """What it was taken on; empty if that is not known."""
        rows = self.rows("machine")
        return rows[0] if rows and "device" in rows[0] else {}

    @property
    def on_cpu(self) -> bool:
        """Whether this was no GPU."""
        return str(self.machine.get("short", "")).startswith("cpu")

    def rows(self, part: str) -> list[Row]:
        """Of a part; none where it was not run."""
        rows = list(self.parts.get(part, {}).get("rows", []))
        if not self.file:
            return rows
        return [row | {"visit": self.known.get(part, self.file)} for row in rows]

    def error(self, part: str) -> str | None:
        """What went wrong in a part; None also where it was not run."""
        found: str | None = self.parts.get(part, {}).get("error")
        return found

    def trained(self) -> Iterator[Row]:
        """The rows of training items that have a time, in the order of the items."""
        rows = [row for part in TRAINING_PARTS for row in self.rows(part) if row.get("step_ms")]
        for item in TRAINED:
            yield from (self.completed(row) for row in rows if row["item"] == item)

    def completed(self, row: Row) -> Row:
        """A row with the fraction of the limit and the sampler's share."""
        row = dict(row)
        if row.get("of_limit") is None:
            product = (self.machine.get("products") or {}).get(row["precision"])
            if product and row.get("flops_per_step"):
                row["of_limit"] = row["flops_per_step"] / row["step_ms"] * 1e3 / product
        sample = (row.get("phases") or {}).get("sample")
        if row.get("sampling_share") is None and sample is not None:
            row["sampling_share"] = sample / row["step_ms"]
        return row

    def best(self, item: str, precision: str, engine: str = "graph") -> Row | None:
        """The fastest row of an item at a precision, as ``fsb run`` has it with this engine.

        A row whose per-task weights are run in another way than the engine's is none.
        """
        asked = (item, precision, engine, None)
        rows = [
            row
            for row in self.trained()
            if (row["item"], row["precision"], row["ran_as"], row.get("strategy")) == asked
        ]
        return min(rows, key=lambda row: row["step_ms"], default=None)

    def peer(self, item: str) -> Row | None:
        """The fastest peer of an item."""
        rows = [row for row in self.rows("peers") if row.get("item") == item and "rate" in row]
        return max(rows, key=lambda row: row["rate"], default=None)

    def evaluations(self) -> list[Row]:
        """Timed evaluations."""
        return [row for row in self.rows("evaluation") if row.get("seconds")]

    def evaluated(self, precision: str) -> Row | None:
        """The fastest evaluation of 600 MAML episodes at a precision."""
        asked = ("W4_maml", 600, precision)
        rows = [
            row
            for row in self.evaluations()
            if (row["item"], row["episodes"], row["precision"]) == asked
        ]
        return min(rows, key=lambda row: row["seconds"], default=None)

    def rate(self, item: str) -> float | None:
        """Ours in fp32, to be held against the peers'."""
        if item == "W4_maml":
            row = self.evaluated("fp32")
            return None if row is None else row["episodes"] / row["seconds"]
        row = self.best(item, "fp32")
        return None if row is None else row["rate"]


@dataclass(frozen=True)
class Bar:
    """A figure that was asked for.

    Arguments:
        asked: in words.
        figure: in words, or ``unmeasured``.
        verdict: ``met``, ``missed``, or ``unmeasured``.
        of_limit: the fraction of the machine's limit; None: not known, or none applies.
        item: whose profile shows what the rest is spent on.
        rows: that the figure is of.
    """

    asked: str
    figure: str
    verdict: str
    of_limit: float | None = None
    item: str | None = None
    rows: tuple[Row, ...] = ()


def bars(results: Results) -> list[Bar]:
    """Every bar, in the order in which they were asked."""
    one = "W1_second_order"
    return [
        over_peers(results, one, 20),
        at_most(results, one, 10, ("fp32", "tf32")),
        over_peers(results, "W1_first_order", 20),
        over_peers(results, "W1_one_shot_one_step", 20),
        at_most(results, "W2_5way", 0.5, ("fp32", "tf32", "bf16")),
        at_most(results, "W5", 25, ("tf32", "bf16")),
        evaluated(results, 0.5),
        sampled(results, 0.03),
    ]


def over_peers(results: Results, item: str, times: float) -> Bar:
    """At least so many times the best peer, in fp32."""
    asked = f"{TITLES[item]}: at least {times:g} x the best peer"
    row, peer = results.best(item, "fp32"), results.peer(item)
    if row is None or peer is None:
        return Bar(asked, UNMEASURED, UNMEASURED)
    ratio = row["rate"] / peer["rate"]
    figure = f"{number(ratio)} x ({number(row['rate'])} against {number(peer['rate'])} "
    figure += f"{row['unit']}, {peer['peer']})"
    return Bar(asked, figure, verdict(ratio >= times), row.get("of_limit"), item, (row, peer))


def at_most(results: Results, item: str, ms: float, precisions: tuple[str, ...]) -> Bar:
    """A step of at most so many ms, in one of these precisions; it says which."""
    names = " or ".join(PRECISIONS[p] for p in precisions)
    asked = f"{TITLES[item]}: at most {ms:g} ms a step ({names})"
    rows = [row for p in precisions if (row := results.best(item, p)) is not None]
    if not rows:
        return Bar(asked, UNMEASURED, UNMEASURED)
    figures = [f"{number(row['step_ms'])} ms in {PRECISIONS[row['precision']]}" for row in rows]
    return bounded(asked, rows, "step_ms", ms, figures, item)


def evaluated(results: Results, seconds: float) -> Bar:
    """600 MAML test episodes in at most so many seconds, in fp32 or TF32; it says which."""
    asked = f"600 MAML test episodes: at most {seconds:g} s"
    rows = [row for p in ("fp32", "tf32") if (row := results.evaluated(p)) is not None]
    if not rows:
        return Bar(asked, UNMEASURED, UNMEASURED)
    figures = []
    for row in rows:
        how = [PRECISIONS[row["precision"]], f"{row['chunk']} a call", row.get("ran_as")]
        figures.append(f"{number(row['seconds'])} s ({', '.join(filter(None, how))})")
    return bounded(asked, rows, "seconds", seconds, figures)


def bounded(
    asked: str, rows: list[Row], name: str, bound: float, figures: list[str],
    item: str | None = None,
) -> Bar:  # fmt: skip
    """The bar of rows, one a precision, the smallest of which is held against a bound."""
    best = min(rows, key=lambda row: row[name])
    word = verdict(best[name] <= bound)
    if word == "met" and rows[0][name] > bound:
        word = f"met in {PRECISIONS[best['precision']]}"
    return Bar(asked, "; ".join(figures), word, best.get("of_limit"), item, tuple(rows))


def sampled(results: Results, share: float) -> Bar:
    """The sampler's part of every step."""
    asked = f"sampling: under {share:.0%} of a step"
    rows = [row for item in TRAINED if (row := results.best(item, "fp32")) is not None]
    rows = [row for row in rows if row.get("sampling_share") is not None]
    if not rows:
        return Bar(asked, UNMEASURED, UNMEASURED)
    worst = max(rows, key=lambda row: row["sampling_share"])
    figures = ", ".join(f"{row['sampling_share']:.1%} of {row['item']}" for row in rows)
    return Bar(asked, figures, verdict(worst["sampling_share"] < share), rows=tuple(rows))


def verdict(met: bool) -> str:
    """In a word."""
    return "met" if met else "missed"


def spent(row: Row) -> dict[str, float]:
    """{kind of work: ms} of a profiled step, of all kernels or of those that are named."""
    if row.get("kinds"):
        return dict(row["kinds"])
    everything, *named = row.get("kernels") or [{"ms": 0.0}]
    kinds = by_kind(named)
    rest = everything["ms"] - sum(kinds.values())
    return kinds | {"not named": rest} if named and rest > 0 else kinds


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A share, or nothing."""
    return "" if value is None else f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def memory(value: float | None) -> str:
    """Bytes in GB."""
    return "" if value is None else f"{value / 1e9:.2f}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Markdown; a number sign of a column that begins with '>' stands to the right."""
    rule = "|".join("--:" if name.startswith(">") else "---" for name in head)
    lines = [f"| {' | '.join(name.lstrip('>') for name in head)} |", f"|{rule}|"]
    return lines + [f"| {' | '.join(cell(c) for c in row)} |" for row in rows]


def cell(text: str) -> str:
    """A text that does not end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


Section = Callable[[Results], list[str]]
